"""What a comparison comes to, one plain sentence each."""

from __future__ import annotations

from collections.abc import Mapping

from nnunet_ext.comparison import statistics
from nnunet_ext.comparison.records import Pair, Ranking
from nnunet_ext.comparison.wording import PROMPTS, interval, number, p_value, percent, threshold, unit
from nnunet_ext.metrics.definitions import Metric, Units

FEW = 10  # cases: below, a bootstrap sample is one of few


def pair_verdict(
    pair: Pair, metric: Metric, units: Units, prompts: Mapping[str, str], *, family: int, alpha: float
) -> str:
    """ "A is better than B: +0.031 Dice [0.012, 0.050], p = .004."

    The model that is ahead comes first, and the difference is its own value minus the other's. Models with different
    prompts, and metrics that are not to be ranked by, get no "better".

    Args:
        prompts: model -> where its prompts come from.
        family: tests that Holm's correction is for.
    """
    ahead, behind, sign = (pair.b, pair.a, -1) if pair.effect < 0 else (pair.a, pair.b, 1)
    if pair.finding == "undefined":
        return f"{pair.a} and {pair.b}: no case in which both have a value."
    if pair.finding == "equal":
        return f"{pair.a} and {pair.b} are equal in all {pair.n} cases."
    if pair.finding == "too few":
        return _too_few(pair, family, alpha)
    name = f"{unit(metric, units)} {metric.label}".strip()
    low, high = sorted((sign * pair.low, sign * pair.high))
    figures = (
        f"{number(sign * pair.difference, metric, sign=True)} {name} {interval(low, high, metric)}, "
        f"{p_value(pair.p_holm, alpha)}"
    )
    if pair.undefined:
        figures += f" (undefined in {pair.undefined} of {pair.n + pair.undefined} cases)"
    if pair.finding == "none":
        return f"No difference between {ahead} and {behind} shown: {figures}."
    if not pair.same_prompts:
        sources = ", ".join(f"{model}: {PROMPTS[prompts[model]]}" for model in (ahead, behind))
        return f"{ahead} and {behind} differ: {figures}. Different prompts, not ranked ({sources})."
    if not metric.ranked:
        return f"{ahead} and {behind} differ: {figures}. Not a metric to rank by."
    if pair.finding == "mixed":
        return f"{ahead} is better than {behind} by the signed ranks of the cases, but not by the mean: {figures}."
    return f"{ahead} is better than {behind}: {figures}."


def _too_few(pair: Pair, family: int, alpha: float) -> str:
    few = f"n = {pair.n} is too small"
    if pair.differing < pair.n:
        few = f"only {pair.differing} of {pair.n} cases differ, too few"
    corrected = f" after correction for {family} pairs" if family > 1 else ""
    needed = statistics.pairs_needed(family, alpha)
    return f"{pair.a} and {pair.b}: {few}, no data could reach {threshold(alpha)}{corrected}; it takes {needed}."


def friedman_verdict(p: float, cases: int, models: int, alpha: float) -> str:
    """Whether the models differ at all."""
    if statistics.smallest_friedman_p(cases, models) >= alpha:
        return (
            f"n = {cases} is too small for Friedman's test of {models} models, no data could reach {threshold(alpha)}."
        )
    if p < alpha:
        return f"Not all {models} models are alike (Friedman, n = {cases}, {p_value(p, alpha)})."
    return f"No difference among the {models} models shown (Friedman, n = {cases}, {p_value(p, alpha)})."


def ranking_verdict(ranking: Ranking) -> str:
    """How firm the order is."""
    first = [model for model, rank in ranking.ranks.items() if rank == 1]
    if len(first) == len(ranking.ranks):
        return f"All means are equal (n = {ranking.n})."
    if ranking.n < 2:
        return f"n = {ranking.n} is too small to say how firm the order is."
    shares = " and ".join(f"{model} is first in {percent(ranking.shares.loc[model, 1])}" for model in first)
    agreement = f"; the order of all models agrees with theirs with tau = {ranking.tau:.2f} on average"
    caution = " So few cases make the bootstrap look firmer than it is." if ranking.n < FEW else ""
    return f"{shares} of bootstrap samples of {ranking.n} cases{agreement if len(ranking.ranks) > 2 else ''}.{caution}"
