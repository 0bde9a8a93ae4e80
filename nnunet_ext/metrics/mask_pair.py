"""Two binary masks of one image, cut to what there is to compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class MaskPair:
    """A prediction and a reference within the box around their union.

    No metric changes by the cut: outside the box all is background in both masks, as it is outside the image.

    Args:
        prediction, reference: boolean, of one shape, with every axis of the image; empty where both masks are.
        spacing: between voxels along each axis.
        flat: per axis, whether the image has length one there. Such an axis is no direction: a single slice is
            compared like the 2D image that it is, but a lesion within one slice of a volume is not.
        voxels: of the whole image.
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
        """Cut two masks.

        Shapes: equal, any number of axes; non-zero is foreground.

        Args:
            spacing: default 1, for results in voxels.
            shape: of the whole image, if these masks are a part of it that holds all foreground.
            voxels: of the whole image that count; default: all.

        Raises:
            ValueError: different shapes.
        """
        if prediction.shape != reference.shape:
            raise ValueError(f"shapes differ: prediction {prediction.shape}, reference {reference.shape}")
        spacing = [1.0] * prediction.ndim if spacing is None else spacing
        if len(spacing) != prediction.ndim:
            raise ValueError(f"{len(spacing)} spacings for {prediction.ndim} axes")
        shape = prediction.shape if shape is None else shape
        p, r = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
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
        """Whether one of the masks is."""
        return not (self.prediction.any() and self.reference.any())

    def directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both masks without flat axes, and the spacing of the others; one axis at least."""
        kept = [axis for axis, flat in enumerate(self.flat) if not flat] or [0]
        dropped = tuple(axis for axis in range(len(self.flat)) if axis not in kept)
        masks = (np.squeeze(mask, dropped) for mask in (self.prediction, self.reference))
        return *masks, np.array([self.spacing[axis] for axis in kept])


def foreground_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box with all that is not zero; empty slices where nothing is."""
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0, 0))
    return tuple(box)
