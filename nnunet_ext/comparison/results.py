"""What a comparison consists of: what each model reached, what sets two of them apart, how firm their order is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from nnunet_ext.comparison.model_runs import ModelRuns
from nnunet_ext.evaluation.aggregate import Summary
from nnunet_ext.metrics.definitions import PRIMARY, Metric, Units

Finding = Literal["better", "worse", "mixed", "none", "equal", "too few", "undefined"]


@dataclass(frozen=True, kw_only=True)
class ModelSummary(Summary):
    """One model's values of one metric on one structure, over the cases where all of its repeats are defined.

    `pooled` is the mean over repeats.

    Args:
        repeat_means: the mean over cases, of each repeat; one number without repeats.
        repeat_sd: their standard deviation, with n - 1; NaN without repeats.
    """

    repeat_means: tuple[float, ...]
    repeat_sd: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Model `a` against model `b`, case by case.

    Args:
        n, undefined: cases where both have a value, and where one has none.
        differing: of the n, those with different values; the others say nothing to the test and are left out of it.
        difference: mean of a - b, in the metric's own unit.
        typical, low, high: Hodges and Lehmann's estimate of a - b (the median of the means of all pairs of
            differences), and its interval: the shifts that the test of `p` accepts. NaN where it bounds nothing.
        level: of the interval, such that it leaves out 0 where, and only where, `p_holm` is significant: 1 - alpha for
            one test, up to 1 - alpha / tests for several.
        p, p_holm: two-sided Wilcoxon signed-rank test; the same after Holm's correction, which is for all pairs and
            structures in the primary metric, and for the pairs of one structure and metric in others.
        attainable: the smallest `p_holm` that any values in as many differing cases could give.
        effect: matched-pairs rank-biserial correlation, -1 to 1, positive where a is the better one.
        wins, ties, losses: cases in which a is better than, equal to, worse than b.
        same_prompts: whether both were prompted alike; if not, they are not ranked together.
        finding: "better" or "worse" (a than b), "mixed" (significant, but the mean points the other way), "none" (no
            difference shown), "equal" (in every case), "too few" (no values could be significant), "undefined".
        verdict: the finding as one sentence.
    """

    a: str
    b: str
    n: int
    undefined: int
    differing: int
    difference: float
    typical: float
    low: float
    high: float
    level: float
    p: float
    p_holm: float
    attainable: float
    effect: float
    wins: int
    ties: int
    losses: int
    same_prompts: bool
    finding: Finding
    verdict: str

    @property
    def differ(self) -> bool:
        """Whether the corrected test finds a difference, whichever way it points."""
        return self.finding in ("better", "worse", "mixed")


@dataclass(frozen=True, kw_only=True)
class Friedman:
    """Friedman's test of no difference between three or more models, by the chi-squared approximation."""

    statistic: float
    p: float
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The models of one prompt source in order of their means, over the cases where all have a value.

    Args:
        prompts: "none", "file" or "reference".
        n, undefined: cases that all models have a value for, and others.
        ranks: model -> rank, best first; equal means share the better rank.
        shares: models x ranks 1, 2, ...: the part of the bootstrap samples (of cases) in which a model has a rank;
            equal means divide their ranks among them.
        mean_rank: model -> mean of its ranks over the bootstrap samples.
        tau, tau_low, tau_high: Kendall's tau-b between `ranks` and the bootstrap ranks: mean, and the 2.5 % and 97.5 %
            quantiles.
        friedman: None for two models.
        verdict: how firm the order is, as one sentence.
    """

    prompts: str
    n: int
    undefined: int
    ranks: dict[str, int]
    shares: pd.DataFrame
    mean_rank: dict[str, float]
    tau: float
    tau_low: float
    tau_high: float
    friedman: Friedman | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything about one structure and metric.

    Args:
        primary: whether the metric is the primary one; findings by all others are exploratory.
        unit: of the values; empty for ratios and counts.
        label: the metric's name in tables, with its unit: "HD95 (mm)".
        values: cases x models, NaN where undefined; the mean over repeats.
        summaries: by model.
        pairs: all pairs of models, the earlier named first; with a baseline, every other model against it. None where
            the metric has no better direction.
        rankings: one per prompt source with two or more models; none where the metric is not to be ranked by.
        best: models to mark: those whose mean reads the same as the best of their prompt source, over the cases where
            all of it have a value.
    """

    structure: str
    metric: Metric
    primary: bool
    unit: str
    label: str
    values: pd.DataFrame
    summaries: dict[str, ModelSummary]
    pairs: tuple[Pair, ...]
    rankings: tuple[Ranking, ...]
    best: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two or more models on the same cases.

    Args:
        structures: name -> labels.
        prompts: prompt source -> models; more than one source means that not all models are ranked together.
        results: (structure, metric key) -> result, in the order of tables.
        primary: key of the metric that findings are about.
        baseline: the model that all others are compared with; None for all pairs.
        alpha: significance level after correction.
        notes: what a reader must know, a sentence each.
    """

    models: tuple[ModelRuns, ...]
    cases: tuple[str, ...]
    structures: dict[str, tuple[int, ...]]
    units: Units
    nsd_tolerance: float | None
    prompts: dict[str, tuple[str, ...]]
    results: dict[tuple[str, str], Result]
    primary: str = PRIMARY
    baseline: str | None = None
    alpha: float = 0.05
    notes: tuple[str, ...] = ()

    def of(self, structure: str) -> dict[str, Result]:
        return {metric: result for (name, metric), result in self.results.items() if name == structure}
