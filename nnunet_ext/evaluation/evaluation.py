"""The metrics of one set of predictions: as a table, as files of ours, and as nnU-Net's own summary.json."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import (
    check_replaceable,
    read_json,
    read_json_if_any,
    read_json_if_sound,
    to_json,
    write_results,
)
from nnunet_ext.common.nnunet_files import DATASET, named_labels
from nnunet_ext.common.shapes import checked
from nnunet_ext.common.text import some
from nnunet_ext.evaluation.aggregate import StructureSummary
from nnunet_ext.evaluation.origin import drawn_folds, of_training, origin
from nnunet_ext.evaluation.stored import MetricsFile, SummaryFile, SummaryMetrics
from nnunet_ext.metrics.definitions import BY_KEY, COUNTS, METRICS, PHYSICAL, PIXELS, Units
from nnunet_ext.metrics.overlap import Overlap

METRICS_FORMAT = 2  # of metrics.json; in 1, lesions were found by touch, and NSD undefined if one mask was empty
CSV, JSON, SUMMARY = "metrics.csv", "metrics.json", "summary.json"
EXTENSION = "nnunet_ext"  # the key in metrics.json of all that nnU-Net's summary.json has no place for
TO_NNUNET = {"dice": "Dice", "iou": "IoU", "tp": "TP", "fp": "FP", "fn": "FN", "tn": "TN"}
DERIVED = ("n_pred", "n_ref")  # nnU-Net's sums of these counts
TOUCH = ("lesion_precision", "lesion_recall", "lesion_f1")  # which format 1 had by touch
BY_TOUCH = "an earlier version found lesions by touch, so that its lesion metrics are those called (touch)."
HINT = "Name another folder with --out."
EVALUATE = "Make it with nnunet_ext evaluate --pred DIR --ref DIR."
REPLACE = "Evaluate the predictions with nnunet_ext evaluate, and name its folder."
LONGEST_NAME = 255  # bytes
PICTURES = (".png", ".bmp", ".tif", ".tiff")  # without a spacing that nnU-Net would read


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one model did on a set of cases.

    Args:
        table: one row per case and structure: the columns ``case`` and ``structure``, the voxel counts tp, fp, fn, tn,
            then metrics by `Units.column`; NaN is undefined. Metrics that were not measured have no column.
        units: of lengths and volumes.
        structures: name -> labels that make it up (one for a label, several for a region).
        info: where it comes from; every key may be missing: ``name`` (of the model, for tables), ``predictions`` and
            ``references`` (folders), ``prediction_files`` (case -> file, if predictions lie in several folders),
            ``file_ending``, ``images`` (folder), ``nsd_tolerance``, ``lesion_iou``, ``prompts`` ("none", "file",
            "reference" or "unknown"), ``trained_cases`` (those that the model was trained on), ``trainer``,
            ``plans``, ``configuration``, ``fold``, ``seed``, ``dataset``, ``command``,
            ``versions``.
        notes: what a reader should know of it, a sentence each.
    """

    table: pd.DataFrame
    units: Units
    structures: dict[str, tuple[int, ...]]
    info: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def cases(self) -> list[str]:
        """The names of the cases, in the order of the table."""
        return list(dict.fromkeys(self.table["case"]))

    def file(self, kind: Literal["predictions", "references"], case: str) -> Path | None:
        """Return where a segmentation of a case is, or was; None if that is not known."""
        files = self.info.get("prediction_files", {}) if kind == "predictions" else {}
        if case in files:
            return Path(files[case])
        return Path(self.info[kind]) / f"{case}{self.info.get('file_ending', '')}" if kind in self.info else None

    def lacks(self, key: str) -> bool:
        """Return whether a metric was not measured, which is not the same as undefined."""
        return self.units.column(key) not in self.table

    def of(self, structure: str) -> pd.DataFrame:
        """Return the rows of one structure by case, with counts and all metrics under their keys, without units.

        NaN stands for what is undefined, and for what was not measured.
        """
        rows = self.table[self.table["structure"] == structure].set_index("case")
        keys = {self.units.column(m.key): m.key for m in METRICS}
        return rows.reindex(columns=[*COUNTS, *keys]).rename(columns=keys)

    @cached_property
    def summaries(self) -> dict[str, StructureSummary]:
        """The sums of every structure over all cases, by its name."""
        return {name: StructureSummary.of(self.of(name)) for name in self.structures}

    def save(self, folder: str | PathLike[str]) -> None:
        """Write ``metrics.csv`` and ``metrics.json``; the latter has nnU-Net's summary.json keys where they exist.

        Undefined values are empty in the one and null in the other. Each file appears when it is whole.

        Raises:
            InputError: see `check_folder`, or the disk is full.
        """
        folder = Path(folder)
        check_folder(folder)
        record = {
            "format": METRICS_FORMAT,
            "units": self.units._asdict(),
            "structures": self.structures,
            "info": self.info,
            "notes": self.notes,
            "definitions": {m.key: f"{m.definition}; undefined: {m.undefined or 'never'}" for m in METRICS},
            "aggregates": {name: summary.as_dict() for name, summary in self.summaries.items()},
        }
        table = self.table.to_csv(index=False, lineterminator="\n")
        write_results({folder / CSV: table, folder / JSON: to_json({**self._summary(), EXTENSION: record})}, HINT)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Evaluation:
        """Read a ``metrics.json``, or the one in a folder, of this or an earlier version of nnunet_ext.

        A metric that it lacks was not measured; one that this version does not know is ignored, which `notes` say.

        Raises:
            InputError: the file is not there, is not such a file, or has a case twice.
        """
        file = Path(path, JSON) if Path(path).is_dir() else Path(path)
        content = read_json(file, hint=EVALUATE)
        own = content.get(EXTENSION)
        if isinstance(own, dict) and own.get("format") not in (1, METRICS_FORMAT):
            raise InputError(
                f"{file} has format {own.get('format')}, and this version of nnunet_ext reads {METRICS_FORMAT}.",
                hint=EVALUATE,
            )
        other = f"{file} holds no metrics of nnunet_ext"
        stored = checked(MetricsFile, content, other, hint=EVALUATE)
        record = stored.nnunet_ext
        check_cases((case.case for case in stored.metric_per_case), file)
        units = Units(length=record.units.length, volume=record.units.volume)
        structures = {name: tuple(labels) for name, labels in record.structures.items()}
        keys = {name: structure_key(labels) for name, labels in structures.items()}
        if lacking := [c.case for c in stored.metric_per_case if not c.metrics.keys() >= set(keys.values())]:
            raise InputError(f"{other}: {some(lacking)} without some of {', '.join(structures)}.", hint=EVALUATE)
        rows = [
            {"case": case.case, "structure": name, **_with_our_names(case.metrics[key].model_dump())}
            for case in stored.metric_per_case
            for name, key in keys.items()
        ]
        rows = [_of_format_1(row) for row in rows] if record.format == 1 else rows
        notes, info = list(record.notes), record.info.model_dump(exclude_unset=True)
        if record.format == 1:
            notes.append(f"{file}: {BY_TOUCH}")
            if "trainer" not in info and info.get("prompts") == "none":  # which was said of all without a record
                info = {**info, "prompts": "unknown"}
        if unknown := sorted({key for row in rows for key in row}.difference(columns(units), DERIVED)):
            what = f"metrics that this version of nnunet_ext does not know: {some(unknown)}"
            notes.append(f"{file} holds {what}; ignored.")
        return cls(
            table=table_of(rows, units),
            units=units,
            structures=structures,
            info=info,
            notes=tuple(notes),
        )

    def _summary(self) -> dict[str, Any]:
        """Return what nnU-Net writes into summary.json, its means included, with more metrics in each place."""
        table = self.table.rename(columns=TO_NNUNET)
        table["n_pred"], table["n_ref"] = table["TP"] + table["FP"], table["TP"] + table["FN"]
        keys = {name: structure_key(labels) for name, labels in self.structures.items()}
        rows = {key: table[table["structure"] == name].set_index("case") for name, key in keys.items()}
        rows = {key: own.drop(columns="structure") for key, own in rows.items() if len(own)}
        records = {key: own.to_dict("index") for key, own in rows.items()}
        means = pd.DataFrame({key: own.mean() for key, own in rows.items()})
        return {
            "metric_per_case": [
                {
                    "case": case,
                    "reference_file": _text(self.file("references", case)),
                    "prediction_file": _text(self.file("predictions", case)),
                    "metrics": {key: own[case] for key, own in records.items()},
                }
                for case in self.cases
            ],
            "mean": means.to_dict(),
            "foreground_mean": means.mean(axis=1, skipna=False).to_dict(),  # undefined if one is, as in nnU-Net
        }


