"""The figures of metrics: every case a dot, the same case under every model, and where the errors lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from markupsafe import Markup

from nnunet_ext.comparison.wording import interval, number
from nnunet_ext.evaluation.aggregate import Summary, summarise
from nnunet_ext.metrics.definitions import BY_KEY, Metric
from nnunet_ext.report import svg
from nnunet_ext.report.data import ReportData

PAIRED = ("dice", "hd95")
MOST_PAIRS = 6  # histograms of differences; five models have ten pairs
GOLDEN = 0.618034  # spreads the dots of a row evenly without chance
MINUS = "\N{MINUS SIGN}"
BETTER = {1: ", higher is better", -1: ", lower is better", 0: ""}
ROW, LEFT, RIGHT = 58, 18, 402  # room for the numbers below the ends of an axis


def distributions(data: ReportData) -> dict[str, list[Markup]] | None:
    """Draw dots and boxes by structure."""
    figures = {
        structure: [_distribution(data, structure, m) for m in data.metrics(structure) if m.shown == "figure"]
        for structure in data.structures
    }
    return {structure: own for structure, own in figures.items() if own} or None


def _distribution(data: ReportData, structure: str, metric: Metric) -> Markup:
    values = data.values(structure, metric.key)
    rows = [(f"{data.letter(name)} {name}", values[name], name) for name in data.names]
    return distribution(data, structure, metric, rows)


def distribution(
    data: ReportData, structure: str, metric: Metric, rows: Sequence[tuple[str, pd.Series, str]], by: str = ""
) -> Markup:
    """Draw rows of dots and boxes.

    Args:
        rows: heading, values of all cases (NaN where a case does not belong), and model.
        by: what the heading of the figure says after the metric.
    """
    sums = [summarise(metric, values.to_numpy(dtype=float)) for _, values, _ in rows]
    shown = [*data.values(structure, metric.key).to_numpy().ravel(), *(e for s in sums for e in (s.low, s.high))]
    scale = svg.Scale(domain(shown, metric), (LEFT, RIGHT))
    height = 26 + ROW * len(rows)
    spoken = "; ".join(
        f"{head} mean {number(s.mean, metric)}, n {s.n}" if s.n else f"{head} no values"
        for (head, *_), s in zip(rows, sums, strict=True)
    )
    drawn = [
        _row(head, values, s, metric, scale, place, data.names.index(model))
        for place, ((head, values, model), s) in enumerate(zip(rows, sums, strict=True))
    ]
    title = svg.clipped(f"{data.label(metric)}{by}{BETTER[metric.better]}", 58)
    return svg.figure(
        [svg.text(title, 0, 14, "t title"), svg.x_axis(scale, 24, height), *drawn],
        height + 22,
        f"{data.label(metric)} of {structure}{by}: {spoken}",
        data_s=structure,
        data_k=metric.key,
    )


def domain(values: Iterable[float], metric: Metric) -> tuple[float, float]:
    """Return the ends of an axis: ratios end at 1 and begin at the tenth below the smallest, others begin at 0."""
    if metric.quantity == "ratio" and metric.better:
        finite = [value for value in values if math.isfinite(value)]
        return (max(0.0, math.floor(10 * (min(finite) - 0.02)) / 10) if finite else 0.0), 1.0
    return svg.outer(values)


def _row(
    head: str, values: pd.Series, summary: Summary, metric: Metric, scale: svg.Scale, place: int, model: int
) -> Markup:
    """Draw one row: heading and numbers above, dots and box below."""
    top = 24 + ROW * place
    middle = top + 38
    finite = [(i, v) for i, v in enumerate(values.to_numpy(dtype=float)) if math.isfinite(v)]
    marks = [svg.text(svg.clipped(head, 30), 0, top + 17, "t name")]
    if finite:
        spread = [(i, scale(v), middle + 22 * ((k * GOLDEN) % 1 - 0.5)) for k, (i, v) in enumerate(finite)]
        said = f"{number(summary.mean, metric)} {interval(summary.low, summary.high, metric)}"
        marks += [
            svg.text(f"{said}, n {summary.n}", svg.WIDTH, top + 17, "t number", "end"),
            svg.tag("g", svg.dots(spread), class_="dots", data_m=model),
            _box(scale, np.array([v for _, v in finite]), middle),
            _mean(scale, summary.mean, (summary.low, summary.high), middle),
        ]
    return svg.tag("g", marks, class_=svg.colour(model))


def _box(scale: svg.Scale, values: np.ndarray, middle: float) -> Markup:
    """Draw quartiles and median, and whiskers to the last value within 1.5 times the box."""
    quartiles = np.quantile(values, [0.25, 0.5, 0.75])
    reach = 1.5 * (quartiles[2] - quartiles[0])
    inside = values[(values >= quartiles[0] - reach) & (values <= quartiles[2] + reach)]
    least, low, median, high, most = (svg.px(scale(v)) for v in (inside.min(), *quartiles, inside.max()))
    top, bottom = middle - 11, middle + 11
    path = f"M{least} {middle}H{low}M{high} {middle}H{most}M{low} {top}H{high}V{bottom}H{low}ZM{median} {top}V{bottom}"
    return svg.tag("path", d=path, class_="box")


def _mean(scale: svg.Scale, mean: float, ends: tuple[float, float], middle: float) -> Markup:
    marks = [svg.tag("path", d=f"M{svg.px(scale(mean))} {middle - 5}l5 5l-5 5l-5 -5z", class_="mean")]
    if all(map(math.isfinite, ends)):
        low, high = (svg.px(scale(e)) for e in ends)
        marks.insert(0, svg.tag("path", d=f"M{low} {middle}H{high}", class_="interval"))
    return svg.tag("g", marks)


def paired(data: ReportData) -> dict[str, list[Markup]] | None:
    """Draw lines that join each case's values, and histograms of the differences; None for one model."""
    if len(data.names) < 2:
        return None
    figures = {}
    for structure in data.structures:
        own = [_lines(data, structure, BY_KEY[key]) for key in PAIRED if len(data.values(structure, key).dropna())]
        if own := own + list(_histograms(data, structure)):
            figures[structure] = own
    return figures or None


