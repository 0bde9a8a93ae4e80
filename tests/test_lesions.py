"""Counting lesions, and slices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import optimize

from nnunet_ext.metrics import lesions as lesions_module
from nnunet_ext.metrics.lesions import Lesions, components
from nnunet_ext.metrics.overlap import Overlap, SliceMeans

volumes = npst.array_shapes(min_dims=3, max_dims=3, max_side=7).flatmap(
    lambda shape: st.tuples(npst.arrays(bool, shape), npst.arrays(bool, shape))
)


any_masks = st.integers(1, 4).flatmap(
    lambda dims: npst.array_shapes(min_dims=dims, max_dims=dims, min_side=0, max_side=6).flatmap(
        lambda shape: npst.arrays(bool, (2, *shape))
    )
)


def by_simpleitk(mask: np.ndarray) -> np.ndarray:
    """Components by a third library."""
    return sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True))


@pytest.mark.parametrize("library", ["connected-components-3d", "scipy"])
@given(pair=volumes)
def test_equal_to_simpleitk(library: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, reference = pair
    with pytest.MonkeyPatch.context() as patch:
        assert lesions_module.CC3D
        patch.setattr(lesions_module, "CC3D", library != "scipy")
        lesions = Lesions.of(prediction, reference)
    p, r = by_simpleitk(prediction), by_simpleitk(reference)
    assert (lesions.prediction, lesions.reference) == (p.max(), r.max())
    assert lesions.prediction_touched == sum(reference[p == k].any() for k in range(1, p.max() + 1))
    assert lesions.reference_touched == sum(prediction[r == k].any() for k in range(1, r.max() + 1))


@settings(deadline=None)
@given(pair=volumes, iou=st.sampled_from([0.1, 0.25, 0.5, 0.75]))
def test_the_most_pairs_are_matched_by_a_dense_assignment(pair: tuple[np.ndarray, np.ndarray], iou: float) -> None:
    p, r = (by_simpleitk(mask) for mask in pair)
    masks = [[labels == k for k in range(1, labels.max() + 1)] for labels in (p, r)]
    ious = np.array([[(a & b).sum() / (a | b).sum() for b in masks[1]] for a in masks[0]]).reshape(p.max(), r.max())
    near = ious >= iou
    chosen = optimize.linear_sum_assignment(near * (1000 + ious), maximize=True)
    lesions = Lesions.of(*pair, iou=iou, spacing=(1, 1, 1))
    assert lesions.matched == near[chosen].sum()
    assert lesions.by_size is not None
    assert np.sum(lesions.by_size, axis=0).tolist() == [r.max(), lesions.matched]


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(any_masks)
def test_both_libraries_agree(masks: np.ndarray) -> None:
    """In any number of axes, on empty arrays, lines and views; labels may have another order."""
    for p, r in (masks, masks[..., ::2], masks.swapaxes(1, -1)):
        with pytest.MonkeyPatch.context() as patch:
            found, (labels, number) = Lesions.of(p, r), components(p)
            patch.setattr(lesions_module, "CC3D", False)
            assert Lesions.of(p, r) == found
            other, other_number = components(p)
        assert ((labels > 0) == p).all()
        assert len(set(zip(labels[p], other[p], strict=True))) == number == other_number


@given(volumes)
def test_swapping_the_masks_swaps_precision_and_recall(pair: tuple[np.ndarray, np.ndarray]) -> None:
    there, back = Lesions.of(*pair), Lesions.of(*reversed(pair))
    assert there.precision == pytest.approx(back.recall, nan_ok=True)
    assert there.f1 == pytest.approx(back.f1, nan_ok=True)


def test_corners_connect_and_one_voxel_touches() -> None:
    reference = np.zeros((3, 9, 9), bool)
    reference[0, 0, 0] = reference[1, 1, 1] = True  # one lesion
    reference[1, 5, 5] = True  # another, missed
    prediction = np.zeros_like(reference)
    prediction[1, 1:4, 1:4] = True
    prediction[2, 8, 8] = True  # made up
    prediction[0, 7, 0] = True  # as well
    lesions = Lesions.of(prediction, reference)
    assert lesions == Lesions(prediction=3, reference=2, matched=1, prediction_touched=1, reference_touched=1)
    assert (lesions.precision, lesions.recall, lesions.false_positives) == (1 / 3, 1 / 2, 2)
    assert lesions.f1 == lesions.f1_touch == pytest.approx(2 / 5)
    strict = Lesions.of(prediction, reference, iou=0.11)  # one of its ten voxels is shared
    assert (strict.matched, strict.f1, strict.f1_touch) == (0, 0, pytest.approx(2 / 5))


def test_one_prediction_over_two_lesions_finds_one() -> None:
    reference = np.array([[1, 0, 1]], bool)
    lesions = Lesions.of(np.ones_like(reference), reference)
    assert (lesions.precision, lesions.recall, lesions.reference) == (1, 1 / 2, 2)
    assert (lesions.precision_touch, lesions.recall_touch) == (1, 1)


def test_the_most_pairs_come_before_the_best_one() -> None:
    """One prediction fits the first lesion best, but only the second is left for it if all are to be found."""
    reference, prediction = np.zeros((2, 5, 12), bool)
    reference[0, :5] = reference[0, 6:] = True
    prediction[0, 2:10] = True  # 3 of 5 and 4 of 6
    prediction[0, 0] = True
    assert Lesions.of(prediction, reference).matched == 2
    assert Lesions.of(prediction, reference, iou=0.3).matched == 1


def test_classes_of_size() -> None:
    """Cubes of 6, 10 and 20 mm, the balls of which measure 7.4, 12.4 and 24.8 mm; the middle one is missed."""
    reference = np.zeros((20, 60, 60), bool)
    reference[:3, :6, :6] = reference[:5, 20:30, 20:30] = reference[:10, 40:, 40:] = True
    prediction = reference.copy()
    prediction[:, 20:30] = False
    lesions = Lesions.of(prediction, reference, spacing=(2, 1, 1))
    assert lesions.by_size == ((1, 1), (1, 0), (1, 1))
    assert [lesions.recall_of(k) for k in range(3)] == [1, 0, 1]
    flat = Lesions.of(prediction[0], reference[0], spacing=(1, 1))  # circles of 6.8, 11.3 and 22.6 mm
    assert flat.by_size == ((1, 1), (1, 0), (1, 1))
    unknown = Lesions.of(prediction, reference)
    assert math.isnan(unknown.number(0))
    assert math.isnan(unknown.recall_of(0))


@pytest.mark.parametrize(
    ("predicted", "referred", "precision", "recall", "f1"),
    [(0, 0, math.nan, math.nan, math.nan), (0, 1, math.nan, 0, 0), (1, 0, 0, math.nan, 0), (1, 1, 1, 1, 1)],
)
def test_empty_masks(predicted: int, referred: int, precision: float, recall: float, f1: float) -> None:
    lesions = Lesions.of(np.full((2, 2), predicted), np.full((2, 2), referred))
    expected = pytest.approx((precision, recall, f1), nan_ok=True)
    assert (lesions.precision, lesions.recall, lesions.f1) == expected
    assert (lesions.precision_touch, lesions.recall_touch, lesions.f1_touch) == expected


@given(volumes)
def test_slice_means_are_means_of_slices(pair: tuple[np.ndarray, np.ndarray]) -> None:
    means = SliceMeans.of(*pair)
    slices = [Overlap.of(p, r) for p, r in zip(*pair, strict=True)]
    for key in ("dice", "precision", "recall"):
        values = [v for s in slices if not math.isnan(v := getattr(s, key))]
        expected = np.mean(values) if values else math.nan
        assert getattr(means, key) == pytest.approx(expected, nan_ok=True)


def test_an_image_is_one_slice() -> None:
    p, r = np.array([[1, 1, 0]], bool), np.array([[0, 1, 1]], bool)
    assert SliceMeans.of(p, r) == SliceMeans.of(p[None], r[None]) == (0.5, 0.5, 0.5)
