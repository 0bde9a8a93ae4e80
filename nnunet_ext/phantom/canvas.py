"""Paint in mm: implicit shapes with a signed distance (negative inside), smooth noise, and the canvas for both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating[Any]]  # float32 wherever there are many
Rng = np.random.Generator
Point = tuple[float, ...]  # x, y, z
Box = tuple[tuple[float, float], ...]  # x, y, z, each (low, high)
Axes = tuple[Array, ...]  # positions z, y, x
Window = tuple[slice, ...]  # z, y, x

# A cubic B-spline of white noise has variance 0.479 per axis; this brings the field back to unit variance.
UNIT_VARIANCE = 0.479**-1.5
FAR = np.float32(1e3)
AIR, FAT = -1000, -103.0
WARP_MM = 3.2
KNOTS = (38.0, 38.0, 5.5, 5.5)  # mm; of the warps of x and y, and of the two textures
REACH = (210.0, 290.0, 290.0)  # of the random fields in z, y, x


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

    def local(self, x: Array, y: Array, z: Array) -> tuple[Array, ...]:
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
    intervals = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    curve = np.vstack([*intervals, knots[-1:]])
    return Tube(tuple(Segment(tuple(p[:3]), tuple(q[:3]), p[3], q[3]) for p, q in pairwise(curve)))


def rotation(degrees: Point) -> Array:
    """Return the matrix (3, 3) of a rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).astype(np.float32)


def smooth_min(a: Array, b: Array, radius: float) -> Array:
    """Unite the insides of two distances, with the crease rounded over `radius` mm; -f(-a, -b) intersects them."""
    h = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - h * h * (radius / 4)


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

    def __init__(self, rng: Rng, *, knot: float, reach: Point, axes: Axes) -> None:
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


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How the model patient (mm, x to the left, y to the back, z to the head) lies in the scanner."""

    scale: Point
    degrees: float
    shift: tuple[float, float]

    def to_model(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Convert scanner mm to model mm."""
        c, s = np.float32(np.cos(np.deg2rad(self.degrees))), np.float32(np.sin(np.deg2rad(self.degrees)))
        x, y = x - np.float32(self.shift[0]), y - np.float32(self.shift[1])
        ax, ay, az = (np.float32(1 / a) for a in self.scale)
        return (c * x + s * y) * ax, (c * y - s * x) * ay, z * az

    def to_scanner(self, box: Box) -> Box:
        """Return the scanner box that surely holds a model box."""
        c, s = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        xs, ys, (low, high) = ([v * scale for v in side] for side, scale in zip(box, self.scale, strict=True))
        u, v = [c * x - s * y for x in xs for y in ys], [s * x + c * y for x in xs for y in ys]
        dx, dy = self.shift
        return (min(u) + dx, max(u) + dx), (min(v) + dy, max(v) + dy), (low, high)


class Scene:
    """What all slices of a case share: the positions of its voxels in scanner mm, the pose, and the random fields."""

    def __init__(self, *, stream: tuple[int, ...], axes: Axes, pose: Pose) -> None:
        self.axes, self.pose = axes, pose
        rngs = [np.random.default_rng((*stream, 200 + i)) for i in range(len(KNOTS))]
        self._fields = [NoiseField(r, knot=k, reach=REACH, axes=axes) for r, k in zip(rngs, KNOTS, strict=True)]

    def canvas(self, planes: slice) -> Canvas:
        """Return the blank canvas of some slices."""
        z, (_, y, x) = self.axes[0][planes], self.axes
        warp_x, warp_y, grain, other = (field(planes) for field in self._fields)
        straight = self.pose.to_model(x[None, None, :], y[None, :, None], z[:, None, None])
        voxels = np.zeros((9, *grain.shape), np.float32)
        canvas = Canvas(pose=self.pose, axes=(z, y, x), pixel=float(x[1] - x[0]), z=straight[2], voxels=voxels)
        canvas.x[:] = straight[0] + np.float32(WARP_MM) * warp_x
        canvas.y[:] = straight[1] + np.float32(WARP_MM) * warp_y
        canvas.grain[:], canvas.other[:] = grain, other
        canvas.cavity[:], canvas.belly[:], canvas.hu[:] = FAR, FAR, AIR
        return canvas


