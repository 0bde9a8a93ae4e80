"""Smooth random fields: cubic B-splines over random coefficients, evaluated on any part of a regular grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Window = tuple[slice, slice, slice]
Array = NDArray[np.float32]

# A cubic B-spline of white noise has variance 0.479 per axis; this brings the field back to unit variance.
UNIT_VARIANCE = 0.479**-1.5


def spline_basis(*, positions: Array, knot: float, first: float) -> tuple[NDArray[np.intp], Array]:
    """The first of four coefficient indices (n,), and their cubic B-spline weights (4, n), for each position in mm."""
    u = (positions - first) / knot
    index = np.floor(u).astype(np.intp)
    t = (u - index).astype(np.float32)
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    return index, weights.astype(np.float32)


class NoiseField:
    """Unit-variance smooth noise on the grid (z, y, x) in mm; `knot` mm is about half its grain.

    The random numbers depend on `rng`, `knot` and `reach` only, so that the same field is seen through any grid.
    Along x it is expanded at once; z and y follow for the asked window, with contiguous reads only.
    """

    def __init__(
        self,
        *,
        rng: np.random.Generator,
        knot: float,
        reach: tuple[float, float, float],
        axes: tuple[Array, Array, Array],
    ) -> None:
        counts = [int(2 * r / knot) + 5 for r in reach]
        coefficients = rng.standard_normal(counts, dtype=np.float32) * np.float32(UNIT_VARIANCE)
        bases = [
            spline_basis(positions=np.clip(axis, -r, r), knot=knot, first=-r)
            for axis, r in zip(axes, reach, strict=True)
        ]
        (self._iz, self._wz), (self._iy, self._wy), (ix, wx) = bases
        self._rows = sum(coefficients[:, :, ix + k] * wx[k] for k in range(4))

    def __call__(self, window: Window) -> Array:
        """The field in `window`, shape (z, y, x)."""
        sz, sy, sx = window
        iz, wz, iy, wy = self._iz[sz], self._wz[:, sz], self._iy[sy], self._wy[:, sy]
        rows = self._rows[:, iy.min() : iy.max() + 4, sx]
        iy = iy - iy.min()
        planes = sum(rows[iz + k] * wz[k][:, None, None] for k in range(4))
        out = planes[:, iy] * wy[0][:, None]
        for k in range(1, 4):
            out += planes[:, iy + k] * wy[k][:, None]
        return out
