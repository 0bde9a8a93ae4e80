"""The tables: which rows and cells there are. The templates put numbers into words."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from nnunet_ext.comparison.comparer import best
from nnunet_ext.comparison.export import MOST, pair_rows, summary_cells, to_csv, to_latex
from nnunet_ext.comparison.results import Comparison, Pair, Result
from nnunet_ext.comparison.wording import digest, method, shift_interval
from nnunet_ext.evaluation.intervals import coverage
from nnunet_ext.metrics.definitions import BY_KEY, Metric
from nnunet_ext.metrics.published import Published
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.overview import overview
from nnunet_ext.report.subgroups import subgroup_rows

SYMBOLS = {
    "better": "▲",
    "worse": "▼",
    "mixed": "◆",
    "none": "\N{EN DASH}",
    "equal": "=",
    "too few": "?",
    "undefined": "",
}
MIRRORED = {"better": "worse", "worse": "better"}


def summary(data: ReportData) -> list[dict[str, Any]]:
    """Return, by structure, a row per metric with a cell per model: those to rank by, then those that describe."""
    return [
        {
            "structure": structure,
            "coverage": coverage("mean", len(data.cases)),
            "ranked": [_summary_row(data, structure, m) for m in own if m.ranked],
            "described": [_summary_row(data, structure, m) for m in own if not m.ranked],
        }
        for structure in data.structures
        if (own := [m for m in data.metrics(structure) if m.shown != "file"])
    ]


def _summary_row(data: ReportData, structure: str, metric: Metric) -> dict[str, Any]:
    """Return a row: per model its summary (None where it lacks the metric) and whether it is marked as best."""
    values, prompts = data.values(structure, metric.key), data.prompts
    groups = ([name for name in data.names if prompts[name] == s] for s in dict.fromkeys(prompts.values()))
    marked = set().union(*(best(values[group], metric) for group in groups))
    cells = [(data.summary(structure, metric.key, name), name in marked) for name in data.names]
    return {"metric": metric, "label": data.label(metric), "cells": cells}


def significance(data: ReportData) -> dict[str, Any] | None:
    """Return every pair by structure and metric, its verdict, and how firm the order is; None without a comparison."""
    comparison = data.comparison
    if comparison is None:
        return None
    structures = {s: [r for r in comparison.of(s).values() if r.pairs] for s in comparison.structures}
    return {
        "method": method(comparison),
        "alpha": comparison.alpha,
        "structures": {s: [_significance(data, comparison, r) for r in own] for s, own in structures.items()},
    }


def _significance(data: ReportData, comparison: Comparison, result: Result) -> dict[str, Any]:
    return {
        "result": result,
        "matrix": _matrix(data, result),
        "verdicts": list(digest(result.pairs, MOST, comparison.alpha)),
        "orders": [(ranking, overview(data, result, ranking)) for ranking in result.rankings],
    }


def _matrix(data: ReportData, result: Result) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Return a row per model with a cell for every other one that it was compared with, seen from the row's model."""
    cells = {}
    for pair in result.pairs:
        cells[pair.a, pair.b] = _cell(pair, result, sign=1)
        cells[pair.b, pair.a] = _cell(pair, result, sign=-1)
    return [(a, [cells.get((a, b)) for b in data.names]) for a in data.names]


def _cell(pair: Pair, result: Result, *, sign: int) -> dict[str, Any]:
    finding = pair.finding if sign > 0 else MIRRORED.get(pair.finding, pair.finding)
    apart = finding in MIRRORED and not (pair.same_prompts and result.metric.ranked)
    return {
        "symbol": "≠" if apart else SYMBOLS[finding],
        "finding": "apart" if apart else finding.replace(" ", "-"),
        "p": pair.p_holm,
        "effect": sign * pair.effect,
        "typical": sign * pair.typical,
        "interval": shift_interval(pair, result.metric, sign=sign),
        "verdict": pair.verdict,
    }


def cases(data: ReportData) -> dict[str, Any]:
    """Return what the page's script needs for the table of cases, and the cases without a structure."""
    values, absent = {}, []
    for structure in data.structures:
        has = data.has_structure(structure)
        keys = [m.key for m in data.metrics(structure) if m.shown != "file"]
        values[structure] = {
            "has": [int(v) for v in has],
            "size": [_number(v) for v in data.values(structure, "volume_reference").median(axis=1)],
            "metrics": {
                k: [[_number(v) for v in row] for row in data.values(structure, k).to_numpy(dtype=float)] for k in keys
            },
            "labels": {k: data.label(BY_KEY[k]) for k in keys},
        }
        if not has.all():
            wrong = data.values(structure, "volume_prediction")[~has.to_numpy()]
            rows = zip(wrong.index, wrong.to_numpy(dtype=float), strict=True)
            absent.append(
                {
                    "structure": structure,
                    "rows": [(case, [f"{v:.3g}" if math.isfinite(v) else "n/a" for v in row]) for case, row in rows],
                    "found": int((wrong > 0).sum().sum()),
                }
            )
    letters = [data.letter(name) for name in data.names]
    script = {"cases": data.cases, "letters": letters, "structures": values, "unit": data.units.volume}
    return {"data": script, "absent": absent, "unit": data.units.volume}


def _number(value: float) -> float | None:
    """Return five digits, which are enough to look at; None where undefined."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def definitions(data: ReportData) -> list[tuple[str, Metric]]:
    shown = dict.fromkeys(metric for structure in data.structures for metric in data.metrics(structure))
    return [(data.label(metric), metric) for metric in shown]


def published(data: ReportData) -> dict[str, Any] | None:
    """Return what papers state, next to ours as far as there are any; None where nothing is stated."""
    rows = [row for entry in data.extras.published for row in _published(data, entry)]
    return {"rows": rows, "differences": list(data.extras.differences)} if rows else None


def _published(data: ReportData, entry: Published) -> Iterator[dict[str, Any]]:
    structure = entry.structure or next(iter(data.structures))
    for key, value in entry.metrics.items():
        yield {
            "entry": entry,
            "metric": BY_KEY[key],
            "label": data.label(BY_KEY[key]),
            "structure": structure,
            "ours": data.summary(structure, key, entry.row),
            "published": value,
        }


def downloads(data: ReportData) -> dict[str, Any]:
    """Return files inside the page (name, what is in it, its data: address), and the comparison as LaTeX."""
    runs = [
        run.table.assign(model=model.name, run=i)[["model", "run", *run.table]]
        for model in data.models
        for i, run in enumerate(model.runs)
    ]
    every = pd.concat(runs, ignore_index=True).to_csv(index=False, lineterminator="\n", float_format="%.7g")
    files = [
        ("cases.csv", "every case, run and metric", every),
        ("models.csv", "means, intervals, counts", to_csv(_model_rows(data))),
    ]
    if data.comparison:
        files.append(("pairs.csv", "every pair of models", to_csv(pair_rows(data.comparison))))
    if data.extras.subgroups:
        files.append(("subgroups.csv", "means and intervals by subgroup, all metrics", to_csv(subgroup_rows(data))))
    return {
        "files": [
            (name, about, f"data:text/csv;charset=utf-8;base64,{base64.b64encode(content.encode()).decode()}")
            for name, about, content in files
        ],
        "latex": to_latex(data.comparison) if data.comparison else "",
    }


def _model_rows(data: ReportData) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "structure": structure,
            "metric": data.units.column(metric.key),
            "model": name,
            "prompts": data.prompts[name],
            **summary_cells(s),
        }
        for structure in data.structures
        for metric in data.metrics(structure)
        for name in data.names
        if (s := data.summary(structure, metric.key, name))
    )
