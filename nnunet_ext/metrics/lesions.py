"""Lesions: how many are found, how many are made up.

A lesion is a connected component, with neighbours by faces, edges and corners. It is found where it shares at least one
voxel with the other mask, whatever else of it is missed: a lenient rule, and the one that needs no threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_ext.metrics.metrics import ratio


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """Counts of lesions, and the ratios defined on them.

    Args:
        prediction, reference: lesions in each mask.
        prediction_found: predicted lesions that touch a reference lesion.
        reference_found: reference lesions that a prediction touches. One prediction may touch several, and the other
            way round: these two differ.
    """

    prediction: int
    reference: int
    prediction_found: int
    reference_found: int

    @classmethod
    def of(cls, prediction: np.ndarray, reference: np.ndarray) -> Lesions:
        """Count two masks.

        Shapes: equal, any number of axes; non-zero is foreground.
        """
        p, r = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
        neighbours = np.ones((3,) * p.ndim)
        shared = p & r
        (n_p, found_p), (n_r, found_r) = (_count(mask, shared, neighbours) for mask in (p, r))
        return cls(prediction=n_p, reference=n_r, prediction_found=found_p, reference_found=found_r)

    @property
    def precision(self) -> float:
        """Found / predicted lesions: undefined for an empty prediction."""
        return ratio(self.prediction_found, self.prediction)

    @property
    def recall(self) -> float:
        """Found / reference lesions: undefined for an empty reference."""
        return ratio(self.reference_found, self.reference)

    @property
    def f1(self) -> float:
        """Harmonic mean of both: undefined where both masks are empty, 0 where one is, or where nothing is found."""
        if not (self.prediction or self.reference):
            return float("nan")
        if not (self.prediction_found and self.reference_found):
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def _count(mask: np.ndarray, shared: np.ndarray, neighbours: np.ndarray) -> tuple[int, int]:
    """Components of a mask, and how many of them have shared voxels."""
    components, number = ndimage.label(mask, neighbours)
    return number, int(np.count_nonzero(np.bincount(components[shared])))
