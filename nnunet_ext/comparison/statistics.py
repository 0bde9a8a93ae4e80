"""Statistics of paired values: tests, corrections, effects, ranks. Pure functions of arrays.

A case is the unit: it is what gets paired, resampled and counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

SAMPLES, SEED = 10_000, 0  # of the bootstrap
_BLOCK = 8_000_000  # weights held at a time, 64 MB
DIGITS = 12  # relative; what differs less is equal: a mean over repeats is no more precise
EXACT_UP_TO = 50  # differing pairs; scipy's own limit


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a - b, where equal values and equal differences stay equal in spite of floating-point rounding.

    Shapes: (n,) both and result; NaN where either is.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return _rounded(a - b, np.concatenate([a, b]))


def _rounded(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return values without the digits beyond `DIGITS` of the largest of `like`."""
    largest = np.abs(like[np.isfinite(like)]).max(initial=0)
    if not largest:
        return values
    scale = 10.0 ** math.ceil(math.log10(largest))  # of ten, so that short decimals lie on the grid, not between
    return np.round(values / scale, DIGITS) * scale


def signed_rank_p(difference: np.ndarray) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test.

    Zeros are left out, as Wilcoxon did. Up to 50 other pairs the p-value is exact, ties included: the part of all
    2^n choices of signs that are as far from the middle, twice the smaller tail. Without ties this is scipy's "exact".
    Beyond, it is scipy's normal approximation with correction for ties.

    Shapes: (n,), no NaN. One if nothing differs.
    """
    d = difference[difference != 0]
    if d.size > EXACT_UP_TO:
        return float(stats.wilcoxon(d).pvalue)
    ranks = np.rint(2 * stats.rankdata(np.abs(d))).astype(int)  # doubled, since tied ranks are halves
    ways, observed = _ways(ranks), ranks[d > 0].sum()
    tail = min(ways[: observed + 1].sum(), ways[observed:].sum())
    return float(min(1.0, 2 * tail / 2.0**d.size))


def _ways(ranks: np.ndarray) -> np.ndarray:
    """Return the number of choices of signs by their sum of positive ranks; exact in float64 up to 2^53."""
    ways = np.zeros(ranks.sum() + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    return ways


class Shift(NamedTuple):
    """By how much paired values differ, and the interval that belongs to `signed_rank_p`.

    Args:
        estimate: Hodges and Lehmann's: the median of the means of all pairs of differences.
        low, high: the ends; both NaN where so few cases bound nothing. Zero as an end is not part of the interval if
            the test rejects it.
    """

    estimate: float
    low: float
    high: float


def shift(difference: np.ndarray, alpha: float) -> Shift:
    """Return the differences from which `signed_rank_p` does not tell the data at a level of significance.

    Its ends are those of the shifts that the test accepts. Differences of which many are equal, or zero, make the test
    at zero another one than those next to it; it alone decides on which side of zero the interval is, so that test
    and interval never contradict each other: p < alpha if and only if zero is left out.

    Shapes: (n,), no NaN, one at least.

    Args:
        alpha: one minus the level of the interval.
    """
    means = np.concatenate([difference[i] + difference[i:] for i in range(difference.size)]) / 2
    estimate, cut = float(np.median(means)), _accepted_from(difference.size, alpha)
    if not cut:
        return Shift(estimate, math.nan, math.nan)
    low, high = np.partition(means, (cut - 1, -cut))[[cut - 1, -cut]].tolist()
    if signed_rank_p(difference) >= alpha:
        low, high = min(low, 0.0), max(high, 0.0)
    elif rank_biserial(difference) > 0:
        low, high = max(low, 0.0), max(high, 0.0)
    else:
        low, high = min(low, 0.0), min(high, 0.0)
    return Shift(min(max(estimate, low), high), low, high)


def _accepted_from(n: int, alpha: float) -> int:
    """Return the smallest sum of ranks of n untied differences at which `signed_rank_p` is not below alpha.

    So many means of pairs, from either end, lie outside of the interval or are its end; zero if it has no ends.
    """
    if n <= EXACT_UP_TO:
        return int(np.searchsorted(2 * _untied_tail(n), alpha))
    middle, sd = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return max(0, math.ceil(middle - float(stats.norm.isf(alpha / 2)) * sd))


@cache
def _untied_tail(n: int) -> np.ndarray:
    """Return the probability of each sum of positive ranks, or a smaller one, of n untied differences."""
    tail: np.ndarray = np.cumsum(_ways(np.arange(1, n + 1))) / 2.0**n
    return tail


def smallest_p(n: int) -> float:
    """Return the smallest p-value that `signed_rank_p` has for n differing pairs: all differences with one sign."""
    return min(1.0, 2.0 ** (1 - n))


def pairs_needed(family: int, alpha: float) -> int:
    """Return how many differing pairs it takes for `family` tests to be able to pass Holm's correction at `alpha`."""
    return next(n for n in range(2, 10_000) if family * smallest_p(n) < alpha)


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p-values after Holm's correction; NaN stays NaN and does not count as a test.

    Never smaller than what goes in, in the same order, at most 1, and non-decreasing in every p: the correction of the
    smallest attainable p-values is the smallest attainable corrected one.
    """
    corrected: np.ndarray = np.minimum(_holm_steps(np.asarray(p, dtype=float)), 1)
    return corrected


def holm_alphas(p: Sequence[float], alpha: float) -> np.ndarray:
    """Return the level at which Holm's correction holds each test: p is below it where `holm` is below alpha.

    It is alpha for a single test, and between alpha / tests and alpha for several.
    """
    values = np.asarray(p, dtype=float)
    tests = max(int(np.count_nonzero(~np.isnan(values))), 1)
    with np.errstate(invalid="ignore"):
        share = values / _holm_steps(values)
    levels: np.ndarray = alpha * np.where(values == 0, 1 / tests, share)  # zero: too small for a float
    return levels


def _holm_steps(values: np.ndarray) -> np.ndarray:
    """Return `holm` before it is cut off at 1."""
    corrected = np.full(values.shape, np.nan)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN is sorted to the end
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(order.size, 0, -1))
    return corrected


def rank_biserial(difference: np.ndarray) -> float:
    """Return the matched-pairs rank-biserial correlation: (R+ - R-) / (R+ + R-) of the signed ranks, without zeros.

    1 where all differences are positive, -1 where all are negative, 0 where nothing differs.
    """
    d = difference[difference != 0]
    ranks = stats.rankdata(np.abs(d))
    return float((ranks * np.sign(d)).sum() / ranks.sum()) if d.size else 0.0


def friedman(values: np.ndarray) -> tuple[float, float]:
    """Return Friedman's statistic and its p-value by the chi-squared approximation, with correction for ties.

    Shapes: (cases, models), three models or more, no NaN. (0, 1) if no case tells the models apart.
    """
    values = _rounded(values, values.ravel())
    if (values == values[:, :1]).all():
        return 0.0, 1.0
    statistic, p = stats.friedmanchisquare(*values.T)
    return float(statistic), float(p)


def smallest_friedman_p(cases: int, models: int) -> float:
    """Return the p-value of `friedman` where every case has the same order."""
    return float(stats.chi2.sf(cases * (models - 1), models - 1))


def bootstrap_means(values: np.ndarray, *, samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """Return the means of columns in bootstrap samples of rows; all columns share the samples.

    Samples depend on the number of rows and the seed only, so that all metrics of one set of cases are resampled alike.

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


