"""Make a comparison: check that the models can be compared, then go through structures and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from nnunet_ext.common.errors import InputError
from nnunet_ext.comparison.compatible import Labels, all_structures, measuring_run, problems
from nnunet_ext.comparison.model import Model
from nnunet_ext.comparison.notes import notes
from nnunet_ext.comparison.pairs import compare_pairs
from nnunet_ext.comparison.ranking import rank
from nnunet_ext.comparison.records import Comparison, Result
from nnunet_ext.comparison.summary import best, mean_over_repeats, summarise
from nnunet_ext.comparison.wording import label, some, unit
from nnunet_ext.metrics.definitions import BY_KEY, METRICS, Metric, Units

DEFAULT_METRICS = ("dice", "iou", "hd95", "assd", "nsd", "lesion_f1")
WAY_OUT = "Evaluate all models on the same cases, with the same references and options: nnunet_ext evaluate."

Tables = Mapping[str, list[pd.DataFrame]]  # model -> one table per repeat


def compare(
    models: Sequence[Model],
    *,
    structures: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    baseline: str | None = None,
    alpha: float = 0.05,
) -> Comparison:
    """Compare models on the cases that they share.

    Args:
        structures: names; default all.
        metrics: keys of `definitions.METRICS`; default: `DEFAULT_METRICS`, as far as all models have them.
        baseline: compare every other model with this one only, which makes for a smaller correction.
        alpha: significance level after Holm's correction.

    Raises:
        InputError: fewer than two models, unknown names, or models that do not have the same cases, structures, units
            and references; everything that is wrong, in one message.
    """
    there = all_structures(models)
    if unknown := list(_unknown(models, there, structures, metrics, baseline)):
        raise InputError(*unknown)
    chosen = {name: labels for name, labels in there.items() if structures is None or name in structures}
    if differing := problems(models, chosen):
        raise InputError(*differing, hint=WAY_OUT)
    tables = {name: {model.name: model.tables(labels) for model in models} for name, labels in chosen.items()}
    lacking = {key: _lacking(tables, key) for key in metrics or DEFAULT_METRICS}
    if metrics and any(lacking.values()):
        raise InputError(
            *(f"No {BY_KEY[key].label} of {some(names)}." for key, names in lacking.items() if names),
            hint="Choose others with --metrics; nnU-Net's summary.json holds no more than Dice and IoU.",
        )
    keys = [metric.key for metric in METRICS if not lacking.get(metric.key, True)]
    if not keys:
        raise InputError(f"None of {some(lacking, 9)} has a value in any model.", hint="Choose others with --metrics.")
    names = [model.name for model in models]
    plan = _Plan(
        pairs=[(name, baseline) for name in names if name != baseline] if baseline else list(combinations(names, 2)),
        prompts={model.name: model.prompts for model in models},
        units=measuring_run(models).units,
        alpha=alpha,
    )
    results = {(name, key): plan.result(name, BY_KEY[key], tables[name]) for name in chosen for key in keys}
    return Comparison(
        models=tuple(models),
        cases=tuple(models[0].cases),
        structures=chosen,
        units=plan.units,
        nsd_tolerance=measuring_run(models).info.get("nsd_tolerance"),
        prompts={source: tuple(group) for source, group in plan.groups.items()},
        results=results,
        baseline=baseline,
        alpha=alpha,
        notes=tuple(notes(models, results, left_out={key: lacking[key] for key in lacking if key not in keys})),
    )


def _unknown(
    models: Sequence[Model],
    there: Mapping[str, Labels],
    structures: Sequence[str] | None,
    metrics: Sequence[str] | None,
    baseline: str | None,
) -> Iterator[str]:
    """What was asked for and does not exist, a sentence each."""
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


def _lacking(tables: Mapping[str, Tables], key: str) -> list[str]:
    """Models without the metric: those whose files do not hold it, or all where nobody has a value."""
    by_model = {name: [t for of in tables.values() for t in of[name]] for name in next(iter(tables.values()))}
    lacking = [name for name, own in by_model.items() if any(key not in table for table in own)]
    valued = any(table[key].notna().any() for own in by_model.values() for table in own if key in table)
    return lacking if valued else list(by_model)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What all structures and metrics have in common."""

    pairs: list[tuple[str, str]]
    prompts: dict[str, str]
    units: Units
    alpha: float

    @property
    def groups(self) -> dict[str, list[str]]:
        """Prompt source -> models."""
        groups: dict[str, list[str]] = {}
        for name, source in self.prompts.items():
            groups.setdefault(source, []).append(name)
        return groups

    def result(self, structure: str, metric: Metric, tables: Tables) -> Result:
        """One structure and metric; a metric without a better direction is summarised only."""
        index = next(iter(tables.values()))[0].index
        values = pd.DataFrame({name: mean_over_repeats(own, metric.key) for name, own in tables.items()}, index=index)
        summaries = {name: summarise(own, metric.key) for name, own in tables.items()}
        compared = {"units": self.units, "prompts": self.prompts, "alpha": self.alpha}
        groups = {s: g for s, g in self.groups.items() if len(g) > 1} if metric.ranked and metric.better else {}
        rankings = [rank(values, g, metric.better, prompts=s, alpha=self.alpha) for s, g in groups.items()]
        return Result(
            structure=structure,
            metric=metric,
            unit=unit(metric, self.units),
            label=label(metric, self.units),
            values=values,
            summaries=summaries,
            pairs=compare_pairs(values, self.pairs, metric, **compared) if metric.better else (),
            rankings=tuple(filter(None, rankings)),
            best=frozenset(name for group in groups.values() for name in best(values[group], metric)),
        )
