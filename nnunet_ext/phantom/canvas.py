"""A few neighbouring slices being painted: patient coordinates, Hounsfield units and label coverage per voxel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nnunet_ext.phantom.shapes import Array, Box, NoiseField, Point, Shape, Tube

Axes = tuple[Array, Array, Array]  # positions z, y, x
Window = tuple[slice, slice, slice]
FAR = np.float32(1e3)
AIR, FAT = -1000, -103.0
WARP_MM = 3.2
KNOTS = (38.0, 38.0, 5.5, 5.5)  # mm; of the warps of x and y, and of the two textures
REACH = (210.0, 290.0, 290.0)  # of the random fields in z, y, x


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
        canvas.x[:], canvas.y[:] = (
            straight[0] + np.float32(WARP_MM) * warp_x,
            straight[1] + np.float32(WARP_MM) * warp_y,
        )
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
        """Paint an organ in HU."""
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
