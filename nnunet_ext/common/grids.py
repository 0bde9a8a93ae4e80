"""Voxel grids in space: whether two are the same one in another order of voxels, and how to undo that.

Tools that save a volume in an axis order of their own swap or reverse its axes, and say so in the affine: every voxel
is where it was, but array indices are not. An affine is (axes + 1, axes + 1), from an index to a place in mm.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]
_APART = 0.1  # of the smallest voxel side: nearer places are taken for rounding


@dataclass(frozen=True, kw_only=True)
class Reordering:
    """How an array of one grid becomes that of another which has its voxels in the same places.

    Attributes:
        axes: the old axis that becomes each of the new ones.
        reversed: whether each of the new axes runs the other way.
    """

    axes: tuple[int, ...]
    reversed: tuple[bool, ...]

    @property
    def nothing(self) -> bool:
        """Whether the voxels are in the right order already."""
        return not any(self.reversed) and self.axes == tuple(range(len(self.axes)))

    def __str__(self) -> str:
        """Say what is done, for messages."""
        names = "xyz"[: len(self.axes)]
        order = "".join(names[axis] for axis in self.axes)
        turned = [name for name, turn in zip(names, self.reversed, strict=True) if turn]
        parts = [f"axes {order} taken as {names}"] if order != names else []
        parts += [f"{' and '.join(turned)} reversed"] if turned else []
        return ", ".join(parts) or "nothing"

    def __call__(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of an array with the affine's axes (SimpleITK's arrays have them the other way round)."""
        turns = tuple(slice(None, None, -1 if turn else 1) for turn in self.reversed)
        return array.transpose(self.axes)[turns]


def affine(spacing: Sequence[float], direction: Sequence[float], origin: Sequence[float]) -> Affine:
    """Return the affine of what ITK says about an image: mm along its axes, their directions, row by row, and origin.

    >>> affine((2, 3), (1, 0, 0, 1), (5, 6)).tolist()
    [[2.0, 0.0, 5.0], [0.0, 3.0, 6.0], [0.0, 0.0, 1.0]]
    """
    n = len(spacing)
    made = np.eye(n + 1)
    made[:n, :n] = np.reshape(direction, (n, n)) * spacing
    made[:n, n] = origin
    return made


def greatest_shift(one: Affine, other: Affine, shape: Sequence[int]) -> float:
    """Return by how many mm two affines put a voxel of a grid apart, at most."""
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, n - 1) for n in shape))])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :-1], axis=1).max())


def agree(one: Affine, other: Affine, shape: Sequence[int]) -> bool:
    """Tell whether two affines put each voxel of a grid in the same place, but for rounding."""
    side = float(np.linalg.norm(other[:-1, :-1], axis=0).min())
    return greatest_shift(one, other, shape) <= _APART * side


def reordering(
    affine: Affine, shape: Sequence[int], other_affine: Affine, other_shape: Sequence[int]
) -> Reordering | None:
    """Return how arrays of a grid become those of the `other` one; None where the two are not the same voxels in space.

    Every voxel must lie where one of the other grid lies, but for rounding, so that nothing is guessed.
    """
    n = len(shape)
    if len(other_shape) != n or not (np.isfinite(affine).all() and np.isfinite(other_affine).all()):
        return None
    try:
        steps = np.linalg.solve(other_affine, affine)[:n, :n]  # new indices per old index
    except np.linalg.LinAlgError:
        return None
    axes = tuple(int(axis) for axis in np.abs(steps).argmax(axis=1))
    if sorted(axes) != list(range(n)) or tuple(shape[axis] for axis in axes) != tuple(other_shape):
        return None
    turned = tuple(bool(steps[new, old] < 0) for new, old in enumerate(axes))
    index = np.eye(n + 1)  # of the old grid, from one of the new grid
    index[:n, :n] = 0
    for new, old in enumerate(axes):
        index[old, new] = -1 if turned[new] else 1
        index[old, n] = shape[old] - 1 if turned[new] else 0
    found = Reordering(axes=axes, reversed=turned)
    return found if agree(affine @ index, other_affine, other_shape) else None