@lru_cache(maxsize=2)  # metrics mostly have the same cases; drawing takes far longer than multiplying
def _one_block(n: int, samples: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_blocks(n, samples, seed))


@dataclass(frozen=True)
class RankStability:
    """The order of models by their means, and what becomes of it in bootstrap samples of the cases.

    After Wiesenfarth et al. 2021 (challengeR), aggregate then rank.

    Args:
        ranks: (models,) from 1, best first; equal means share the better rank.
        shares: (models, models): the part of the samples in which a model has rank 1, 2, ...; where means are equal
            the models have an equal part of each of their ranks.
        mean_rank: (models,) over the samples.
        tau: (samples,) Kendall's tau-b between the ranks of all cases and of a sample; NaN where either has ties only.
    """

    ranks: np.ndarray
    shares: np.ndarray
    mean_rank: np.ndarray
    tau: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, better: int, *, samples: int = SAMPLES, seed: int = SEED) -> RankStability:
        """Rank the columns of values.

        Shapes: (cases, models), no NaN.

        Args:
            better: 1 if larger is better, -1 if smaller is.
        """
        models = values.shape[1]
        means = np.vstack([values.mean(axis=0), bootstrap_means(values, samples=samples, seed=seed)])
        scores = -better * _rounded(means, values.ravel())
        first, last = (stats.rankdata(scores, method=ties, axis=1).astype(int) for ties in ("min", "max"))
        sampled, part = first[1:], 1 / (last - first + 1)[1:]
        places = np.arange(1, models + 1)
        shares = np.stack([((sampled <= r) & (r <= last[1:])) * part for r in places]).mean(axis=1).T
        return cls(first[0], shares, shares @ places, _tau(first[0], sampled))


def _tau(full: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b between one ranking, (models,), and many, (samples, models)."""
    i, j = np.triu_indices(full.size, 1)
    a, b = np.sign(full[i] - full[j]), np.sign(sampled[:, i] - sampled[:, j])
    untied = np.sqrt(np.count_nonzero(a) * np.count_nonzero(b, axis=1))
    tau: np.ndarray = np.divide(b @ a, untied, out=np.full(len(b), np.nan), where=untied > 0)
    return tau
