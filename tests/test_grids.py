"""Grids in space: the same voxels in another order are found out, and nothing else is."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.common.grids import agree, greatest_shift, reordering

SHAPE = (5, 6, 7)
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([-0.7, -0.8, 2.5]), [12.0, 34.0, -56.0]
)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("turned", [*itertools.product((1, -1), repeat=3)])
def test_all_orders_of_axes_are_undone(order: tuple[int, ...], turned: tuple[int, ...]) -> None:
    """As nibabel makes them, which knows nothing of this module."""
    array = np.random.RandomState(0).randint(0, 100, SHAPE)
    orientation = np.array([*zip(order, turned, strict=True)])
    changed = nib.Nifti1Image(array.astype(np.int16), OBLIQUE).as_reoriented(orientation)
    affine = changed.affine + np.random.RandomState(1).uniform(-0.001, 0.001, (4, 4)) * [[1], [1], [1], [0]]
    back = reordering(affine, changed.shape, OBLIQUE, SHAPE)
    assert back is not None
    np.testing.assert_array_equal(back(np.asarray(changed.dataobj)), array)
    assert back.nothing == (order == (0, 1, 2) and -1 not in turned)
    again = reordering(OBLIQUE, SHAPE, changed.affine, changed.shape)
    assert again is not None
    np.testing.assert_array_equal(again(array), np.asarray(changed.dataobj))


def test_simpleitk_agrees() -> None:
    array = np.random.RandomState(0).randint(0, 100, SHAPE[::-1]).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    changed = sitk.PermuteAxes(sitk.Flip(image, (True, False, True)), (1, 2, 0))

    def affine(picture: sitk.Image) -> np.ndarray:
        direction = np.reshape(picture.GetDirection(), (3, 3)) * picture.GetSpacing()
        return nib.affines.from_matvec(direction, picture.GetOrigin())

    back = reordering(affine(changed), changed.GetSize(), affine(image), image.GetSize())
    assert back is not None
    np.testing.assert_array_equal(back(sitk.GetArrayFromImage(changed).T).T, array)
    assert str(back) == "axes zxy taken as xyz, x and z reversed"


@pytest.mark.parametrize("dimensions", [1, 2])
def test_pictures_and_lines_have_grids_too(dimensions: int) -> None:
    affine = np.eye(dimensions + 1)
    turned = np.diag([-1.0] * dimensions + [1.0])
    turned[:-1, -1] = 4
    back = reordering(turned, [5] * dimensions, affine, [5] * dimensions)
    assert back is not None
    array = np.arange(5**dimensions).reshape([5] * dimensions)
    np.testing.assert_array_equal(back(array), np.flip(array))


def moved(**changes: float) -> np.ndarray:
    affine = OBLIQUE.copy()
    for place, by in changes.items():
        affine[int(place[1]), int(place[2])] += by
    return affine


def mirrored_at_the_origin() -> np.ndarray:
    """Another box: the axis runs the other way from the same first voxel, as in headers that are wrong."""
    return OBLIQUE @ np.diag([-1, 1, 1, 1])


@pytest.mark.parametrize(
    ("affine", "shape"),
    [
        (moved(_03=0.1), SHAPE),
        (moved(_22=0.1), SHAPE),
        (moved(_00=1.0), SHAPE),
        (mirrored_at_the_origin(), SHAPE),
        (OBLIQUE, (5, 6, 8)),
        (OBLIQUE, (6, 5, 7)),
        (OBLIQUE, (5, 6)),
        (np.zeros((4, 4)), SHAPE),
        (np.full((4, 4), np.nan), SHAPE),
    ],
)
def test_other_places_are_no_reordering(affine: np.ndarray, shape: tuple[int, ...]) -> None:
    assert reordering(affine, shape, OBLIQUE, SHAPE) is None
    assert reordering(OBLIQUE, SHAPE, affine, shape) is None


def test_shift_is_that_of_the_farthest_voxel() -> None:
    spaced = np.diag([1.0, 1.0, 2.01, 1.0])
    assert greatest_shift(np.diag([1.0, 1.0, 2.0, 1.0]), spaced, (3, 3, 11)) == pytest.approx(0.1)
    assert agree(spaced, np.diag([1.0, 1.0, 2.0, 1.0]), (3, 3, 11))
    assert not agree(spaced, np.diag([1.0, 1.0, 2.0, 1.0]), (3, 3, 13))
