"""Distances between two binary segmentations.

Two masks are compared by their foreground and their surfaces (`surface_distances`) or, to compare with a published
table, by their rows (`hd_rows`). Undefined stays undefined: without foreground in one of the masks there is no
distance, and the result is NaN, to be counted by whoever averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import KDTree

from nnunet_ext.metrics.overlap import MaskPair, boolean

ROWS_SIZE = 256  # of the images that the SAMUS papers evaluate
_LEAF = 48  # voxels in a leaf of the tree, a third faster than scipy's 10
_STEPS, _FEW = 2, 2000  # how far to look around for the other surface, and when a tree alone is as fast
_ROUNDING = 1e-6  # relative: NIfTI's spacings have seven digits, and five voxels of 0.4 mm are 2 mm


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """The distance from each surface voxel of one mask to the nearest surface voxel of the other, and the farthest.

    A surface voxel is a foreground voxel with a face on the background; what lies outside the image is background. An
    axis of length one is no direction: a single slice is compared like the 2D image that it is.

    Args:
        prediction: distances from the prediction's surface to the reference's, in the unit of the spacing.
        reference: distances from the reference's surface to the prediction's.
        hd: the Hausdorff distance of the two sets of foreground voxels, each taken at its centre: the greater of the
            two greatest distances from a voxel of one mask to the nearest of the other, as SimpleITK's
            HausdorffDistanceImageFilter and the mathematical definition have it.

    An empty mask has an empty array, and whatever there is of the other is infinitely far: distances are NaN then.
    """

    prediction: np.ndarray
    reference: np.ndarray
    hd: float

    @classmethod
    def between(cls, pair: MaskPair) -> SurfaceDistances:
        """Compare the masks of a pair."""
        p_mask, r_mask, spacing = pair.directions()
        if pair.empty:
            there, back = (np.full(np.count_nonzero(surface(mask)), np.inf) for mask in (p_mask, r_mask))
            return cls(prediction=there, reference=back, hd=float("nan"))
        p, r = _Surface(p_mask, spacing), _Surface(r_mask, spacing)
        there, back = r.nearest(p.indices), p.nearest(r.indices)
        hd = max(p.farthest_outside(r, there), r.farthest_outside(p, back))
        return cls(prediction=there, reference=back, hd=hd)

    @property
    def hd95(self) -> float:
        """The greater of the two directed 95th percentiles, each linear between order statistics.

        Pooling the directions before taking the percentile gives a smaller number where the surfaces differ in size.
        """
        if not (self.prediction.size and self.reference.size):
            return float("nan")
        return max(_percentile_95(d) for d in (self.prediction, self.reference))

    @property
    def assd(self) -> float:
        """Average symmetric surface distance: the mean over the voxels of both surfaces."""
        mean = self._mean(self.prediction, self.reference)
        return mean if np.isfinite(mean) else float("nan")

    def nsd(self, tolerance: float) -> float:
        """Return the normalised surface distance (surface Dice): the part of both surfaces within `tolerance`.

        The definition is that of Nikolov et al. 2021, counted in surface voxels rather than in surface area. It is 0
        where one mask is empty, and undefined where both are.

        Args:
            tolerance: greatest distance that is near enough, in the unit of the spacing.
        """
        tolerance *= 1 + _ROUNDING
        return self._mean(self.prediction <= tolerance, self.reference <= tolerance)

    @staticmethod
    def _mean(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.sum() + b.sum()) / (a.size + b.size)) if a.size or b.size else float("nan")


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None = None
) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks.

    >>> import numpy as np
    >>> prediction, reference = np.zeros((2, 40, 40), bool)
    >>> prediction[5:15, 5:15] = reference[8:18, 5:15] = True
    >>> distances = surface_distances(prediction, reference, spacing=(0.5, 0.5))
    >>> distances.hd, distances.hd95, round(distances.assd, 3)
    (1.5, 1.5, 0.75)
    >>> round(distances.nsd(tolerance=1), 3)
    0.611

    Args:
        prediction, reference: masks of one shape, with any number of axes; non-zero is foreground.
        spacing: distance between voxels along each axis, in the unit of the results; 1 by default, for results in
            voxels.

    Returns:
        Both directions' distances, with the Hausdorff distance (``hd``), its 95th percentile (``hd95``), the average
        (``assd``) and the normalised surface distance (``nsd(tolerance)``, 0 where one mask is empty); NaN where a mask
        is empty.

    Raises:
        ValueError: the shapes differ, or the number of spacings is not that of the axes.
    """
    return SurfaceDistances.between(MaskPair.of(prediction, reference, spacing))


def _percentile_95(values: np.ndarray) -> float:
    """Return what `numpy.percentile` does, without its overhead: a tenth of all that a small image costs."""
    position = 0.95 * (values.size - 1)
    below = int(position)
    above = min(below + 1, values.size - 1)
    ordered = np.partition(values, (below, above))
    return float(ordered[below] + (position - below) * (ordered[above] - ordered[below]))


