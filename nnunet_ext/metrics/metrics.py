"""Overlap metrics of a binary segmentation, from integer counts.

Undefined stays undefined: a ratio whose denominator is zero is NaN, to be counted by whoever averages and never
averaged in silently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def ratio(numerator: int, denominator: int) -> float:
    """The quotient; NaN where the denominator is zero."""
    return numerator / denominator if denominator else float("nan")


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of a prediction against a reference, and the ratios defined on them.

    Args:
        tp, fp, fn, tn: voxels that are true positive, false positive, false negative, true negative.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, prediction: np.ndarray, reference: np.ndarray, voxels: int | None = None) -> Overlap:
        """Count two masks.

        Shapes: equal, any number of axes; non-zero is foreground.

        Args:
            voxels: of the whole image, if these masks are a part of it that holds all foreground.

        Raises:
            ValueError: different shapes.
        """
        if prediction.shape != reference.shape:
            raise ValueError(f"shapes differ: prediction {prediction.shape}, reference {reference.shape}")
        p, r = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
        tp, predicted, referred = (int(np.count_nonzero(m)) for m in (p & r, p, r))
        total = p.size if voxels is None else voxels
        return cls(tp=tp, fp=predicted - tp, fn=referred - tp, tn=total - predicted - referred + tp)

    def __add__(self, other: Overlap) -> Overlap:
        """Pool two cases (micro averaging)."""
        return Overlap(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

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
