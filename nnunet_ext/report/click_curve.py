"""Dice against the number of clicks, of each model that was predicted with several."""

from __future__ import annotations

import math
from collections.abc import Mapping

from markupsafe import Markup

from nnunet_ext.comparison import ModelSummary
from nnunet_ext.comparison.wording import interval, number
from nnunet_ext.metrics.definitions import BY_KEY
from nnunet_ext.report import svg
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.figures import domain

RULE = "reference, corrections:"
SAME = ("dataset", "trainer", "plans", "configuration", "fold")  # tell whether two rows are one trained model


def click_curves(data: ReportData) -> dict[str, list[Markup]] | None:
    """Draw the mean Dice over corrective clicks, by structure; None where no model has two numbers of clicks.

    A point is a row of the report; no prompts are no clicks. A dashed line is the same model with a box.
    """
    models: dict[tuple[str, ...], dict[int, str]] = {}
    boxes: dict[tuple[str, ...], str] = {}
    for name, prompts in data.prompts.items():
        model = tuple(str(data.info(name, key) or "") for key in SAME)
        if not any(model):
            continue
        if prompts == "none" or prompts.startswith(RULE):
            clicks = prompts.removeprefix(RULE)
            if clicks == "none" or clicks.isdecimal():
                models.setdefault(model, {})[0 if clicks == "none" else int(clicks)] = name
        elif prompts == "reference, box":
            boxes[model] = name
    curves = {model: rows for model, rows in models.items() if len(rows) > 1}
    figures = {
        s: [f for m, rows in curves.items() if (f := _curve(data, s, rows, boxes.get(m)))] for s in data.structures
    }
    return {structure: own for structure, own in figures.items() if own} or None


def _curve(data: ReportData, structure: str, rows: Mapping[int, str], box: str | None) -> Markup | None:
    metric = BY_KEY["dice"]
    points = {n: s for n, name in sorted(rows.items()) if (s := data.summary(structure, "dice", name)) and s.n}
    boxed = data.summary(structure, "dice", box) if box else None
    if len(points) < 2:
        return None
    shown = [*points.values(), *([boxed] if boxed and boxed.n else [])]
    x = svg.Scale((0, max(points)), (56, 390))
    y = svg.Scale(domain([v for s in shown for v in (s.low, s.mean, s.high)], metric), (290, 44))
    colour = svg.colour(data.names.index(rows[max(points)]))
    marks = [_point(x(n), s, y) for n, s in points.items()]
    spoken = [f"{n} clicks: {number(s.mean, metric)} {interval(s.low, s.high, metric)}" for n, s in points.items()]
    extra = []
    if boxed and boxed.n:
        extra = [
            svg.tag("path", d=f"M48 {svg.px(y(boxed.mean))}H404", class_="equal"),
            svg.text("with a box", 404, y(boxed.mean) - 5, "t label", "end"),
        ]
        spoken.append(f"box: {number(boxed.mean, metric)}")
    path = svg.tag("path", d=svg.line((x(n), y(s.mean)) for n, s in points.items()), class_="meanline")
    trainer = data.info(rows[max(points)], "trainer") or ""
    return svg.figure(
        [
            svg.text(svg.clipped(f"Dice, higher is better: {trainer}", 58), 0, 14, "t title"),
            svg.x_axis(x, 36, 290, "corrective clicks, by the reference", ticks=list(points)),
            svg.y_axis(y, 48, 404),
            *extra,
            svg.tag("g", [path, *marks], class_=colour),
        ],
        330,
        f"Dice of {structure} against clicks: {'; '.join(spoken)}",
    )


def _point(x: float, summary: ModelSummary, y: svg.Scale) -> Markup:
    marks = [svg.tag("circle", cx=x, cy=y(summary.mean), r=5, class_="meandot")]
    if math.isfinite(summary.low) and math.isfinite(summary.high):
        marks.append(
            svg.tag("path", d=f"M{svg.px(x)} {svg.px(y(summary.low))}V{svg.px(y(summary.high))}", class_="cross")
        )
    return svg.tag("g", marks)
