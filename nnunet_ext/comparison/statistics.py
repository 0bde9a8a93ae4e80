"""Statistics of paired values: tests, corrections, effects, ranks. Pure functions of arrays.

A case is the unit: it is what gets paired, resampled and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nnunet_ext.evaluation.aggregate import SAMPLES, SEED, bootstrap_means

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
    ways = np.zeros(ranks.sum() + 1)  # choices of signs by their sum of positive ranks; exact in float64 up to 2^53
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    observed = ranks[d > 0].sum()
    tail = min(ways[: observed + 1].sum(), ways[observed:].sum())
    return float(min(1.0, 2 * tail / 2.0**d.size))


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
    values = np.asarray(p, dtype=float)
    corrected = np.full(values.shape, np.nan)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN is sorted to the end
    steps = values[order] * np.arange(order.size, 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
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
