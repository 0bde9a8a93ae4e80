"""Numbers and findings in words: no more digits than they deserve, one plain sentence per finding."""

from __future__ import annotations

import math
from collections.abc import Iterable

from nnunet_ext.metrics.definitions import Metric, Units

PROMPTS = {"none": "no prompts", "file": "prompts from a file", "reference": "clicks from the reference"}


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first few of them, and how many more there are."""
    names = list(names)
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def unit(metric: Metric, units: Units) -> str:
    """Of a metric's values; empty for ratios and counts."""
    return {"length": units.length, "volume": units.volume}.get(metric.quantity, "")


def label(metric: Metric, units: Units) -> str:
    """A metric's name with its unit, for the head of a column: "HD95 (mm)"."""
    name = unit(metric, units)
    return f"{metric.label} ({name})" if name else metric.label


def number(value: float, metric: Metric, *, sign: bool = False) -> str:
    """Three decimals for a ratio, one for all else; "n/a" where undefined."""
    if not math.isfinite(value):
        return "n/a"
    decimals = 3 if metric.quantity == "ratio" else 1
    value = round(value, decimals) + 0.0  # no -0.0
    return f"{value:{'+' if sign else ''}.{decimals}f}"


def interval(low: float, high: float, metric: Metric) -> str:
    """ "[0.012, 0.050]"; "n/a" where undefined."""
    return f"[{number(low, metric)}, {number(high, metric)}]" if math.isfinite(low) else "n/a"


def p_value(p: float, alpha: float = 0.05) -> str:
    """ "p < .001", "p = .004", "p = .41"; one digit more where rounding would hide on which side of alpha it is."""
    if not math.isfinite(p):
        return "p n/a"
    if p < 0.001:
        return "p < .001"
    if p > 0.99:
        return "p > .99"
    decimals = next((d for d in (3 if p < 0.1 else 2, 3, 4, 5) if (round(p, d) < alpha) == (p < alpha)), 6)
    return f"p = {p:.{decimals}f}".replace(" 0.", " .")


def threshold(alpha: float) -> str:
    """ "p < .05"."""
    return f"p < {alpha:g}".replace(" 0.", " .")


def percent(share: float) -> str:
    """Whole percent; "over 99 %" and "under 1 %" rather than a certainty that is none."""
    if 0.99 < share < 1:
        return "over 99 %"
    if 0 < share < 0.01:
        return "under 1 %"
    return f"{100 * share:.0f} %"
