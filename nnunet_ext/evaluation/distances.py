"""Distances between two binary segmentations.

Two masks are compared by their foreground (`hausdorff`), by their surfaces (`SurfaceDistances`) or, to compare with a
published table, by their rows (`hd_rows`). Undefined stays undefined: without foreground in one of the masks there is
no distance, and the result is NaN, to be counted by whoever averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree


def hausdorff(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """The Hausdorff distance of the two sets of foreground voxels, each taken at its centre.

    The greater of the two greatest distances from a voxel of one mask to the nearest of the other, as SimpleITK's
    HausdorffDistanceImageFilter and the mathematical definition have it.

    Shapes: equal, any number of axes; non-zero is foreground.

    Args:
        spacing: between voxels along each axis, in the unit of the result; default 1, for a result in voxels.

    Raises:
        ValueError: different shapes.
    """
    p, r, spacing = _cropped(prediction, reference, spacing)
    if not (p.any() and r.any()):
        return float("nan")
    return float(max(distance_transform_edt(~b, sampling=spacing)[a & ~b].max(initial=0) for a, b in ((p, r), (r, p))))


@dataclass(frozen=True)
class SurfaceDistances:
    """The distance from each surface voxel of one mask to the nearest surface voxel of the other.

    A surface voxel is a foreground voxel with a face on the background; what lies outside the image is background. An
    axis of length one is no direction: a single slice is compared like the 2D image that it is.

    Args:
        prediction: distances from the prediction's surface to the reference's, in the unit of the spacing.
        reference: distances from the reference's surface to the prediction's.

    Both are empty where one of the masks is.
    """

    prediction: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(
        cls, prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None = None
    ) -> SurfaceDistances:
        """Compare two masks; shapes, spacing and errors as in `hausdorff`."""
        p, r, spacing = _cropped(prediction, reference, spacing)
        if not (p.any() and r.any()):
            return cls(np.empty(0), np.empty(0))
        # surfaces have few voxels: a tree is many times faster here than a distance transform of the whole box
        p, r = (np.argwhere(_surface(m)) * spacing for m in (p, r))
        return cls(_to_nearest(p, r), _to_nearest(r, p))

    @property
    def hd95(self) -> float:
        """The greater of the two 95th percentiles (linear between order statistics), one per direction.

        Pooling the directions before taking the percentile gives a smaller number where the surfaces differ in size.
        """
        if not self.prediction.size:
            return float("nan")
        return float(max(np.percentile(d, 95) for d in (self.prediction, self.reference)))

    @property
    def assd(self) -> float:
        """Average symmetric surface distance: the mean over the voxels of both surfaces."""
        return self._mean(self.prediction, self.reference)

    def nsd(self, tolerance: float) -> float:
        """Normalised surface distance (surface Dice): the part of both surfaces no farther than `tolerance`.

        Nikolov et al. 2021, counted in surface voxels rather than in surface area.

        Args:
            tolerance: in the unit of the spacing.
        """
        return self._mean(self.prediction <= tolerance, self.reference <= tolerance)

    @staticmethod
    def _mean(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.sum() + b.sum()) / (a.size + b.size)) if a.size else float("nan")


def hd_rows(prediction: np.ndarray, reference: np.ndarray) -> float:
    """What the SAMUS papers tabulate as "HD": no distance in the image, and never to be printed as one.

    Their evaluation hands the two 0/1 images, at 256x256, to a package that takes rows for points: the result is the
    Hausdorff distance between the two sets of rows, with the number of differing pixels as the distance of two rows.
    Shifting a lesion up or down changes nothing. An empty mask is a set of empty rows, so the result is always defined.

    Shapes: (H, W), or more axes of length one before them; non-zero is foreground.

    Raises:
        ValueError: different shapes, or not 2D.
    """
    _check(prediction, reference)
    *others, height, width = prediction.shape if prediction.ndim > 1 else (0, 0, 0)
    if any(n != 1 for n in others):
        raise ValueError(f"rows need a 2D mask, not shape {prediction.shape}")
    p, r = ((m != 0).astype(np.float32).reshape(height, width) for m in (prediction, reference))
    # |a - b| = a + b - 2 a b for zeros and ones; whole numbers of this size are exact in float32
    d = p.sum(1)[:, None] + r.sum(1) - 2 * (p @ r.T)
    return float(max(d.min(1).max(), d.min(0).max()))


def _check(prediction: np.ndarray, reference: np.ndarray) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(f"shapes differ: prediction {prediction.shape}, reference {reference.shape}")


def _cropped(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Both masks within the box around their union, without axes of length one, and the spacing of the other axes."""
    _check(prediction, reference)
    p, r = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
    if spacing is None:
        spacing = [1.0] * p.ndim
    elif len(spacing) != p.ndim:
        raise ValueError(f"{len(spacing)} spacings for {p.ndim} axes")
    axes = [a for a, n in enumerate(p.shape) if n > 1] or [0]
    p, r = (np.squeeze(m, tuple(a for a in range(m.ndim) if a not in axes)) for m in (p, r))
    union = p | r
    box = []
    for axis in range(union.ndim):
        occupied = np.flatnonzero(union.any(tuple(a for a in range(union.ndim) if a != axis)))
        box.append(slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0, 0))
    return p[tuple(box)], r[tuple(box)], [float(spacing[a]) for a in axes]


def _surface(mask: np.ndarray) -> np.ndarray:
    """Foreground voxels with a face on the background."""
    padded = np.pad(mask, 1)
    inside = mask.copy()
    for axis in range(mask.ndim):
        for start in (0, 2):
            neighbour = [slice(1, -1)] * mask.ndim
            neighbour[axis] = slice(start, start + mask.shape[axis])
            inside &= padded[tuple(neighbour)]
    return mask & ~inside


def _to_nearest(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The distance of each point to the nearest target; both (n, axes)."""
    return KDTree(targets, balanced_tree=False, compact_nodes=False).query(points)[0]
