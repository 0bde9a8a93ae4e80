"""Models to compare: their evaluations over folds and repeats, pooled by case, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.text import some
from nnunet_ext.evaluation.evaluation import JSON, SUMMARY, Evaluation, is_summary, load_summary, structure_key
from nnunet_ext.metrics.definitions import METRICS

Labels = tuple[int, ...]
TRAINED = ", training cases"  # ends the source of prompts where results are no held-out ones
_MEASURED = [m.key for m in METRICS if m.quantity in ("length", "volume")]


@dataclass(frozen=True, kw_only=True)
class ModelRuns:
    """A model and its evaluations.

    Runs over different cases are folds, and together they are the model's cases. Runs over the same cases are repeats
    (seeds): a case's value is the mean over its repeats, undefined where one of them is.
    """

    name: str
    runs: Sequence[Evaluation]

    @cached_property
    def folds(self) -> list[list[Evaluation]]:
        """The repeats of every fold, by seed where all runs name theirs, else as given."""
        folds: dict[frozenset[str], list[Evaluation]] = {}
        for run in self.runs:
            folds.setdefault(frozenset(run.cases), []).append(run)
        seeds = [{run.info.get("seed") for run in repeats} for repeats in folds.values()]
        if None not in seeds[0] and all(s == seeds[0] for s in seeds):
            return [sorted(repeats, key=lambda run: str(run.info["seed"])) for repeats in folds.values()]
        return list(folds.values())

    @property
    def repeats(self) -> int:
        """How often every case was predicted."""
        return len(self.folds[0])

    @property
    def cases(self) -> list[str]:
        """The cases of all folds, sorted."""
        return sorted({case for run in self.runs for case in run.cases})

    @property
    def prompts(self) -> str:
        """The source of its prompts: "none", "file", "reference", or "unknown" where no record says it.

        Where its results are on cases that it was trained on, `TRAINED` is added: they are ranked apart as well.
        """
        return _prompts(self.runs[0]) + TRAINED * bool(self.trained_cases)

    @property
    def trained_cases(self) -> list[str]:
        """The cases that it was trained on, sorted."""
        return sorted({case for run in self.runs for case in run.info.get("trained_cases", ())})

    def tables(self, labels: Labels) -> list[pd.DataFrame]:
        """Return a table per repeat: the rows of all folds by case, sorted; the metrics by key that all folds have.

        Args:
            labels: the labels of the structure, whatever the runs call it.
        """
        lacking = [m.key for m in METRICS if any(run.lacks(m.key) for run in self.runs)]
        return [
            pd.concat([run.of(_structure_name(run, labels)).drop(columns=lacking) for run in repeat]).sort_index()
            for repeat in zip(*self.folds, strict=True)
        ]

    def problems(self) -> Iterator[str]:
        """Yield why the runs cannot be one model's, a sentence each."""
        folds = [(set(repeats[0].cases), repeats) for repeats in self.folds]
        overlapping = False
        for i, (cases, repeats) in enumerate(folds):
            for others, other_repeats in folds[:i]:
                if shared := sorted(cases & others):
                    overlapping = True
                    yield (
                        f"{self.name}: {_source(other_repeats[0])} and {_source(repeats[0])} share {some(shared)} but "
                        f"not all of their cases: folds have no case in common, repeats have all."
                    )
        if not overlapping and len({len(repeats) for _, repeats in folds}) > 1:
            counts = ", ".join(f"{len(r)} of {len(cases)} cases" for cases, r in folds)
            yield f"{self.name}: not every fold has the same number of repeats ({counts})."
        if len(prompts := {_prompts(run) for run in self.runs}) > 1:
            yield f"{self.name}: its runs have different prompts ({', '.join(sorted(prompts))})."


def _prompts(run: Evaluation) -> str:
    return run.info.get("prompts") or "unknown"


def _structure_name(run: Evaluation, labels: Labels) -> str:
    """Return what a run calls the structure of these labels."""
    return next(name for name, own in run.structures.items() if sorted(own) == sorted(labels))


def _source(run: Evaluation) -> str:
    return str(run.info.get("predictions") or f"a run of {len(run.cases)} cases")


def read_models(named: Sequence[tuple[str, Path]]) -> dict[str, list[Evaluation]]:
    """Read models from their folders or files; a name given several times is one model with several runs.

    A path is a metrics.json or nnU-Net's summary.json, a folder with one of them (the former is preferred), or a
    trained model's folder, whose fold_*/validation are its folds.

    Raises:
        InputError: there are paths that cannot be read, or that lead to one file; all of them are named.
    """
    models: dict[str, list[Evaluation]] = {}
    problems: list[str] = []
    hints: list[str] = []
    seen: dict[Path, str] = {}
    for name, path in named:
        runs = models.setdefault(name, [])
        files = _files(path)
        if not files:
            problems.append(f"{path} has no {JSON} and no {SUMMARY}, nor have its fold_*/validation.")
            hints.append("Make one with nnunet_ext evaluate.")
        for file in files:
            if (first := seen.get(file.resolve())) is not None:
                problems.append(f"{file} is named twice, for {first} and for {name}.")
                hints.append("Name every run once.")
                continue
            seen[file.resolve()] = name
            try:
                runs.append(load_summary(file) if is_summary(file) else Evaluation.load(file))
            except InputError as e:
                problems += e.problems
                hints.append(e.hint)
    if problems:
        raise InputError(*problems, hint=" ".join(dict.fromkeys(filter(None, hints))))
    return models