class _Surface:
    """The surface of a mask that has foreground, in a tree that answers which voxel of it is the nearest.

    Surfaces have few voxels: a tree is many times faster here than a distance transform of the whole box. Good
    predictions are near: most of a large surface is found by looking around.
    """

    def __init__(self, mask: np.ndarray, spacing: np.ndarray) -> None:
        self.mask, self.spacing = mask, spacing
        self.voxels = surface(mask)
        self.indices = _indices(self.voxels)

    @cached_property
    def tree(self) -> KDTree:
        return KDTree(self.indices * self.spacing, leafsize=_LEAF, balanced_tree=False, compact_nodes=False)

    def nearest(self, indices: np.ndarray) -> np.ndarray:
        """Return the distance of each voxel, given by its indices (n, axes), to the nearest one of this surface."""
        distances = np.full(len(indices), np.inf)
        if len(indices) > _FEW:
            _look_around(indices, self.voxels, self.spacing, distances)
        far = np.flatnonzero(np.isinf(distances))
        if far.size:
            distances[far] = self.tree.query(indices[far] * self.spacing)[0]
        return distances

    def farthest_outside(self, other: _Surface, distances: np.ndarray) -> float:
        """Return the greatest distance from a voxel of this mask to the other mask, given those of this surface."""
        outside = self.mask & ~other.mask
        known = float(distances.max(where=outside[self.voxels], initial=0))
        # the farthest voxel is not always on the surface: the other mask may lie around this one
        inner = outside & ~self.voxels & ~_within(other.mask, known, self.spacing)
        return max(known, float(other.nearest(_indices(inner)).max(initial=0)))


def _indices(mask: np.ndarray) -> np.ndarray:
    """Return what `numpy.argwhere` does, in half of the time."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)


def _look_around(indices: np.ndarray, voxels: np.ndarray, spacing: np.ndarray, distances: np.ndarray) -> None:
    """Fill in the distances to the nearest true voxel where one is no more than some steps away.

    Shapes: indices (n, axes), distances (n,).
    """
    steps = np.indices((2 * _STEPS + 1,) * voxels.ndim).reshape(voxels.ndim, -1).T - _STEPS
    lengths = np.linalg.norm(steps * spacing, axis=1)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] < (_STEPS + 1) * spacing.min()]  # farther ones are not all among these steps
    padded = np.pad(voxels, _STEPS)
    strides = np.array(padded.strides)
    places, left = (indices + _STEPS) @ strides, np.arange(len(indices))
    for step, length in zip(steps[order] @ strides, lengths[order], strict=True):
        found = padded.ravel()[places + step]
        distances[left[found]] = length
        places, left = places[~found], left[~found]


def _within(mask: np.ndarray, distance: float, spacing: np.ndarray) -> np.ndarray:
    """Return the voxels no farther from the mask than `distance`, as far as a cube in the ball of that radius tells."""
    steps = (distance / np.sqrt(mask.ndim) / spacing).astype(int)
    for axis, n in enumerate(np.minimum(steps, mask.shape)):
        reached = 0
        while reached < n:
            step = min(2 * reached + 1, n - reached)
            lower, upper = ([slice(None)] * mask.ndim for _ in range(2))
            lower[axis], upper[axis] = slice(None, -step), slice(step, None)
            wider = mask.copy()
            wider[tuple(upper)] |= mask[tuple(lower)]
            wider[tuple(lower)] |= mask[tuple(upper)]
            mask, reached = wider, reached + step
    return mask


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the foreground voxels with a face on the background, of the boolean mask's shape.

    What lies beyond the array is background; an axis of length one is no direction.
    """
    inside = mask.copy()
    for axis in range(mask.ndim):
        lower, upper, ends = ([slice(None)] * mask.ndim for _ in range(3))
        lower[axis], upper[axis], ends[axis] = slice(None, -1), slice(1, None), slice(None, None, mask.shape[axis] - 1)
        inside[tuple(upper)] &= mask[tuple(lower)]
        inside[tuple(lower)] &= mask[tuple(upper)]
        inside[tuple(ends) if mask.shape[axis] > 1 else ...] = False
    outer: np.ndarray = mask & ~inside
    return outer


def hd_rows(prediction: np.ndarray, reference: np.ndarray, size: int | None = None) -> float:
    """Compute what the SAMUS papers tabulate as "HD": no distance in the image, and never to be printed as one.

    Their evaluation hands the two 0/1 images, at 256x256, to a package that takes rows for points: the result is the
    Hausdorff distance between the two sets of rows, with the number of differing pixels as the distance of two rows.
    Shifting a lesion up or down changes nothing. An empty mask is a set of empty rows, so the result is always defined.

    Args:
        prediction, reference: masks (H, W), or with more axes of length one before these; non-zero is foreground.
        size: side to which both masks are resized first (nearest pixel centre); as they are by default.

    Raises:
        ValueError: the shapes differ, or are not those of 2D masks.
    """
    p, r = boolean(prediction, reference)
    *others, height, width = prediction.shape if prediction.ndim > 1 else (0, 0, 0)
    if any(n != 1 for n in others):
        raise ValueError(f"rows need a 2D mask, not shape {prediction.shape}")
    p, r = p.reshape(height, width), r.reshape(height, width)
    if size is not None and (height, width) != (size, size):
        y, x = (((np.arange(size) + 0.5) * n / size).astype(int) for n in (height, width))
        p, r = (mask.take(y, axis=0).take(x, axis=1) for mask in (p, r))
    columns = (p | r).any(axis=0)  # those that are empty in both make no difference
    a, b = _distinct_rows(p, columns), _distinct_rows(r, columns)
    # |a - b| = a + b - 2 a b for zeros and ones; whole numbers of this size are exact in float32
    d = a.sum(1)[:, None] + b.sum(1) - 2 * (a @ b.T)
    return float(max(d.min(1).max(), d.min(0).max()))


def _distinct_rows(mask: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return all rows that are not empty, and one of those that are, where `columns` is true."""
    filled = mask.any(axis=1)
    rows = mask[filled] if filled.all() else np.vstack([mask[filled], np.zeros((1, mask.shape[1]), bool)])
    return rows[:, columns].astype(np.float32)