def check_folder(folder: Path) -> None:
    """Check whether `Evaluation.save` may write into a folder.

    Raises:
        InputError: nothing can be written there, or a file would be replaced that is none of ours.
    """
    check_replaceable((folder / CSV, folder / JSON), _ours, "nnunet_ext evaluate", HINT)


def _ours(file: Path) -> bool:
    if file.suffix == ".json":
        return EXTENSION in read_json_if_sound(file)
    with file.open("rb") as stream:
        return stream.readline().startswith(",".join(("case", "structure", *COUNTS)).encode())


def check_cases(cases: Iterable[str], file: Path) -> None:
    """Check that no case is there twice, and that each could be the name of a file.

    Raises:
        InputError: some are, and a mean would count them twice; or names are too long.
    """
    counts = Counter(cases)
    if twice := [case for case, count in counts.items() if count > 1]:
        raise InputError(f"{file} has cases more than once: {some(twice)}.", hint=EVALUATE)
    if long := [case[:60] for case in counts if len(os.fsencode(case)) > LONGEST_NAME]:
        raise InputError(f"{file}: case {long[0]}... has a name that no file can have.", hint=EVALUATE)


def columns(units: Units) -> list[str]:
    return ["case", "structure", *COUNTS, *(units.column(key) for key in BY_KEY)]


