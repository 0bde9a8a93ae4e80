"""One model's values of one metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from nnunet_ext.evaluation import statistics
from nnunet_ext.evaluation.comparison.records import Summary
from nnunet_ext.evaluation.definitions import COUNTS
from nnunet_ext.evaluation.metrics import Overlap


def mean_over_repeats(tables: Sequence[pd.DataFrame], metric: str) -> np.ndarray:
    """Shapes: (cases,); NaN where a repeat is undefined."""
    return np.mean([table[metric].to_numpy(dtype=float) for table in tables], axis=0)


def summarise(tables: Sequence[pd.DataFrame], metric: str) -> Summary:
    """Over the cases where every repeat is defined.

    Args:
        tables: one per repeat, rows are the same cases.
    """
    values = mean_over_repeats(tables, metric)
    defined = ~np.isnan(values)
    x = values[defined]
    repeat_means = tuple(float(t[metric].to_numpy(dtype=float)[defined].mean()) if x.size else math.nan for t in tables)
    low, high = statistics.mean_intervals(x[:, None])[:, 0] if x.size else (math.nan, math.nan)
    return Summary(
        n=x.size,
        undefined=values.size - x.size,
        mean=float(x.mean()) if x.size else math.nan,
        sd=_sd(x),
        median=float(np.median(x)) if x.size else math.nan,
        low=float(low),
        high=float(high),
        pooled=float(np.mean([_pooled(table, metric) for table in tables])),
        repeat_means=repeat_means,
        repeat_sd=_sd(np.array(repeat_means)),
    )


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if values.size > 1 else math.nan


def _pooled(table: pd.DataFrame, metric: str) -> float:
    """From the summed counts of all cases."""
    return getattr(Overlap(**{key: int(table[key].sum()) for key in COUNTS}), metric, math.nan)
