"""Put the report together and write it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markupsafe

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import check_replaceable, write_results
from nnunet_ext.common.processes import Track, untracked
from nnunet_ext.common.text import some
from nnunet_ext.comparison import Comparison, ModelRuns, wording
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.report import agreement, click_curve, context, costs, figures, pictures, subgroups, svg, tables
from nnunet_ext.report.data import Extras, ReportData

TITLE = "Segmentation report"


DOCTYPE = b"<!doctype html>"
GENERATOR = '<meta name="generator" content="nnunet_ext">'


class Section(NamedTuple):
    """A part of the page.

    Args:
        id: its address, and the name of its macro in sections.html.j2.
        make: makes what the macro shows; nothing where the data is missing.
        how: what it takes to have it.
    """

    id: str
    title: str
    make: Callable[[ReportData], Any]
    how: str = ""


def build_report(
    models: Mapping[str, Sequence[Evaluation]],
    out: Path,
    *,
    comparison: Comparison | None = None,
    images: Path | None = None,
    extras: Extras | None = None,
    title: str = TITLE,
    track: Track = untracked,
) -> None:
    """Write one self-contained HTML file: summary, significance, every case as a dot, pictures, costs, commands.

    Args:
        models: name -> its evaluations; other cases are folds, the same cases again are repeats (seeds).
        out: the file to write; it appears when it is whole.
        comparison: what `nnunet_ext.comparison.compare` says of these models; without it the sections that compare are
            left out.
        images: folder of nnU-Net's image files, for pictures; by default the one that the evaluations name, else
            imagesTr or imagesTs in the folder of their references.
        extras: what is known beyond metrics, such as training folders, costs, commands and published figures.
        title: the title of the page.
        track: wraps the cases that pictures are made of, to show progress.

    Raises:
        InputError: there are no models, they have nothing in common, runs cannot be one model's, the extras name cases
            that they do not have, or the file cannot be written, or is there already and no report.

    >>> import tempfile
    >>> import pandas as pd
    >>> from nnunet_ext.evaluation.evaluation import Evaluation
    >>> from nnunet_ext.metrics.definitions import PIXELS
    >>> counts = {"tp": 90, "fp": 10, "fn": 10, "tn": 890}
    >>> table = pd.DataFrame([{"case": f"case_{i}", "structure": "lesion", **counts, "dice": 0.9} for i in range(3)])
    >>> evaluation = Evaluation(table=table, units=PIXELS, structures={"lesion": (1,)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     build_report({"ours": [evaluation]}, Path(folder) / "report.html", title="Our lesions")
    ...     "<title>Our lesions</title>" in (Path(folder) / "report.html").read_text(encoding="utf-8")
    True
    """
    check_file(out)
    extras = extras or Extras()
    if not models or not all(models.values()):
        raise InputError("There is nothing to report: a model needs at least one evaluation.")
    pooled = [ModelRuns(name=name, runs=runs) for name, runs in models.items()]
    if problems := [problem for model in pooled for problem in model.problems()]:
        raise InputError(*problems)
    check_cases(extras.cases, {case for model in pooled for case in model.cases})
    data = ReportData(models=pooled, comparison=comparison, images=images, extras=extras)
    if not data.structures:
        raise InputError("The models have no structure in common.", hint="Report models of one dataset.")
    write_results({out: _render(data, title, _sections(track))})


def check_file(out: Path) -> None:
    """Check that `build_report` may write a file, before the work that goes into it.

    Raises:
        InputError: nothing can be written there, or something would be replaced that is no report of ours.
    """
    check_replaceable([out], _is_report, "the report of nnunet_ext", "Name another file for the report.")


def extras_of(known: Collection[str], *, cases: Sequence[str] = (), groups: Path | None = None) -> Extras:
    """Return the extras that a command line asks for, before the work that goes into a report.

    Args:
        known: the cases of the models.
        cases: those to show.
        groups: a CSV file, see `read_subgroups`.

    Raises:
        InputError: see `check_cases` and `read_subgroups`.
    """
    check_cases(cases, known)
    return Extras(cases=cases, subgroups=subgroups.read_subgroups(groups, known) if groups else {})


def check_cases(wanted: Sequence[str], cases: Collection[str]) -> None:
    """Check that the cases which `Extras.cases` names are among those of the models.

    Raises:
        InputError: some are not.
    """
    if missing := [case for case in wanted if case not in cases]:
        raise InputError(
            *(f"There is no case {case}." for case in missing),
            hint=f"Name cases as the evaluation does: {some(sorted(cases))}.",
        )


def _is_report(file: Path) -> bool:
    with file.open("rb") as stream:
        if stream.read(len(DOCTYPE)) != DOCTYPE:
            return False
        text = stream.read()
    return GENERATOR.encode() in text or (b"Made with" in text and b"nnunet_ext" in text)  # as earlier ones say


def _sections(track: Track) -> tuple[Section, ...]:
    return (
        Section("summary", "Summary", tables.summary),
        Section("significance", "Significance and rank stability", tables.significance,
                "Two or more models: nnunet_ext compare A=DIR B=DIR --report FILE."),
        Section("distributions", "Every case, by metric", figures.distributions),
        Section("paired", "Case by case", figures.paired, "Two or more models over the same cases."),
        Section("clicks", "Dice against clicks", click_curve.click_curves,
                "One model predicted without and with corrective clicks: nnunet_ext prompt-curve --report FILE."),
        Section("profiles", "Precision, recall, size", figures.profiles,
                "Evaluations by nnunet_ext evaluate; nnU-Net's summary.json has neither precision nor volumes."),
        Section("agreement", "Agreement of volumes", agreement.volumes,
                "Evaluations by nnunet_ext evaluate; nnU-Net's summary.json has no volumes."),
        Section("subgroups", "Subgroups", subgroups.subgroups,
                "A CSV file of cases and their groups: --subgroups FILE."),
        Section("qualitative", "Pictures", partial(pictures.qualitative, track=track),
                "Image, reference and prediction files where the evaluations say; --images DIR names the images."),
        Section("preprocessing", "Before and after preprocessing", pictures.preprocessing,
                "A model whose plans name a normalisation of this package, and images."),
        Section("high-frequency", "High frequencies", pictures.high_frequency, "A SAMUS-HF model, and images."),
        Section("curves", "Training", costs.training_curves,
                "A trained model's validation (nnunet_ext evaluate -m), nnunet_ext benchmark, or Extras in Python."),
        Section("costs", "Parameters, operations, time", costs.costs,
                "A trainer that the registry knows, training logs, or a benchmark's manifests."),
        Section("published", "Published figures next to ours", tables.published,
                "A benchmark whose matrix has [[published]] rows."),
        Section("cases", "Cases", tables.cases),
        Section("downloads", "Numbers to take away", tables.downloads),
        Section("definitions", "Definitions", tables.definitions),
        Section("commands", "Commands and versions", context.commands,
                "Evaluations that say how they were made: nnunet_ext evaluate, nnunet_ext benchmark."),
        Section("deviations", "Deviations from the papers", context.deviations,
                "A model with one of this package's trainers."),
    )  # fmt: skip


def _render(data: ReportData, title: str, sections: Sequence[Section]) -> str:
    made = [(section, section.make(data)) for section in sections]
    models = [{**m, "colour": i % svg.COLOURS} for i, m in enumerate(context.models(data))]
    page = _environment().get_template("report.html.j2")
    return page.render(
        title=title,
        models=models,
        facts=context.facts(data),
        warnings=context.warnings(data),
        headlines=context.headlines(data),
        several=len(data.structures) > 1,
        sections=[{"id": s.id, "title": s.title, "data": content} for s, content in made if content],
        left_out=[s for s, content in made if not content],
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nnunet_ext.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        name: getattr(wording, name)
        for name in ("number", "interval", "shift_interval", "effect", "p_value", "percent")
    }
    environment.globals["generator"] = markupsafe.Markup(GENERATOR)
    environment.globals["prompts"] = wording.prompt_words
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # metrics in the order of the tables
    return environment
