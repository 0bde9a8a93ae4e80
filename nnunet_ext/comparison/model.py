"""A model: its evaluations over folds and repeats, pooled by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from nnunet_ext.common.errors import InputError
from nnunet_ext.comparison.wording import some
from nnunet_ext.evaluation.evaluation import JSON, Evaluation
from nnunet_ext.evaluation.nnunet_summary import SUMMARY, is_summary, load_summary


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model and its evaluations.

    Runs over different cases are folds, and together they are the model's cases. Runs over the same cases are repeats
    (seeds): a case's value is the mean over its repeats, undefined where one of them is.
    """

    name: str
    runs: list[Evaluation]

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
        """Of all folds, sorted."""
        return sorted({case for run in self.runs for case in run.cases})

    @property
    def prompts(self) -> str:
        """ "none", "file" or "reference"; none where nothing is said, as stock nnU-Net has none."""
        return self.runs[0].info.get("prompts") or "none"

    def tables(self, labels: tuple[int, ...]) -> list[pd.DataFrame]:
        """Of every repeat: the rows of all folds, indexed by case, sorted; those metrics by key that all folds have.

        Args:
            labels: of the structure, whatever the runs call it.
        """
        return [
            pd.concat([run.of(structure_name(run, labels)) for run in repeat], join="inner").sort_index()
            for repeat in zip(*self.folds, strict=True)
        ]

    def problems(self) -> list[str]:
        """Why the runs cannot be one model's, a sentence each."""
        found = []
        folds = [(set(repeats[0].cases), repeats) for repeats in self.folds]
        for i, (cases, repeats) in enumerate(folds):
            for others, other_repeats in folds[:i]:
                if shared := sorted(cases & others):
                    found.append(
                        f"{self.name}: {_source(other_repeats[0])} and {_source(repeats[0])} share {some(shared)} but "
                        f"not all of their cases: folds have no case in common, repeats have all."
                    )
        if not found and len({len(repeats) for _, repeats in folds}) > 1:
            counts = ", ".join(f"{len(r)} of {len(cases)} cases" for cases, r in folds)
            found.append(f"{self.name}: not every fold has the same number of repeats ({counts}).")
        if len(prompts := {run.info.get("prompts") or "none" for run in self.runs}) > 1:
            found.append(f"{self.name}: its runs have different prompts ({', '.join(sorted(prompts))}).")
        return found


def structure_name(run: Evaluation, labels: tuple[int, ...]) -> str:
    """What a run calls the structure of these labels."""
    return next(name for name, own in run.structures.items() if sorted(own) == sorted(labels))


def _source(run: Evaluation) -> str:
    return str(run.info.get("predictions") or f"a run of {len(run.cases)} cases")


def read_models(named: Sequence[tuple[str, Path]]) -> list[Model]:
    """Models from their folders or files; a name given several times is one model with several runs.

    A path is a metrics.json or nnU-Net's summary.json, a folder with one of them (the former is preferred), or a
    trained model's folder, whose fold_*/validation are its folds.

    Raises:
        InputError: everything that cannot be read, in one message.
    """
    models: dict[str, Model] = {}
    problems: list[str] = []
    ways_out: list[str] = []
    for name, path in named:
        model = models.setdefault(name, Model(name=name, runs=[]))
        files = _files(path)
        if not files:
            problems.append(f"{path} has no {JSON} and no {SUMMARY}, nor have its fold_*/validation.")
            ways_out.append("Make one with nnunet_ext evaluate.")
        for file in files:
            try:
                model.runs.append(load_summary(file) if is_summary(file) else Evaluation.load(file))
            except InputError as e:
                problems += e.problems
                ways_out.append(e.hint)
    if problems:
        raise InputError(*problems, hint=" ".join(dict.fromkeys(filter(None, ways_out))))
    return list(models.values())


def _files(path: Path) -> list[Path]:
    """The metric files that a path stands for."""
    if path.is_file():
        return [path]
    folders = [path, *sorted(path.glob("fold_[0-9]*/validation"))]
    own, *folds = [[f for f in (folder / JSON, folder / SUMMARY) if f.is_file()][:1] for folder in folders]
    return own or [file for fold in folds for file in fold]
