"""The paper's intensity chain against an independent implementation of the same definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.preprocessing import (
    LiverWindowCLAHENormalization,
    LiverWindowNormalization,
)

TILES, CLIP_LIMIT = 8, 2.0


def reference_median(image: np.ndarray) -> np.ndarray:
    """3x3 median, border replicated."""
    padded = np.pad(image, 1, mode="edge")
    h, w = image.shape
    return np.median([padded[i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=0).astype(np.uint8)


def reference_tables(image: np.ndarray) -> np.ndarray:
    """The grey value mapping of each tile: clipped, redistributed, cumulated histogram. (8, 8, 256)"""
    h, w = (s // TILES for s in image.shape)
    clip = max(1, int(CLIP_LIMIT * h * w / 256))
    tables = np.empty((TILES, TILES, 256), np.uint8)
    for i in range(TILES):
        for j in range(TILES):
            histogram = np.bincount(image[i * h : (i + 1) * h, j * w : (j + 1) * w].ravel(), minlength=256)
            excess = int(np.maximum(histogram - clip, 0).sum())
            histogram = np.minimum(histogram, clip) + excess // 256
            if rest := excess % 256:
                histogram[:: max(256 // rest, 1)][:rest] += 1
            scaled = np.cumsum(histogram).astype(np.float32) * np.float32(255 / (h * w))
            tables[i, j] = np.clip(np.rint(scaled), 0, 255)
    return tables


def reference_clahe(image: np.ndarray) -> np.ndarray:
    """OpenCV's CLAHE: reflected up to a multiple of the tiles, then bilinear between the tiles' mappings."""
    missing = [TILES - s % TILES if any(n % TILES for n in image.shape) else 0 for s in image.shape]
    extended = np.pad(image, [(0, m) for m in missing], mode="reflect")
    tables = reference_tables(extended).astype(np.float32)

    def neighbours(n: int, tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = np.arange(n, dtype=np.float32) * np.float32(1 / tile) - np.float32(0.5)
        first = np.floor(position).astype(int)
        return np.clip(first, 0, TILES - 1), np.clip(first + 1, 0, TILES - 1), position - first

    y1, y2, fy = neighbours(image.shape[0], extended.shape[0] // TILES)
    x1, x2, fx = neighbours(image.shape[1], extended.shape[1] // TILES)
    fy = fy[:, None]
    top = tables[y1[:, None], x1, image] * (1 - fx) + tables[y1[:, None], x2, image] * fx
    bottom = tables[y2[:, None], x1, image] * (1 - fx) + tables[y2[:, None], x2, image] * fx
    return top * (1 - fy) + bottom * fy


def reference_chain(volume: np.ndarray) -> np.ndarray:
    """HU to grey values in [0, 255], slice by slice, before the last rounding."""
    grey = np.rint(np.clip((volume.astype(np.float32) + 20) / 160, 0, 1) * 255).astype(np.uint8)
    return np.stack([reference_clahe(reference_median(s)) for s in grey])


def assert_chain(volume: np.ndarray) -> None:
    """The scheme's output is the reference rounded to 8 bit; a value between two grey values may go either way."""
    out = normalize(LiverWindowCLAHENormalization, volume)
    assert out.dtype == np.float32
    grey = out * 255
    assert np.abs(grey - np.rint(grey)).max() < 1e-4
    assert np.abs(grey - reference_chain(volume)).max() < 0.5 + 1e-3


def normalize(scheme: type, volume: np.ndarray) -> np.ndarray:
    return scheme(use_mask_for_norm=False, intensityproperties={}).run(volume.astype(np.float32), None)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    y, x = np.mgrid[: shape[1], : shape[2]]
    waves = 60 + 60 * np.sin(y / 9) * np.cos(x / 7)
    return waves + rng.normal(0, 20, shape)


@pytest.mark.parametrize("size", [(512, 512), (64, 64), (101, 122), (40, 36), (9, 200), (8, 8), (17, 16)])
def test_chain_is_the_definition(size: tuple[int, int]) -> None:
    assert_chain(smooth_noise(np.random.default_rng(0), (2, *size)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 70), st.integers(8, 70), st.sampled_from([0, 5, 100]))
def test_chain_on_random_images(seed: int, height: int, width: int, noise: int) -> None:
    rng = np.random.default_rng(seed)
    assert_chain(rng.normal(60, 1 + noise, (1, height, width)))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 3), (7, 40)])
def test_images_smaller_than_the_tiles(size: tuple[int, int]) -> None:
    out = normalize(LiverWindowCLAHENormalization, np.full((1, *size), 60))
    assert out.shape == (1, *size)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("scheme", [LiverWindowNormalization, LiverWindowCLAHENormalization])
def test_range_and_input_kept(scheme: type) -> None:
    volume = np.random.default_rng(1).uniform(-1024, 3000, (3, 32, 32)).astype(np.float32)
    before = volume.copy()
    out = normalize(scheme, volume)
    assert out.min() >= 0
    assert out.max() <= 1
    assert np.array_equal(volume, before)


@pytest.mark.parametrize(("hu", "value"), [(-1000, 0), (-20, 0), (60, 0.5), (140, 1), (400, 1), (20, 0.25)])
def test_window(hu: float, value: float) -> None:
    assert normalize(LiverWindowNormalization, np.full((1, 4, 4), hu)) == pytest.approx(value)


def test_slices_are_independent() -> None:
    volume = smooth_noise(np.random.default_rng(2), (4, 48, 40))
    alone = np.concatenate([normalize(LiverWindowCLAHENormalization, s[None]) for s in volume])
    assert np.array_equal(normalize(LiverWindowCLAHENormalization, volume), alone)


def test_real_ct(shared_data) -> None:
    sitk = pytest.importorskip("SimpleITK")
    ct = sitk.GetArrayFromImage(sitk.ReadImage(shared_data / "ct" / "example_ct_sm.nii.gz"))
    assert_chain(ct)
    assert normalize(LiverWindowCLAHENormalization, ct).std() > 0.2  # the window's contrast is spread
