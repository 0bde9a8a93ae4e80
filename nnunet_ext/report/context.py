"""What a reader must know before and after the numbers: what was compared, warnings, commands, deviations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from nnunet_ext.common.text import some
from nnunet_ext.comparison.wording import FEW, digest, notes, prompt_words
from nnunet_ext.report.data import ReportData
from nnunet_ext.version import __version__

SHORT = 6  # differences that are named at the head


def facts(data: ReportData) -> list[tuple[str, str]]:
    """Return the facts at the head of the report, name and value."""
    runs = [run for model in data.models for run in model.runs]
    datasets = list(dict.fromkeys(str(run.info["dataset"]) for run in runs if run.info.get("dataset")))
    tolerance = next((run.info["nsd_tolerance"] for run in runs if run.info.get("nsd_tolerance")), None)
    lesion_iou = next((run.info["lesion_iou"] for run in runs if run.info.get("lesion_iou")), None)
    empty = {s: int((~data.has_structure(s)).sum()) for s in data.structures}
    without = "; ".join(f"{n} without {s}" for s, n in empty.items() if n)
    found = [
        ("Data", ", ".join(datasets)),
        ("Cases", f"{len(data.cases)}{f' ({without})' if without else ''}"),
        ("Structures", "; ".join(f"{n} (label {', '.join(map(str, own))})" for n, own in data.structures.items())),
        ("Units", f"lengths in {data.units.length}, volumes in {data.units.volume}"),
        ("NSD tolerance", f"{tolerance:g} {data.units.length}" if tolerance else ""),
        ("Lesions", f"matched one to one from an IoU of {lesion_iou:g}" if lesion_iou else ""),
        ("Made with", f"nnunet_ext {__version__}"),
    ]
    return [(name, value) for name, value in found if value]


def models(data: ReportData) -> list[dict[str, str]]:
    """Return the legend: letter, name, what it is."""
    found = []
    for model in data.models:
        parts = [data.info(model.name, key) for key in ("trainer", "plans", "configuration")]
        about = [
            " · ".join(str(part) for part in parts if part),
            f"{len(model.folds)} folds" if len(model.folds) > 1 else "",
            f"{model.repeats} repeats" if model.repeats > 1 else "",
            prompt_words(model.prompts),
        ]
        found.append({"letter": data.letter(model.name), "name": model.name, "about": ", ".join(filter(None, about))})
    return found


def warnings(data: ReportData) -> list[str]:
    """Return what not to conclude, a sentence each."""
    found = [*data.extras.notes, *_always(data), *(data.comparison.notes if data.comparison else _uncompared(data))]
    if len(data.cases) < FEW:
        found.insert(0, f"Only {len(data.cases)} cases: intervals and orders are looser than they look.")
    return list(dict.fromkeys(found))


def _always(data: ReportData) -> Iterator[str]:
    if clicked := [name for name, source in data.prompts.items() if source.startswith("reference")]:
        yield (
            f"{some(clicked)}: clicks from the reference, an upper bound that no automatic method can be compared with."
        )
    if any(m.key == "hd_rows" for structure in data.structures for m in data.metrics(structure)):
        yield "hd_rows is not a distance in the image; it stands here because the SAMUS papers print it as HD."


def _uncompared(data: ReportData) -> Iterator[str]:
    """Yield what a comparison would have noted."""
    yield from notes(data.models, {}, {})
    for structure in data.structures:
        alike: dict[tuple[str, str], list[str]] = {}  # metrics that are undefined for one reason in equally many cases
        for metric in data.metrics(structure):
            undefined = data.values(structure, metric.key).isna().sum()
            if metric.ranked and undefined.any():
                counts = ", ".join(f"{n} of {len(data.cases)} cases for {name}" for name, n in undefined.items() if n)
                alike.setdefault((metric.undefined, counts), []).append(metric.label)
        for (why, counts), labels in alike.items():
            yield f"{structure}: {', '.join(labels)} undefined ({why}) in {counts}; means are over the others."


def headlines(data: ReportData) -> list[dict[str, Any]]:
    """Return what the comparison comes to, by structure: the findings by the primary metric, and the order."""
    found = []
    for structure in data.structures:
        if data.comparison and (result := data.result(structure, data.primary)):
            found.append(
                {
                    "structure": structure,
                    "metric": result.metric.label,
                    "orders": [ranking.verdict for ranking in result.rankings],
                    "verdicts": list(digest(result.pairs, SHORT, data.comparison.alpha)),
                }
            )
    return found


def commands(data: ReportData) -> dict[str, Any] | None:
    """Return exact commands, and what each model was made with."""
    steps = [
        step["command"]
        for manifests in data.extras.manifests.values()
        for manifest in manifests
        for step in dict(manifest.get("steps") or {}).values()
        if step.get("command")
    ]
    infos = [str(c) for name in data.names if (c := data.info(name, "command"))]
    lines = list(dict.fromkeys([*(data.extras.commands or steps), *infos]))
    details = []
    for model in data.models:
        runs = [{k: v for k, v in run.info.items() if k not in ("name", "command")} for run in model.runs]
        runs += [{k: v for k, v in m.items() if k != "steps"} for m in data.extras.manifests.get(model.name, ())]
        if shown := [rows for run in runs if (rows := list(_flat(run)))]:
            details.append((model.name, shown))
    return {"lines": lines, "details": details} if lines or details else None


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield a nested mapping as lines of "a.b", value; empty values are left out."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def deviations(data: ReportData) -> list[dict[str, Any]] | None:
    """Return the rows of docs/deviations.md on the papers whose networks are among the models."""
    entries = [data.entry(name) for name in data.names]
    papers = dict.fromkeys(entry.paper for entry in entries if entry and entry.paper)
    tables = _tables(deviations_text()) if papers else {}
    return [{"title": p, "head": tables[p][0], "rows": tables[p][1:]} for p in papers if p in tables] or None


def deviations_text() -> str:
    """Return the list: from the package where it is installed, from docs/ in a checkout; "" if it is in neither."""
    places = (resources.files(__package__) / "deviations.md", Path(__file__).parents[2] / "docs" / "deviations.md")
    return next((place.read_text(encoding="utf-8") for place in places if place.is_file()), "")


def _tables(text: str) -> dict[str, list[list[Markup]]]:
    """Return the rows of all tables below each heading of the second level, by heading; the first row is the head."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tables: dict[str, list[list[Markup]]] = {}
    rows: list[list[Markup]] = []
    tokens = markdown.parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.tag == "h2":
            rows = tables.setdefault(inline.content, [])
        elif opening.type == "tr_open":
            rows.append([])
        elif opening.type in ("th_open", "td_open"):
            rows[-1].append(Markup(markdown.renderInline(inline.content)))
    return {heading: rows for heading, rows in tables.items() if rows}
