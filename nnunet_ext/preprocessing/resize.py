"""Resizing of every slice to one size, as nnU-Net resampling functions that plans name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)


def resize_slices(
    data: np.ndarray,
    new_shape: Sequence[int],
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    *,
    size: Sequence[int],
    is_seg: bool,
) -> np.ndarray:
    """Squash every slice to `size`, whatever its shape and spacing; the number of slices stays.

    Images: bilinear (``align_corners=False``), and antialiased where they shrink. The official SAMUS code shrinks PIL
    images, whose bilinear filter widens with the step; without that, speckle would alias. Segmentations: the label at
    the centre of each new pixel, so that no label is mixed or lost, -1 (outside nnU-Net's crop) included.

    Shapes: (channels, slices, height, width) -> (channels, slices, *size) of the same dtype.

    Args:
        new_shape: what spacings would ask for; it and they are part of nnU-Net's call, and unused.
        size: height and width in pixels.
    """
    if is_seg:
        rows, columns = (nearest(n, wanted) for n, wanted in zip(data.shape[-2:], size, strict=True))
        return data[..., rows[:, None], columns]
    image = torch.from_numpy(np.ascontiguousarray(data))
    resized = F.interpolate(image, tuple(size), mode="bilinear", align_corners=False, antialias=True)
    return resized.clamp_(image.min(), image.max()).numpy()  # filter taps sum to 1 but for the last digit


def nearest(length: int, wanted: int) -> np.ndarray:
    """The pixel of a row of `length` that holds the centre of each of `wanted` pixels; shape (wanted,)."""
    return ((2 * np.arange(wanted) + 1) * length) // (2 * wanted)
