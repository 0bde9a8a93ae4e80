"""One model's values of one metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from nnunet_ext.comparison.records import Summary
from nnunet_ext.comparison.wording import number
from nnunet_ext.evaluation import aggregate
from nnunet_ext.metrics.definitions import Metric


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
    repeats = [table[metric].to_numpy(dtype=float)[defined] for table in tables]
    means = [float(repeat.mean()) if repeat.size else math.nan for repeat in repeats]
    pooled = [aggregate.pooled(table).get(metric, math.nan) for table in tables]
    return Summary(
        **aggregate.summarise(values, float(np.mean(pooled)))._asdict(),
        repeat_means=tuple(means),
        repeat_sd=float(np.std(means, ddof=1)) if len(means) > 1 else math.nan,
    )


def best(values: pd.DataFrame, metric: Metric) -> set[str]:
    """Models to mark: those whose mean reads the same as the best; none without a rival.

    Means are over the cases where all have a value, as in ranks: a model must not win by finding nothing in hard cases.

    Args:
        values: cases x models of one prompt source, NaN where undefined.
    """
    complete = values.dropna()
    if not (metric.ranked and metric.better) or values.shape[1] < 2 or complete.empty:
        return set()
    means = complete.mean()
    top = number(means.max() if metric.better > 0 else means.min(), metric)
    return {name for name, mean in means.items() if number(mean, metric) == top}
