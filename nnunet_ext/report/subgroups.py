"""Subgroups of the cases, such as classes, sites or sizes, from a CSV file: sums and figures within each."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_text
from nnunet_ext.common.text import some
from nnunet_ext.comparison.wording import size
from nnunet_ext.evaluation.aggregate import Summary, summarise
from nnunet_ext.metrics.definitions import BY_KEY, Metric
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.figures import distribution

MOST = 12  # groups of a column; more are no groups
FEWEST_NUMBERS = 7  # different numbers of a column, from which on they are cut into thirds
MOST_ROWS = 24  # of a figure: groups times models
UNKNOWN = "not stated"
HINT = "The first column names cases as the evaluation does; each further column is a way to group them."


def read_subgroups(file: Path, cases: Collection[str]) -> dict[str, dict[str, str]]:
    """Read a CSV file whose first column names cases; return, by further column, each case's group.

    Columns of many different numbers are cut into thirds; other columns with more than `MOST` groups are left out.
    Cases that are not in the file, and empty cells, are "not stated"; rows of other cases are ignored.

    Raises:
        InputError: the file cannot be read, has no column or no row for these cases, or one case twice.
    """
    try:
        text = io.StringIO(read_text(file, hint=HINT))
        table = pd.read_csv(text, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as e:
        raise InputError(f"{file} cannot be read as CSV: {e}.", hint=HINT) from e
    if table.shape[1] < 2:
        raise InputError(f"{file} has no column besides {table.columns[0]}.", hint=HINT)
    table = table.set_index(table.columns[0]).map(str.strip)
    table = table[table.index.isin(list(cases))]
    if table.empty:
        raise InputError(f"{file} has none of the cases {some(sorted(cases))}.", hint=HINT)
    if twice := sorted(set(table.index[table.index.duplicated()])):
        raise InputError(f"{file} has more than one row for {some(twice)}.", hint=HINT)
    groups = {column: named for column in table if (named := _named(table[column].reindex(sorted(cases)).fillna("")))}
    if not groups:
        raise InputError(f"No column of {file} has between 2 and {MOST} groups.", hint=HINT)
    return groups


def _named(cells: pd.Series) -> dict[str, str] | None:
    """Return the group of each case; None where a column does not group them."""
    stated = cells[cells != ""]
    numbers = pd.to_numeric(stated, errors="coerce")
    if numbers.notna().all() and numbers.nunique() >= FEWEST_NUMBERS:
        low, high = np.quantile(numbers, [1 / 3, 2 / 3])
        names = [f"up to {size(low)}", f"{size(low)} to {size(high)}", f"over {size(high)}"]
        stated = numbers.map(lambda value: names[int(value > low) + int(value > high)])
    if not 2 <= stated.nunique() <= min(MOST, len(stated) - 1):  # a name for every case is none of a group
        return None
    return dict(stated.reindex(cells.index, fill_value=UNKNOWN))


def in_order(groups: Mapping[str, str]) -> list[str]:
    """Return the names of a column's groups: by name, thirds upwards, what is not stated last."""
    thirds = {"up": -2, "over": 1}
    return sorted(set(groups.values()), key=lambda name: (name == UNKNOWN, thirds.get(name.split(" ")[0], 0), name))


def subgroups(data: ReportData) -> dict[str, list[dict[str, Any]]] | None:
    """Return, by structure, a table and a figure of the primary metric per column of groups; None without groups."""
    metric = BY_KEY[data.primary]
    found = {
        structure: [
            {
                "column": column,
                "label": data.label(metric),
                "metric": metric,
                "rows": _rows(data, structure, metric, column),
                "figure": _figure(data, structure, metric, column),
            }
            for column in data.extras.subgroups
        ]
        for structure in data.structures
        if metric in data.metrics(structure)
    }
    return (found or None) if data.extras.subgroups else None


def _values(data: ReportData, structure: str, metric: Metric, column: str) -> dict[str, pd.DataFrame]:
    """Return each group's values, (cases of the group) x models."""
    groups = {case: data.extras.subgroups[column].get(case, UNKNOWN) for case in data.cases}
    member, values = pd.Series(groups), data.values(structure, metric.key)
    return {name: values[member == name] for name in in_order(groups)}


def _rows(data: ReportData, structure: str, metric: Metric, column: str) -> list[tuple[str, int, list[Summary]]]:
    """Return, per group, its name, its number of cases, and every model's sums."""
    return [
        (name, len(own), [summarise(metric, own[model].to_numpy()) for model in data.names])
        for name, own in _values(data, structure, metric, column).items()
    ]


def _figure(data: ReportData, structure: str, metric: Metric, column: str) -> Markup | None:
    """Draw every case by group and model; None where that is too much for a figure."""
    rows = [
        (f"{data.letter(model)}  {name}", own[model].reindex(data.cases), model)
        for name, own in _values(data, structure, metric, column).items()
        for model in data.names
    ]
    return distribution(data, structure, metric, rows, f" by {column}") if len(rows) <= MOST_ROWS else None


def subgroup_rows(data: ReportData) -> pd.DataFrame:
    """Return a row per structure, metric, column, group and model."""
    keys = ("n", "undefined", "mean", "sd", "median", "low", "high")
    return pd.DataFrame(
        {
            "structure": structure,
            "metric": data.units.column(metric.key),
            "column": column,
            "group": name,
            "cases": cases,
            "model": model,
            **{key: getattr(summary, key) for key in keys},
        }
        for structure in data.structures
        for metric in data.metrics(structure)
        for column in data.extras.subgroups
        for name, cases, summaries in _rows(data, structure, metric, column)
        for model, summary in zip(data.names, summaries, strict=True)
    )
