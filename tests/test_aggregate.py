"""Sums over cases."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from scipy import stats

from nnunet_ext.evaluation.aggregate import summarise
from nnunet_ext.evaluation.evaluation import Evaluation, table_of
from nnunet_ext.metrics.definitions import BY_KEY, METRICS, PHYSICAL
from nnunet_ext.metrics.measure import Ruler, measure
from nnunet_ext.metrics.overlap import MaskPair, Overlap


def mask(*boxes: tuple[int, int]) -> np.ndarray:
    """Squares of 3 x 3 on one slice, at these corners."""
    out = np.zeros((1, 30, 30), bool)
    for y, x in boxes:
        out[0, y : y + 3, x : x + 3] = True
    return out


PAIRS = {  # prediction, reference
    "half": (mask((0, 0)), mask((0, 0), (10, 10))),
    "equal": (mask((5, 5)), mask((5, 5))),
    "missed": (mask(), mask((5, 5))),
    "invented": (mask((1, 1), (20, 20)), mask()),
    "nothing": (mask(), mask()),
}


def evaluation(*cases: str) -> Evaluation:
    scale = Ruler((10, 1, 1), PHYSICAL, 2)
    rows = [
        {"case": c, "structure": "tumour"}
        | {
            k if k in ("tp", "fp", "fn", "tn") else PHYSICAL.column(k): v
            for k, v in {**measure(MaskPair.of(*PAIRS[c], scale.spacing), scale), "hd_rows": math.nan}.items()
        }
        for c in cases
    ]
    return Evaluation(table=table_of(rows, PHYSICAL), units=PHYSICAL, structures={"tumour": (1,)})


def test_every_metric_is_summed_up() -> None:
    found = evaluation(*PAIRS).summaries["tumour"]
    assert list(found.metrics) == [m.key for m in METRICS]
    for metric in METRICS:
        values = evaluation(*PAIRS).of("tumour")[metric.key].dropna()
        summary = found.metrics[metric.key]
        assert (summary.n, summary.undefined) == (len(values), len(PAIRS) - len(values))
        if len(values):
            assert summary.mean == pytest.approx(values.mean())
            assert summary.median == pytest.approx(values.median())
        if len(values) > 1:
            assert summary.sd == pytest.approx(values.std())
            assert summary.low <= summary.mean <= summary.high


def test_empty_masks_are_counted_and_listed_apart() -> None:
    found = evaluation(*PAIRS).summaries["tumour"]
    assert (found.cases, found.both_empty, found.missed, found.invented) == (5, 1, 1, 1)
    assert found.without == {"invented": pytest.approx(18 * 10 / 1000), "nothing": 0}
    assert found.metrics["dice"].mean == pytest.approx((2 / 3 + 1 + 0 + 0) / 4)
    assert found.metrics["hd"].n == 2


def test_pooled_values_are_those_of_all_voxels_and_lesions_together() -> None:
    found = evaluation(*PAIRS).summaries["tumour"].metrics
    overlap = Overlap.of(*(np.stack(masks) for masks in zip(*PAIRS.values(), strict=True)))
    for key in ("dice", "iou", "precision", "recall", "specificity"):
        assert found[key].pooled == pytest.approx(getattr(overlap, key))
    assert found["lesion_precision"].pooled == pytest.approx(2 / 4)
    assert found["lesion_recall"].pooled == pytest.approx(2 / 4)
    assert found["lesion_f1"].pooled == pytest.approx(1 / 2)
    assert found["relative_volume_error"].pooled == pytest.approx(0)
    assert math.isnan(found["hd95"].pooled)


@pytest.mark.parametrize(
    ("case", "dice", "f1"), [("nothing", math.nan, math.nan), ("missed", 0, 0), ("invented", 0, 0)]
)
def test_pooled_values_of_one_empty_case(case: str, dice: float, f1: float) -> None:
    found = evaluation(case).summaries["tumour"].metrics
    assert (found["dice"].pooled, found["lesion_f1"].pooled) == pytest.approx((dice, f1), nan_ok=True)


def test_few_values() -> None:
    nan, dice = math.nan, BY_KEY["dice"]
    assert astuple(summarise(dice, [nan])) == pytest.approx((0, 1, nan, nan, nan, nan, nan, nan), nan_ok=True)
    assert astuple(summarise(dice, [nan, 0.5])) == pytest.approx((1, 1, 0.5, nan, 0.5, nan, nan, nan), nan_ok=True)
    equal = summarise(dice, np.full(4, 0.25))
    assert (equal.low, equal.high, equal.sd) == (0.25, 0.25, 0)


@pytest.mark.parametrize("n", [2, 12, 700])
def test_interval_as_scipy_has_it(n: int) -> None:
    values = np.random.default_rng(n).beta(5, 5, n)
    summary = summarise(BY_KEY["volume_error"], values)
    assert (summary.low, summary.high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval())


def test_no_interval_goes_where_no_value_can_be() -> None:
    few = np.array([0.0, 0.9, 1.0])
    assert summarise(BY_KEY["volume_error"], few).low < 0
    assert (summarise(BY_KEY["dice"], few).low, summarise(BY_KEY["dice"], few).high) == (0, 1)
    assert summarise(BY_KEY["hd95"], few).low == 0
    assert summarise(BY_KEY["hd95"], few).high > 1
