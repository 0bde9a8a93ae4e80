"""The figures: every case a dot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from markupsafe import Markup

from nnunet_ext.evaluation.comparison.wording import interval, number
from nnunet_ext.evaluation.definitions import BY_KEY, Metric
from nnunet_ext.evaluation.report import svg
from nnunet_ext.evaluation.report.subject import Subject, defined

DOT_PLOTS = ("dice", "hd95", "nsd", "assd", "precision", "recall", "lesion_f1", "relative_volume_error")
PAIRED = ("dice", "hd95")
MOST_PAIRS = 6  # histograms of differences; five models have ten pairs
GOLDEN = 0.618034  # spreads the dots of a row evenly without chance
MINUS = "\N{MINUS SIGN}"
ROW, LEFT, RIGHT = 58, 10, 410


def distributions(subject: Subject) -> dict[str, list[Markup]] | None:
    """Dot and box plots by structure."""
    figures = {
        structure: [
            _distribution(subject, structure, metric)
            for metric in subject.metrics(structure)
            if metric.key in DOT_PLOTS
        ]
        for structure in subject.structures
    }
    return {structure: own for structure, own in figures.items() if own} or None


def _distribution(subject: Subject, structure: str, metric: Metric) -> Markup:
    values = subject.values(structure, metric.key)
    domain = _domain(values, metric)
    scale = svg.Scale(domain, (LEFT, RIGHT))
    rows = [_row(subject, structure, metric, values[name], scale, i) for i, name in enumerate(subject.names)]
    height = 26 + ROW * len(rows)
    title = f"{subject.label(metric)} of {structure}"
    return svg.figure(
        [
            svg.text(_titled(subject, metric), 0, 14, "t title"),
            svg.x_axis(scale, 24, height),
            *rows,
        ],
        height + 22,
        f"{title}: {'; '.join(_spoken(subject, structure, metric, name) for name in subject.names)}",
        data_s=structure,
        data_k=metric.key,
    )


def _titled(subject: Subject, metric: Metric) -> str:
    better = {1: "higher is better", -1: "lower is better", 0: ""}[metric.better]
    return f"{subject.label(metric)}{', ' if better else ''}{better}"


def _spoken(subject: Subject, structure: str, metric: Metric, name: str) -> str:
    summary = subject.summary(structure, metric.key, name)
    return f"{name} mean {number(summary.mean, metric)}, n {summary.n}" if summary else f"{name} no values"


def _domain(values: pd.DataFrame, metric: Metric) -> tuple[float, float]:
    """Ratios end at 1 and begin at the tenth below the smallest; other values are shown from 0 on."""
    if metric.quantity == "ratio" and metric.better:
        least = values.min(axis=None)
        return (max(0.0, math.floor(10 * (least - 0.02)) / 10) if math.isfinite(least) else 0.0), 1.0
    return svg.outer(values.to_numpy().ravel())


def _row(subject: Subject, structure: str, metric: Metric, values: pd.Series, scale: svg.Scale, row: int) -> Markup:
    """One model: name and numbers above, dots and box below."""
    name, top = str(values.name), 24 + ROW * row
    summary = subject.summary(structure, metric.key, name)
    finite = [(i, v) for i, v in enumerate(values.to_numpy(dtype=float)) if math.isfinite(v)]
    middle = top + 38
    marks = [svg.text(svg.clipped(f"{subject.letter(name)} {name}", 30), LEFT, top + 17, "t name")]
    if summary and finite:
        x = np.array([v for _, v in finite])
        low, median, high = np.quantile(x, [0.25, 0.5, 0.75])
        reach = 1.5 * (high - low)
        inside = x[(x >= low - reach) & (x <= high + reach)]
        spread = [(i, scale(v), middle + 22 * ((k * GOLDEN) % 1 - 0.5)) for k, (i, v) in enumerate(finite)]
        said = f"{number(summary.mean, metric)} {interval(summary.low, summary.high, metric)}"
        marks += [
            svg.text(f"{said}, n {summary.n}", RIGHT, top + 17, "t number", "end"),
            svg.tag("g", svg.dots(spread), class_="dots"),
            _box(scale, (inside.min(), low, median, high, inside.max()), middle),
            _mean(scale, summary.mean, (summary.low, summary.high), middle),
        ]
    return svg.tag("g", marks, class_=svg.colour(row))


def _box(scale: svg.Scale, five: Sequence[float], middle: float) -> Markup:
    least, low, median, high, most = (svg.short(scale(float(v))) for v in five)
    top, bottom = middle - 11, middle + 11
    path = f"M{least} {middle}H{low}M{high} {middle}H{most}M{low} {top}H{high}V{bottom}H{low}ZM{median} {top}V{bottom}"
    return svg.tag("path", d=path, class_="box")


def _mean(scale: svg.Scale, mean: float, ends: tuple[float, float], middle: float) -> Markup:
    x = svg.short(scale(mean))
    path = f"M{x} {middle - 5}l5 5l-5 5l-5 -5z"
    marks = [svg.tag("path", d=path, class_="mean")]
    if all(map(math.isfinite, ends)):
        low, high = (svg.short(scale(e)) for e in ends)
        marks.insert(0, svg.tag("path", d=f"M{low} {middle}H{high}", class_="interval"))
    return svg.tag("g", marks)


def paired(subject: Subject) -> dict[str, list[Markup]] | None:
    """Lines joining each case's values, and histograms of the differences; None for one model."""
    if len(subject.names) < 2:
        return None
    figures = {}
    for structure in subject.structures:
        own = [_lines(subject, structure, BY_KEY[key]) for key in PAIRED if _pairs_of(subject, structure, key)]
        own += list(_histograms(subject, structure))
        if own:
            figures[structure] = own
    return figures or None


