"""How often intervals hold the true value, and tests find what is not there, in simulated cases.

    python benchmarks/interval_coverage.py [--quick]

docs/statistics.md explains what is compared and what follows from it; nnunet_ext.evaluation.intervals holds the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from common import machine, options, save
from scipy.special import expit

from nnunet_ext.comparison.statistics import bootstrap_means, holm, holm_alphas, shift, signed_rank_p
from nnunet_ext.evaluation.intervals import mean_interval

SIZES = (5, 6, 7, 8, 10, 15, 20, 30, 50, 100)
ALPHA = 0.05
MANY = 2_000_000  # values, for the truth

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw values without any peculiarity."""
    return rng.normal(0, 1, shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw values with a long tail, as distances have."""
    return rng.exponential(1, shape)


def dice(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw Dice of easy and hard cases."""
    return expit(rng.normal(1.8, 1, shape))


def dice_differences(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw differences in Dice of two models on the same easy and hard cases, the first somewhat better."""
    case = rng.normal(1.8, 0.9, shape)
    return expit(case + 0.35 + rng.normal(0, 0.45, shape)) - expit(case + rng.normal(0, 0.45, shape))


def failures(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw Dice of which one in twenty is zero."""
    return np.where(rng.random(shape) < 0.05, 0, expit(rng.normal(2.2, 0.3, shape)))


def failure_differences(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw differences in Dice of a model that is a little better and fails in one case of twenty."""
    return rng.normal(0.01, 0.02, shape) - 0.8 * (rng.random(shape) < 0.05)


VALUES: dict[str, Draw] = {"normal": normal, "skewed": skewed, "dice": dice, "failures": failures}
DIFFERENCES: dict[str, Draw] = VALUES | {"dice": dice_differences, "failures": failure_differences}


def percentile(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile bootstrap's intervals of the means of columns, which reports showed before."""
    low, high = np.quantile(bootstrap_means(values, samples=2000), [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return low, high


def held(intervals: Any, truth: float) -> float:
    """Return the part of intervals, shape (samples, 2), that hold the truth; one without an end holds everything."""
    low, high = np.asarray(intervals).T
    return float(np.mean(~((truth < low) | (truth > high))))


def coverage(samples: int) -> tuple[dict[str, Any], list[list[object]]]:
    """Return the coverage by method, number of cases and kind of values, and the rows of the table."""
    rng = np.random.default_rng(0)
    methods = ("mean: t", "mean: bootstrap", "difference: Hodges-Lehmann", "difference: t", "difference: bootstrap")
    found: dict[str, Any] = {method: {n: {} for n in SIZES} for method in methods}
    for kind in VALUES:
        mean = VALUES[kind](rng, (MANY,)).mean()
        pairs = DIFFERENCES[kind](rng, (MANY, 2))
        typical, average = np.median(pairs.mean(axis=1)), pairs.mean()
        for n in SIZES:
            values, differences = VALUES[kind](rng, (samples, n)), DIFFERENCES[kind](rng, (samples, n))
            shifts = [shift(row, ALPHA)[1:] for row in differences]
            for method, intervals, truth in (
                ("mean: t", [mean_interval(row) for row in values], mean),
                ("mean: bootstrap", np.transpose(percentile(values.T)), mean),
                ("difference: Hodges-Lehmann", shifts, typical),
                ("difference: t", [mean_interval(row) for row in differences], average),
                ("difference: bootstrap", np.transpose(percentile(differences.T)), average),
            ):
                found[method][n][kind] = round(held(intervals, truth), 3)
    rows: list[list[object]] = [
        [method, n, *(f"{share:.3f}" for share in kinds.values())]
        for method in methods
        for n, kinds in found[method].items()
    ]
    return found, rows


def models(rng: np.random.Generator, cases: int, ability: np.ndarray) -> np.ndarray:
    """Draw the Dice of models of an ability (on the scale of logits) on the same cases, shape (cases, models)."""
    return expit(rng.normal(1.8, 0.9, (cases, 1)) + ability + rng.normal(0, 0.45, (cases, ability.size)))


def contradictions(samples: int) -> dict[str, float]:
    """Return the part of pairs of twelve models on 30 cases whose interval contradicts their corrected test."""
    rng = np.random.default_rng(1)
    before, now, significant = [], [], []
    for _ in range(samples):
        values = models(rng, 30, rng.normal(0, 0.15, 12))
        d = np.array([values[:, a] - values[:, b] for a, b in combinations(range(12), 2)])
        p = [signed_rank_p(row) for row in d]
        differ = holm(p) < ALPHA
        low, high = percentile(d.T)
        before.append(differ != ((low > 0) | (high < 0)))
        ends = np.array([shift(row, alpha)[1:] for row, alpha in zip(d, holm_alphas(p, ALPHA), strict=True)])
        now.append(differ != ((ends[:, 0] > 0) | (ends[:, 1] < 0)))
        significant.append(differ)
    shares = {"significant": significant, "bootstrap": before, "Hodges-Lehmann": now}
    return {name: round(float(np.mean(share)), 3) for name, share in shares.items()}


def simultaneous(samples: int) -> dict[str, float]:
    """Return how often intervals of six models' pairs hold their differences: each, and all fifteen at once."""
    rng = np.random.default_rng(2)
    pairs = list(combinations(range(6), 2))
    each: Mapping[str, list[np.ndarray]] = {"corrected": [], "not corrected": []}
    for _ in range(samples):
        ability = rng.normal(0, 0.5, 6)
        values = rng.normal(0, 1, (30, 1)) + ability + rng.normal(0, 1, (30, 6))
        d = [values[:, a] - values[:, b] for a, b in pairs]
        alphas = holm_alphas([signed_rank_p(row) for row in d], ALPHA)
        for name, levels in (("corrected", alphas), ("not corrected", np.full(len(pairs), ALPHA))):
            ends = [shift(row, level)[1:] for row, level in zip(d, levels, strict=True)]
            truths = [ability[a] - ability[b] for a, b in pairs]
            each[name].append(np.array([low <= t <= high for (low, high), t in zip(ends, truths, strict=True)]))
    return {
        f"{name}, {what}": round(float(of(np.array(own))), 3)
        for name, own in each.items()
        for what, of in (("each", np.mean), ("all at once", lambda held: held.all(axis=1).mean()))
    }


def false_findings(samples: int) -> dict[str, dict[int, float]]:
    """Return the part of comparisons of equal models on 30 cases that find anything, by number of models.

    Six metrics: one, a function of it, and four that are correlated with it by 0.6.
    """
    rng = np.random.default_rng(3)
    found: dict[str, dict[int, float]] = {"primary": {}, "any of six": {}}
    for count in (2, 5, 12):
        hits = []
        for _ in range(samples):
            first = models(rng, 30, np.zeros(count))
            scaled = (first - first.mean()) / first.std()
            others = [0.6 * scaled + 0.8 * rng.normal(0, 1, first.shape) for _ in range(4)]
            metrics = [first, first / (2 - first), *others]
            p = [[signed_rank_p(m[:, a] - m[:, b]) for a, b in combinations(range(count), 2)] for m in metrics]
            hits.append([(holm(own) < ALPHA).any() for own in p])
        share = np.array(hits)
        found["primary"][count] = round(float(share[:, 0].mean()), 3)
        found["any of six"][count] = round(float(share.any(axis=1).mean()), 3)
    return found


def main() -> None:
    """Simulate, print, write."""
    args, where = options(__doc__, quick="a twentieth of the samples").parse_args(), machine()
    part = 20 if args.quick else 1
    found, rows = coverage(4000 // part)
    contradict, at_once, findings = (
        contradictions(200 // part),
        simultaneous(1000 // part),
        false_findings(1000 // part),
    )
    notes = [
        f"Part of {4000 // part} samples whose 95 % interval holds the truth: the mean of values or differences for t "
        "and bootstrap, the median of means of pairs (pseudo-median) for Hodges-Lehmann.",
        "",
        f"- twelve models, 30 cases: of all pairs, {contradict['significant']:.1%} differ significantly; interval "
        f"and test contradict each other in {contradict['bootstrap']:.1%} (bootstrap) and "
        f"{contradict['Hodges-Lehmann']:.1%} (Hodges-Lehmann at Holm's level)",
        "- six models, 30 cases, fifteen intervals: "
        + ", ".join(f"{name} {share:.3f}" for name, share in at_once.items()),
        *(
            f"- {count} equal models: something found in {findings['primary'][count]:.1%} by one metric, in "
            f"{findings['any of six'][count]:.1%} by any of six"
            for count in findings["primary"]
        ),
    ]
    save(
        "interval_coverage",
        title="Coverage of intervals, and findings that are none",
        command="python benchmarks/interval_coverage.py",
        notes=notes,
        header=["Interval", "n", *VALUES],
        rows=rows,
        packages=("numpy", "scipy"),
        where=where,
        write=not args.quick,
        samples=4000 // part,
        coverage=found,
        contradictions=contradict,
        simultaneous=at_once,
        false_findings=findings,
    )


if __name__ == "__main__":
    main()
