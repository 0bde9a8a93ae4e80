"""nnU-Net normalisation classes and resampling functions of the papers, named in plans.

nnU-Net uses them at training and at prediction: the RA-U-Net paper's intensity chain for CT (section 3.2), and the
resize of every slice to one size for SAMUS.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
    ImageNormalization,
    RescaleTo01Normalization,
    RGBTo01Normalization,
)
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

WINDOW_CENTRE = 60.0  # HU
WINDOW_WIDTH = 160.0  # HU
MEDIAN_KERNEL = 3  # pixels; the paper says "median filter" and no size
CLAHE_CLIP_LIMIT = 2.0  # on OpenCV's scale; the paper gives none
CLAHE_TILES = (8, 8)
UNIT_RANGE = {s.__name__ for s in (RescaleTo01Normalization, RGBTo01Normalization)}  # nnU-Net's that end in [0, 1]


def window(image: np.ndarray) -> np.ndarray:
    """Map the window linearly to [0, 1] and clip.

    Shapes: HU of any shape -> float32 of that shape.
    """
    lower = WINDOW_CENTRE - WINDOW_WIDTH / 2
    return np.clip((image.astype(np.float32, copy=False) - lower) / WINDOW_WIDTH, 0, 1)


class LiverWindowNormalization(ImageNormalization):
    """Window centre 60 HU, width 160 HU, to [0, 1]: the chain without filters, for the ablation."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        """Normalise (slices, height, width) in HU to the same shape in [0, 1]."""
        return window(image).astype(self.target_dtype, copy=False)


class LiverWindowCLAHENormalization(ImageNormalization):
    """Window as above to 8 bit, 3x3 median, CLAHE (OpenCV: clip limit 2, 8x8 tiles), to [0, 1], per axial slice.

    The paper gives the order and none of the parameters; docs/deviations.md lists what was chosen.
    """

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        """Normalise (slices, height, width) in HU to the same shape in [0, 1]."""
        clahe = cv2.createCLAHE(clipLimit=CLAHE_CLIP_LIMIT, tileGridSize=CLAHE_TILES)
        out = np.empty(image.shape, dtype=self.target_dtype)
        for source, target in zip(image, out, strict=True):
            grey = np.rint(window(source) * 255).astype(np.uint8)
            np.divide(clahe.apply(cv2.medianBlur(grey, MEDIAN_KERNEL)), 255, out=target, casting="unsafe")
        return out


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
    """Return the pixels of a row of `length` that hold the centre of each of `wanted` pixels; shape (wanted,)."""
    return ((2 * np.arange(wanted) + 1) * length) // (2 * wanted)
