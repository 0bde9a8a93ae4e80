"""Slice-wise means, as papers on 2D networks report them for volumes.

A slice counts as a case of its own, and only where its ratio is defined. Slices are those of the first axis of the
arrays that nnU-Net's readers give, which for axial scans are the axial ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class SliceMeans(NamedTuple):
    """Means of the slices' ratios; NaN where no slice defines one."""

    dice: float
    precision: float
    recall: float

    @classmethod
    def of(cls, prediction: np.ndarray, reference: np.ndarray) -> SliceMeans:
        """Of two boolean masks (slices, height, width), or (height, width) for one slice."""
        if prediction.ndim == 2:
            prediction, reference = prediction[None], reference[None]
        both, p, r = (
            np.array([np.count_nonzero(s) for s in mask]) for mask in (prediction & reference, prediction, reference)
        )
        return cls(dice=_mean(2 * both, p + r), precision=_mean(both, p), recall=_mean(both, r))


def _mean(numerators: np.ndarray, denominators: np.ndarray) -> float:
    defined = denominators > 0
    return float((numerators[defined] / denominators[defined]).mean()) if defined.any() else float("nan")
