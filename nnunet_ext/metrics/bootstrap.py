"""The bootstrap of means over cases: intervals, and means of the samples.

Samples depend on the number of cases and the seed only, so that all models and differences of one set of cases are
resampled alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

SAMPLES, LEVEL, SEED = 10_000, 0.95, 0
_BLOCK = 8_000_000  # weights held at a time, 64 MB


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
