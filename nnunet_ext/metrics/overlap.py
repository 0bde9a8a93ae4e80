"""Overlap of two binary masks, from integer counts: of a whole case, and as the mean of its slices.

Undefined stays undefined: a ratio whose denominator is zero is NaN, to be counted by whoever averages and never
averaged in silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nnunet_ext.metrics.masks import boolean

RATIOS = ("dice", "iou", "precision", "recall", "specificity")  # of `Overlap`


def ratio(numerator: float, denominator: float) -> float:
    """Return the quotient; NaN where the denominator is zero."""
    return numerator / denominator if denominator else float("nan")


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of a prediction against a reference, and the ratios that are defined on them.

    >>> import numpy as np
    >>> overlap = Overlap.of(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0]))
    >>> overlap
    Overlap(tp=1, fp=1, fn=1, tn=1)
    >>> overlap.dice, overlap.recall
    (0.5, 0.5)

    Args:
        tp, fp, fn, tn: numbers of voxels that are true positive, false positive, false negative, true negative.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, prediction: np.ndarray, reference: np.ndarray, voxels: int | None = None) -> Overlap:
        """Count two masks of one shape, with any number of axes; non-zero is foreground.

        Args:
            voxels: number of voxels of the whole image, if these masks are a part of it that holds all foreground.

        Raises:
            ValueError: the shapes differ.
        """
        p, r = boolean(prediction, reference)
        tp, predicted, referred = (int(np.count_nonzero(m)) for m in (p & r, p, r))
        total = p.size if voxels is None else voxels
        return cls(tp=tp, fp=predicted - tp, fn=referred - tp, tn=total - predicted - referred + tp)

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN): undefined where both masks are empty, 0 where one is."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), the Jaccard index: undefined where both masks are empty, 0 where one is."""
        return ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP): undefined for an empty prediction."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), sensitivity: undefined for an empty reference."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP): undefined for a reference without background; near 1 wherever the background is large."""
        return ratio(self.tn, self.tn + self.fp)


class SliceMeans(NamedTuple):
    """Means of the ratios of slices, as papers on 2D networks report them for volumes.

    A slice counts as a case of its own, and only where its ratio is defined; NaN where no slice defines one. Slices
    are those of the first axis, which for axial scans that nnU-Net's readers read are the axial ones.
    """

    dice: float
    precision: float
    recall: float

    @classmethod
    def of(cls, prediction: np.ndarray, reference: np.ndarray) -> SliceMeans:
        """Average over the slices of two boolean masks (slices, height, width), or (height, width) for one slice."""
        if prediction.ndim == 2:
            prediction, reference = prediction[None], reference[None]
        both, p, r = (
            np.array([np.count_nonzero(s) for s in mask]) for mask in (prediction & reference, prediction, reference)
        )
        return cls(dice=_mean(2 * both, p + r), precision=_mean(both, p), recall=_mean(both, r))


def _mean(numerators: np.ndarray, denominators: np.ndarray) -> float:
    defined = denominators > 0
    return float((numerators[defined] / denominators[defined]).mean()) if defined.any() else float("nan")
