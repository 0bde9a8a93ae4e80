"""Volumes of predictions against those of references, after Bland & Altman 1986: bias, and limits of agreement."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from nnunet_ext.comparison.wording import size
from nnunet_ext.evaluation.intervals import mean_interval
from nnunet_ext.metrics.definitions import BY_KEY
from nnunet_ext.report import svg
from nnunet_ext.report.data import ReportData

WIDE = 30.0  # times between the least and the greatest volume, from which on their axis is logarithmic
ERROR = BY_KEY["volume_error"]


def volumes(data: ReportData) -> dict[str, list[Markup]] | None:
    """Draw, per structure and model, each case's difference of volumes over the mean of both."""
    figures = {s: [f for name in data.names if (f := _volumes(data, s, name))] for s in data.structures}
    return {structure: own for structure, own in figures.items() if own} or None


def limits(difference: np.ndarray) -> tuple[float, float, float]:
    """Return the mean difference, and the lower and the upper limit of agreement: 1.96 standard deviations from it.

    Shapes: (n,), two values or more.
    """
    bias, reach = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
    return bias, bias - reach, bias + reach


def _volumes(data: ReportData, structure: str, name: str) -> Markup | None:
    """Draw one model; None for fewer than three cases with a volume in the reference or the prediction."""
    reference, predicted = (data.values(structure, f"volume_{which}")[name] for which in ("reference", "prediction"))
    mean, difference = ((reference + predicted) / 2).to_numpy(), data.values(structure, ERROR.key)[name].to_numpy()
    cases = np.flatnonzero((mean > 0) & np.isfinite(difference))
    if cases.size < 3:
        return None
    own, ends = difference[cases], mean[cases]
    bias, low, high = limits(own)
    log = float(ends.max() / ends.min()) > WIDE
    wide = (float(ends.min()) / 1.15, float(ends.max()) * 1.15) if log else svg.outer(ends)
    x, y = svg.Scale(wide, (48, 404), log=log), svg.Scale(svg.outer([*own, low, high]), (206, 40))
    number, unit = data.names.index(name), data.units.volume
    sure = mean_interval(own)
    said = f"bias {size(bias, sign=True)} [{size(sure[0])}, {size(sure[1])}], limits {size(low)} to {size(high)} {unit}"
    dots = svg.dots((int(i), x(mean[i]), y(difference[i])) for i in cases)
    across = f"H{svg.px(404)}"
    return svg.figure(
        [
            svg.text(svg.clipped(f"{data.letter(name)}  {name}", 52), 0, 14, "t title"),
            svg.text(f"{said}, n {cases.size}", 0, 30, "t number"),
            svg.x_axis(x, 40, 206, f"mean of both ({unit}){', log scale' if log else ''}"),
            svg.y_axis(y, 48, 404),
            svg.tag("path", d=f"M48 {svg.px(y(0.0))}{across}", class_="zero"),
            svg.tag("path", d=f"M48 {svg.px(y(low))}{across}M48 {svg.px(y(high))}{across}", class_="equal"),
            svg.tag("path", d=f"M48 {svg.px(y(bias))}{across}", class_="interval"),
            svg.tag("g", [svg.tag("g", dots, class_="dots", data_m=number)], class_=svg.colour(number)),
        ],
        244,
        f"Predicted minus reference volume of {structure} by {name}, {cases.size} cases: {said}",
        data_s=structure,
        data_k=ERROR.key,
        data_size="",
    )
