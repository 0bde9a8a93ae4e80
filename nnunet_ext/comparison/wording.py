"""Numbers and findings in words: no more digits than they deserve, one plain sentence per finding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from nnunet_ext.common.text import some
from nnunet_ext.comparison import statistics
from nnunet_ext.comparison.model_runs import TRAINED, ModelRuns
from nnunet_ext.comparison.results import Comparison, Pair, Ranking, Result
from nnunet_ext.evaluation.intervals import LEVEL, coverage
from nnunet_ext.metrics.definitions import BY_KEY, Metric, Units

SOURCES = {
    "none": "no prompts",
    "file": "prompts from a file",
    "reference": "clicks from the reference",
    "session": "prompts of a session",
    "unknown": "prompts not recorded",
}
RULES = {"random": "a random click from the reference", "box": "boxes from the reference"}
FEW = 10  # cases: below, a bootstrap sample is one of few


def prompt_words(prompts: str) -> str:
    """Say where prompts came from: the source, the rule for a reference, and whether training cases are among them.

    >>> prompt_words("reference, corrections:3, training cases")
    '3 corrective clicks from the reference, on training cases'
    """
    source, _, rule = prompts.removesuffix(TRAINED).partition(", ")
    clicks = rule.partition(":")[2]
    corrective = f"{clicks} corrective click{'s' if clicks != '1' else ''} from the reference"
    words = (RULES.get(rule) or corrective) if rule else SOURCES.get(source, source)
    return f"{words}, on training cases" if prompts.endswith(TRAINED) else words


def number(value: float, metric: Metric, *, sign: bool = False) -> str:
    """Return a value with three decimals for a ratio and one for all else; "n/a" where it is undefined."""
    if not math.isfinite(value):
        return "n/a"
    decimals = 3 if metric.quantity == "ratio" else 1
    value = round(value, decimals) + 0.0  # no -0.0
    return f"{value:{'+' if sign else ''}.{decimals}f}"


def size(value: float, *, sign: bool = False) -> str:
    """Return a volume or another size with three digits: "0.0123", "+4.56", "12,345"."""
    return f"{value:{'+' if sign else ''}{',.0f' if abs(value) >= 1000 else '.3g'}}"


def interval(low: float, high: float, metric: Metric) -> str:
    """Return an interval as "[0.012, 0.050]"; "n/a" where it is undefined."""
    return f"[{number(low, metric)}, {number(high, metric)}]" if math.isfinite(low) else "n/a"


def shift_interval(pair: Pair, metric: Metric, *, sign: int = 1) -> str:
    """Return the interval of a pair's difference as "[0.012, 0.050]"; "n/a" where it bounds nothing.

    An end has more digits where rounding would put it on zero, and a round bracket where it is zero and left out, as it
    is where a test finds a difference although many cases are equal.

    Args:
        sign: -1 for b - a.
    """
    low, high = sorted((sign * pair.low, sign * pair.high))
    if not math.isfinite(low):
        return "n/a"
    opening, closing = "(" if pair.differ and not low else "[", ")" if pair.differ and not high else "]"
    return f"{opening}{_off_zero(low, metric)}, {_off_zero(high, metric)}{closing}"


def _off_zero(value: float, metric: Metric) -> str:
    """Return a number with as many more digits as it takes to see that it is not zero."""
    shown = number(value, metric)
    decimals = len(shown.partition(".")[2])
    while value and not float(shown) and decimals < statistics.DIGITS:
        decimals += 1
        shown = f"{value:.{decimals}f}"
    return shown


def effect(value: float) -> str:
    """Return an effect as "+0.42"; "n/a" where it is undefined."""
    return f"{value:+.2f}" if math.isfinite(value) else "n/a"


def p_value(p: float, alpha: float) -> str:
    """Return "p < .001", "p = .004" or "p = .41".

    There is one digit more where rounding would hide on which side of alpha it is.
    """
    if not math.isfinite(p):
        return "p n/a"
    if p < 0.001:
        return "p < .001"
    if p > 0.99:
        return "p > .99"
    decimals = next((d for d in (3 if p < 0.1 else 2, 3, 4, 5) if (round(p, d) < alpha) == (p < alpha)), 6)
    return f"p = {p:.{decimals}f}".replace(" 0.", " .")


def percent(share: float) -> str:
    """Return whole percent; "over 99 %" and "under 1 %" rather than a certainty that is none."""
    if 0.99 < share < 1:
        return "over 99 %"
    if 0 < share < 0.01:
        return "under 1 %"
    return f"{100 * share:.0f} %"


def _threshold(alpha: float) -> str:
    return f"p < {alpha:g}".replace(" 0.", " .")


def pair_verdict(
    pair: Pair, metric: Metric, units: Units, prompts: Mapping[str, str], *, family: int, alpha: float
) -> str:
    """Return the finding on two models: "A is better than B: +0.031 Dice [0.012, 0.050], p = .004."

    The model that is ahead comes first, and the difference is its own value minus the other's. Models with different
    prompts, and metrics that are not to be ranked by, get no "better".

    Args:
        prompts: model -> where its prompts come from.
        family: the number of tests that Holm's correction is for.
    """
    ahead, behind, sign = (pair.b, pair.a, -1) if pair.effect < 0 else (pair.a, pair.b, 1)
    if pair.finding == "undefined":
        return f"{pair.a} and {pair.b}: no case in which both have a value."
    if pair.finding == "equal":
        return f"{pair.a} and {pair.b} are equal in all {pair.n} cases."
    if pair.finding == "too few":
        return _too_few(pair, family, alpha)
    figures, mean = _figures(pair, metric, units, sign, alpha), number(sign * pair.difference, metric, sign=True)
    if pair.finding == "none":
        return f"No difference between {ahead} and {behind} shown: {figures}."
    if not pair.same_prompts:
        sources = ", ".join(f"{model}: {prompt_words(prompts[model])}" for model in (ahead, behind))
        apart = len({prompts[model].removesuffix(TRAINED) for model in (ahead, behind)}) > 1
        what = "Different prompts" if apart else "One saw the cases in training"
        return f"{ahead} and {behind} differ: {figures}. {what}, not ranked ({sources})."
    if not metric.ranked:
        return f"{ahead} and {behind} differ: {figures}. Not a metric to rank by."
    if pair.finding == "mixed":
        return (
            f"{ahead} is better than {behind} by the signed ranks of the cases, but not by the mean, {mean}: {figures}."
        )
    return f"{ahead} is better than {behind}: {figures}."


def _figures(pair: Pair, metric: Metric, units: Units, sign: int, alpha: float) -> str:
    """Return "+0.031 Dice [0.012, 0.050], p = .004", and what has to be said of it."""
    name = f"{units.unit(metric)} {metric.label}".strip()
    ends = shift_interval(pair, metric, sign=sign) if math.isfinite(pair.low) else "[too few cases for an interval]"
    figures = f"{number(sign * pair.typical, metric, sign=True)} {name} {ends}, {p_value(pair.p_holm, alpha)}"
    if pair.finding != "mixed" and not _agree(pair, metric):
        mean = number(sign * pair.difference, metric, sign=True)
        figures += f"; the mean difference is {mean}, since a few cases differ much more"
    if pair.undefined:
        figures += f" (undefined in {pair.undefined} of {pair.n + pair.undefined} cases)"
    return figures


def digest(pairs: Sequence[Pair], most: int, alpha: float) -> Iterator[str]:
    """Yield what was found, a sentence each: differences by their p-values, then all else.

    Beyond `most` sentences, pairs without a difference are counted instead of named, and so are further differences.
    """
    found = sorted((pair for pair in pairs if pair.differ), key=lambda pair: (pair.p_holm, pair.p, -abs(pair.effect)))
    others = [pair for pair in pairs if not pair.differ]
    yield from (pair.verdict for pair in found[:most])
    if len(pairs) <= most:
        yield from (pair.verdict for pair in sorted(others, key=lambda pair: pair.p))
        return
    if more := len(found[most:]):
        yield f"{more} more {'pairs differ' if more > 1 else 'pair differs'}."
    for finding in dict.fromkeys(pair.finding for pair in others):
        alike = [pair for pair in others if pair.finding == finding]
        if len(alike) == 1:
            yield alike[0].verdict
        elif finding == "none":
            least = p_value(min(pair.p_holm for pair in alike), alpha)
            yield f"No difference shown in {len(alike)} of {len(pairs)} pairs; the least of their p-values: {least}."
        else:
            yield f"{alike[0].verdict} The same of {len(alike)} pairs in all."


def _agree(pair: Pair, metric: Metric) -> bool:
    """Tell whether the mean difference reads like the typical one: it has its sign, and lies within the interval."""
    mean, typical, low, high = (
        float(number(v, metric)) if math.isfinite(v) else v
        for v in (pair.difference, pair.typical, pair.low, pair.high)
    )
    return mean * typical >= 0 and not (mean < low or mean > high)


def _too_few(pair: Pair, family: int, alpha: float) -> str:
    few = f"n = {pair.n} is too small"
    if pair.differing < pair.n:
        few = f"only {pair.differing} of {pair.n} cases differ, too few"
    corrected = f" after correction for {family} tests" if family > 1 else ""
    needed = statistics.pairs_needed(family, alpha)
    return f"{pair.a} and {pair.b}: {few}, no data could reach {_threshold(alpha)}{corrected}; it takes {needed}."


def friedman_verdict(p: float, cases: int, models: int, alpha: float, *, differ: bool) -> str:
    """Return whether the models differ at all, as a sentence; and that the pairs say otherwise, where they do.

    Args:
        differ: whether any two of the models do, by the corrected tests of pairs.
    """
    if statistics.smallest_friedman_p(cases, models) >= alpha:
        return (
            f"n = {cases} is too small for Friedman's test of {models} models, no data could reach {_threshold(alpha)}."
        )
    said = f"(Friedman, n = {cases}, {p_value(p, alpha)})"
    if p < alpha:
        but = "" if differ else "; no pair by itself is, after correction"
        return f"Not all {models} models are alike {said}{but}."
    but = "; a pair can differ all the same, for this test asks about all at once" if differ else ""
    return f"No difference among the {models} models shown {said}{but}."


def ranking_verdict(ranking: Ranking) -> str:
    """Return how firm the order is, as a sentence."""
    first = [model for model, rank in ranking.ranks.items() if rank == 1]
    if len(first) == len(ranking.ranks):
        return f"All means are equal (n = {ranking.n})."
    if ranking.n < 2:
        return f"n = {ranking.n} is too small to say how firm the order is."
    shares = " and ".join(f"{model} is first in {percent(ranking.shares[1][model])}" for model in first)
    agreement = f"; the order of all models agrees with theirs with tau = {ranking.tau:.2f} on average"
    caution = " So few cases make the bootstrap look firmer than it is." if ranking.n < FEW else ""
    return f"{shares} of bootstrap samples of {ranking.n} cases{agreement if len(ranking.ranks) > 2 else ''}.{caution}"


def notes(
    models: Sequence[ModelRuns], results: Mapping[tuple[str, str], Result], left_out: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yield what a reader of a comparison must know, a sentence each, in the order of weight.

    Args:
        left_out: metric key -> the models that lack it.
    """
    sources = dict.fromkeys(model.prompts for model in models)
    if len(sources) > 1:
        groups = [f"{prompt_words(s)}: {', '.join(m.name for m in models if m.prompts == s)}" for s in sources]
        prompts = len({source.removesuffix(TRAINED) for source in sources}) > 1
        what = "Prompts" if prompts else "Cases in training"
        yield f"{what} differ ({'; '.join(groups)}): models are ranked only among those with the same."
    for model in models:
        if trained := model.trained_cases:
            yield f"{model.name} was trained on {len(trained)} of its {len(model.cases)} cases ({some(trained)})."
    if unknown := [model.name for model in models if model.prompts.removesuffix(TRAINED) == "unknown"]:
        yield f"No record says whether {some(unknown)} got prompts; nnunet_ext evaluate --prompts says it."
    yield from _undefined_notes(results)
    yield from _run_notes(models)
    for names in dict.fromkeys(tuple(names) for names in left_out.values() if len(names) < len(models)):
        labels = ", ".join(BY_KEY[key].label for key, own in left_out.items() if tuple(own) == names)
        yield f"Left out, since {some(names)} lacks it: {labels}."
    for metric in dict.fromkeys(result.metric for result in results.values()):
        if not metric.ranked:
            yield f"{metric.label} is not ranked by: {metric.definition}."


