"""Whether models can be compared at all: same cases, structures, units, tolerance and references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pandas as pd

from nnunet_ext.evaluation.definitions import METRICS
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.evaluation.models import Model, structure_name
from nnunet_ext.evaluation.wording import some

Labels = tuple[int, ...]
_MEASURED = [m.key for m in METRICS if m.quantity in ("length", "volume")]


def problems(models: Sequence[Model], structures: dict[str, Labels]) -> list[str]:
    """What differs between models that must not, a sentence each; empty if nothing does.

    Args:
        structures: to be compared, name -> labels.
    """
    found = [problem for model in models for problem in model.problems()]
    found += _cases(models)
    missing = list(_missing_structures(models, structures))
    found += missing
    found += _settings(models, structures if not missing else {})
    return found if found else list(_references(models, structures))


def all_structures(models: Sequence[Model]) -> dict[str, Labels]:
    """Structures of all models by name, in order of appearance; one set of labels has one name.

    A name from a dataset.json goes before nnU-Net's "1", for which there was none.
    """
    names: dict[frozenset[int], tuple[str, Labels]] = {}
    for run in (run for model in models for run in model.runs):
        for name, labels in run.structures.items():
            old = names.get(frozenset(labels))
            if old is None or (old[0] == _unnamed(old[1]) and name != old[0]):
                names[frozenset(labels)] = (name, labels)
    return dict(names.values())


def _unnamed(labels: Labels) -> str:
    return str(labels[0]) if len(labels) == 1 else str(tuple(labels))


def _cases(models: Sequence[Model]) -> Iterator[str]:
    everything = {case for model in models for case in model.cases}
    for model in models:
        if lacking := sorted(everything.difference(model.cases)):
            yield f"{model.name} lacks {some(lacking)} of {len(everything)} cases."


def _missing_structures(models: Sequence[Model], structures: dict[str, Labels]) -> Iterator[str]:
    for model in models:
        for name, labels in structures.items():
            if any(sorted(labels) not in map(sorted, run.structures.values()) for run in model.runs):
                shown = ", ".join(map(str, labels))
                yield f"{model.name} lacks the structure {name} (label{'s' if len(labels) > 1 else ''} {shown})."


def _settings(models: Sequence[Model], structures: dict[str, Labels]) -> Iterator[str]:
    """Units, and the tolerance of NSD; runs that hold no such numbers have no say."""
    measured = {"units": lambda run: "/".join(run.units), "NSD tolerance": lambda run: run.info.get("nsd_tolerance")}
    for what, keys in (("units", _MEASURED), ("NSD tolerance", ["nsd"])):
        values: dict[str, list[str]] = {}
        for model in models:
            own = {str(measured[what](run)) for run in model.runs if _has(run, keys)}
            for value in sorted(own):
                values.setdefault(value, []).append(model.name)
        if len(values) > 1:
            yield f"The {what} differ: {'; '.join(f'{value} ({some(names)})' for value, names in values.items())}."


def _has(run: Evaluation, keys: Sequence[str]) -> bool:
    columns = [run.units.column(key) for key in keys]
    return any(c in run.table and run.table[c].notna().any() for c in columns)


def _references(models: Sequence[Model], structures: dict[str, Labels]) -> Iterator[str]:
    """Different references show in their sizes, tp + fn."""
    for name, labels in structures.items():
        sizes = [(model.name, _sizes(table)) for model in models for table in model.tables(labels)]
        for (_, one), (other_name, other) in pairwise([(n, s) for n, s in sizes]):
            differing = one.index[one.to_numpy() != other.to_numpy()]
            if len(differing):
                case = differing[0]
                yield (
                    f"The references differ: {name} of {case} has {other[case]} voxels for {other_name}, {one[case]} for "
                    f"{_}; {len(differing)} of {len(one)} cases differ."
                )
                break


def _sizes(table: pd.DataFrame) -> pd.Series:
    return table["tp"] + table["fn"]
