"""Every two models, case by case: test, correction, interval, effect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from nnunet_ext.comparison import statistics
from nnunet_ext.comparison.records import Finding, Pair
from nnunet_ext.comparison.verdicts import pair_verdict
from nnunet_ext.metrics.bootstrap import mean_intervals
from nnunet_ext.metrics.definitions import Metric, Units


def compare_pairs(
    values: pd.DataFrame,
    names: Sequence[tuple[str, str]],
    metric: Metric,
    *,
    units: Units,
    prompts: Mapping[str, str],
    alpha: float,
) -> tuple[Pair, ...]:
    """Compare the named pairs of models; together they are the family of Holm's correction.

    Args:
        values: cases x models, NaN where undefined.
        prompts: model -> where its prompts come from.
    """
    differences = np.column_stack([statistics.differences(values[a], values[b]) for a, b in names])
    defined = [column[~np.isnan(column)] for column in differences.T]
    p = [statistics.signed_rank_p(d) if d.size else math.nan for d in defined]
    smallest = [statistics.smallest_p(np.count_nonzero(d)) if d.size else math.nan for d in defined]
    p_holm, attainable = statistics.holm(p), statistics.holm(smallest)
    family = sum(d.size > 0 for d in defined)
    low, high = mean_intervals(differences)
    pairs = []
    for i, ((a, b), d) in enumerate(zip(names, defined, strict=True)):
        advantage = metric.better * d
        wins, losses = (int(np.count_nonzero(sign * advantage > 0)) for sign in (1, -1))
        pair = Pair(
            a=a,
            b=b,
            n=d.size,
            undefined=len(values) - d.size,
            differing=wins + losses,
            difference=float(d.mean()) if d.size else math.nan,
            low=float(low[i]),
            high=float(high[i]),
            p=p[i],
            p_holm=float(p_holm[i]),
            attainable=float(attainable[i]),
            effect=statistics.rank_biserial(advantage) if d.size else math.nan,
            wins=wins,
            ties=d.size - wins - losses,
            losses=losses,
            same_prompts=prompts[a] == prompts[b],
            finding="none",
            verdict="",
        )
        pair = replace(pair, finding=_finding(pair, metric.better, alpha))
        pairs.append(replace(pair, verdict=pair_verdict(pair, metric, units, prompts, family=family, alpha=alpha)))
    return tuple(pairs)


def _finding(pair: Pair, better: int, alpha: float) -> Finding:
    if not pair.n:
        return "undefined"
    if not pair.differing:
        return "equal"
    if pair.attainable >= alpha:
        return "too few"
    if pair.p_holm >= alpha:
        return "none"
    if pair.effect * better * pair.difference <= 0:
        return "mixed"
    return "better" if pair.effect > 0 else "worse"
