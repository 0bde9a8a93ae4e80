"""The tables: numbers in words, ready for the page."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from nnunet_ext.comparison.compare import best
from nnunet_ext.comparison.export import pair_rows, summary_cells, to_csv, to_latex
from nnunet_ext.comparison.records import Pair, Ranking, Result
from nnunet_ext.comparison.wording import PROMPTS, interval, method, number, p_value, percent
from nnunet_ext.metrics.definitions import BY_KEY, Metric
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.extras import Published

SILENT = ("volume_reference", "volume_prediction", "lesions_reference", "lesions_prediction")  # in the tables of cases
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
    """By structure: a row per metric, a cell per model."""
    return [
        {
            "structure": structure,
            "ranked": [_summary_row(data, structure, m) for m in own if m.ranked],
            "described": [_summary_row(data, structure, m) for m in own if not m.ranked],
        }
        for structure in data.structures
        if (own := [m for m in data.metrics(structure) if m.key not in SILENT])
    ]


def _summary_row(data: ReportData, structure: str, metric: Metric) -> dict[str, Any]:
    marked = _best(data, structure, metric)
    cells = []
    for name in data.names:
        s = data.summary(structure, metric.key, name)
        if s is None:
            cells.append({"mean": "n/a", "best": False, "interval": "", "counts": "not measured", "more": []})
            continue
        undefined = f", {s.undefined} undefined" if s.undefined else ""
        more = [("median", s.median), ("sd", s.sd), ("pooled", s.pooled), ("sd of repeats", s.repeat_sd)]
        cells.append(
            {
                "mean": number(s.mean, metric),
                "best": name in marked,
                "interval": interval(s.low, s.high, metric),
                "counts": f"n {s.n}{undefined}",
                "more": [f"{what} {number(v, metric)}" for what, v in more if math.isfinite(v)],
            }
        )
    return {"label": data.label(metric), "better": metric.better, "cells": cells}


def _best(data: ReportData, structure: str, metric: Metric) -> set[str]:
    """Of every prompt source."""
    values, prompts = data.values(structure, metric.key), data.prompts
    groups = ([name for name in data.names if prompts[name] == s] for s in dict.fromkeys(prompts.values()))
    return set().union(*(best(values[group], metric) for group in groups))


def significance(data: ReportData) -> dict[str, Any] | None:
    """By structure and metric: every pair, its verdict, and how firm the order is."""
    comparison = data.comparison
    if comparison is None:
        return None
    structures = [
        {
            "structure": structure,
            "results": [_result(data, r, comparison.alpha) for r in comparison.of(structure).values() if r.pairs],
        }
        for structure in comparison.structures
    ]
    return {"method": method(comparison), "alpha": comparison.alpha, "structures": structures}


def _result(data: ReportData, result: Result, alpha: float) -> dict[str, Any]:
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for pair in result.pairs:
        cells[pair.a, pair.b] = _cell(pair, result, alpha, mirrored=False)
        cells[pair.b, pair.a] = _cell(pair, result, alpha, mirrored=True)
    return {
        "label": result.label,
        "matrix": [(a, [cells.get((a, b)) for b in data.names]) for a in data.names],
        "verdicts": [pair.verdict for pair in result.pairs],
        "pairs": [_pair(pair, result, alpha) for pair in result.pairs],
        "rankings": [_ranking(ranking) for ranking in result.rankings],
    }


def _cell(pair: Pair, result: Result, alpha: float, *, mirrored: bool) -> dict[str, Any]:
    finding = MIRRORED.get(pair.finding, pair.finding) if mirrored else pair.finding
    comparable = pair.same_prompts and result.metric.ranked
    difference, effect = ((-v if mirrored else v) for v in (pair.difference, pair.effect))
    return {
        "symbol": SYMBOLS[finding] if comparable or finding not in MIRRORED else "≠",
        "finding": (finding if comparable or finding not in MIRRORED else "apart").replace(" ", "-"),
        "p": p_value(pair.p_holm, alpha),
        "effect": f"{effect:+.2f}" if math.isfinite(effect) else "",
        "difference": number(difference, result.metric, sign=True),
        "verdict": pair.verdict,
    }


def _pair(pair: Pair, result: Result, alpha: float) -> dict[str, Any]:
    return {
        "a": pair.a,
        "b": pair.b,
        "n": pair.n,
        "difference": number(pair.difference, result.metric, sign=True),
        "interval": interval(pair.low, pair.high, result.metric),
        "record": f"{pair.wins} / {pair.ties} / {pair.losses}",
        "effect": f"{pair.effect:+.2f}" if math.isfinite(pair.effect) else "n/a",
        "p": p_value(pair.p, alpha),
        "p_holm": p_value(pair.p_holm, alpha),
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    return {
        "prompts": PROMPTS[ranking.prompts],
        "ranks": list(ranking.shares.columns),
        "rows": [
            {
                "model": model,
                "rank": ranking.ranks[model],
                "shares": [
                    {"share": f"{share:.2f}", "text": percent(share)} if math.isfinite(share) else None
                    for share in ranking.shares.loc[model]
                ],
            }
            for model in ranking.ranks
        ],
        "verdict": ranking.verdict,
        "friedman": ranking.friedman.verdict if ranking.friedman else "",
    }


def cases(data: ReportData) -> dict[str, Any]:
    """The table of cases, what the page's script needs to sort it, and the cases without the structure."""
    values, absent = {}, []
    for structure in data.structures:
        has = data.has_structure(structure)
        keys = [m.key for m in data.metrics(structure) if m.key not in SILENT]
        size = data.values(structure, "volume_reference").median(axis=1)
        values[structure] = {
            "has": [int(v) for v in has],
            "size": [_number(v) for v in size],
            "metrics": {
                k: [[_number(v) for v in row] for row in data.values(structure, k).to_numpy(dtype=float)] for k in keys
            },
            "labels": {k: data.label(BY_KEY[k]) for k in keys},
        }
        if not has.all():
            wrong = data.values(structure, "volume_prediction")[~has.to_numpy()]
            absent.append({"structure": structure, "rows": _absent(wrong), "found": int((wrong > 0).sum().sum())})
    script = {"cases": data.cases, "models": data.names, "structures": values, "unit": data.units.volume}
    return {"data": script, "absent": absent, "unit": data.units.volume}


