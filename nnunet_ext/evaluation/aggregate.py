"""Sums over cases: per structure and metric, and pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from nnunet_ext.evaluation.intervals import mean_interval
from nnunet_ext.metrics.definitions import COUNTS, LESIONS, METRICS, Metric
from nnunet_ext.metrics.lesions import harmonic_mean
from nnunet_ext.metrics.overlap import RATIOS, Overlap, ratio


@dataclass(frozen=True)
class Summary:
    """One metric over the cases where it is defined; NaN where it cannot be said.

    Args:
        n, undefined: numbers of cases with and without a value.
        mean, sd, median: of the values; sd with n - 1.
        low, high: `intervals.mean_interval`; NaN for fewer than two values.
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
            metrics={m.key: summarise(m, rows[m.key].to_numpy(), ratios.get(m.key, math.nan)) for m in METRICS},
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def pooled(rows: pd.DataFrame) -> dict[str, float]:
    """Return ratios of the summed counts of all rows, by metric; those whose counts are known for every row."""
    overlap = Overlap(**{key: int(rows[key].sum()) for key in COUNTS})
    ratios = {key: getattr(overlap, key) for key in RATIOS}
    volumes = rows.reindex(columns=["volume_error", "volume_reference"]).sum(skipna=False)
    ratios["relative_volume_error"] = ratio(volumes["volume_error"], volumes["volume_reference"])
    found = {key: _lesions(rows, key, number) for key, number in LESIONS.items()}
    ratios |= {key: ratio(part, whole) for key, (part, whole) in found.items()}
    for rule in ("", "_touch"):
        keys = [f"lesion_{share}{rule}" for share in ("precision", "recall")]
        unknown = any(math.isnan(part) for key in keys for part in found[key])
        ratios[f"lesion_f1{rule}"] = math.nan if unknown else harmonic_mean(*(ratios[key] for key in keys))
    return ratios


def _lesions(rows: pd.DataFrame, share: str, number: str) -> tuple[float, float]:
    """Return how many lesions of all rows were found, and how many there are; NaN if a row does not say it."""
    shares, numbers = (rows.reindex(columns=[key])[key].astype(float) for key in (share, number))
    found = (shares * numbers).where(numbers != 0, 0.0)  # a share is undefined where there are none
    return float(found.round().sum(skipna=False)), float(numbers.sum(skipna=False))


def summarise(metric: Metric, values: Sequence[float] | np.ndarray, pooled: float = math.nan) -> Summary:
    """Sum up one metric; NaN among the values is undefined, counted and left out."""
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    n = defined.size
    low, high = mean_interval(defined, metric.bounds)
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
