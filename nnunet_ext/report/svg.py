"""Small figures as SVG text. Colours are CSS classes, so that one figure reads in light, in dark and on paper.

Every figure is as wide as a phone and scales with its column. A mark of one case carries ``data-c``, the number of the
case; the page's script names it, and shows it in all other figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

WIDTH = 420
COLOURS = 8  # classes m0 ... m7 of the style sheet


def tag(name: str, content: Iterable[str] | str = "", /, **attributes: object) -> Markup:
    """Return an element; ``class_`` is class, _ in names becomes -. Values and content are escaped unless `Markup`."""
    inner = Markup().join([content] if isinstance(content, str) else content)
    pairs = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items() if v is not None)
    shown = ((key, px(value) if isinstance(value, float) else value) for key, value in pairs)
    head = "".join(f' {key}="{escape(value)}"' for key, value in shown)
    return Markup(f"<{name}{head}>{inner}</{name}>" if inner else f"<{name}{head}/>")


def px(value: float) -> str:
    """Return a coordinate, to a tenth of a pixel."""
    return f"{round(float(value), 1):g}"


def text(content: str, x: float, y: float, class_: str = "t", anchor: str = "start") -> Markup:
    """Return a line of text; anchor: start, middle or end."""
    return tag(
        "text", content, x=float(x), y=float(y), class_=class_, text_anchor=None if anchor == "start" else anchor
    )


def clipped(content: str, length: int) -> str:
    """Return a text with an ellipsis where it is too long for its place."""
    return content if len(content) <= length else f"{content[: length - 1].rstrip()}…"


def colour(number: int) -> str:
    """Return the class of the n-th model's colour."""
    return f"m{number % COLOURS}"


def figure(content: Iterable[str], height: float, title: str, *, width: float = WIDTH, **attributes: object) -> Markup:
    """Return a figure; the title is what a screen reader says."""
    return tag(
        "svg",
        content,
        viewBox=f"0 0 {px(width)} {px(height)}",
        role="img",
        aria_label=title,
        class_="figure",
        **attributes,
    )


class Scale:
    """Turns values into pixels along one axis; NaN stays NaN.

    Args:
        domain: the lowest and the highest value.
        pixels: where these two lie.
        log: whether the axis is logarithmic; the domain is positive then.
    """

    def __init__(self, domain: tuple[float, float], pixels: tuple[float, float], *, log: bool = False) -> None:
        low, high = domain
        self.log, self.pixels = log, pixels
        self.low, self.high = (low, high) if high > low else (low - 0.5, low + 0.5) if not log else (low / 2, low * 2)

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        start, end = self.pixels
        return start + (end - start) * (value - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """Return round numbers within the domain, evenly spaced.

        On a logarithmic axis, powers of ten; where these are few also twos and fives.
        """
        if self.log:
            inside = [p for e in range(-6, 12) for m in (1, 2, 5) if self.low <= (p := m * 10.0**e) <= self.high]
            tens = [p for p in inside if math.isclose(math.log10(p), round(math.log10(p)), abs_tol=1e-9)]
            if found := next((own for own in (tens, inside) if len(own) > 2), None):
                return found
        slack = 1e-9 * abs(self.high - self.low)
        return [t for t in _round_numbers(self.low, self.high, count) if self.low - slack <= t <= self.high + slack]


def outer(values: Iterable[float], *, zero: bool = True) -> tuple[float, float]:
    """Return a domain that holds the finite values, rounded outwards; from zero on if they are positive."""
    finite = [float(v) for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    ticks = _round_numbers(low, high if high > low else low + 1, 5)
    return ticks[0], ticks[-1]


def _round_numbers(low: float, high: float, count: int) -> list[float]:
    """Return about `count` evenly spaced numbers, the first and the last of which enclose the others."""
    from matplotlib.ticker import MaxNLocator

    return [float(t) for t in MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def x_axis(scale: Scale, top: float, bottom: float, label: str = "", ticks: Sequence[float] | None = None) -> Markup:
    """Return grid lines, numbers below them, and the label below these."""
    marks = scale.ticks() if ticks is None else ticks
    lines = "".join(f"M{px(scale(t))} {px(top)}V{px(bottom)}" for t in marks)
    numbers = [text(_number(t), scale(t), bottom + 14, anchor="middle") for t in marks]
    head = text(label, sum(scale.pixels) / 2, bottom + 31, "t label", "middle") if label else ""
    return Markup().join([tag("path", d=lines, class_="grid"), *numbers, head])


def y_axis(scale: Scale, left: float, right: float, label: str = "", ticks: Sequence[float] | None = None) -> Markup:
    """Return grid lines, numbers to their left, the label above them."""
    marks = scale.ticks() if ticks is None else ticks
    lines = "".join(f"M{px(left)} {px(scale(t))}H{px(right)}" for t in marks)
    numbers = [text(_number(t), left - 6, scale(t) + 4, anchor="end") for t in marks]
    head = text(label, 2, min(scale.pixels) - 10, "t label") if label else ""
    return Markup().join([tag("path", d=lines, class_="grid"), *numbers, head])


def line(points: Iterable[tuple[float, float]]) -> str:
    """Return the path through points; where one is NaN it breaks."""
    path, down = [], False
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            path.append(f"{'L' if down else 'M'}{px(x)} {px(y)}")
            down = True
        else:
            down = False
    return "".join(path)


def dots(points: Iterable[tuple[int, float, float]], radius: float = 2.6) -> Markup:
    """Return a dot per case: (number of the case, x, y)."""
    return Markup("").join(
        Markup(f'<circle cx="{px(x)}" cy="{px(y)}" r="{radius}" data-c="{case}"/>') for case, x, y in points
    )


def _number(value: float) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        exponent = math.floor(math.log10(abs(value)))
        factor = value / 10**exponent
        return f"1e{exponent}" if abs(factor - 1) < 1e-9 else f"{factor:g}e{exponent}"
    return f"{value:g}"
