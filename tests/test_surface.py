"""Distances against SimpleITK and by their definitions, on random masks and on edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from scipy import ndimage
from scipy.spatial.distance import cdist

from nnunet_ext.metrics import surface as surface_module
from nnunet_ext.metrics.surface import SurfaceDistances, hd_rows, surface_distances

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


def numbers(distances: SurfaceDistances, tolerance: float = 1.001) -> np.ndarray:
    return np.array([distances.hd, distances.hd95, distances.assd, distances.nsd(tolerance)])


@pytest.mark.slow
@given(pairs)
def test_looking_around_changes_nothing(masks: tuple[np.ndarray, np.ndarray, list[float]]) -> None:
    """Large surfaces are looked for nearby first."""
    far = surface_distances(*masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface_module, "_FEW", 0)
        near = surface_distances(*masks)
    for one, other in ((far.prediction, near.prediction), (far.reference, near.reference), (far.hd, near.hd)):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@settings(deadline=None, max_examples=300)
@given(pairs)
def test_equal_to_the_definitions(masks: tuple[np.ndarray, np.ndarray, list[float]]) -> None:
    prediction, reference, spacing = masks
    distances = surface_distances(prediction, reference, spacing)
    if not (prediction.any() and reference.any()):
        *lengths, nsd = numbers(distances)
        assert np.isnan(lengths).all()
        assert nsd == pytest.approx(0 if prediction.any() or reference.any() else np.nan, nan_ok=True)
        return
    there, back = directed(np.argwhere(prediction), np.argwhere(reference), spacing)
    assert distances.hd == pytest.approx(max(there.max(), back.max()))
    there, back = directed(surface_points(prediction), surface_points(reference), spacing)
    both = np.concatenate([there, back])
    assert distances.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert distances.assd == pytest.approx(both.mean())
    for tolerance in (0, 1.001, 100):
        assert distances.nsd(tolerance) == pytest.approx((both <= tolerance).mean())


@settings(deadline=None)
@given(pairs)
def test_symmetry(masks: tuple[np.ndarray, np.ndarray, list[float]]) -> None:
    p, r, spacing = masks
    np.testing.assert_allclose(numbers(surface_distances(p, r, spacing)), numbers(surface_distances(r, p, spacing)))


@settings(deadline=None)
@given(pairs, st.data())
def test_translation(masks: tuple[np.ndarray, np.ndarray, list[float]], data: st.DataObject) -> None:
    """In a larger image, anywhere, touching its border or not."""
    p, r, spacing = masks
    pads = [(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))) if n > 1 else (0, 0) for n in p.shape]
    moved = surface_distances(np.pad(p, pads), np.pad(r, pads), spacing)
    np.testing.assert_allclose(numbers(moved), numbers(surface_distances(p, r, spacing)), rtol=1e-9)


@settings(deadline=None)
@given(pairs, st.floats(0.1, 10))
def test_spacing_scales_lengths(masks: tuple[np.ndarray, np.ndarray, list[float]], factor: float) -> None:
    p, r, spacing = masks
    one, other = surface_distances(p, r, spacing), surface_distances(p, r, [factor * s for s in spacing])
    np.testing.assert_allclose(numbers(other)[:3], factor * numbers(one)[:3], atol=1e-12)


@settings(deadline=None)
@given(pairs, st.data())
def test_axes_are_interchangeable(masks: tuple[np.ndarray, np.ndarray, list[float]], data: st.DataObject) -> None:
    p, r, spacing = masks
    order = data.draw(st.permutations(range(p.ndim)))
    turned = surface_distances(p.transpose(order), r.transpose(order), [spacing[a] for a in order])
    np.testing.assert_allclose(numbers(turned), numbers(surface_distances(p, r, spacing)), rtol=1e-9)


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
    assert surface_distances(*masks, spacing).hd == pytest.approx(theirs.GetHausdorffDistance(), rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing", [(1, 1, 1), (5.0, 0.7, 0.9), (0.3, 2.0, 40.0)])
def test_the_farthest_voxel_is_found_inside_too(seed: int, spacing: tuple[float, ...]) -> None:
    """Around a solid, the other mask is a shell: the farthest voxel is the middle of the solid."""
    rng = np.random.default_rng(seed)
    solid = np.zeros((24, 30, 28), bool)
    solid[2:-2, 2:-3, 3:-2] = rng.random((20, 25, 23)) < 0.97
    shell = ~ndimage.binary_erosion(np.ones_like(solid), iterations=2) | (rng.random(solid.shape) < 0.0005)
    expected = max(
        ndimage.distance_transform_edt(~b, sampling=spacing)[a].max() for a, b in ((solid, shell), (shell, solid))
    )
    assert surface_distances(solid, shell, spacing).hd == pytest.approx(expected)


def test_known_values() -> None:
    """A square of 10 pixels against itself three pixels lower."""
    p, r = np.zeros((2, 40, 40), bool)
    p[5:15, 5:15] = r[8:18, 5:15] = True
    distances = surface_distances(p, r)
    assert (distances.hd, distances.hd95) == (3, 3)
    assert surface_distances(p, r, (2, 1)).hd == 6
    assert distances.prediction.size == distances.reference.size == 36
    assert surface_distances(p, p).nsd(0) == 1


@pytest.mark.parametrize("spacing", [0.4, float(np.float32(0.4))])
def test_nsd_at_the_tolerance_does_not_depend_on_rounding(spacing: float) -> None:
    """Five voxels of 0.4 mm are within 2 mm, wherever in the image they are."""
    for start in range(40):
        p, r = np.zeros((2, 60), bool)
        p[start], r[start + 5] = True, True
        assert surface_distances(p, r, [spacing]).nsd(2.0) == 1


def test_equal_masks_have_no_distance() -> None:
    mask = blobs((20, 20), 0)
    assert numbers(surface_distances(mask, mask)).tolist() == [0, 0, 0, 1]


def test_a_slice_is_compared_like_an_image() -> None:
    p, r = blobs((30, 30), 1), blobs((30, 30), 2)
    flat, deep = surface_distances(p, r, (1, 2)), surface_distances(p[None], r[None], (9, 1, 2))
    np.testing.assert_array_equal(numbers(flat), numbers(deep))


def test_a_flat_lesion_in_a_volume_is_no_slice() -> None:
    """All of its voxels lie on the surface, as they have background above and below."""
    p = np.zeros((3, 12, 12), bool)
    p[1, 2:10, 2:10] = True
    assert surface_distances(p, p).prediction.size == 64
    assert surface_distances(p[1:2], p[1:2]).prediction.size == 28


def test_single_voxels_at_the_border() -> None:
    p, r = np.zeros((2, 3, 5, 4), bool)
    p[0, 0, 0] = r[2, 4, 3] = True
    expected = math.hypot(2 * 3.0, 4 * 1.0, 3 * 0.5)
    assert numbers(surface_distances(p, r, (3.0, 1.0, 0.5))) == pytest.approx([expected] * 3 + [0])
    one = np.ones((1, 1), bool)
    assert numbers(surface_distances(one, one)).tolist() == [0, 0, 0, 1]


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


@pytest.mark.parametrize("shape", [(256, 256), (100, 333), (500, 471), (1, 31)])
def test_rows_at_256(shape: tuple[int, int]) -> None:
    """Resized as PIL does it, which is what the official code uses."""
    masks = (np.random.default_rng(0).random((2, *shape)) < 0.4).astype(np.uint8)
    resized = [np.asarray(Image.fromarray(m).resize((256, 256), Image.Resampling.NEAREST)) for m in masks]
    assert hd_rows(*masks, size=256) == hd_rows(*resized)
    assert hd_rows(*(m[None] for m in masks), size=256) == hd_rows(*resized)


def test_wrong_shapes() -> None:
    a, b = np.zeros((2, 2)), np.zeros((2, 3))
    for function in (surface_distances, hd_rows):
        with pytest.raises(ValueError, match=r"shapes differ: prediction \(2, 2\), reference \(2, 3\)"):
            function(a, b)
    with pytest.raises(ValueError, match="3 spacings for 2 axes"):
        surface_distances(a, a, (1, 1, 1))
    with pytest.raises(ValueError, match="2D"):
        hd_rows(np.zeros((2, 3, 4)), np.zeros((2, 3, 4)))
