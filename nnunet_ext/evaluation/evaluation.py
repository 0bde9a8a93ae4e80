"""The metrics of one set of predictions, as a table and as files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_ext.errors import InputError
from nnunet_ext.evaluation.definitions import COUNTS, METRICS, Units

FORMAT = 1
CSV, JSON = "metrics.csv", "metrics.json"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one model did on a set of cases.

    Args:
        table: one row per case and structure: the columns ``case`` and ``structure``, the voxel counts tp, fp, fn, tn,
            then every metric by `Units.column`; NaN is undefined.
        units: of lengths and volumes.
        structures: name -> labels that make it up (one for a label, several for a region).
        info: where it comes from; every key may be missing: ``name`` (of the model, for tables), ``predictions`` and
            ``references`` (folders), ``file_ending``, ``images`` (folder), ``nsd_tolerance``, ``prompts`` ("none",
            "file" or "reference"), ``trainer``, ``plans``, ``configuration``, ``fold``, ``seed``, ``dataset``,
            ``command``, ``versions``.
    """

    table: pd.DataFrame
    units: Units
    structures: dict[str, tuple[int, ...]]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        """Names, in the order of the table."""
        return list(dict.fromkeys(self.table["case"]))

    def of(self, structure: str) -> pd.DataFrame:
        """The rows of one structure, indexed by case, with metrics under their keys, without units."""
        rows = self.table[self.table["structure"] == structure].set_index("case").drop(columns="structure")
        return rows.rename(columns={self.units.column(m.key): m.key for m in METRICS})

    def save(self, folder: Path, aggregates: dict[str, Any] | None = None) -> None:
        """Write ``metrics.csv`` and ``metrics.json``; the latter has nnU-Net's summary.json keys where they exist."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read a ``metrics.json``, or the one in a folder.

        Raises:
            InputError: not there, or not such a file.
        """
        raise NotImplementedError


def columns(units: Units) -> list[str]:
    """All columns of a table, in order."""
    return ["case", "structure", *COUNTS, *(units.column(m.key) for m in METRICS)]
