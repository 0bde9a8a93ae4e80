"""Sums over cases: per structure and metric, and pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.metrics.bootstrap import LEVEL, SAMPLES, mean_intervals
from nnunet_ext.metrics.definitions import COUNTS, METRICS
from nnunet_ext.metrics.lesions import Lesions
from nnunet_ext.metrics.overlap import Overlap, ratio

INTERVAL = f"bootstrap {LEVEL:.0%} interval of the mean: percentiles of {SAMPLES:,} resamples of cases"
_OVERLAPS = ("dice", "iou", "precision", "recall", "specificity")


@dataclass(frozen=True)
class Summary:
    """One metric over the cases where it is defined; NaN where it cannot be said.

    Args:
        n, undefined: cases with and without a value.
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


class StructureSummary(NamedTuple):
    """One structure over all cases.

    Args:
        cases: how many.
        both_empty: cases without the structure in both.
        missed: cases with it in the reference alone.
        invented: cases with it in the prediction alone.
        without: cases whose reference is empty -> what was predicted there, in the unit of volumes.
        metrics: by key.
    """

    cases: int
    both_empty: int
    missed: int
    invented: int
    without: dict[str, float]
    metrics: dict[str, Summary]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "metrics": {key: asdict(summary) for key, summary in self.metrics.items()}}


def aggregate(evaluation: Evaluation) -> dict[str, StructureSummary]:
    """Every structure's sums, by its name."""
    return {name: _structure(evaluation.of(name)) for name in evaluation.structures}


def _structure(rows: pd.DataFrame) -> StructureSummary:
    predicted, referred = (rows["tp"] + rows[other] > 0 for other in ("fp", "fn"))
    ratios = pooled(rows)
    return StructureSummary(
        cases=len(rows),
        both_empty=int((~predicted & ~referred).sum()),
        missed=int((referred & ~predicted).sum()),
        invented=int((predicted & ~referred).sum()),
        without={case: float(volume) for case, volume in rows["volume_prediction"][~referred].items()},
        metrics={m.key: summarise(rows[m.key].to_numpy(), ratios.get(m.key, float("nan"))) for m in METRICS},
    )


def pooled(rows: pd.DataFrame) -> dict[str, float]:
    """Ratios of summed counts, by metric; of those that the rows have the counts for."""
    overlap = Overlap(**{key: int(rows[key].sum()) for key in COUNTS})
    ratios = {key: getattr(overlap, key) for key in _OVERLAPS}
    if "lesions_reference" in rows:
        lesions = Lesions(
            prediction=int(rows["lesions_prediction"].sum()),
            reference=int(rows["lesions_reference"].sum()),
            # a share of lesions times their number is the number that was found
            prediction_found=round(float((rows["lesion_precision"] * rows["lesions_prediction"]).sum())),
            reference_found=round(float((rows["lesion_recall"] * rows["lesions_reference"]).sum())),
        )
        ratios |= {f"lesion_{key}": getattr(lesions, key) for key in ("precision", "recall", "f1")}
        volumes = (float(rows[key].sum()) for key in ("volume_error", "volume_reference"))
        ratios["relative_volume_error"] = ratio(*volumes)
    return ratios


def summarise(values: Sequence[float] | np.ndarray, pooled: float = float("nan")) -> Summary:
    """Sum up one metric; NaN among the values is undefined, counted and left out."""
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    n = defined.size
    low, high = mean_intervals(defined[:, None])[:, 0].tolist()
    return Summary(
        n=n,
        undefined=values.size - n,
        mean=float(defined.mean()) if n else float("nan"),
        sd=float(defined.std(ddof=1)) if n > 1 else float("nan"),
        median=float(np.median(defined)) if n else float("nan"),
        low=low,
        high=high,
        pooled=pooled,
    )
