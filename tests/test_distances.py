"""Distances against SimpleITK and by their definitions, on random masks and on edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial.distance import cdist

from nnunet_ext.evaluation.distances import SurfaceDistances, hausdorff, hd_rows

Pair = tuple[np.ndarray, np.ndarray]

pairs = st.integers(1, 3).flatmap(
    lambda dims: npst.array_shapes(min_dims=dims, max_dims=dims, max_side=7).flatmap(
        lambda shape: st.tuples(
            npst.arrays(bool, shape),
            npst.arrays(bool, shape),
            st.lists(st.floats(0.3, 5), min_size=dims, max_size=dims),
        )
    )
)


def surface_points(mask: np.ndarray) -> np.ndarray:
    """Indices of foreground voxels that have a face on the background, one by one."""
    points = []
    for point in np.argwhere(mask):
        for axis in (a for a in range(mask.ndim) if mask.shape[a] > 1):
            for step in (-1, 1):
                neighbour = point.copy()
                neighbour[axis] += step
                if not 0 <= neighbour[axis] < mask.shape[axis] or not mask[tuple(neighbour)]:
                    points.append(point)
    if mask.size == 1:
        points = list(np.argwhere(mask))
    return np.unique(np.array(points).reshape(-1, mask.ndim), axis=0)


def directed(a: np.ndarray, b: np.ndarray, spacing: list[float]) -> Pair:
    """Distances of every point to the nearest of the others, both ways."""
    d = cdist(a * spacing, b * spacing)
    return d.min(1), d.min(0)


@settings(deadline=None, max_examples=200)
@given(pairs)
def test_equal_to_the_definitions(masks: tuple[np.ndarray, np.ndarray, list[float]]) -> None:
    prediction, reference, spacing = masks
    surface = SurfaceDistances.of(prediction, reference, spacing)
    if not (prediction.any() and reference.any()):
        values = (hausdorff(prediction, reference, spacing), surface.hd95, surface.assd, surface.nsd(1))
        assert all(map(math.isnan, values))
        return
    there, back = directed(np.argwhere(prediction), np.argwhere(reference), spacing)
    assert hausdorff(prediction, reference, spacing) == pytest.approx(max(there.max(), back.max()))
    there, back = directed(surface_points(prediction), surface_points(reference), spacing)
    both = np.concatenate([there, back])
    assert surface.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert surface.assd == pytest.approx(both.mean())
    for tolerance in (0, 1.001, 100):
        assert surface.nsd(tolerance) == pytest.approx((both <= tolerance).mean())


@settings(deadline=None)
@given(pairs)
def test_symmetry(masks: tuple[np.ndarray, np.ndarray, list[float]]) -> None:
    p, r, spacing = masks
    there, back = SurfaceDistances.of(p, r, spacing), SurfaceDistances.of(r, p, spacing)
    assert hausdorff(p, r, spacing) == pytest.approx(hausdorff(r, p, spacing), nan_ok=True)
    for ours, other in ((there.hd95, back.hd95), (there.assd, back.assd), (there.nsd(1), back.nsd(1))):
        assert ours == pytest.approx(other, nan_ok=True)


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for _ in range(3):
        centre, radius = rng.uniform(0, shape), rng.uniform(2, 7)
        offset = np.indices(shape) - centre.reshape(-1, *[1] * len(shape))
        mask |= (np.sqrt((offset**2).sum(0)) < radius).astype(np.uint8)
    return mask


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("shape", "spacing"), [((40, 50), (0.5, 2.0)), ((12, 30, 28), (5.0, 0.7, 0.9))])
def test_hausdorff_is_that_of_simpleitk(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int) -> None:
    masks = [blobs(shape, seed), blobs(shape, seed + 100)]
    images = [sitk.GetImageFromArray(m) for m in masks]
    for image in images:
        image.SetSpacing(spacing[::-1])
    theirs = sitk.HausdorffDistanceImageFilter()
    theirs.Execute(*images)
    assert hausdorff(*masks, spacing) == pytest.approx(theirs.GetHausdorffDistance(), rel=1e-6)


def test_known_values() -> None:
    """A square of 10 pixels against itself three pixels lower."""
    p, r = np.zeros((2, 40, 40), bool)
    p[5:15, 5:15] = r[8:18, 5:15] = True
    assert hausdorff(p, r) == 3
    assert hausdorff(p, r, (2, 1)) == 6
    surface = SurfaceDistances.of(p, r)
    assert surface.hd95 == 3
    assert surface.prediction.size == surface.reference.size == 36
    assert SurfaceDistances.of(p, p).nsd(0) == 1


def test_equal_masks_have_no_distance() -> None:
    mask = blobs((20, 20), 0)
    surface = SurfaceDistances.of(mask, mask)
    assert hausdorff(mask, mask) == surface.hd95 == surface.assd == 0


def test_a_slice_is_compared_like_an_image() -> None:
    p, r = blobs((30, 30), 1), blobs((30, 30), 2)
    flat, deep = SurfaceDistances.of(p, r, (1, 2)), SurfaceDistances.of(p[None], r[None], (9, 1, 2))
    assert (flat.hd95, flat.assd) == (deep.hd95, deep.assd)
    assert hausdorff(p, r, (1, 2)) == hausdorff(p[None], r[None], (9, 1, 2))


def test_single_voxels_at_the_border() -> None:
    p, r = np.zeros((2, 3, 5, 4), bool)
    p[0, 0, 0] = r[2, 4, 3] = True
    expected = math.hypot(2 * 3.0, 4 * 1.0, 3 * 0.5)
    surface = SurfaceDistances.of(p, r, (3.0, 1.0, 0.5))
    assert hausdorff(p, r, (3.0, 1.0, 0.5)) == surface.hd95 == surface.assd == pytest.approx(expected)
    one = np.ones((1, 1), bool)
    assert hausdorff(one, one) == SurfaceDistances.of(one, one).hd95 == 0


@settings(deadline=None)
@given(npst.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(lambda s: npst.arrays(bool, (2, *s))))
def test_rows_by_their_definition(masks: np.ndarray) -> None:
    prediction, reference = masks
    there, back = (
        max(min(int(np.abs(a.astype(int) - b).sum()) for b in other) for a in one)
        for one, other in ((prediction, reference), (reference, prediction))
    )
    assert hd_rows(prediction, reference) == max(there, back)


def test_rows_do_not_see_vertical_shifts() -> None:
    p = np.zeros((256, 256), np.uint8)
    p[100:140, 90:150] = 1
    assert hd_rows(p, np.roll(p, 20, axis=0)) == 0
    assert hd_rows(p, np.roll(p, 20, axis=1)) == 40
    assert hd_rows(p[None] * 255, np.roll(p, 20, axis=1)[None]) == 40
    assert hd_rows(p, np.zeros_like(p)) == 60


def test_wrong_shapes() -> None:
    a, b = np.zeros((2, 2)), np.zeros((2, 3))
    for function in (hausdorff, SurfaceDistances.of, hd_rows):
        with pytest.raises(ValueError, match=r"shapes differ: prediction \(2, 2\), reference \(2, 3\)"):
            function(a, b)
    with pytest.raises(ValueError, match="3 spacings for 2 axes"):
        hausdorff(a, a, (1, 1, 1))
    with pytest.raises(ValueError, match="2D"):
        hd_rows(np.zeros((2, 3, 4)), np.zeros((2, 3, 4)))
