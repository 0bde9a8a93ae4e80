"""Overlap metrics against independent libraries and by their definitions."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from nnunet_ext.metrics.overlap import Overlap

masks = st.integers(1, 3).flatmap(
    lambda dims: npst.array_shapes(min_dims=dims, max_dims=dims, max_side=6).flatmap(
        lambda shape: st.tuples(npst.arrays(bool, shape), npst.arrays(bool, shape))
    )
)


@given(masks)
def test_equal_to_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, reference = pair
    overlap = Overlap.of(prediction, reference)
    arguments = {"y_true": reference.ravel(), "y_pred": prediction.ravel(), "zero_division": np.nan}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for ours, theirs in ((overlap.precision, precision_score), (overlap.recall, recall_score)):
            assert ours == pytest.approx(theirs(**arguments), nan_ok=True)
        if prediction.any() or reference.any():
            assert overlap.dice == pytest.approx(f1_score(**arguments))
    assert overlap.tp + overlap.fp + overlap.fn + overlap.tn == prediction.size


@given(masks)
def test_symmetry_and_pooling(pair: tuple[np.ndarray, np.ndarray]) -> None:
    there, back = Overlap.of(*pair), Overlap.of(*reversed(pair))
    assert there.dice == pytest.approx(back.dice, nan_ok=True)
    assert there.precision == pytest.approx(back.recall, nan_ok=True)
    both = Overlap.of(np.concatenate(pair), np.concatenate(pair[::-1]))
    assert vars(both) == {key: vars(there)[key] + vars(back)[key] for key in vars(both)}


def test_equal_to_simpleitk() -> None:
    rng = np.random.default_rng(0)
    prediction, reference = (rng.random((2, 4, 20, 30)) > 0.6).astype(np.uint8)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.GetImageFromArray(reference), sitk.GetImageFromArray(prediction))
    assert Overlap.of(prediction, reference).dice == pytest.approx(overlap.GetDiceCoefficient(1))


@pytest.mark.parametrize(
    ("predicted", "referred", "dice", "precision", "recall"),
    [(0, 0, math.nan, math.nan, math.nan), (0, 1, 0, math.nan, 0), (1, 0, 0, 0, math.nan), (1, 1, 1, 1, 1)],
)
def test_empty_masks(predicted: int, referred: int, dice: float, precision: float, recall: float) -> None:
    overlap = Overlap.of(np.full((2, 2), predicted), np.full((2, 2), referred))
    assert (overlap.dice, overlap.precision, overlap.recall) == pytest.approx((dice, precision, recall), nan_ok=True)


def test_labels_above_one_are_foreground() -> None:
    assert Overlap.of(np.array([0, 2, 2]), np.array([0, 1, 3])) == Overlap(tp=2, fp=0, fn=0, tn=1)


def test_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: prediction \(2, 2\), reference \(2, 3\)"):
        Overlap.of(np.zeros((2, 2)), np.zeros((2, 3)))


@given(masks)
def test_iou_and_specificity(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, reference = pair
    overlap = Overlap.of(prediction, reference)
    if prediction.any() or reference.any():
        assert overlap.iou == pytest.approx(jaccard_score(reference.ravel(), prediction.ravel()))
        assert overlap.iou == pytest.approx(overlap.dice / (2 - overlap.dice))
    else:
        assert math.isnan(overlap.iou)
    inverted = Overlap.of(~prediction, ~reference)
    assert overlap.specificity == pytest.approx(inverted.recall, nan_ok=True)


def test_a_part_of_the_image_with_all_foreground() -> None:
    p, r = np.zeros((2, 10, 10), bool)
    p[3:6, 3:6] = r[4:7, 4:7] = True
    assert Overlap.of(p[2:8, 2:8], r[2:8, 2:8], voxels=100) == Overlap.of(p, r)
