"""The RA-U-Net paper's intensity chain for CT (section 3.2), as nnU-Net normalisation schemes."""

from __future__ import annotations

import cv2
import numpy as np
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization

WINDOW_CENTRE = 60.0  # HU
WINDOW_WIDTH = 160.0  # HU
MEDIAN_KERNEL = 3  # pixels; the paper says "median filter" and no size
CLAHE_CLIP_LIMIT = 2.0  # on OpenCV's scale; the paper gives none
CLAHE_TILES = (8, 8)


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
        """Shapes: (slices, height, width) in HU -> the same in [0, 1]."""
        return window(image).astype(self.target_dtype, copy=False)


class LiverWindowCLAHENormalization(ImageNormalization):
    """Window as above to 8 bit, 3x3 median, CLAHE (OpenCV: clip limit 2, 8x8 tiles), to [0, 1], per axial slice.

    The paper gives the order and none of the parameters; docs/deviations.md lists what was chosen.
    """

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        """Shapes: (slices, height, width) in HU -> the same in [0, 1]."""
        clahe = cv2.createCLAHE(clipLimit=CLAHE_CLIP_LIMIT, tileGridSize=CLAHE_TILES)
        out = np.empty(image.shape, dtype=self.target_dtype)
        for source, target in zip(image, out, strict=True):
            grey = np.rint(window(source) * 255).astype(np.uint8)
            np.divide(clahe.apply(cv2.medianBlur(grey, MEDIAN_KERNEL)), 255, out=target, casting="unsafe")
        return out
