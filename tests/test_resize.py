"""The resize of every slice to one size: shapes, values, labels, agreement with Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nnunet_ext.preprocessing import resize_slices

UNUSED = ((1, 1, 1), (1, 1, 1), (1, 1, 1))
SHAPES = [(1, 1, 471, 562), (2, 3, 40, 36), (1, 5, 256, 256), (1, 1, 1, 900), (3, 1, 257, 255)]


def resize(data: np.ndarray, *, is_seg: bool, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    return resize_slices(data, *UNUSED, size=size, is_seg=is_seg)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(256, 256), (32, 48)])
def test_every_slice_gets_the_size(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.random(shape, dtype=np.float32)
    labels = rng.integers(-1, 3, shape).astype(np.int16)
    out, out_labels = resize(image, is_seg=False, size=size), resize(labels, is_seg=True, size=size)
    assert out.shape == out_labels.shape == (*shape[:2], *size)
    assert (out.dtype, out_labels.dtype) == (np.float32, np.int16)
    assert image.min() <= out.min()
    assert out.max() <= image.max()
    assert set(np.unique(out_labels)) <= {-1, 0, 1, 2}


@pytest.mark.parametrize("shape", SHAPES)
def test_as_pillow_does_it(shape: tuple[int, ...]) -> None:
    """The official code resizes with Pillow; ours does not round to 8 bits on the way."""
    image = np.random.default_rng(1).random(shape, dtype=np.float32)
    ours = resize(image, is_seg=False)
    labels = (image * 4).astype(np.uint8)
    our_labels = resize(labels, is_seg=True)
    for index in np.ndindex(shape[:2]):
        theirs = Image.fromarray(image[index]).resize((256, 256), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours[index], np.asarray(theirs), atol=1e-5)
        nearest = Image.fromarray(labels[index]).resize((256, 256), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(our_labels[index], np.asarray(nearest))


def test_slices_and_channels_stay_apart() -> None:
    image = np.random.default_rng(2).random((2, 4, 50, 60), dtype=np.float32)
    out = resize(image, is_seg=False)
    for index in np.ndindex(2, 4):
        np.testing.assert_array_equal(out[index], resize(image[index][None, None], is_seg=False)[0, 0])


def test_the_right_size_is_left_alone() -> None:
    image = np.random.default_rng(3).random((1, 2, 256, 256), dtype=np.float32)
    np.testing.assert_array_equal(resize(image, is_seg=False), image)
    np.testing.assert_array_equal(resize(image > 0.5, is_seg=True), image > 0.5)


def test_views_are_taken() -> None:
    """nnU-Net hands over cropped and transposed views."""
    image = np.random.default_rng(4).random((1, 60, 2, 50), dtype=np.float32).transpose(0, 2, 1, 3)[..., ::-1]
    np.testing.assert_array_equal(resize(image, is_seg=False), resize(image.copy(), is_seg=False))
