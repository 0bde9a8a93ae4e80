"""The order of models, within one prompt source, and how firm it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from nnunet_ext.comparison import statistics
from nnunet_ext.comparison.records import Friedman, Ranking
from nnunet_ext.comparison.verdicts import friedman_verdict, ranking_verdict


def rank(values: pd.DataFrame, models: Sequence[str], better: int, *, prompts: str, alpha: float) -> Ranking | None:
    """Rank models by their means over the cases where all of them have a value; None where there is no such case.

    Args:
        values: cases x models, NaN where undefined.
        better: 1 if larger is better, -1 if smaller is.
        prompts: the source that the models share.
    """
    complete = values[list(models)].dropna().to_numpy()
    cases = len(complete)
    if not cases:
        return None
    stability = statistics.RankStability.of(complete, better)
    firm = cases > 1  # one case is its own only bootstrap sample
    tau = stability.tau[~np.isnan(stability.tau)] if firm else np.empty(0)
    order = np.argsort(stability.ranks, kind="stable")
    ranking = Ranking(
        prompts=prompts,
        n=cases,
        undefined=len(values) - cases,
        ranks={models[i]: int(stability.ranks[i]) for i in order},
        shares=pd.DataFrame(
            stability.shares[order] if firm else np.nan,
            index=[models[i] for i in order],
            columns=range(1, len(models) + 1),
        ),
        mean_rank={models[i]: float(stability.mean_rank[i]) if firm else math.nan for i in order},
        tau=float(tau.mean()) if tau.size else math.nan,
        tau_low=float(np.quantile(tau, 0.025)) if tau.size else math.nan,
        tau_high=float(np.quantile(tau, 0.975)) if tau.size else math.nan,
        friedman=_friedman(complete, alpha) if len(models) > 2 else None,
        verdict="",
    )
    return replace(ranking, verdict=ranking_verdict(ranking))


def _friedman(complete: np.ndarray, alpha: float) -> Friedman:
    statistic, p = statistics.friedman(complete)
    return Friedman(statistic=statistic, p=p, verdict=friedman_verdict(p, *complete.shape, alpha))
