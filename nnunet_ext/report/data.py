"""What every section of a report draws from: models pooled over folds and repeats, and what is known beyond metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_ext import registry
from nnunet_ext.common.files import read_json_if_any
from nnunet_ext.common.nnunet_files import fold_folders
from nnunet_ext.comparison import Comparison, ModelRuns, ModelSummary, Result
from nnunet_ext.comparison.comparer import mean_over_repeats, summarise
from nnunet_ext.comparison.model_runs import all_structures, measuring_run
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.metrics.definitions import METRICS, PRIMARY, Metric, Units
from nnunet_ext.metrics.published import Published


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one model costs; None is unknown.

    Args:
        parameters, trained: numbers of the network, and those of them that training changes.
        flops: floating-point operations of one forward pass over one patch; a multiply-add counts as two.
        training_seconds, seconds_per_case: wall time of the whole training, and of predicting one case.
        peak_memory_bytes: of the training.
        device: what the times were measured on.
    """

    parameters: int | None = None
    trained: int | None = None
    flops: float | None = None
    training_seconds: float | None = None
    seconds_per_case: float | None = None
    peak_memory_bytes: int | None = None
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a report can show beyond metrics; it leaves out what is missing here.

    Args:
        model_folders: model -> nnU-Net's fold folders (``.../TRAINER__PLANS__CONFIGURATION/fold_0``), for training
            curves, plans and times; by default those that the predictions name.
        costs: model -> what it costs; gaps are filled from the registry and from the training logs.
        commands: what was run, in order.
        manifests: model -> one mapping per run (commit, versions, host, device, seed, checksums, ...).
        published: rows to stand next to ours.
        differences: between the published figures' protocol and this one, for all of them.
        notes: sentences for the head of the report.
        cases: those to show pictures of, after the ones that are chosen by rule.
        subgroups: column -> case -> its group, as `read_subgroups` returns them.
    """

    model_folders: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    commands: Sequence[str] = ()
    manifests: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    published: Sequence[Published] = ()
    differences: Sequence[str] = ()
    notes: Sequence[str] = ()
    cases: Sequence[str] = ()
    subgroups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that is known about the models; tables and sums are made once.

    Args:
        images: folder of nnU-Net's image files; None where the evaluations name theirs.
    """

    models: Sequence[ModelRuns]
    comparison: Comparison | None = None
    images: Path | None = None
    extras: Extras = field(default_factory=Extras)

    @cached_property
    def names(self) -> list[str]:
        """The models' names, in the order of tables."""
        return [model.name for model in self.models]

    def letter(self, name: str) -> str:
        """Return a short sign of a model for narrow places: A, B, ..."""
        number = self.names.index(name)
        return (chr(64 + number // 26) if number > 25 else "") + chr(65 + number % 26)

    @cached_property
    def structures(self) -> dict[str, tuple[int, ...]]:
        """The structures that all models have, name -> labels."""
        if self.comparison:
            return self.comparison.structures
        runs = [run for model in self.models for run in model.runs]
        common = set.intersection(*({frozenset(labels) for labels in run.structures.values()} for run in runs))
        return {name: own for name, own in all_structures(self.models).items() if frozenset(own) in common}

    @cached_property
    def units(self) -> Units:
        return measuring_run(self.models).units

    @cached_property
    def cases(self) -> list[str]:
        """The cases of all models, sorted."""
        return sorted({case for model in self.models for case in model.cases})

    @cached_property
    def prompts(self) -> dict[str, str]:
        return {model.name: model.prompts for model in self.models}

    @property
    def primary(self) -> str:
        """The metric that the head of the page, histograms of differences and the choice of cases go by."""
        return self.comparison.primary if self.comparison else PRIMARY

    def label(self, metric: Metric) -> str:
        return self.units.label(metric)

    def metrics(self, structure: str) -> list[Metric]:
        """Return the metrics that any model has a value of; in 2D images, means of slices are the slice's own."""
        images = self.values(structure, "hd_rows").notna().all().any()  # undefined in volumes
        return [
            m
            for m in METRICS
            if self.values(structure, m.key).notna().any(axis=None) and not (images and m.shown == "volume")
        ]

    @cached_property
    def _tables(self) -> dict[tuple[str, str], list[pd.DataFrame]]:
        return {(s, m.name): m.tables(labels) for s, labels in self.structures.items() for m in self.models}

    @cached_property
    def _values(self) -> dict[tuple[str, str], pd.DataFrame]:
        return {
            (structure, metric.key): pd.DataFrame(
                {name: _column(self._tables[structure, name], metric.key) for name in self.names}, index=self.cases
            )
            for structure in self.structures
            for metric in METRICS
        }

    def values(self, structure: str, key: str) -> pd.DataFrame:
        """Return a table of cases x models, the mean over repeats; NaN where undefined or where a model lacks it."""
        return self._values[structure, key]

    def has_structure(self, structure: str) -> pd.Series:
        """Return by case whether the reference has any of a structure."""
        first = self._tables[structure, self.names[0]][0]
        return (first["tp"] + first["fn"] > 0).reindex(self.cases, fill_value=False)

    @cached_property
    def _summaries(self) -> dict[tuple[str, str, str], ModelSummary]:
        found: dict[tuple[str, str, str], ModelSummary] = {}
        for (structure, name), tables in self._tables.items():
            results = {m.key: self.result(structure, m.key) for m in self.metrics(structure)}
            own = {key: result.summaries[name] for key, result in results.items() if result}
            missing = [key for key in results if key not in own and all(key in table for table in tables)]
            found |= {(structure, key, name): s for key, s in (own | summarise(tables, missing)).items()}
        return found

    def summary(self, structure: str, key: str, name: str) -> ModelSummary | None:
        """Return a model's summary of a metric; None where the model lacks it."""
        return self._summaries.get((structure, key, name))

    def result(self, structure: str, key: str) -> Result | None:
        """Return what the comparison says of a structure and metric; None where it says nothing."""
        return self.comparison.results.get((structure, key)) if self.comparison else None

    def info(self, name: str, key: str) -> Any:
        """Return the first thing that the runs of a model say about a key; None if they say nothing."""
        return next((run.info[key] for run in self._runs(name) if run.info.get(key)), None)

    def run_of(self, name: str, case: str) -> Evaluation | None:
        """Return the run of a model that holds a case, the first of its repeats."""
        return next((run for run in self._runs(name) if case in run.cases), None)

    def record(self, name: str, file: str) -> Mapping[str, Any]:
        """Return a model's plans.json or dataset.json, from its folder or its predictions' folder; empty if neither."""
        predictions = self.info(name, "predictions")
        folders = [*(f.parent for f in self.fold_folders(name)), *([Path(predictions)] if predictions else [])]
        return next((found for folder in folders if (found := read_json_if_any(folder / file))), {})

    def entry(self, name: str) -> registry.Entry | None:
        """Return what the registry knows about a model's trainer; None for trainers that it does not list."""
        folders = [f.parent.name.split("__")[0] for f in self.fold_folders(name)]
        return registry.get("trainer", str(self.info(name, "trainer") or next(iter(folders), "")))

    def fold_folders(self, name: str) -> list[Path]:
        """Return nnU-Net's folders of a model's trainings: those of the extras, else those that predictions name."""
        if self.extras.model_folders.get(name):
            return list(self.extras.model_folders[name])
        predictions = [Path(run.info["predictions"]) for run in self._runs(name) if run.info.get("predictions")]
        return list(dict.fromkeys(fold for folder in predictions for fold in fold_folders(folder)))

    def _runs(self, name: str) -> Sequence[Evaluation]:
        return self.models[self.names.index(name)].runs


def _column(tables: Sequence[pd.DataFrame], key: str) -> pd.Series:
    lacking = any(key not in table for table in tables)
    return pd.Series(np.nan if lacking else mean_over_repeats(tables, key), index=tables[0].index)