def _undefined_notes(results: Mapping[tuple[str, str], Result]) -> Iterator[str]:
    """Yield where only some models are undefined: leaving out such cases may flatter these."""
    labels: dict[tuple[str, str, str], list[str]] = {}
    for result in results.values():
        undefined = result.values.isna()
        if (undefined.any(axis=1) & ~undefined.all(axis=1)).any():
            counts = ", ".join(f"{name} in {n}" for name, n in undefined.sum().items() if n)
            of = f"{counts} of {len(undefined)} cases"
            labels.setdefault((result.structure, result.metric.undefined, of), []).append(result.metric.label)
    for (structure, reason, of), names in labels.items():
        yield (
            f"{structure}, {', '.join(names)}: undefined ({reason}) for {of}. Such cases are left out in pairs, which "
            "flatters a model that finds nothing."
        )


def _run_notes(models: Sequence[ModelRuns]) -> Iterator[str]:
    for model in models:
        yield from (note for run in model.runs for note in run.notes)
        if len(model.folds) > 1:
            yield f"{model.name}: {len(model.folds)} folds pooled by case."
        if model.repeats > 1:
            yield f"{model.name}: {model.repeats} repeats; a case's value is their mean, and a case counts once."
            if any(a.table.equals(b.table) for repeats in model.folds for a, b in combinations(repeats, 2)):
                yield f"{model.name}: two repeats are equal in every number; is one named twice?"
    if len({model.repeats for model in models}) > 1:
        yield "Models have different numbers of repeats: a mean over several is steadier than a single run."


