"""What a reader of a comparison must know, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from nnunet_ext.comparison.model import Model
from nnunet_ext.comparison.records import Result
from nnunet_ext.comparison.wording import PROMPTS, some
from nnunet_ext.metrics.definitions import BY_KEY


def notes(
    models: Sequence[Model], results: Mapping[tuple[str, str], Result], *, left_out: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """In the order of weight.

    Args:
        left_out: metric key -> the models that lack it.
    """
    yield from _prompts(models)
    yield from _undefined(results)
    yield from _runs(models)
    for names in dict.fromkeys(tuple(names) for names in left_out.values() if len(names) < len(models)):
        labels = ", ".join(BY_KEY[key].label for key, own in left_out.items() if tuple(own) == names)
        yield f"Left out, since {some(names)} lacks it: {labels}."
    for metric in dict.fromkeys(result.metric for result in results.values()):
        if not metric.ranked:
            yield f"{metric.label} is not ranked by: {metric.definition}."


def _prompts(models: Sequence[Model]) -> Iterator[str]:
    sources = dict.fromkeys(model.prompts for model in models)
    if len(sources) > 1:
        groups = [f"{PROMPTS[s]}: {', '.join(m.name for m in models if m.prompts == s)}" for s in sources]
        yield f"Prompts differ ({'; '.join(groups)}): models are ranked only among those with the same."


def _undefined(results: Mapping[tuple[str, str], Result]) -> Iterator[str]:
    """Leaving out cases where only some models are undefined may flatter these."""
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


def _runs(models: Sequence[Model]) -> Iterator[str]:
    for model in models:
        if len(model.folds) > 1:
            yield f"{model.name}: {len(model.folds)} folds pooled by case."
        if model.repeats > 1:
            yield f"{model.name}: {model.repeats} repeats; a case's value is their mean, and a case counts once."
            if any(a.table.equals(b.table) for repeats in model.folds for a, b in combinations(repeats, 2)):
                yield f"{model.name}: two repeats are equal in every number; is one named twice?"
    if len({model.repeats for model in models}) > 1:
        yield "Models have different numbers of repeats: a mean over several is steadier than a single run."
