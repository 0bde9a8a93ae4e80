"""Whether models can be compared at all: same cases, structures, units, tolerance and references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nnunet_ext.comparison.model import Model
from nnunet_ext.comparison.wording import some
from nnunet_ext.evaluation.evaluation import Evaluation, structure_key
from nnunet_ext.metrics.definitions import METRICS

Labels = tuple[int, ...]
_MEASURED = [m.key for m in METRICS if m.quantity in ("length", "volume")]


def problems(models: Sequence[Model], structures: dict[str, Labels]) -> list[str]:
    """What differs between models that must not, a sentence each; empty if nothing does.

    Args:
        structures: to be compared, name -> labels.
    """
    found = [problem for model in models for problem in model.problems()]
    found += _cases(models)
    found += _structures(models, structures)
    found += _settings(models)
    found += _references(models, structures)
    return found


def all_structures(models: Sequence[Model]) -> dict[str, Labels]:
    """Structures of all models by name, in order of appearance; one set of labels has one name.

    A name from a dataset.json goes before nnU-Net's "1", for which there was none.
    """
    names: dict[frozenset[int], tuple[str, Labels]] = {}
    for run in (run for model in models for run in model.runs):
        for name, labels in run.structures.items():
            old = names.get(frozenset(labels))
            if old is None or old[0] == structure_key(old[1]):
                names[frozenset(labels)] = (name, labels)
    return dict(names.values())


def _cases(models: Sequence[Model]) -> Iterator[str]:
    everything = {case for model in models for case in model.cases}
    for model in models:
        if lacking := sorted(everything.difference(model.cases)):
            yield f"{model.name} lacks {some(lacking)} of {len(everything)} cases."


def _structures(models: Sequence[Model], structures: dict[str, Labels]) -> Iterator[str]:
    for model in models:
        for name, labels in structures.items():
            if any(sorted(labels) not in map(sorted, run.structures.values()) for run in model.runs):
                shown = ", ".join(map(str, labels))
                yield f"{model.name} lacks the structure {name} (label{'s' if len(labels) > 1 else ''} {shown})."


def _settings(models: Sequence[Model]) -> Iterator[str]:
    """Units, and the tolerance of NSD; runs that hold no such numbers have no say."""
    settings: tuple[tuple[str, Sequence[str], Callable[[Evaluation], object]], ...] = (
        ("units", _MEASURED, lambda run: f"{run.units.length} and {run.units.volume}"),
        ("NSD tolerances", ["nsd"], lambda run: run.info.get("nsd_tolerance")),
    )
    for what, keys, setting in settings:
        names: dict[str, list[str]] = {}
        for model in models:
            for value in dict.fromkeys(str(setting(run)) for run in model.runs if _has(run, keys)):
                names.setdefault(value, []).append(model.name)
        if len(names) > 1:
            yield f"The {what} differ: {'; '.join(f'{value} ({some(own)})' for value, own in names.items())}."


def measuring_run(models: Sequence[Model]) -> Evaluation:
    """The first run with lengths or volumes, whose units and tolerance hold for all; without one, the first run."""
    runs = [run for model in models for run in model.runs]
    return next((run for run in runs if _has(run, _MEASURED)), runs[0])


def _has(run: Evaluation, keys: Sequence[str]) -> bool:
    columns = [run.units.column(key) for key in keys]
    return any(c in run.table and run.table[c].notna().any() for c in columns)


def _references(models: Sequence[Model], structures: dict[str, Labels]) -> Iterator[str]:
    """Different references show in their sizes, tp + fn."""
    for name, labels in structures.items():
        first: dict[str, tuple[int, str]] = {}  # case -> voxels, and the model that was first to say so
        differing: dict[str, str] = {}
        for model in models:
            for case, voxels in (size for run in model.runs for size in _sizes(run, labels)):
                known, other = first.setdefault(case, (voxels, model.name))
                if known != voxels:
                    differing.setdefault(case, f"{known} voxels for {other}, {voxels} for {model.name}")
        for case, what in list(differing.items())[:1]:
            yield f"The references of {name} differ in {len(differing)} of {len(first)} cases: {case} has {what}."


def _sizes(run: Evaluation, labels: Labels) -> Iterator[tuple[str, int]]:
    """Case and voxels of the reference; nothing where a run lacks the structure."""
    for name in (name for name, own in run.structures.items() if sorted(own) == sorted(labels)):
        rows = run.of(name)
        yield from zip(rows.index, (rows["tp"] + rows["fn"]).tolist(), strict=True)
