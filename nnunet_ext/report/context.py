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
from nnunet_ext.comparison.wording import PROMPTS, some
from nnunet_ext.report.subject import Subject
from nnunet_ext.report.tables import flat
from nnunet_ext.version import __version__

FEW = 10  # cases
SHORT = 6  # verdicts at the head; five models have ten pairs
PAPERS = {"nnunet_ext.trainers.raunet": "RA-U-Net", "nnunet_ext.trainers.samus": "SAMUS-HF"}  # heading starts with it


def facts(subject: Subject) -> list[tuple[str, str]]:
    """The head of the report."""
    runs = [run for model in subject.models.values() for run in model.runs]
    datasets = list(dict.fromkeys(str(run.info["dataset"]) for run in runs if run.info.get("dataset")))
    tolerance = next((run.info["nsd_tolerance"] for run in runs if run.info.get("nsd_tolerance")), None)
    structures = "; ".join(f"{n} (label {', '.join(map(str, own))})" for n, own in subject.structures.items())
    found = [
        ("Data", ", ".join(datasets)),
        ("Cases", _cases(subject)),
        ("Structures", structures),
        ("Units", f"lengths in {subject.units.length}, volumes in {subject.units.volume}"),
        ("NSD tolerance", f"{tolerance:g} {subject.units.length}" if tolerance else ""),
        ("Made with", f"nnunet_ext {__version__}"),
    ]
    return [(name, value) for name, value in found if value]


def _cases(subject: Subject) -> str:
    empty = {s: int((~subject.has_structure(s)).sum()) for s in subject.structures}
    without = "; ".join(f"{n} without {s}" for s, n in empty.items() if n)
    return f"{len(subject.cases)}{f' ({without})' if without else ''}"


def models(subject: Subject) -> list[dict[str, str]]:
    """The legend: letter, name, what it is."""
    found = []
    for name, model in subject.models.items():
        parts = [subject.info(name, key) for key in ("trainer", "plans", "configuration")]
        runs = [
            f"{len(model.folds)} folds" if len(model.folds) > 1 else "",
            f"{model.repeats} repeats" if model.repeats > 1 else "",
        ]
        about = [" · ".join(str(p) for p in parts if p), *runs, PROMPTS.get(model.prompts, model.prompts)]
        found.append({"letter": subject.letter(name), "name": name, "about": ", ".join(filter(None, about))})
    return found


def warnings(subject: Subject) -> list[str]:
    """What not to conclude, a sentence each."""
    compared = subject.comparison.notes if subject.comparison else _alone(subject)
    found = [*subject.extras.notes, *_always(subject), *compared]
    if len(subject.cases) < FEW:
        found.insert(0, f"Only {len(subject.cases)} cases: intervals and orders are looser than they look.")
    return list(dict.fromkeys(found))


def _always(subject: Subject) -> Iterator[str]:
    if clicked := [name for name, source in subject.prompts.items() if source == "reference"]:
        yield (
            f"{some(clicked)}: clicks from the reference, an upper bound that no automatic method can be compared with."
        )
    if any(m.key == "hd_rows" for structure in subject.structures for m in subject.metrics(structure)):
        yield "hd_rows is not a distance in the image; it stands here because the SAMUS papers print it as HD."


def _alone(subject: Subject) -> Iterator[str]:
    """What a comparison would have noted."""
    if len(set(subject.prompts.values())) > 1:
        yield "Prompts differ: models are ranked only among those with the same."
    for structure in subject.structures:
        alike: dict[tuple[str, str], list[str]] = {}  # metrics that are undefined for one reason in equally many cases
        for metric in subject.metrics(structure):
            undefined = subject.values(structure, metric.key).isna().sum()
            if metric.ranked and undefined.any():
                counts = ", ".join(
                    f"{n} of {len(subject.cases)} cases for {name}" for name, n in undefined.items() if n
                )
                alike.setdefault((metric.undefined, counts), []).append(metric.label)
        for (why, counts), labels in alike.items():
            yield f"{structure}: {', '.join(labels)} undefined ({why}) in {counts}; means are over the others."


def headlines(subject: Subject) -> list[dict[str, Any]]:
    """What the comparison comes to, by structure: the Dice's order and verdicts."""
    if subject.comparison is None:
        return []
    found = []
    for structure in subject.comparison.structures:
        result = subject.comparison.results.get((structure, "dice"))
        if result:
            orders = [(PROMPTS[r.prompts], r.verdict) for r in result.rankings]
            verdicts = [pair.verdict for pair in result.pairs]
            more = len(verdicts[SHORT:])
            found.append({"structure": structure, "orders": orders, "verdicts": verdicts[:SHORT], "more": more})
    return found


def commands(subject: Subject) -> dict[str, Any] | None:
    """Exact commands, and what each model was made with."""
    steps = [
        step["command"]
        for manifests in subject.extras.manifests.values()
        for manifest in manifests
        for step in dict(manifest.get("steps") or {}).values()
        if step.get("command")
    ]
    infos = [str(c) for name in subject.names if (c := subject.info(name, "command"))]
    lines = list(dict.fromkeys([*(subject.extras.commands or steps), *infos]))
    details = []
    for name, model in subject.models.items():
        runs = [{k: v for k, v in run.info.items() if k not in ("name", "command")} for run in model.runs]
        runs += [{k: v for k, v in m.items() if k != "steps"} for m in subject.extras.manifests.get(name, ())]
        shown = [rows for run in runs if (rows := list(flat(run)))]
        if shown:
            details.append((name, shown))
    return {"lines": lines, "details": details} if lines or details else None


def deviations(subject: Subject) -> list[dict[str, Any]] | None:
    """The rows of docs/deviations.md on the papers whose networks are among the models."""
    entries = [registry.get("trainer", subject.trainer(name)) for name in subject.names]
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
