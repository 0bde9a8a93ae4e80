"""The metrics of one set of predictions, as a table and as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from nnunet_ext.common.errors import InputError
from nnunet_ext.evaluation.files import check_file, without_nan, write_text
from nnunet_ext.metrics.definitions import COUNTS, METRICS, Metric, Units

FORMAT = 1
CSV, JSON = "metrics.csv", "metrics.json"
EXTENSION = "nnunet_ext"  # the key in metrics.json of all that nnU-Net's summary.json has no place for
TO_NNUNET = {"dice": "Dice", "iou": "IoU", "tp": "TP", "fp": "FP", "fn": "FN", "tn": "TN"}
EVALUATE = "Make it with nnunet_ext evaluate --pred DIR --ref DIR."


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one model did on a set of cases.

    Args:
        table: one row per case and structure: the columns ``case`` and ``structure``, the voxel counts tp, fp, fn, tn,
            then every metric by `Units.column`; NaN is undefined.
        units: of lengths and volumes.
        structures: name -> labels that make it up (one for a label, several for a region).
        info: where it comes from; every key may be missing: ``name`` (of the model, for tables), ``predictions`` and
            ``references`` (folders), ``prediction_files`` (case -> file, if predictions lie in several folders),
            ``file_ending``, ``images`` (folder), ``nsd_tolerance``, ``prompts`` ("none", "file" or "reference"),
            ``trainer``, ``plans``, ``configuration``, ``fold``, ``seed``, ``dataset``, ``command``, ``versions``.
    """

    table: pd.DataFrame
    units: Units
    structures: dict[str, tuple[int, ...]]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        """Names, in the order of the table."""
        return list(dict.fromkeys(self.table["case"]))

    def file(self, kind: Literal["predictions", "references"], case: str) -> Path | None:
        """Where a segmentation of a case is, or was; None if that is not known."""
        files = self.info.get("prediction_files", {}) if kind == "predictions" else {}
        if case in files:
            return Path(files[case])
        return Path(self.info[kind]) / f"{case}{self.info.get('file_ending', '')}" if kind in self.info else None

    def of(self, structure: str) -> pd.DataFrame:
        """The rows of one structure, indexed by case, with metrics under their keys, without units."""
        rows = self.table[self.table["structure"] == structure].set_index("case").drop(columns="structure")
        return rows.rename(columns={self.units.column(m.key): m.key for m in METRICS})

    def save(self, folder: Path, aggregates: dict[str, Any] | None = None) -> None:
        """Write ``metrics.csv`` and ``metrics.json``; the latter has nnU-Net's summary.json keys where they exist.

        Undefined values are empty in the one and null in the other. Each file appears when it is whole.

        Raises:
            InputError: see `check_folder`.
        """
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        record = {"format": FORMAT, "units": self.units._asdict(), "structures": self.structures, "info": self.info}
        record |= {"definitions": {m.key: _definition(m) for m in METRICS}, "aggregates": aggregates or {}}
        content = {**self._summary(), EXTENSION: record}
        write_text(folder / CSV, self.table.to_csv(index=False, lineterminator="\n"))
        write_text(folder / JSON, json.dumps(without_nan(content), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read a ``metrics.json``, or the one in a folder.

        Raises:
            InputError: not there, or not such a file.
        """
        file = path / JSON if path.is_dir() else path
        try:
            content = json.loads(file.read_text())
            record = content[EXTENSION]
            if record["format"] != FORMAT:
                raise InputError(
                    f"{file} has format {record['format']}, and this version of nnunet_ext reads format {FORMAT}.",
                    hint=EVALUATE,
                )
            units = Units(**record["units"])
            structures = {name: tuple(labels) for name, labels in record["structures"].items()}
            rows = [
                {"case": case["case"], "structure": name, **_with_our_names(case["metrics"][structure_key(labels)])}
                for case in content["metric_per_case"]
                for name, labels in structures.items()
            ]
            return cls(table=table_of(rows, units), units=units, structures=structures, info=record["info"])
        except OSError as e:
            raise InputError(f"{file}: {e.strerror or e}.", hint=EVALUATE) from e
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise InputError(f"{file} holds no metrics of nnunet_ext ({type(e).__name__}: {e}).", hint=EVALUATE) from e

    def _summary(self) -> dict[str, Any]:
        """What nnU-Net writes into summary.json, its means included, with more metrics in each place."""
        table = self.table.rename(columns=TO_NNUNET)
        table["n_pred"], table["n_ref"] = table["TP"] + table["FP"], table["TP"] + table["FN"]
        per_structure = {name: rows.set_index("case") for name, rows in table.groupby("structure", sort=False)}
        per_structure = {n: per_structure[n].drop(columns="structure") for n in self.structures if n in per_structure}
        records = {name: rows.to_dict("index") for name, rows in per_structure.items()}
        means = pd.DataFrame({structure_key(self.structures[n]): rows.mean() for n, rows in per_structure.items()})
        return {
            "metric_per_case": [
                {
                    "case": case,
                    "reference_file": _text(self.file("references", case)),
                    "prediction_file": _text(self.file("predictions", case)),
                    "metrics": {structure_key(self.structures[n]): rows[case] for n, rows in records.items()},
                }
                for case in self.cases
            ],
            "mean": means.to_dict(),
            "foreground_mean": means.mean(axis=1, skipna=False).to_dict(),  # undefined if one is, as in nnU-Net
        }


def check_folder(folder: Path) -> None:
    """Whether `Evaluation.save` may write there.

    Raises:
        InputError: nothing can be written there, or a file would be replaced that is none of ours.
    """
    hint = "Name another folder with --out."
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file.", hint=hint)
    for file in (folder / CSV, folder / JSON):
        check_file(file, hint)
    if foreign := [str(folder / name) for name in (CSV, JSON) if (folder / name).exists() and not _ours(folder / name)]:
        raise InputError(
            f"{', '.join(foreign)}: not written by nnunet_ext evaluate, and not to be overwritten.", hint=hint
        )


def _ours(file: Path) -> bool:
    try:
        text = file.read_text(encoding="utf-8")
        return text.startswith(",".join(("case", "structure", *COUNTS))) or EXTENSION in json.loads(text)
    except (OSError, ValueError, TypeError):
        return False


def columns(units: Units) -> list[str]:
    """All columns of a table, in order."""
    return ["case", "structure", *COUNTS, *(units.column(m.key) for m in METRICS)]


def table_of(rows: Iterable[dict[str, Any]], units: Units) -> pd.DataFrame:
    """A table from one mapping per row, with `columns` for keys; None is undefined as well.

    Raises:
        KeyError: a row lacks a column.
    """
    names = columns(units)
    data = {name: [] for name in names}
    for row in rows:
        for name in names:
            data[name].append(row[name])
    kinds = {n: str if n in ("case", "structure") else "int64" if n in COUNTS else "float64" for n in names}
    return pd.DataFrame(data).astype(kinds)


def structure_key(labels: Sequence[int]) -> str:
    """nnU-Net's name of a label or a region in summary.json."""
    return str(labels[0]) if len(labels) == 1 else str(tuple(labels))


def _definition(metric: Metric) -> str:
    return f"{metric.definition}; undefined: {metric.undefined or 'never'}"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _with_our_names(metrics: dict[str, Any]) -> dict[str, Any]:
    return {**metrics, **{ours: metrics[theirs] for ours, theirs in TO_NNUNET.items()}}
