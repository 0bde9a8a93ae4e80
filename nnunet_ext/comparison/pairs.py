"""Two models case by case: the tests of one family, which are corrected together, and what they find."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nnunet_ext.comparison import statistics, wording
from nnunet_ext.comparison.results import Finding, Pair
from nnunet_ext.metrics.definitions import Metric, Units


class Contest(NamedTuple):
    """Two models by one metric on one structure.

    Args:
        differences: a - b, shape (cases,), NaN where either is undefined; `statistics.differences`.
    """

    a: str
    b: str
    metric: Metric
    differences: np.ndarray


def decide(
    contests: Sequence[Contest], prompts: Mapping[str, str], units: Units, alpha: float, *, exploratory: bool
) -> Iterator[Pair]:
    """Test all contests of a family of Holm's correction.

    An interval is at the level that the correction leaves to its test: it leaves zero out where, and only where, the
    corrected test finds a difference.

    Args:
        prompts: model -> where its prompts come from.
        alpha: significance level after the correction.
        exploratory: whether their metric is not the primary one, which their sentences say.
    """
    defined = [contest.differences[~np.isnan(contest.differences)] for contest in contests]
    p = [statistics.signed_rank_p(d) if d.size else math.nan for d in defined]
    smallest = [statistics.smallest_p(int(np.count_nonzero(d))) if d.size else math.nan for d in defined]
    p_holm, attainable = statistics.holm(p), statistics.holm(smallest)
    family = sum(d.size > 0 for d in defined)
    for i, (contest, d, own) in enumerate(zip(contests, defined, statistics.holm_alphas(p, alpha), strict=True)):
        metric = contest.metric
        advantage = metric.better * d
        wins, losses = (int(np.count_nonzero(sign * advantage > 0)) for sign in (1, -1))
        shift = statistics.shift(d, own) if d.size else statistics.Shift(math.nan, math.nan, math.nan)
        pair = Pair(
            a=contest.a,
            b=contest.b,
            n=d.size,
            undefined=contest.differences.size - d.size,
            differing=wins + losses,
            difference=float(d.mean()) if d.size else math.nan,
            typical=shift.estimate,
            low=shift.low,
            high=shift.high,
            level=float(1 - own) if math.isfinite(shift.low) else math.nan,
            p=p[i],
            p_holm=float(p_holm[i]),
            attainable=float(attainable[i]),
            effect=statistics.rank_biserial(advantage) if d.size else math.nan,
            wins=wins,
            ties=d.size - wins - losses,
            losses=losses,
            same_prompts=prompts[contest.a] == prompts[contest.b],
            finding="none",
            verdict="",
        )
        pair = replace(pair, finding=_finding(pair, metric.better, alpha))
        verdict = wording.pair_verdict(pair, metric, units, prompts, family=family, alpha=alpha)
        if exploratory and pair.differ:
            verdict = f"Exploratory: {verdict}"
        yield replace(pair, verdict=verdict)


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
