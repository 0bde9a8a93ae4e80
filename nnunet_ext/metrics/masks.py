"""Binary masks of one image: a prediction and a reference, cut to what there is to compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
        dropped = tuple(axis for axis in range(len(self.flat)) if axis not in kept)
        spacing = np.array([self.spacing[axis] for axis in kept])
        return np.squeeze(self.prediction, dropped), np.squeeze(self.reference, dropped), spacing


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
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0, 0))
    return tuple(box)


def mask_of(segmentation: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Return where a segmentation has one of the labels, as booleans of its shape."""
    mask: np.ndarray = segmentation == labels[0]
    for label in labels[1:]:
        mask |= segmentation == label
    return mask
