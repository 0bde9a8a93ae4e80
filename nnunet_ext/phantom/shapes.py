"""Geometry in mm: implicit shapes with a box and a signed distance (negative inside), and smooth random fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Rng = np.random.Generator
Point = tuple[float, float, float]
Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]  # x, y, z, each (low, high)

# A cubic B-spline of white noise has variance 0.479 per axis; this brings the field back to unit variance.
UNIT_VARIANCE = 0.479**-1.5


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with centre and semi-axes in mm, turned by `degrees` about x, then y, then z."""

    centre: Point
    semi: Point
    degrees: Point = (0, 0, 0)

    @cached_property
    def box(self) -> Box:
        extent = np.sqrt(((rotation(self.degrees) * np.asarray(self.semi, np.float32)) ** 2).sum(1))
        return tuple((float(c - e), float(c + e)) for c, e in zip(self.centre, extent, strict=True))

    def local(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Return coordinates along the semi-axes, 1 on the surface."""
        x, y, z = (v - np.float32(c) for v, c in zip((x, y, z), self.centre, strict=True))
        if any(self.degrees):
            r = rotation(self.degrees)
            x, y, z = (r[0, i] * x + r[1, i] * y + r[2, i] * z for i in range(3))
        return tuple(v * np.float32(1 / s) for v, s in zip((x, y, z), self.semi, strict=True))

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        u, v, w = (q * q for q in self.local(x, y, z))
        a, b, c = (np.float32(1 / s**2) for s in self.semi)
        k = np.sqrt(u + v + w)
        return k * (k - 1) / (np.sqrt(u * a + v * b + w * c) + np.float32(1e-6))


@dataclass(frozen=True)
class Segment:
    """A capsule whose radius goes from `r0` at `start` to `r1` at `end`."""

    start: Point
    end: Point
    r0: float
    r1: float

    @cached_property
    def box(self) -> Box:
        r = max(self.r0, self.r1)
        return tuple((min(a, b) - r, max(a, b) + r) for a, b in zip(self.start, self.end, strict=True))

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        s = np.asarray(self.start, np.float32)
        d = np.asarray(self.end, np.float32) - s
        x, y, z = x - s[0], y - s[1], z - s[2]
        t = np.clip((x * d[0] + y * d[1] + z * d[2]) / (d @ d + np.float32(1e-6)), 0, 1)
        x, y, z = x - t * d[0], y - t * d[1], z - t * d[2]
        return np.sqrt(x * x + y * y + z * z) - (np.float32(self.r0) + t * np.float32(self.r1 - self.r0))


@dataclass(frozen=True)
class Tube:
    """A union of capsules; a canvas visits each capsule in its own small window."""

    segments: tuple[Segment, ...]

    @cached_property
    def box(self) -> Box:
        boxes = np.array([s.box for s in self.segments])
        return tuple((float(a), float(b)) for a, b in zip(boxes[:, :, 0].min(0), boxes[:, :, 1].max(0), strict=True))

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        return np.minimum.reduce([s.distance(x, y, z) for s in self.segments])


Shape = Ellipsoid | Segment | Tube  # each knows its box and the distance from points of any array shape


def tube(points: Sequence[Point] | Array, radii: ArrayLike, pieces: int = 3) -> Tube:
    """Make a tube along a Catmull-Rom curve through `points` with `radii`, `pieces` capsules per interval."""
    knots = np.column_stack([np.asarray(points, np.float64), np.broadcast_to(radii, len(points))])
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    t = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    curve = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    curve = np.vstack([*curve, knots[-1:]])
    return Tube(tuple(Segment(tuple(p[:3]), tuple(q[:3]), p[3], q[3]) for p, q in pairwise(curve)))


def rotation(degrees: Point) -> Array:
    """Return the matrix (3, 3) of a rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).astype(np.float32)


def superellipse(x: Array, y: Array, *, half: Array | float, front: Array | float, back: Array | float) -> Array:
    """Return the distance along the ray from the centre to an outline of half-width `half`, depth `front` and `back`.

    The exponent is 2.5, between an ellipse and a box, which a square root gives at a fraction of the price of a power.
    """
    u, v = np.abs(x) / half, np.abs(y) / np.where(y < 0, np.asarray(front, np.float32), np.asarray(back, np.float32))
    k = u * u * np.sqrt(u) + v * v * np.sqrt(v)
    return np.sqrt(x * x + y * y) * (1 - np.maximum(k, np.float32(1e-7)) ** np.float32(-0.4))


def smooth_union(a: Array, b: Array, radius: float) -> Array:
    """Unite two distances and round the crease over `radius` mm."""
    h = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - h * h * (radius / 4)


def smooth_cut(a: Array, b: Array, radius: float) -> Array:
    """Cut `b` out of `a` and round the rim over `radius` mm."""
    return -smooth_union(-a, b, radius)


def ramp(value: Array, low: float, high: float) -> Array:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def near(rng: Rng, point: Point, mm: float) -> Point:
    """Move a point by up to `mm` along each axis."""
    return tuple(float(v) for v in np.asarray(point) + rng.uniform(-mm, mm, 3))


class NoiseField:
    """Unit-variance smooth noise on the grid (z, y, x) in mm: cubic B-splines over random coefficients.

    The random numbers depend on `rng`, `knot` (mm, about half the grain) and `reach` only, so that the same field is
    seen through any grid. Along x it is expanded at once, z and y follow for the planes that are asked for.
    """

    def __init__(self, rng: Rng, *, knot: float, reach: Point, axes: tuple[Array, Array, Array]) -> None:
        counts = [int(2 * r / knot) + 5 for r in reach]
        coefficients = rng.standard_normal(counts, dtype=np.float32) * np.float32(UNIT_VARIANCE)
        bases = [_spline_basis(np.clip(axis, -r, r), knot, first=-r) for axis, r in zip(axes, reach, strict=True)]
        (self._iz, self._wz), (self._iy, self._wy), (ix, wx) = bases
        self._rows = sum(coefficients[:, :, ix + k] * wx[k] for k in range(4))

    def __call__(self, planes: slice) -> Array:
        """Return the field in some planes, shape (z, y, x)."""
        iz, wz = self._iz[planes], self._wz[:, planes]
        rows = sum(self._rows[iz + k] * wz[k][:, None, None] for k in range(4))
        return sum(rows[:, self._iy + k] * self._wy[k][:, None] for k in range(4))


def _spline_basis(positions: Array, knot: float, *, first: float) -> tuple[NDArray[np.intp], Array]:
    """Return for n positions the first of four coefficient indices (n,) and their B-spline weights (4, n)."""
    u = (positions - first) / knot
    index = np.floor(u).astype(np.intp)
    t = (u - index).astype(np.float32)
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    return index, weights.astype(np.float32)