def _pairs_of(subject: Subject, structure: str, key: str) -> int:
    """Cases in which all models have a value."""
    return len(defined(subject.values(structure, key)))


def _lines(subject: Subject, structure: str, metric: Metric) -> Markup:
    values = subject.values(structure, metric.key)
    complete = defined(values)
    number_of = {case: i for i, case in enumerate(subject.cases)}
    x = svg.Scale((0, len(subject.names) - 1), (64, 396))
    y = svg.Scale(_domain(values, metric), (290, 44))
    means = complete.mean()
    lines = [
        svg.tag("path", d=svg.line((x(i), y(v)) for i, v in enumerate(row)), data_c=number_of[case])
        for case, row in zip(complete.index, complete.to_numpy(), strict=True)
    ]
    heads = [
        svg.tag(
            "g",
            [
                svg.text(subject.letter(name), x(i), 312, "t name", "middle"),
                svg.text(number(means[name], metric), x(i), 328, "t number", "middle"),
                svg.tag("circle", cx=x(i), cy=y(means[name]), r=5, class_="meandot"),
            ],
            class_=svg.colour(i),
        )
        for i, name in enumerate(subject.names)
    ]
    return svg.figure(
        [
            svg.text(f"{_titled(subject, metric)}: each line is a case", 0, 14, "t title"),
            svg.y_axis(y, 48, 404),
            svg.tag("g", lines, class_="lines"),
            svg.tag("path", d=svg.line((x(i), y(means[n])) for i, n in enumerate(subject.names)), class_="meanline"),
            *heads,
        ],
        336,
        f"{subject.label(metric)} of {structure}, {len(complete)} cases joined between models; means "
        + ", ".join(f"{n} {number(means[n], metric)}" for n in subject.names),
        data_s=structure,
        data_k=metric.key,
    )


def _histograms(subject: Subject, structure: str) -> Iterator[Markup]:
    """Of the differences in Dice."""
    metric = BY_KEY["dice"]
    values = subject.values(structure, metric.key)
    chosen = (
        [(p.a, p.b) for p in subject.comparison.results[structure, "dice"].pairs]
        if _compared(subject, structure)
        else []
    )
    for a, b in (chosen or list(combinations(subject.names, 2)))[:MOST_PAIRS]:
        difference = (values[a] - values[b]).dropna().to_numpy()
        if difference.size > 1:
            yield _histogram(subject, structure, (a, b), difference)


def _compared(subject: Subject, structure: str) -> bool:
    return subject.comparison is not None and (structure, "dice") in subject.comparison.results


def _histogram(subject: Subject, structure: str, names: tuple[str, str], difference: np.ndarray) -> Markup:
    metric = BY_KEY["dice"]
    mean, equal = float(difference.mean()), int((difference == 0).sum())
    reach = max(0.05, math.ceil(20 * float(np.abs(difference).max())) / 20)
    counts, edges = np.histogram(difference[difference != 0], np.linspace(-reach, reach, 21))
    x = svg.Scale((-reach, reach), (LEFT + 10, RIGHT - 10))
    y = svg.Scale((0, float(max(counts.max(), 1))), (128, 40))
    bars = [
        svg.tag(
            "rect",
            x=x(left) + 0.7,
            y=y(count),
            width=x(right) - x(left) - 1.4,
            height=128 - y(count),
            class_=svg.colour(subject.names.index(names[int(left + right < 0)])),
        )
        for left, right, count in zip(edges[:-1], edges[1:], counts.astype(float), strict=True)
        if count
    ]
    a, b = (subject.letter(name) for name in names)
    said = f"mean {number(mean, metric, sign=True)}, n {difference.size}{f', {equal} equal' if equal else ''}"
    return svg.figure(
        [
            svg.text(f"{a} {MINUS} {b}: difference in Dice", 0, 14, "t title"),
            svg.text(said, RIGHT, 14, "t number", "end"),
            svg.x_axis(x, 30, 128),
            svg.tag("g", bars, class_="bars"),
            svg.tag("path", d=f"M{svg.short(x(0.0))} 30V128", class_="zero"),
            svg.tag("path", d=f"M{svg.short(x(mean))} 128l5 -9h-10z", class_="mean"),
            svg.text(f"← {b} better", LEFT, 168, "t label"),
            svg.text(f"{a} better →", RIGHT, 168, "t label", "end"),
        ],
        176,
        f"Histogram of {names[0]} minus {names[1]}, Dice of {structure}: {said}",
    )


