"""A few neighbouring slices being painted: patient coordinates, Hounsfield units and label coverage per voxel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.fields import NoiseField, Window
from nnunet_ext.phantom.shapes import Box, Shape, Tube

Array = NDArray[np.float32]
Value = float | Array
FAR = np.float32(1e3)
FAT = -103.0


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How the model patient (mm, x to the left, y to the back, z to the head) lies in the scanner."""

    scale: tuple[float, float, float]
    degrees: float
    shift: tuple[float, float]

    def to_model(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Scanner mm to model mm."""
        c, s = np.float32(np.cos(np.deg2rad(self.degrees))), np.float32(np.sin(np.deg2rad(self.degrees)))
        x, y = x - np.float32(self.shift[0]), y - np.float32(self.shift[1])
        ax, ay, az = (np.float32(1 / a) for a in self.scale)
        return (c * x + s * y) * ax, (c * y - s * x) * ay, z * az

    def to_scanner(self, box: Box) -> Box:
        """The scanner box that surely holds a model box."""
        x = np.array([box[0][0], box[0][1], box[0][0], box[0][1]]) * self.scale[0]
        y = np.array([box[1][0], box[1][0], box[1][1], box[1][1]]) * self.scale[1]
        c, s = np.cos(np.deg2rad(self.degrees)), np.sin(np.deg2rad(self.degrees))
        u, v = c * x - s * y + self.shift[0], s * x + c * y + self.shift[1]
        return (u.min(), u.max()), (v.min(), v.max()), (box[2][0] * self.scale[2], box[2][1] * self.scale[2])


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What all slices of a case share: the grid axes (z, y, x) in mm, the pose, and the random fields."""

    axes: tuple[Array, Array, Array]
    pose: Pose
    warp: tuple[NoiseField, NoiseField]
    warp_mm: float
    textures: tuple[NoiseField, NoiseField]

    @property
    def pixel(self) -> float:
        """In-plane spacing in mm."""
        return float(self.axes[2][1] - self.axes[2][0])


class Canvas:
    """Slices `planes` of a scene. Shapes are painted one over the other, with partial-volume edges."""

    def __init__(self, *, scene: Scene, planes: slice) -> None:
        z, y, x = scene.axes
        self.scene = scene
        self.planes = planes
        self._low, self._high = float(z[planes][0]), float(z[planes][-1])
        self.everything: Window = (slice(0, len(z[planes])), slice(0, len(y)), slice(0, len(x)))
        straight = scene.pose.to_model(x[None, None, :], y[None, :, None], z[planes][:, None, None])
        whole = (planes, slice(0, len(y)), slice(0, len(x)))
        self.x, self.y = (c + np.float32(scene.warp_mm) * w(whole) for c, w in zip(straight, scene.warp, strict=False))
        self.z = straight[2]  # (planes, 1, 1): an unwarped z makes most arithmetic two-dimensional
        self.textures = tuple(t(whole) for t in scene.textures)
        # Distances to the body wall and to the space for viscera, once the trunk is painted.
        self.cavity, self.belly = np.full(self.x.shape, FAR, np.float32), np.full(self.x.shape, FAR, np.float32)
        self.hu = np.full(self.x.shape, -1000, np.float32)
        self.liver = np.zeros(self.x.shape, np.float32)
        self.tumour = np.zeros(self.x.shape, np.float32)

    def window(self, box: Box, *, margin: float) -> Window | None:
        """The part of the canvas that can show `box`, or None."""
        z, y, x = self.scene.axes
        low, high = (v * self.scene.pose.scale[2] for v in box[2])
        if high + margin < self._low or low - margin > self._high:
            return None
        reach = margin + 3 * self.scene.warp_mm + self.scene.pixel
        out = []
        for axis, (low, high), more in zip(
            (z[self.planes], y, x), self.scene.pose.to_scanner(box)[::-1], (margin, reach, reach), strict=True
        ):
            a, b = axis.searchsorted((low - more, high + more))
            if a == b:
                return None
            out.append(slice(int(a), int(b)))
        return tuple(out)

    def at(self, window: Window) -> tuple[Array, Array, Array]:
        """Model coordinates x, y, z of `window`; z has shape (planes, 1, 1)."""
        return self.x[window], self.y[window], self.z[window[0]]

    def texture(self, window: Window, *, which: int = 0) -> Array:
        """Unit-variance smooth noise in `window`."""
        return self.textures[which][window]

    def coverage(self, distance: Array) -> Array:
        """How much of each voxel lies inside, 0 to 1."""
        return np.clip(np.float32(0.5) - distance * np.float32(1 / max(self.scene.pixel, 0.9)), 0, 1)

    def distance(self, shape: Shape, *, margin: float = 3) -> tuple[Window, Array] | None:
        """Signed distance in the window that can show `shape`; far away from a tube it is just large."""
        window = self.window(shape.box, margin=margin)
        if window is None:
            return None
        if not isinstance(shape, Tube):
            return window, shape.distance(*self.at(window))
        out = np.full(self.x[window].shape, FAR, np.float32)
        for segment in shape.segments:
            if max(segment.r0, segment.r1) < 0.3 * self.scene.pixel:
                continue  # partial volume hides it
            inner = self.window(segment.box, margin=margin)
            if inner is None:
                continue
            local = tuple(slice(i.start - w.start, i.stop - w.start) for i, w in zip(inner, window, strict=True))
            np.minimum(out[local], segment.distance(*self.at(inner)), out=out[local])
        return window, out

    def blend(self, window: Window, alpha: Array, value: Value) -> None:
        """Put `value` HU where `alpha` is 1."""
        hu = self.hu[window]
        hu += alpha * (value - hu)

    def paint(
        self,
        shape: Shape,
        value: Value | Callable[[Window, Array], Value],
        *,
        halo: float = 0,
        wall: tuple[float, float] | None = None,
        within: Array | None = None,
    ) -> None:
        """Paint `shape` in HU.

        A `halo` of fat, mm wide, keeps it apart from what is already there; `wall` is (thickness in mm, HU).
        `value` may be a function of the window and the distance; `within` is a distance on the whole canvas.
        """
        found = self.distance(shape, margin=3 + halo)
        if found is None:
            return
        window, d = found
        if within is not None:
            d = np.maximum(d, within[window])
        if halo:
            self.blend(window, self.coverage(d - np.float32(halo)), FAT)
        inside = self.coverage(d)
        if wall:
            self.blend(window, inside, wall[1])
            inside = self.coverage(d + np.float32(wall[0]))
        self.blend(window, inside, value(window, d) if callable(value) else value)
