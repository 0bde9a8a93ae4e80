"""What a reader must know before and after the numbers: what was compared, warnings, commands, deviations."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nnunet_ext import registry
from nnunet_ext.common.text import some
from nnunet_ext.comparison.wording import PROMPTS
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.tables import flat
from nnunet_ext.version import __version__

FEW = 10  # cases
SHORT = 6  # verdicts at the head; five models have ten pairs
PAPERS = {"nnunet_ext.trainers.raunet": "RA-U-Net", "nnunet_ext.trainers.samus": "SAMUS-HF"}  # heading starts with it


def facts(data: ReportData) -> list[tuple[str, str]]:
    """The head of the report."""
    runs = [run for model in data.models.values() for run in model.runs]
    datasets = list(dict.fromkeys(str(run.info["dataset"]) for run in runs if run.info.get("dataset")))
    tolerance = next((run.info["nsd_tolerance"] for run in runs if run.info.get("nsd_tolerance")), None)
    structures = "; ".join(f"{n} (label {', '.join(map(str, own))})" for n, own in data.structures.items())
    found = [
        ("Data", ", ".join(datasets)),
        ("Cases", _cases(data)),
        ("Structures", structures),
        ("Units", f"lengths in {data.units.length}, volumes in {data.units.volume}"),
        ("NSD tolerance", f"{tolerance:g} {data.units.length}" if tolerance else ""),
        ("Made with", f"nnunet_ext {__version__}"),
    ]
    return [(name, value) for name, value in found if value]


def _cases(data: ReportData) -> str:
    empty = {s: int((~data.has_structure(s)).sum()) for s in data.structures}
    without = "; ".join(f"{n} without {s}" for s, n in empty.items() if n)
    return f"{len(data.cases)}{f' ({without})' if without else ''}"


def models(data: ReportData) -> list[dict[str, str]]:
    """The legend: letter, name, what it is."""
    found = []
    for name, model in data.models.items():
        parts = [data.info(name, key) for key in ("trainer", "plans", "configuration")]
        runs = [
            f"{len(model.folds)} folds" if len(model.folds) > 1 else "",
            f"{model.repeats} repeats" if model.repeats > 1 else "",
        ]
        about = [" · ".join(str(p) for p in parts if p), *runs, PROMPTS.get(model.prompts, model.prompts)]
        found.append({"letter": data.letter(name), "name": name, "about": ", ".join(filter(None, about))})
    return found


def warnings(data: ReportData) -> list[str]:
    """What not to conclude, a sentence each."""
    compared = data.comparison.notes if data.comparison else _alone(data)
    found = [*data.extras.notes, *_always(data), *compared]
    if len(data.cases) < FEW:
        found.insert(0, f"Only {len(data.cases)} cases: intervals and orders are looser than they look.")
    return list(dict.fromkeys(found))


def _always(data: ReportData) -> Iterator[str]:
    if clicked := [name for name, source in data.prompts.items() if source == "reference"]:
        yield (
            f"{some(clicked)}: clicks from the reference, an upper bound that no automatic method can be compared with."
        )
    if any(m.key == "hd_rows" for structure in data.structures for m in data.metrics(structure)):
        yield "hd_rows is not a distance in the image; it stands here because the SAMUS papers print it as HD."


def _alone(data: ReportData) -> Iterator[str]:
    """What a comparison would have noted."""
    if len(set(data.prompts.values())) > 1:
        yield "Prompts differ: models are ranked only among those with the same."
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
    """What the comparison comes to, by structure: the Dice's order and verdicts."""
    if data.comparison is None:
        return []
    found = []
    for structure in data.comparison.structures:
        result = data.comparison.results.get((structure, "dice"))
        if result:
            orders = [(PROMPTS[r.prompts], r.verdict) for r in result.rankings]
            verdicts = [pair.verdict for pair in result.pairs]
            more = len(verdicts[SHORT:])
            found.append({"structure": structure, "orders": orders, "verdicts": verdicts[:SHORT], "more": more})
    return found


def commands(data: ReportData) -> dict[str, Any] | None:
    """Exact commands, and what each model was made with."""
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
    for name, model in data.models.items():
        runs = [{k: v for k, v in run.info.items() if k not in ("name", "command")} for run in model.runs]
        runs += [{k: v for k, v in m.items() if k != "steps"} for m in data.extras.manifests.get(name, ())]
        shown = [rows for run in runs if (rows := list(flat(run)))]
        if shown:
            details.append((name, shown))
    return {"lines": lines, "details": details} if lines or details else None


def deviations(data: ReportData) -> list[dict[str, Any]] | None:
    """The rows of docs/deviations.md on the papers whose networks are among the models."""
    entries = [registry.get("trainer", data.trainer(name)) for name in data.names]
    papers = list(dict.fromkeys(PAPERS[e.module] for e in entries if e and e.module in PAPERS))
    sections = re.split(r"^## +", deviations_text(), flags=re.MULTILINE)[1:]
    return [_paper(s) for paper in papers for s in sections if s.startswith(paper)] or None


def deviations_text() -> str:
    """The list: in the package where it is installed, in docs/ in a checkout; empty if it is in neither place."""
    places = (resources.files(__package__) / "deviations.md", Path(__file__).parents[2] / "docs" / "deviations.md")
    return next((place.read_text(encoding="utf-8") for place in places if place.is_file()), "")


def _paper(section: str) -> dict[str, Any]:
    title, *lines = section.splitlines()
    tables = [[c.strip() for c in line.strip().strip("|").split("|")] for line in lines if line.startswith("|")]
    head, rows = tables[0], [row for row in tables[2:] if len(row) == len(tables[0])]
    return {"title": title, "head": head, "rows": [[_inline(cell) for cell in row] for row in rows]}


def _inline(text: str) -> Markup:
    """Markdown's code and bold; everything else as it is."""
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped))