def profiles(subject: Subject) -> dict[str, list[Markup]] | None:
    """By structure: precision against recall, and Dice against size."""
    figures = {s: [f for f in (_operating(subject, s), _size(subject, s)) if f] for s in subject.structures}
    return {s: own for s, own in figures.items() if own} or None


def _operating(subject: Subject, structure: str) -> Markup | None:
    """Mean precision against mean recall, with intervals, over curves of equal Dice; None without the two."""
    points = {
        name: pair
        for name in subject.names
        if all(pair := tuple(subject.summary(structure, key, name) for key in ("recall", "precision")))
        and all(s.n for s in pair)
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
        marks.append(
            svg.tag(
                "g",
                [
                    svg.tag("path", d=cross, class_="cross"),
                    svg.tag("circle", cx=cx, cy=cy, r=9, class_="point"),
                    svg.text(subject.letter(name), cx, cy + 4, "t inside", "middle"),
                ],
                class_=svg.colour(subject.names.index(name)),
            )
        )
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
    """Precision p = d r / (2 r - d)."""
    for dice in np.arange(0.1, 1.0, 0.1):
        recall = np.linspace(max(low, dice / (2 - dice)), 1, 60)
        precision = dice * recall / (2 * recall - dice)
        inside = (precision >= low) & (precision <= 1 + 1e-9)
        if inside.sum() > 1:
            path = svg.line((x(r), y(p)) for r, p in zip(recall[inside], precision[inside], strict=True))
            end = x(float(recall[inside][-1])), y(float(precision[inside][-1]))
            yield svg.tag("path", d=path, class_="equal")
            yield svg.text(f"Dice {dice:.1f}", end[0] - 4, end[1] - 4, "t faint", "end")


def _size(subject: Subject, structure: str) -> Markup | None:
    """Dice against the size of the reference, with a running median; None for fewer than three sizes."""
    size = subject.values(structure, "volume_reference").median(axis=1)
    values, there = subject.values(structure, "dice"), size > 0
    if there.sum() < 3:
        return None
    x = svg.Scale((float(size[there].min()) / 1.15, float(size[there].max()) * 1.15), (40, 404), log=True)
    y = svg.Scale(_domain(values[there], BY_KEY["dice"]), (344, 32))
    number_of = {case: i for i, case in enumerate(subject.cases)}
    marks = []
    for i, name in enumerate(subject.names):
        own = values.loc[there, name].dropna()
        order = size[own.index].sort_values(kind="stable").index
        points = [(number_of[c], x(size[c]), y(own[c])) for c in order]
        marks.append(
            svg.tag(
                "g",
                [
                    svg.tag("g", svg.dots(points, 2.2), class_="dots"),
                    svg.tag("path", d=_running_median(size[order], own[order], x, y), class_=f"running r{i % 4}"),
                ],
                class_=svg.colour(i),
            )
        )
    unit = subject.units.volume
    ticks = _log_ticks(x)
    return svg.figure(
        [
            svg.x_axis(x, 32, 344, f"reference volume ({unit}), log scale", ticks),
            svg.y_axis(y, 40, 404, "Dice"),
            *marks,
        ],
        380,
        f"Dice of {structure} against the size of the reference, {int(there.sum())} cases",
        data_s=structure,
        data_k="dice",
    )


def _log_ticks(scale: svg.Scale) -> list[float]:
    """Powers of ten; where these are few also twos and fives, or else round numbers."""
    powers = [m * 10.0**e for e in range(-6, 12) for m in (1, 2, 5)]
    inside = [p for p in powers if scale.low <= p <= scale.high]
    tens = [p for p in inside if math.isclose(math.log10(p), round(math.log10(p)), abs_tol=1e-9)]
    if len(tens) > 2:
        return tens
    return inside if len(inside) > 2 else svg.Scale((scale.low, scale.high), scale.pixels).ticks(4)


def _running_median(size: pd.Series, dice: pd.Series, x: svg.Scale, y: svg.Scale) -> str:
    """Over a seventh of the cases, five at least."""
    width = max(5, len(dice) // 7)
    medians = dice.rolling(width, center=True, min_periods=min(3, len(dice))).median()
    return svg.line((x(s), y(m) if math.isfinite(m) else math.nan) for s, m in zip(size, medians, strict=True))