def _absent(volumes: pd.DataFrame) -> list[tuple[str, list[str]]]:
    return [
        (str(case), [f"{v:.3g}" if math.isfinite(v) else "n/a" for v in row])
        for case, row in zip(volumes.index, volumes.to_numpy(dtype=float), strict=True)
    ]


def _number(value: float) -> float | None:
    """Five digits are enough to look at; undefined is null."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def definitions(data: ReportData) -> list[dict[str, str]]:
    """Of every metric that is shown."""
    shown = dict.fromkeys(m for structure in data.structures for m in data.metrics(structure))
    directions = {1: "higher", -1: "lower", 0: "—"}
    return [
        {
            "label": data.label(m),
            "better": directions[m.better],
            "definition": m.definition,
            "undefined": m.undefined or "nowhere",
            "ranked": "yes" if m.ranked else "no",
        }
        for m in shown
    ]


def published(data: ReportData) -> dict[str, Any] | None:
    """What papers state, next to ours."""
    rows = [row for entry in data.extras.published if entry.model in data.names for row in _published(data, entry)]
    return {"rows": rows, "differences": list(data.extras.differences)} if rows else None


def _published(data: ReportData, entry: Published) -> Iterator[dict[str, Any]]:
    structure = entry.structure if entry.structure in data.structures else next(iter(data.structures))
    for key, value in entry.metrics.items():
        ours = data.summary(structure, key, entry.model)
        yield {
            "model": entry.model,
            "metric": data.label(BY_KEY[key]),
            "structure": structure,
            "ours": number(ours.mean, BY_KEY[key]) if ours else "n/a",
            "interval": interval(ours.low, ours.high, BY_KEY[key]) if ours and ours.n > 1 else "",
            "published": number(value, BY_KEY[key]),
            "source": entry.source,
            "differences": entry.differences,
        }


def _files(data: ReportData) -> list[dict[str, str]]:
    """Files inside the page: name, what is in it, and its data: address."""
    runs = [
        run.table.assign(model=name, run=i) for name, model in data.models.items() for i, run in enumerate(model.runs)
    ]
    every = pd.concat(runs, ignore_index=True)
    every.insert(0, "run", every.pop("run"))
    every.insert(0, "model", every.pop("model"))
    files = [
        (
            "cases.csv",
            "every case, run and metric",
            every.to_csv(index=False, lineterminator="\n", float_format="%.7g"),
        ),
        ("models.csv", "means, intervals, counts", to_csv(_model_rows(data))),
    ]
    if data.comparison:
        files.append(("pairs.csv", "every pair of models", to_csv(pair_rows(data.comparison))))
    return [{"name": n, "about": about, "href": _data_link(content)} for n, about, content in files]


def _model_rows(data: ReportData) -> pd.DataFrame:
    rows = []
    for structure in data.structures:
        for metric in data.metrics(structure):
            for name in data.names:
                if s := data.summary(structure, metric.key, name):
                    values = summary_cells(s)
                    head = {"structure": structure, "metric": data.units.column(metric.key), "model": name}
                    rows.append({**head, "prompts": data.prompts[name], **values})
    return pd.DataFrame(rows)


def _data_link(content: str) -> str:
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(content.encode()).decode()}"


def take_away(data: ReportData) -> dict[str, Any]:
    """Files, and the comparison as LaTeX."""
    return {"files": _files(data), "latex": to_latex(data.comparison) if data.comparison else ""}


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested mapping as lines of "a.b", value; empty values are left out."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
