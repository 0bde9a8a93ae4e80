"""Implicit shapes in mm: each knows its box and a signed distance (negative inside), vectorised over any arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]  # x, y, z, each (low, high)


class Shape(Protocol):
    """What a canvas can paint."""

    @property
    def box(self) -> Box: ...

    def distance(self, x: Array, y: Array, z: Array) -> Array: ...


def smooth_union(a: Array, b: Array, *, radius: float) -> Array:
    """The union of two distances with the crease rounded over `radius` mm."""
    h = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - h * h * (radius / 4)


def smooth_cut(a: Array, b: Array, *, radius: float) -> Array:
    """`a` without `b`, with the rim rounded over `radius` mm."""
    return -smooth_union(-a, b, radius=radius)


def rotation(*, degrees: Sequence[float]) -> Array:
    """Rotation about x, then y, then z; shape (3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """Centre and semi-axes in mm, turned by `degrees` about x, y and z."""

    centre: tuple[float, float, float]
    semi: tuple[float, float, float]
    degrees: tuple[float, float, float] = (0, 0, 0)

    @cached_property
    def box(self) -> Box:
        extent = np.sqrt(((rotation(degrees=self.degrees) * np.asarray(self.semi, np.float32)) ** 2).sum(1))
        return tuple((float(c - e), float(c + e)) for c, e in zip(self.centre, extent, strict=True))

    def local(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Coordinates along the semi-axes, 1 on the surface."""
        x, y, z = (v - np.float32(c) for v, c in zip((x, y, z), self.centre, strict=True))
        if any(self.degrees):
            r = rotation(degrees=self.degrees)
            x, y, z = (r[0, i] * x + r[1, i] * y + r[2, i] * z for i in range(3))
        return tuple(v * np.float32(1 / s) for v, s in zip((x, y, z), self.semi, strict=True))

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        u, v, w = (q * q for q in self.local(x, y, z))
        a, b, c = (np.float32(1 / s**2) for s in self.semi)
        k = np.sqrt(u + v + w)
        return k * (k - 1) / (np.sqrt(u * a + v * b + w * c) + np.float32(1e-6))


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A capsule whose radius goes from `r0` at `start` to `r1` at `end`."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
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


@dataclass(frozen=True, kw_only=True)
class Tube:
    """A union of capsules; the canvas visits each capsule in its own small window."""

    segments: tuple[Segment, ...]

    @cached_property
    def box(self) -> Box:
        boxes = np.array([s.box for s in self.segments])
        return tuple((float(a), float(b)) for a, b in zip(boxes[:, :, 0].min(0), boxes[:, :, 1].max(0), strict=True))

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        return np.minimum.reduce([s.distance(x, y, z) for s in self.segments])


def tube(*, points: ArrayLike, radii: ArrayLike, pieces: int = 3) -> Tube:
    """A tube along a Catmull-Rom curve through `points` (n, 3) with `radii` (n,), `pieces` capsules per interval."""
    knots = np.column_stack([np.asarray(points, np.float64), np.broadcast_to(radii, len(points))])
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    t = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    curve = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    curve = np.vstack([*curve, knots[-1:]])
    return Tube(
        segments=tuple(Segment(start=tuple(p[:3]), end=tuple(q[:3]), r0=p[3], r1=q[3]) for p, q in pairwise(curve))
    )


def superellipse(x: Array, y: Array, *, half: Array | float, front: Array | float, back: Array | float) -> Array:
    """Signed distance along the ray from the centre to an outline of half-width `half`, depth `front` and `back`.

    The exponent is 2.5, between an ellipse and a box, which a square root gives at a fraction of the price of a power.
    """
    u, v = np.abs(x) / half, np.abs(y) / np.where(y < 0, np.asarray(front, np.float32), np.asarray(back, np.float32))
    k = u * u * np.sqrt(u) + v * v * np.sqrt(v)
    return np.sqrt(x * x + y * y) * (1 - np.maximum(k, np.float32(1e-7)) ** np.float32(-0.4))