def method(comparison: Comparison) -> list[str]:
    """Return how the numbers came about, a sentence each."""
    family = "every model against the baseline" if comparison.baseline else "all pairs of models"
    return [
        "Cases are the unit: folds are pooled by case, repeats averaged by case.",
        "p: two-sided Wilcoxon signed-rank test, cases without a difference left out; exact up to "
        f"{statistics.EXACT_UP_TO} others, beyond by the normal approximation.",
        f"Primary metric: {BY_KEY[comparison.primary].label}. Corrected by Holm for {family}, on all structures.",
        f"Exploratory: all other metrics. Corrected by Holm for {family} of one structure and metric, not across them.",
        "Differences: Hodges and Lehmann's estimate, the median of the means of all pairs of cases' differences. Its "
        "interval is that of the test, at the level which the correction leaves to it: it leaves out 0 where, and only "
        "where, the corrected p is significant.",
        f"Means: Student's t interval, {percent(LEVEL)}, of a single mean; not corrected.",
        *filter(None, (coverage(what, len(comparison.cases)) for what in ("mean", "typical difference"))),
        "docs/statistics.md gives reasons, and simulations of these intervals and of others.",
        "Effect: matched-pairs rank-biserial correlation.",
        "Ranks: by the mean over the cases where all models have a value; their stability by "
        f"{statistics.SAMPLES:,} bootstrap samples of the cases.",
    ]