@dataclass(frozen=True)
class Organ:
    """A shape and how to paint it.

    Attributes:
        value: HU, or a function of the part of the canvas that shows the shape and the distances there.
        halo: width in mm of the fat that keeps it apart from what is already there.
        wall: (thickness in mm, HU).
        in_belly: whether only what lies in the space for viscera is painted.
    """

    shape: Shape
    value: float | Callable[[Canvas, Array], Array]
    halo: float = 0
    wall: tuple[float, float] | None = None
    in_belly: bool = False


class Canvas:
    """Voxels (z, y, x) on which shapes are painted one over the other, with partial-volume edges.

    Part of a canvas is a canvas that holds views: what is painted there is painted on the whole.

    Attributes:
        axes: positions in scanner mm, `pixel` apart in the plane.
        x, y, z: model coordinates; z is not warped and has shape (z, 1, 1), so that most arithmetic is two-dimensional.
        grain, other: two textures, unit-variance smooth noise.
        cavity, belly: distances to the body wall and to the space for viscera, once the trunk is painted.
        hu: Hounsfield units.
        liver, tumour: how much of each voxel they cover, 0 to 1.
    """

    def __init__(self, *, pose: Pose, axes: Axes, pixel: float, z: Array, voxels: Array) -> None:
        self.pose, self.axes, self.pixel, self.z, self._voxels = pose, axes, pixel, z, voxels
        self.x, self.y, self.grain, self.other, self.cavity, self.belly, self.hu, self.liver, self.tumour = voxels
        self.at = self.x, self.y, self.z

    def window(self, box: Box, margin: float) -> Window | None:
        """Return the window that can show a model box, or None."""
        out = []
        reach = margin + 3 * WARP_MM + self.pixel
        bounds = self.pose.to_scanner(box)[::-1]
        for axis, (low, high), more in zip(self.axes, bounds, (margin, reach, reach), strict=True):
            first, last = axis.searchsorted((low - more, high + more))
            if first == last:
                return None
            out.append(slice(int(first), int(last)))
        return tuple(out)

    def part(self, box: Box, margin: float = 0) -> Canvas | None:
        """Return the part that can show a model box, or None."""
        window = self.window(box, margin)
        if window is None:
            return None
        axes = tuple(axis[w] for axis, w in zip(self.axes, window, strict=True))
        voxels = self._voxels[(slice(None), *window)]
        return Canvas(pose=self.pose, axes=axes, pixel=self.pixel, z=self.z[window[0]], voxels=voxels)

    def coverage(self, distance: Array) -> Array:
        """Return how much of each voxel lies inside, 0 to 1."""
        return np.clip(np.float32(0.5) - distance * np.float32(1 / max(self.pixel, 0.9)), 0, 1)

    def distance(self, shape: Shape, margin: float) -> tuple[Canvas, Array] | None:
        """Return the part that can show a shape and the distances there; far away from a tube they are just large."""
        part = self.part(shape.box, margin)
        if part is None:
            return None
        if not isinstance(shape, Tube):
            return part, shape.distance(*part.at)
        out = np.full(part.x.shape, FAR, np.float32)
        for segment in shape.segments:
            if max(segment.r0, segment.r1) < 0.3 * self.pixel:
                continue  # partial volume hides it
            if window := part.window(segment.box, margin):
                distance = segment.distance(part.x[window], part.y[window], part.z[window[0]])
                np.minimum(out[window], distance, out=out[window])
        return part, out

    def blend(self, alpha: Array, value: Array | float) -> None:
        """Put `value` HU where `alpha` is 1."""
        hu = self.hu
        hu += alpha * (value - hu)

    def paint(self, organ: Organ) -> None:
        found = self.distance(organ.shape, 3 + organ.halo)
        if found is None:
            return
        part, d = found
        if organ.in_belly:
            d = np.maximum(d, part.belly)
        if organ.halo:
            part.blend(self.coverage(d - np.float32(organ.halo)), FAT)
        inside = self.coverage(d)
        if organ.wall:
            part.blend(inside, organ.wall[1])
            inside = self.coverage(d + np.float32(organ.wall[0]))
        part.blend(inside, organ.value(part, d) if callable(organ.value) else organ.value)
