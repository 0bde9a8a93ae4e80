"""Lesions: how many are found, how many are made up.

A lesion is a connected component, with neighbours by faces, edges and corners. It is found where it shares at least one
voxel with the other mask, whatever else of it is missed: a lenient rule, and the one that needs no threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from scipy import ndimage

from nnunet_ext.metrics.overlap import boolean, ratio

CC3D = find_spec("cc3d") is not None  # it has no wheels for some platforms


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """Counts of lesions, and the ratios that are defined on them.

    >>> import numpy as np
    >>> lesions = Lesions.of(np.array([[1, 0, 0, 0, 1]]), np.array([[1, 1, 0, 0, 0]]))
    >>> lesions.precision, lesions.recall
    (0.5, 1.0)

    Args:
        prediction, reference: numbers of lesions in each mask.
        prediction_found: number of predicted lesions that touch a reference lesion.
        reference_found: number of reference lesions that a prediction touches. It differs from the former: one
            prediction may touch several lesions, and the other way round.
    """

    prediction: int
    reference: int
    prediction_found: int
    reference_found: int

    @classmethod
    def of(cls, prediction: np.ndarray, reference: np.ndarray) -> Lesions:
        """Count the lesions of two masks of one shape, with any number of axes; non-zero is foreground.

        Raises:
            ValueError: the shapes differ.
        """
        p, r = boolean(prediction, reference)
        shared = p & r
        (n_p, found_p), (n_r, found_r) = (_count(mask, shared) for mask in (p, r))
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


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the connected components of a boolean mask, by connected-components-3d where it is installed.

    Returns:
        Labels of the mask's shape, from 1 in no particular order, 0 is background; and how many there are.
    """
    if CC3D and mask.ndim in (2, 3):
        import cc3d

        # version 4.1.1 is wrong, mostly without a word, on views, and on booleans in images and single lines
        labels, number = cc3d.connected_components(
            np.ascontiguousarray(mask, dtype=np.uint8),
            connectivity=8 if mask.ndim == 2 else 26,
            return_N=True,
            out_dtype=np.uint32,
        )
    else:
        labels, number = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return labels, int(number)


def _count(mask: np.ndarray, shared: np.ndarray) -> tuple[int, int]:
    """Return the number of components of a mask, and how many of them have shared voxels."""
    labels, number = components(mask)
    return number, int(np.count_nonzero(np.bincount(labels[shared])))
