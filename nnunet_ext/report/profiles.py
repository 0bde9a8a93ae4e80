"""Where the errors lie: precision against recall, Dice against size."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from markupsafe import Markup

from nnunet_ext.metrics.definitions import BY_KEY
from nnunet_ext.report import svg
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.plots import domain


def profiles(data: ReportData) -> dict[str, list[Markup]] | None:
    """Draw precision against recall, and Dice against size, by structure."""
    figures = {s: [f for f in (_operating(data, s), _size(data, s)) if f] for s in data.structures}
    return {s: own for s, own in figures.items() if own} or None


def _operating(data: ReportData, structure: str) -> Markup | None:
    """Draw mean precision against mean recall, with intervals, over curves of equal Dice; None without the two."""
    points = {
        name: (recall, precision)
        for name in data.names
        if (recall := data.summary(structure, "recall", name)) and recall.n
        if (precision := data.summary(structure, "precision", name)) and precision.n
    }
    if not points:
        return None
    ends = [v for pair in points.values() for s in pair for v in (s.low, s.mean) if math.isfinite(v)]
    low = max(0.0, math.floor(10 * (min(ends) - 0.05)) / 10)
    x, y = svg.Scale((low, 1.0), (48, 404)), svg.Scale((low, 1.0), (344, 32))
    marks = []
    for name, (recall, precision) in points.items():
        cx, cy = x(recall.mean), y(precision.mean)
        cross = ""
        if math.isfinite(recall.low) and math.isfinite(precision.low):
            cross = f"M{svg.short(x(recall.low))} {svg.short(cy)}H{svg.short(x(recall.high))}"
            cross += f"M{svg.short(cx)} {svg.short(y(precision.low))}V{svg.short(y(precision.high))}"
        mark = [
            svg.tag("path", d=cross, class_="cross"),
            svg.tag("circle", cx=cx, cy=cy, r=9, class_="point"),
            svg.text(data.letter(name), cx, cy + 4, "t inside", "middle"),
        ]
        marks.append(svg.tag("g", mark, class_=svg.colour(data.names.index(name))))
    spoken = "; ".join(f"{n} recall {r.mean:.3f}, precision {p.mean:.3f}" for n, (r, p) in points.items())
    return svg.figure(
        [
            svg.x_axis(x, 32, 344, "recall, mean over cases"),
            svg.y_axis(y, 48, 404, "precision, mean over cases"),
            *_equal_dice(x, y, low),
            *marks,
        ],
        380,
        f"Precision and recall of {structure}: {spoken}",
    )


def _equal_dice(x: svg.Scale, y: svg.Scale, low: float) -> Iterator[Markup]:
    """Draw curves on which Dice d is the same: precision p = d r / (2 r - d)."""
    for dice in np.arange(0.1, 1.0, 0.1):
        recall = np.linspace(max(low, dice / (2 - dice)), 1, 60)
        precision = dice * recall / (2 * recall - dice)
        inside = (precision >= low) & (precision <= 1 + 1e-9)
        if inside.sum() > 1:
            points = [(x(r), y(p)) for r, p in zip(recall[inside], precision[inside], strict=True)]
            yield svg.tag("path", d=svg.line(points), class_="equal")
            yield svg.text(f"Dice {dice:.1f}", points[-1][0] - 4, points[-1][1] - 4, "t faint", "end")


def _size(data: ReportData, structure: str) -> Markup | None:
    """Draw Dice against the size of the reference, with a running median; None for fewer than three sizes."""
    size = data.values(structure, "volume_reference").median(axis=1)
    values, there = data.values(structure, "dice"), size > 0
    if there.sum() < 3:
        return None
    x = svg.Scale((float(size[there].min()) / 1.15, float(size[there].max()) * 1.15), (40, 404), log=True)
    y = svg.Scale(domain(values[there], BY_KEY["dice"]), (344, 32))
    number_of = {case: i for i, case in enumerate(data.cases)}
    marks = []
    for i, name in enumerate(data.names):
        own = values.loc[there, name].dropna()
        order = size[own.index].sort_values(kind="stable").index
        points = [(number_of[c], x(size[c]), y(own[c])) for c in order]
        mark = [
            svg.tag("g", svg.dots(points, 2.2), class_="dots"),
            svg.tag("path", d=_running_median(size[order], own[order], x, y), class_=f"running r{i % 4}"),
        ]
        marks.append(svg.tag("g", mark, class_=svg.colour(i)))
    return svg.figure(
        [
            svg.x_axis(x, 32, 344, f"reference volume ({data.units.volume}), log scale", _log_ticks(x)),
            svg.y_axis(y, 40, 404, "Dice"),
            *marks,
        ],
        380,
        f"Dice of {structure} against the size of the reference, {int(there.sum())} cases",
        data_s=structure,
        data_k="dice",
    )


def _log_ticks(scale: svg.Scale) -> list[float]:
    """Return powers of ten; where these are few also twos and fives, or else round numbers."""
    inside = [p for e in range(-6, 12) for m in (1, 2, 5) if scale.low <= (p := m * 10.0**e) <= scale.high]
    tens = [p for p in inside if math.isclose(math.log10(p), round(math.log10(p)), abs_tol=1e-9)]
    if len(tens) > 2:
        return tens
    return inside if len(inside) > 2 else svg.Scale((scale.low, scale.high), scale.pixels).ticks(4)


def _running_median(size: pd.Series, dice: pd.Series, x: svg.Scale, y: svg.Scale) -> str:
    """Return the path of the median over a seventh of the cases, five at least."""
    width = max(5, len(dice) // 7)
    medians = dice.rolling(width, center=True, min_periods=min(3, len(dice))).median()
    return svg.line((x(s), y(m)) for s, m in zip(size, medians, strict=True))
