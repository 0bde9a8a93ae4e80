"""Sums over cases: per structure and metric, pooled, and with bootstrap intervals of means.

Bootstrap samples depend on the number of cases and the seed only, so that all models and differences of one set of
cases are resampled alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from nnunet_ext.metrics.definitions import COUNTS, METRICS
from nnunet_ext.metrics.lesions import Lesions
from nnunet_ext.metrics.overlap import RATIOS, Overlap, ratio

SAMPLES, LEVEL, SEED = 10_000, 0.95, 0
_BLOCK = 8_000_000  # weights held at a time, 64 MB
INTERVAL = f"bootstrap {LEVEL:.0%} interval of the mean: percentiles of {SAMPLES:,} resamples of cases"


@dataclass(frozen=True)
class Summary:
    """One metric over the cases where it is defined; NaN where it cannot be said.

    Args:
        n, undefined: numbers of cases with and without a value.
        mean, sd, median: of the values; sd with n - 1.
        low, high: see `INTERVAL`; NaN for fewer than two values.
        pooled: the ratio of the summed counts of all cases (micro average); NaN for metrics that are no such ratio.
    """

    n: int
    undefined: int
    mean: float
    sd: float
    median: float
    low: float
    high: float
    pooled: float


@dataclass(frozen=True)
class StructureSummary:
    """One structure over all cases.

    Args:
        cases: number of all cases.
        both_empty: number of cases without the structure in prediction and reference.
        missed: number of cases with it in the reference alone.
        invented: number of cases with it in the prediction alone.
        without: cases whose reference is empty -> what was predicted there, in the unit of volumes.
        metrics: by key.
    """

    cases: int
    both_empty: int
    missed: int
    invented: int
    without: dict[str, float]
    metrics: dict[str, Summary]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> StructureSummary:
        """Sum up the rows of one structure, as `Evaluation.of` returns them."""
        predicted, referred = (rows["tp"] + rows[other] > 0 for other in ("fp", "fn"))
        ratios = pooled(rows)
        return cls(
            cases=len(rows),
            both_empty=int((~predicted & ~referred).sum()),
            missed=int((referred & ~predicted).sum()),
            invented=int((predicted & ~referred).sum()),
            without={str(case): float(volume) for case, volume in rows["volume_prediction"][~referred].items()},
            metrics={m.key: summarise(rows[m.key].to_numpy(), ratios.get(m.key, math.nan)) for m in METRICS},
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the content for JSON."""
        return asdict(self)


def pooled(rows: pd.DataFrame) -> dict[str, float]:
    """Return ratios of the summed counts of all rows, by metric; those whose counts are known for every row."""
    overlap = Overlap(**{key: int(rows[key].sum()) for key in COUNTS})
    ratios = {key: getattr(overlap, key) for key in RATIOS}
    volumes = rows.reindex(columns=["volume_error", "volume_reference"]).sum(skipna=False)
    ratios["relative_volume_error"] = ratio(volumes["volume_error"], volumes["volume_reference"])
    names = ("prediction", "reference", "prediction_found", "reference_found")
    counts = rows.reindex(columns=["lesions_prediction", "lesions_reference"])
    for mask, share in (("prediction", "lesion_precision"), ("reference", "lesion_recall")):
        number = counts[f"lesions_{mask}"]  # a share of lesions times their number is the number that was found
        counts[f"{mask}_found"] = (rows.get(share, math.nan) * number).where(number > 0, number)
    lesions = counts.sum(skipna=False)
    if lesions.notna().all():
        found = Lesions(**dict(zip(names, map(round, lesions), strict=True)))
        ratios |= {f"lesion_{key}": getattr(found, key) for key in ("precision", "recall", "f1")}
    return ratios


def summarise(values: Sequence[float] | np.ndarray, pooled: float = math.nan) -> Summary:
    """Sum up one metric; NaN among the values is undefined, counted and left out."""
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    n = defined.size
    low, high = mean_intervals(defined[:, None])[:, 0].tolist()
    return Summary(
        n=n,
        undefined=values.size - n,
        mean=float(defined.mean()) if n else math.nan,
        sd=float(defined.std(ddof=1)) if n > 1 else math.nan,
        median=float(np.median(defined)) if n else math.nan,
        low=low,
        high=high,
        pooled=pooled,
    )


def mean_intervals(values: np.ndarray, *, level: float = LEVEL, seed: int = SEED) -> np.ndarray:
    """Return percentile bootstrap intervals of the means of columns, over the rows where a column is defined.

    Shapes: (n, k) -> (2, k), low and high; NaN for fewer than two defined rows.
    """
    intervals = np.full((2, values.shape[1]), np.nan)
    defined = ~np.isnan(values)
    for rows in np.unique(defined, axis=1).T:
        columns = (defined == rows[:, None]).all(axis=0)
        if rows.sum() > 1:
            means = bootstrap_means(values[np.ix_(rows, columns)], seed=seed)
            intervals[:, columns] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return intervals


def bootstrap_means(values: np.ndarray, *, samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """Return the means of columns in bootstrap samples of rows; all columns share the samples.

    Shapes: (n, k) -> (samples, k).
    """
    return np.concatenate([weights @ values for weights in _weights(len(values), samples, seed)])


def _weights(n: int, samples: int, seed: int) -> Iterable[np.ndarray]:
    """Yield how often each row is in each sample, divided by n, as arrays of shape (block, n)."""
    return _one_block(n, samples, seed) if n * samples <= _BLOCK else _blocks(n, samples, seed)


def _blocks(n: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // n)
    for start in range(0, samples, block):
        size = min(block, samples - start)
        drawn = random.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n) / n


@lru_cache(maxsize=2)  # metrics and pairs mostly have the same cases; drawing takes far longer than multiplying
def _one_block(n: int, samples: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_blocks(n, samples, seed))