def table_of(rows: Iterable[Mapping[str, Any]], units: Units) -> pd.DataFrame:
    """Make a table of one mapping per row, with `columns` for keys; None is undefined as well, other keys are ignored.

    Columns that no row has are left out.

    Raises:
        KeyError: a row lacks its case, structure or counts.
    """
    rows = list(rows)
    required = ("case", "structure", *COUNTS)
    for row in rows:
        if lacking := [name for name in required if row.get(name) is None]:
            raise KeyError(", ".join(lacking))
    measured = set(required).union(*rows) if rows else set(columns(units))
    names = [name for name in columns(units) if name in measured]
    kinds = {n: str if n in required[:2] else "int64" if n in COUNTS else "float64" for n in names}
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in names}).astype(kinds)


def structure_key(labels: Sequence[int]) -> str:
    """Return nnU-Net's name of a label or a region in summary.json."""
    return str(labels[0]) if len(labels) == 1 else str(tuple(labels))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _with_our_names(metrics: dict[str, Any]) -> dict[str, Any]:
    ours = {theirs: key for key, theirs in TO_NNUNET.items()}
    return {ours.get(key, key): value for key, value in metrics.items()}


def _of_format_1(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a file of format 1 with the names and the rules of today."""
    row = {f"{key}_touch" if key in TOUCH else key: value for key, value in row.items()}
    if "nsd" in row and (row["tp"] + row["fp"] == 0) != (row["tp"] + row["fn"] == 0):
        row["nsd"] = 0.0
    return row


def is_summary(file: Path) -> bool:
    """Return whether a file is nnU-Net's rather than our metrics.json, which has the same keys and one more."""
    content = read_json_if_any(file)
    return "metric_per_case" in content and EXTENSION not in content


def load_summary(file: Path) -> Evaluation:
    """Read a summary.json of nnUNetv2_train, nnUNetv2_evaluate_folder or nnUNetv2_evaluate_simple.

    Paths in it are those of another time, folder or computer, and say no more than what the cases are called: what is
    known of the predictions is looked for next to the file. Names of structures come from the dataset.json there or in
    the trained model's folder; without one they are called by their labels.

    Raises:
        InputError: the file is not there, is not such a file, or has a case twice.
    """
    file = file.absolute()
    other = f"{file} is not a summary.json of nnU-Net"
    cases = checked(SummaryFile, read_json(file, hint=REPLACE), other, hint=REPLACE).metric_per_case
    files = [_file_name(case.prediction_file) for case in cases]
    names = _names(file.parent)
    units = PIXELS if files[0].endswith(PICTURES) else PHYSICAL
    check_cases(map(_case, files), file)
    rows = [
        {"case": _case(name), "structure": names.get(key, key), **_row(metrics)}
        for name, case in zip(files, cases, strict=True)
        for key, metrics in case.metrics.items()
    ]
    keys = list(cases[0].metrics)
    if unlike := [_case(name) for name, case in zip(files, cases, strict=True) if list(case.metrics) != keys]:
        raise InputError(f"{other}: {some(unlike)} with other labels than {_case(files[0])}.", hint=REPLACE)
    try:
        structures = {names.get(key, key): _labels(key) for key in keys}
    except ValueError as e:
        raise InputError(f"{other}: its labels are {some(keys)}.", hint=REPLACE) from e
    info = {"predictions": str(file.parent), **origin(file.parent)}
    info |= of_training(info, map(_case, files), validation=file.parent.name == "validation")
    return Evaluation(
        table=table_of(rows, units), units=units, structures=structures, info=info, notes=tuple(drawn_folds(info))
    )


def _row(metrics: SummaryMetrics) -> dict[str, float]:
    overlap = Overlap(tp=metrics.TP, fp=metrics.FP, fn=metrics.FN, tn=metrics.TN)
    ratios = {"dice": metrics.Dice, "iou": metrics.IoU}
    return {**vars(overlap), **ratios, "precision": overlap.precision, "recall": overlap.recall}


def _file_name(path: str) -> str:
    """Return the name of a file from a path of this or another system."""
    return re.split(r"[\\/]", path)[-1]


def _case(file_name: str) -> str:
    return file_name.removesuffix(".gz").rsplit(".", 1)[0]


def _labels(key: str) -> tuple[int, ...]:
    """Return the labels of nnU-Net's key: "1", or "(1, 2)" for a region."""
    return tuple(int(label) for label in key.strip("()").split(",") if label.strip())


def _names(predictions: Path) -> dict[str, str]:
    """Return names by nnU-Net's keys, from a dataset.json next to the predictions or in the trained model's folder."""
    for folder in (predictions, *predictions.parents[:2]):
        if dataset := read_json_if_any(folder / DATASET):
            labels = named_labels(dataset, str(folder / DATASET))
            return {str(v if isinstance(v, int) else tuple(v)): name for name, v in labels.items()}
    return {}
