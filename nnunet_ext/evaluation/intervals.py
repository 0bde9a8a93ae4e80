"""The interval of a mean over cases, and how often intervals hold what they are for."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes half a second to import

LEVEL = 0.95


def mean_interval(values: np.ndarray, bounds: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float]:
    """Return Student's t interval of the mean at `LEVEL`, cut off where no value can be.

    Shapes: (n,), no NaN. NaN for fewer than two values.

    Args:
        bounds: the least and the greatest value that there can be.
    """
    if values.size < 2:
        return math.nan, math.nan
    mean = float(values.mean())
    half = float(stdtrit(values.size - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / math.sqrt(values.size))
    return max(mean - half, bounds[0]), min(mean + half, bounds[1])


class Coverage(NamedTuple):
    """The part of simulated samples whose 95 % interval holds the true value, by what the values are like.

    Args:
        n: number of cases in a sample.
        normal: values are normally distributed.
        skewed: they have a long tail on one side, as distances have.
        dice: they are Dice, bounded by 1, of easy and hard cases.
        failures: they are close together, but one case in twenty fails altogether.
    """

    n: int
    normal: float
    skewed: float
    dice: float
    failures: float


# measured by benchmarks/interval_coverage.py; docs/statistics.md compares them with other intervals
MEAN_COVERAGE: tuple[Coverage, ...] = (
    Coverage(5, 0.953, 0.882, 0.899, 0.424),
    Coverage(6, 0.951, 0.893, 0.899, 0.382),
    Coverage(7, 0.947, 0.886, 0.913, 0.375),
    Coverage(8, 0.951, 0.892, 0.91, 0.378),
    Coverage(10, 0.949, 0.896, 0.917, 0.411),
    Coverage(15, 0.947, 0.912, 0.926, 0.536),
    Coverage(20, 0.949, 0.914, 0.931, 0.629),
    Coverage(30, 0.953, 0.919, 0.937, 0.776),
    Coverage(50, 0.945, 0.937, 0.938, 0.934),
    Coverage(100, 0.954, 0.947, 0.943, 0.896),
)
DIFFERENCE_COVERAGE: tuple[Coverage, ...] = (
    Coverage(6, 0.97, 0.957, 0.96, 0.971),
    Coverage(7, 0.961, 0.946, 0.947, 0.947),
    Coverage(8, 0.964, 0.953, 0.953, 0.959),
    Coverage(10, 0.96, 0.94, 0.949, 0.952),
    Coverage(15, 0.952, 0.947, 0.949, 0.947),
    Coverage(20, 0.947, 0.94, 0.952, 0.948),
    Coverage(30, 0.95, 0.943, 0.952, 0.947),
    Coverage(50, 0.949, 0.952, 0.951, 0.951),
    Coverage(100, 0.95, 0.943, 0.95, 0.947),
)


def coverage(what: Literal["mean", "typical difference"], n: int) -> str:
    """Say how often intervals keep their word with the largest number of cases not above n that was simulated.

    Empty where n is below all of them.
    """
    table = MEAN_COVERAGE if what == "mean" else DIFFERENCE_COVERAGE
    row = next((row for row in reversed(table) if row.n <= n), None)
    if row is None:
        return ""
    normal, skewed, dice, failures = (f"{100 * share:.0f} %" for share in row[1:])
    return (
        f"In simulations of {row.n} cases, a 95 % interval held the {what} in {normal} of samples of normal values, "
        f"{skewed} of skewed ones, {dice} of Dice, and {failures} where one case in twenty fails."
    )