def _lines(data: ReportData, structure: str, metric: Metric) -> Markup:
    values = data.values(structure, metric.key)
    complete = values.dropna()  # a line needs a value of every model
    number_of = {case: i for i, case in enumerate(data.cases)}
    x = svg.Scale((0, len(data.names) - 1), (64, 396))
    y = svg.Scale(domain(values.to_numpy().ravel(), metric), (290, 44))
    means = complete.mean()
    lines = [
        svg.tag("path", d=svg.line((x(i), y(v)) for i, v in enumerate(row)), data_c=number_of[case])
        for case, row in zip(complete.index, complete.to_numpy(), strict=True)
    ]
    heads = [
        svg.tag(
            "g",
            [
                svg.text(data.letter(name), x(i), 312, "t name", "middle"),
                svg.text(number(means[name], metric), x(i), 328, "t number", "middle"),
                svg.tag("circle", cx=x(i), cy=y(means[name]), r=5, class_="meandot"),
            ],
            class_=svg.colour(i),
        )
        for i, name in enumerate(data.names)
    ]
    return svg.figure(
        [
            svg.text(f"{data.label(metric)}{BETTER[metric.better]}: each line is a case", 0, 14, "t title"),
            svg.y_axis(y, 48, 404),
            svg.tag("g", lines, class_="lines", style=f"stroke-opacity: {min(0.4, 12 / max(len(lines), 1)):.2f}"),
            svg.tag("path", d=svg.line((x(i), y(means[n])) for i, n in enumerate(data.names)), class_="meanline"),
            *heads,
        ],
        336,
        f"{data.label(metric)} of {structure}, {len(complete)} cases joined between models; means "
        + ", ".join(f"{n} {number(means[n], metric)}" for n in data.names),
        data_s=structure,
        data_k=metric.key,
    )


