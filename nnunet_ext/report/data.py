"""What every section draws from: models pooled over folds and repeats, their values, where their files are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nnunet_ext.comparison.compare import mean_over_repeats, summarise
from nnunet_ext.comparison.models import ModelRuns, all_structures, measuring_run
from nnunet_ext.comparison.wording import label
from nnunet_ext.evaluation.source import PROMPTS
from nnunet_ext.metrics.definitions import METRICS, Metric, Units
from nnunet_ext.report.extras import Extras

if TYPE_CHECKING:
    from nnunet_ext.comparison import Comparison, ModelSummary
    from nnunet_ext.evaluation.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that is known about the models; tables are made once."""

    models: Mapping[str, ModelRuns]
    comparison: Comparison | None
    images: Path | None
    extras: Extras

    @property
    def names(self) -> list[str]:
        """Of the models, in the order of tables."""
        return list(self.models)

    def letter(self, name: str) -> str:
        """A short sign of a model for narrow places: A, B, ..."""
        number = self.names.index(name)
        return (chr(64 + number // 26) if number > 25 else "") + chr(65 + number % 26)

    @cached_property
    def structures(self) -> dict[str, tuple[int, ...]]:
        """Name -> labels, of those that all models have."""
        if self.comparison:
            return self.comparison.structures
        runs = [run for model in self.models.values() for run in model.runs]
        common = set.intersection(*({frozenset(labels) for labels in run.structures.values()} for run in runs))
        return {n: own for n, own in all_structures(list(self.models.values())).items() if frozenset(own) in common}

    @cached_property
    def units(self) -> Units:
        """Of lengths and volumes."""
        return measuring_run(list(self.models.values())).units

    @cached_property
    def cases(self) -> list[str]:
        """Of all models, sorted."""
        return sorted({case for model in self.models.values() for case in model.cases})

    @cached_property
    def prompts(self) -> dict[str, str]:
        """Model -> where its prompts come from."""
        return {name: model.prompts for name, model in self.models.items()}

    def label(self, metric: Metric) -> str:
        """Name and unit."""
        return label(metric, self.units)

    def metrics(self, structure: str) -> list[Metric]:
        """Those that any model has a value of."""
        return [m for m in METRICS if self.values(structure, m.key).notna().any(axis=None)]

    @cached_property
    def _tables(self) -> dict[tuple[str, str], list[pd.DataFrame]]:
        return {
            (structure, name): model.tables(labels)
            for structure, labels in self.structures.items()
            for name, model in self.models.items()
        }

    @cached_property
    def _values(self) -> dict[tuple[str, str], pd.DataFrame]:
        return {}  # filled by `values`

    def values(self, structure: str, key: str) -> pd.DataFrame:
        """Cases x models, the mean over repeats; NaN where undefined, or where a model lacks the metric."""
        if (structure, key) not in self._values:
            columns = {name: self._column(self._tables[structure, name], key) for name in self.models}
            self._values[structure, key] = pd.DataFrame(columns, index=self.cases)
        return self._values[structure, key]

    @staticmethod
    def _column(tables: list[pd.DataFrame], key: str) -> pd.Series:
        if any(key not in table for table in tables):
            return pd.Series(np.nan, index=tables[0].index)
        return pd.Series(mean_over_repeats(tables, key), index=tables[0].index)

    def has_structure(self, structure: str) -> pd.Series:
        """By case: whether the reference has any of it."""
        first = self._tables[structure, self.names[0]][0]
        return (first["tp"] + first["fn"] > 0).reindex(self.cases, fill_value=False)

    @cached_property
    def _summaries(self) -> dict[tuple[str, str, str], ModelSummary]:
        return {}  # filled by `summary`

    def summary(self, structure: str, key: str, name: str) -> ModelSummary | None:
        """Of a model; None where it lacks the metric."""
        if self.comparison and (result := self.comparison.results.get((structure, key))):
            return result.summaries[name]
        tables = self._tables[structure, name]
        if any(key not in table for table in tables):
            return None
        if (structure, key, name) not in self._summaries:
            self._summaries[structure, key, name] = summarise(tables, key)
        return self._summaries[structure, key, name]

    def info(self, name: str, key: str) -> Any:
        """The first thing that the runs of a model say about it; None if nothing."""
        return next((run.info[key] for run in self.models[name].runs if run.info.get(key)), None)

    def run_of(self, name: str, case: str) -> Evaluation | None:
        """The run of a model that holds a case; the first of its repeats."""
        return next((run for run in self.models[name].runs if case in run.cases), None)

    def plans(self, name: str) -> Mapping[str, Any]:
        """A model's plans.json, from its folder or from beside its predictions; empty where there is none."""
        return _json(self._beside(name), "plans.json")

    def dataset(self, name: str) -> Mapping[str, Any]:
        """A model's dataset.json, as `plans`."""
        return _json(self._beside(name), "dataset.json")

    def trainer(self, name: str) -> str:
        """The trainer's name; empty where it is unknown."""
        folders = [f.parent.name.split("__")[0] for f in self.fold_folders(name)]
        return str(self.info(name, "trainer") or next(iter(folders), ""))

    def fold_folders(self, name: str) -> list[Path]:
        """nnU-Net's folders of a model's trainings: as told, else as the predictions tell."""
        if self.extras.model_folders.get(name):
            return list(self.extras.model_folders[name])
        predictions = [Path(run.info["predictions"]) for run in self.models[name].runs if run.info.get("predictions")]
        return list(dict.fromkeys(fold for folder in predictions for fold in _trained(folder)))

    def _beside(self, name: str) -> tuple[Path, ...]:
        folders = [f.parent for f in self.fold_folders(name)]
        predictions = self.info(name, "predictions")
        return (*folders, Path(predictions)) if predictions else tuple(folders)


def _trained(predictions: Path) -> Iterator[Path]:
    """The fold folders that predictions come from: a validation's own, or those in the record of a click prediction.

    ``nnUNetv2_predict`` leaves no word on the model beside its predictions.
    """
    if predictions.name == "validation":
        yield predictions.parent
    yield from (validation.parent for validation in sorted(predictions.glob("fold_*/validation")))
    record = _json((predictions,), PROMPTS)
    for checkpoint in record.get("checkpoints", ()):
        yield Path(record["model"]) / Path(checkpoint["file"]).parent


@cache
def _json(folders: tuple[Path, ...], name: str) -> Mapping[str, Any]:
    for folder in folders:
        try:
            return json.loads((folder / name).read_text())
        except (OSError, ValueError):
            continue
    return {}


def defined(values: pd.DataFrame) -> pd.DataFrame:
    """The rows in which every model has a value."""
    return values.dropna()