def _files(path: Path) -> list[Path]:
    """Return the metric files that a path stands for."""
    if path.is_file():
        return [path]
    folders = [path, *sorted(path.glob("fold_[0-9]*/validation"))]
    own, *folds = [[f for f in (folder / JSON, folder / SUMMARY) if f.is_file()][:1] for folder in folders]
    return own or [file for fold in folds for file in fold]


def all_structures(models: Sequence[ModelRuns]) -> dict[str, Labels]:
    """Return the structures of all models by name, in order of appearance; one set of labels has one name.

    A name from a dataset.json is preferred to nnU-Net's "1", which stands for none.
    """
    names: dict[frozenset[int], tuple[str, Labels]] = {}
    for run in _runs(models):
        for name, labels in run.structures.items():
            old = names.get(frozenset(labels))
            if old is None or old[0] == structure_key(old[1]):
                names[frozenset(labels)] = (name, labels)
    return dict(names.values())


def measuring_run(models: Sequence[ModelRuns]) -> Evaluation:
    """Return the first run with lengths or volumes, whose units and tolerance hold for all; else the first run."""
    runs = list(_runs(models))
    return next((run for run in runs if _has(run, _MEASURED)), runs[0])


def problems(models: Sequence[ModelRuns], structures: Mapping[str, Labels]) -> Iterator[str]:
    """Yield what differs between models that must not, a sentence each: cases, structures, units, references.

    Args:
        structures: to be compared, name -> labels.
    """
    for model in models:
        yield from model.problems()
    yield from _differing_cases(models)
    yield from _lacking_structures(models, structures)
    yield from _differing_settings(models)
    yield from _differing_references(models, structures)


def _runs(models: Sequence[ModelRuns]) -> Iterator[Evaluation]:
    return (run for model in models for run in model.runs)


def _has(run: Evaluation, keys: Sequence[str]) -> bool:
    columns = [run.units.column(key) for key in keys]
    return any(c in run.table and run.table[c].notna().any() for c in columns)


def _differing_cases(models: Sequence[ModelRuns]) -> Iterator[str]:
    everything = {case for model in models for case in model.cases}
    for model in models:
        if lacking := sorted(everything.difference(model.cases)):
            yield f"{model.name} lacks {some(lacking)} of {len(everything)} cases."


def _lacking_structures(models: Sequence[ModelRuns], structures: Mapping[str, Labels]) -> Iterator[str]:
    for model in models:
        for name, labels in structures.items():
            if any(sorted(labels) not in map(sorted, run.structures.values()) for run in model.runs):
                shown = ", ".join(map(str, labels))
                yield f"{model.name} lacks the structure {name} (label{'s' if len(labels) > 1 else ''} {shown})."


def _differing_settings(models: Sequence[ModelRuns]) -> Iterator[str]:
    """Compare units and the tolerance of NSD; runs that hold no such numbers have no say."""
    settings: tuple[tuple[str, Sequence[str], Callable[[Evaluation], object]], ...] = (
        ("units", _MEASURED, lambda run: f"{run.units.length} and {run.units.volume}"),
        ("NSD tolerances", ["nsd"], lambda run: run.info.get("nsd_tolerance")),
        ("thresholds of lesions (--lesion-iou)", ["lesion_f1"], lambda run: run.info.get("lesion_iou")),
    )
    for what, keys, setting in settings:
        names: dict[str, list[str]] = {}
        for model in models:
            for value in dict.fromkeys(str(setting(run)) for run in model.runs if _has(run, keys)):
                names.setdefault(value, []).append(model.name)
        if len(names) > 1:
            yield f"The {what} differ: {'; '.join(f'{value} ({some(own)})' for value, own in names.items())}."


def _differing_references(models: Sequence[ModelRuns], structures: Mapping[str, Labels]) -> Iterator[str]:
    """Compare the sizes of references, tp + fn, in which different references show."""
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
    """Yield each case and the voxels of its reference; nothing where a run lacks the structure."""
    for name in (name for name, own in run.structures.items() if sorted(own) == sorted(labels)):
        rows = run.of(name)
        yield from zip(rows.index, (rows["tp"] + rows["fn"]).tolist(), strict=True)
