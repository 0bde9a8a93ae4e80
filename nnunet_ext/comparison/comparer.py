"""Compare models: check that they can be compared, then sum up, test and rank by structure and metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, islice

import numpy as np
import pandas as pd

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.text import some
from nnunet_ext.comparison import statistics, wording
from nnunet_ext.comparison.model_runs import Labels, ModelRuns, all_structures, measuring_run, problems
from nnunet_ext.comparison.pairs import Contest, decide
from nnunet_ext.comparison.results import Comparison, Friedman, ModelSummary, Pair, Ranking, Result
from nnunet_ext.comparison.statistics import differences
from nnunet_ext.evaluation import aggregate
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.metrics.definitions import BY_KEY, DEFAULT_METRICS, METRICS, PRIMARY, Metric, Units

HINT = "Evaluate all models on the same cases, with the same references and options: nnunet_ext evaluate."

Tables = Mapping[str, list[pd.DataFrame]]  # model -> one table per repeat


def compare(
    models: Mapping[str, Sequence[Evaluation]],
    *,
    structures: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    primary: str | None = None,
    baseline: str | None = None,
    alpha: float = 0.05,
) -> Comparison:
    """Compare models on the cases that they share.

    Every two models are tested case by case (Wilcoxon's signed-rank test). Holm's correction is over all pairs and
    structures in the primary metric; all other metrics are exploratory, and corrected over the pairs of one structure
    and metric. Models with the same prompts are ranked by their means, and the bootstrap says how firm that order is
    (Wiesenfarth et al. 2021). `docs/statistics.md` gives reasons and simulations.

    Args:
        models: name -> its evaluations; other cases are folds, the same cases again are repeats (seeds).
        structures: names of labels or regions; all by default.
        metrics: keys of `METRICS` in `nnunet_ext.metrics.definitions`; `DEFAULT_METRICS` there by default, as far as
            all models have them.
        primary: key of the metric that findings are about; Dice by default, or the first metric that all models have.
        baseline: the model with which every other one is compared; there are fewer pairs to correct for then.
        alpha: significance level after Holm's correction.

    Raises:
        InputError: there are fewer than two models, unknown names, or models that do not have the same cases,
            structures, units and references; everything that is wrong, in one message.

    >>> import pandas as pd
    >>> from nnunet_ext.evaluation.evaluation import Evaluation
    >>> from nnunet_ext.metrics.definitions import PIXELS
    >>> def evaluation(dice):
    ...     counts = {"tp": 90, "fp": 10, "fn": 10, "tn": 890}
    ...     rows = [{"case": f"case_{i}", "structure": "lesion", **counts, "dice": d} for i, d in enumerate(dice)]
    ...     return Evaluation(table=pd.DataFrame(rows), units=PIXELS, structures={"lesion": (1,)})
    >>> ours, theirs = [0.91, 0.92, 0.93, 0.94, 0.95, 0.96], [0.81, 0.83, 0.82, 0.86, 0.85, 0.87]
    >>> comparison = compare({"ours": [evaluation(ours)], "theirs": [evaluation(theirs)]}, metrics=["dice"])
    >>> print(comparison.results["lesion", "dice"].pairs[0].verdict)
    ours is better than theirs: +0.095 Dice [0.080, 0.110], p = .031.
    """
    pooled = [ModelRuns(name=name, runs=runs) for name, runs in models.items()]
    there = all_structures(pooled)
    if unknown := list(_unknown(pooled, there, structures, metrics, primary, baseline)):
        raise InputError(*unknown)
    chosen = {name: labels for name, labels in there.items() if structures is None or name in structures}
    if differing := list(problems(pooled, chosen)):
        raise InputError(*differing, hint=HINT)
    tables = {name: {model.name: model.tables(labels) for model in pooled} for name, labels in chosen.items()}
    asked = list(dict.fromkeys([*(metrics or DEFAULT_METRICS), *([primary] if primary else [])]))
    lacking = {key: _lacking(tables, key) for key in asked}
    if needed := {key: lacking[key] for key in (asked if metrics else [primary] if primary else []) if lacking[key]}:
        raise InputError(
            *(f"No {BY_KEY[key].label} of {some(names)}." for key, names in needed.items()),
            hint="Choose others with --metrics; nnU-Net's summary.json holds no more than Dice and IoU.",
        )
    keys = [metric.key for metric in METRICS if not lacking.get(metric.key, True)]
    if not keys:
        raise InputError(f"None of {some(lacking, 9)} has a value in any model.", hint="Choose others with --metrics.")
    names = list(models)
    design = _Design(
        pairs=[(name, baseline) for name in names if name != baseline] if baseline else list(combinations(names, 2)),
        prompts={model.name: model.prompts for model in pooled},
        units=measuring_run(pooled).units,
        primary=primary or next((key for key in keys if key == PRIMARY), keys[0]),
        alpha=alpha,
    )
    values = {(name, key): _values(of, key) for name, of in tables.items() for key in keys}
    pairs = design.compare_pairs(values)
    summaries = {name: {m: summarise(own, keys) for m, own in of.items()} for name, of in tables.items()}
    results = {
        (name, key): design.result(
            name, BY_KEY[key], own, {m: s[key] for m, s in summaries[name].items()}, pairs[name, key]
        )
        for (name, key), own in values.items()
    }
    return Comparison(
        models=tuple(pooled),
        cases=tuple(pooled[0].cases),
        structures=chosen,
        units=design.units,
        nsd_tolerance=measuring_run(pooled).info.get("nsd_tolerance"),
        prompts={source: tuple(group) for source, group in design.groups.items()},
        results=results,
        primary=design.primary,
        baseline=baseline,
        alpha=alpha,
        notes=tuple(wording.notes(pooled, results, {key: lacking[key] for key in lacking if key not in keys})),
    )


def _unknown(
    models: Sequence[ModelRuns],
    there: Mapping[str, Labels],
    structures: Sequence[str] | None,
    metrics: Sequence[str] | None,
    primary: str | None,
    baseline: str | None,
) -> Iterator[str]:
    """Yield what was asked for and does not exist, a sentence each."""
    names = [model.name for model in models]
    if len(models) < 2:
        yield "It takes two models or more to compare."
    for model in models:
        if not model.runs:
            yield f"{model.name} has no evaluation."
    if baseline is not None and baseline not in names:
        yield f"There is no model {baseline} to compare with; there are {', '.join(names)}."
    for structure in structures or ():
        if structure not in there:
            yield f"There is no structure {structure}; there are {', '.join(there)}."
    for key in metrics or ():
        if key not in BY_KEY:
            yield f"There is no metric {key}; there are {', '.join(BY_KEY)}."
    if primary is not None and not (primary in BY_KEY and BY_KEY[primary].ranked):
        ranked = ", ".join(metric.key for metric in METRICS if metric.ranked)
        yield f"{primary} cannot be the primary metric; these can: {ranked}."


def _values(tables: Tables, key: str) -> pd.DataFrame:
    """Return a metric's values, cases x models, the mean over repeats."""
    index = next(iter(tables.values()))[0].index
    return pd.DataFrame({name: mean_over_repeats(own, key) for name, own in tables.items()}, index=index)


def _lacking(tables: Mapping[str, Tables], key: str) -> list[str]:
    """Return the models without the metric: those whose files do not hold it, or all where nobody has a value."""
    by_model = {name: [t for of in tables.values() for t in of[name]] for name in next(iter(tables.values()))}
    lacking = [name for name, own in by_model.items() if any(key not in table for table in own)]
    valued = any(table[key].notna().any() for own in by_model.values() for table in own if key in table)
    return lacking if valued else list(by_model)


@dataclass(frozen=True, kw_only=True)
class _Design:
    """What all structures and metrics have in common."""

    pairs: list[tuple[str, str]]
    prompts: dict[str, str]
    units: Units
    primary: str
    alpha: float

    @property
    def groups(self) -> dict[str, list[str]]:
        """The models by prompt source."""
        groups: dict[str, list[str]] = {}
        for name, source in self.prompts.items():
            groups.setdefault(source, []).append(name)
        return groups

    def compare_pairs(self, values: Mapping[tuple[str, str], pd.DataFrame]) -> dict[tuple[str, str], tuple[Pair, ...]]:
        """Compare all pairs by structure and metric; a metric without a better direction has none.

        The primary metric's tests on all structures are one family of Holm's correction; every other metric's tests on
        one structure are another.

        Args:
            values: (structure, metric key) -> cases x models, NaN where undefined.
        """
        tested = [key for key in values if BY_KEY[key[1]].better]
        first = [key for key in tested if key[1] == self.primary]
        found: dict[tuple[str, str], tuple[Pair, ...]] = dict.fromkeys(values, ())
        for family in (first, *([key] for key in tested if key not in first)):
            contests = [
                Contest(a, b, BY_KEY[metric], differences(values[structure, metric][a], values[structure, metric][b]))
                for structure, metric in family
                for a, b in self.pairs
            ]
            pairs = decide(contests, self.prompts, self.units, self.alpha, exploratory=family is not first)
            found |= {key: tuple(islice(pairs, len(self.pairs))) for key in family}
        return found

    def result(
        self,
        structure: str,
        metric: Metric,
        values: pd.DataFrame,
        summaries: dict[str, ModelSummary],
        pairs: tuple[Pair, ...],
    ) -> Result:
        """Put together what there is on one structure and metric, and rank the models by it."""
        groups = {s: g for s, g in self.groups.items() if len(g) > 1} if metric.ranked and metric.better else {}
        rankings = [_rank(values[group], metric, source, self.alpha, pairs) for source, group in groups.items()]
        return Result(
            structure=structure,
            metric=metric,
            primary=metric.key == self.primary,
            unit=self.units.unit(metric),
            label=self.units.label(metric),
            values=values,
            summaries=summaries,
            pairs=pairs,
            rankings=tuple(filter(None, rankings)),
            best=frozenset(name for group in groups.values() for name in best(values[group], metric)),
        )


def mean_over_repeats(tables: Sequence[pd.DataFrame], metric: str) -> np.ndarray:
    """Return a metric's values of all cases, shape (cases,); NaN where a repeat is undefined."""
    mean: np.ndarray = np.mean([table[metric].to_numpy(dtype=float) for table in tables], axis=0)
    return mean


def summarise(tables: Sequence[pd.DataFrame], metrics: Iterable[str]) -> dict[str, ModelSummary]:
    """Sum up a model's values of each metric over the cases where every repeat is defined.

    Args:
        tables: one per repeat; their rows are the same cases.
        metrics: keys of metrics that all tables have.
    """
    pooled = [aggregate.pooled(table) for table in tables]
    summaries = {}
    for key in metrics:
        values = mean_over_repeats(tables, key)
        defined = ~np.isnan(values)
        repeats = [table[key].to_numpy(dtype=float)[defined] for table in tables]
        means = [float(repeat.mean()) if repeat.size else math.nan for repeat in repeats]
        micro = float(np.mean([ratios.get(key, math.nan) for ratios in pooled]))
        summaries[key] = ModelSummary(
            **asdict(aggregate.summarise(BY_KEY[key], values, micro)),
            repeat_means=tuple(means),
            repeat_sd=float(np.std(means, ddof=1)) if len(means) > 1 else math.nan,
        )
    return summaries


def best(values: pd.DataFrame, metric: Metric) -> set[str]:
    """Return the models to mark: those whose mean reads the same as the best; none without a rival.

    Means are over the cases where all have a value, as in ranks: a model must not win by finding nothing in hard cases.

    Args:
        values: cases x models of one prompt source, NaN where undefined.
    """
    complete = values.dropna()
    if not (metric.ranked and metric.better) or values.shape[1] < 2 or complete.empty:
        return set()
    means = complete.mean()
    top = wording.number(means.max() if metric.better > 0 else means.min(), metric)
    return {str(name) for name, mean in means.items() if wording.number(mean, metric) == top}


def _rank(values: pd.DataFrame, metric: Metric, prompts: str, alpha: float, pairs: Sequence[Pair]) -> Ranking | None:
    """Rank models by their means over the cases where all of them have a value; None where there is no such case.

    Args:
        values: cases x models of one prompt source, NaN where undefined.
    """
    complete = values.dropna().to_numpy()
    cases, models = complete.shape
    if not cases:
        return None
    stability = statistics.RankStability.of(complete, metric.better)
    firm = cases > 1  # one case is its own only bootstrap sample
    tau = stability.tau[~np.isnan(stability.tau)] if firm else np.empty(0)
    order = np.argsort(stability.ranks, kind="stable")
    names = [values.columns[i] for i in order]
    friedman = None
    if models > 2:
        statistic, p = statistics.friedman(complete)
        differ = any(pair.differ for pair in pairs if {pair.a, pair.b} <= set(values))
        verdict = wording.friedman_verdict(p, cases, models, alpha, differ=differ)
        friedman = Friedman(statistic=statistic, p=p, verdict=verdict)
    ranking = Ranking(
        prompts=prompts,
        n=cases,
        undefined=len(values) - cases,
        ranks={name: int(stability.ranks[i]) for name, i in zip(names, order, strict=True)},
        shares=pd.DataFrame(
            stability.shares[order] if firm else np.nan, index=names, columns=list(range(1, models + 1))
        ),
        mean_rank={
            name: float(stability.mean_rank[i]) if firm else math.nan for name, i in zip(names, order, strict=True)
        },
        tau=float(tau.mean()) if tau.size else math.nan,
        tau_low=float(np.quantile(tau, 0.025)) if tau.size else math.nan,
        tau_high=float(np.quantile(tau, 0.975)) if tau.size else math.nan,
        friedman=friedman,
        verdict="",
    )
    return replace(ranking, verdict=wording.ranking_verdict(ranking))
