"""Two binary masks of one image: cut to what there is to compare, and their overlap from integer counts.

Undefined stays undefined: a ratio whose denominator is zero is NaN, to be counted by whoever averages and never
averaged in silently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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
    def predicted(self) -> int:
        """The number of voxels that the prediction marks."""
        return self.tp + self.fp

    @property
    def referred(self) -> int:
        """The number of voxels that the reference marks."""
        return self.tp + self.fn

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
        return ratio(self.tp, self.predicted)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), sensitivity: undefined for an empty reference."""
        return ratio(self.tp, self.referred)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP): undefined for a reference without background; near 1 wherever the background is large."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def relative_error(self) -> float:
        """(predicted - referred) / referred: undefined for an empty reference."""
        return ratio(self.predicted - self.referred, self.referred)


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


@dataclass(frozen=True, kw_only=True)
class MaskPair:
    """A prediction and a reference within the box around their union.

    The cut changes no metric: outside the box all is background in both masks, as it is outside the image.

    Args:
        prediction, reference: boolean arrays of one shape, with every axis of the image; empty where both masks are.
        spacing: distance between voxels along each axis.
        flat: per axis, whether the image has length one there. Such an axis is no direction: a single slice is
            compared like the 2D image that it is, but a lesion within one slice of a volume is not.
        voxels: number of voxels of the whole image.
    """

    prediction: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, ...]
    flat: tuple[bool, ...]
    voxels: int

    @classmethod
    def of(
        cls,
        prediction: np.ndarray,
        reference: np.ndarray,
        spacing: Sequence[float] | None = None,
        *,
        shape: Sequence[int] | None = None,
        voxels: int | None = None,
    ) -> MaskPair:
        """Cut two masks of one shape, with any number of axes; non-zero is foreground.

        Args:
            spacing: 1 by default, for results in voxels.
            shape: of the whole image, if these masks are a part of it that holds all foreground.
            voxels: number of voxels of the whole image that count; all by default.

        Raises:
            ValueError: the shapes differ, or the number of spacings is not that of the axes.
        """
        p, r = boolean(prediction, reference)
        spacing = [1.0] * p.ndim if spacing is None else spacing
        if len(spacing) != p.ndim:
            raise ValueError(f"{len(spacing)} spacings for {p.ndim} axes")
        shape = p.shape if shape is None else shape
        box = foreground_box(p | r)
        return cls(
            prediction=p[box],
            reference=r[box],
            spacing=tuple(map(float, spacing)),
            flat=tuple(n == 1 for n in shape),
            voxels=math.prod(shape) if voxels is None else voxels,
        )

    @property
    def empty(self) -> bool:
        """Whether one of the masks is empty."""
        return not (self.prediction.any() and self.reference.any())

    def directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return both masks without their flat axes, and the spacing of the others; at least one axis is kept."""
        kept = [axis for axis, flat in enumerate(self.flat) if not flat] or [0]
        shape = [self.prediction.shape[axis] for axis in kept]
        spacing = np.array([self.spacing[axis] for axis in kept])
        return self.prediction.reshape(shape), self.reference.reshape(shape), spacing


def boolean(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both masks as booleans, true where they are not zero.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"shapes differ: prediction {prediction.shape}, reference {reference.shape}")
    return np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)


def foreground_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box with all that is not zero; its slices are empty where nothing is."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        inside = mask[tuple(box)]  # what is cut along one axis need not be looked at for the next
        occupied = np.flatnonzero(inside.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0, 0))
    return tuple(box)


def mask_of(segmentation: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Return where a segmentation has one of the labels, as booleans of its shape."""
    mask: np.ndarray = segmentation == labels[0]
    for label in labels[1:]:
        mask |= segmentation == label
    return mask