def _histograms(data: ReportData, structure: str) -> Iterator[Markup]:
    """Draw the differences in the primary metric, of the pairs that were compared or else of all."""
    metric, result = BY_KEY[data.primary], data.result(structure, data.primary)
    compared = sorted(result.pairs, key=lambda pair: pair.p_holm) if result else ()  # the firmest findings first
    pairs = [(pair.a, pair.b) for pair in compared] if result else list(combinations(data.names, 2))
    values = data.values(structure, metric.key)
    for a, b in pairs[:MOST_PAIRS]:
        difference = (values[a] - values[b]).dropna().to_numpy()
        if difference.size > 1:
            yield _histogram(data, structure, metric, (a, b), difference)


def _histogram(
    data: ReportData, structure: str, metric: Metric, names: tuple[str, str], difference: np.ndarray
) -> Markup:
    mean, equal = float(difference.mean()), int((difference == 0).sum())
    reach = max(0.05, math.ceil(20 * float(np.abs(difference).max())) / 20)
    counts, edges = np.histogram(difference[difference != 0], np.linspace(-reach, reach, 21))
    x = svg.Scale((-reach, reach), (LEFT, RIGHT))
    y = svg.Scale((0, float(max(counts.max(), 1))), (128, 40))
    bars = [
        svg.tag(
            "rect",
            x=x(left) + 0.7,
            y=y(count),
            width=x(right) - x(left) - 1.4,
            height=128 - y(count),
            class_=svg.colour(data.names.index(names[int((left + right) * metric.better < 0)])),
        )
        for left, right, count in zip(edges[:-1], edges[1:], counts.astype(float), strict=True)
        if count
    ]
    a, b = (data.letter(name) for name in names)
    left, right = (b, a) if metric.better > 0 else (a, b)
    said = f"mean {number(mean, metric, sign=True)}, n {difference.size}{f', {equal} equal' if equal else ''}"
    return svg.figure(
        [
            svg.text(f"{a} {MINUS} {b}: difference in {metric.label}", 0, 14, "t title"),
            svg.text(said, svg.WIDTH, 14, "t number", "end"),
            svg.x_axis(x, 30, 128),
            svg.tag("g", bars, class_="bars"),
            svg.tag("path", d=f"M{svg.px(x(0.0))} 30V128", class_="zero"),
            svg.tag("path", d=f"M{svg.px(x(mean))} 128l5 -9h-10z", class_="mean"),
            svg.text(f"← {left} better", 0, 168, "t label"),
            svg.text(f"{right} better →", svg.WIDTH, 168, "t label", "end"),
        ],
        176,
        f"Histogram of {names[0]} minus {names[1]}, {metric.label} of {structure}: {said}",
    )


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
            cross = f"M{svg.px(x(recall.low))} {svg.px(cy)}H{svg.px(x(recall.high))}"
            cross += f"M{svg.px(cx)} {svg.px(y(precision.low))}V{svg.px(y(precision.high))}"
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
    y = svg.Scale(domain(values[there].to_numpy().ravel(), BY_KEY["dice"]), (344, 32))
    number_of = {case: i for i, case in enumerate(data.cases)}
    marks = []
    for i, name in enumerate(data.names):
        own = values.loc[there, name].dropna()
        order = size[own.index].sort_values(kind="stable").index
        points = [(number_of[c], x(size[c]), y(own[c])) for c in order]
        mark = [
            svg.tag("g", svg.dots(points, 2.2), class_="dots", data_m=i),
            svg.tag("path", d=_running_median(size[order], own[order], x, y), class_=f"running r{i % 4}"),
        ]
        marks.append(svg.tag("g", mark, class_=svg.colour(i)))
    return svg.figure(
        [
            svg.x_axis(x, 32, 344, f"reference volume ({data.units.volume}), log scale"),
            svg.y_axis(y, 40, 404, "Dice"),
            *marks,
        ],
        380,
        f"Dice of {structure} against the size of the reference, {int(there.sum())} cases",
        data_s=structure,
        data_k="dice",
        data_size="",
    )


def _running_median(size: pd.Series, dice: pd.Series, x: svg.Scale, y: svg.Scale) -> str:
    """Return the path of the median over a seventh of the cases, five at least."""
    width = max(5, len(dice) // 7)
    medians = dice.rolling(width, center=True, min_periods=min(3, len(dice))).median()
    return svg.line((x(s), y(m)) for s, m in zip(size, medians, strict=True))
