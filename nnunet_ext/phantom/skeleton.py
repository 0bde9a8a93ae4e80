"""Ribs with their cartilage, and the spine: bodies, discs, pedicles, laminae, processes and the canal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.canvas import FAT, Canvas
from nnunet_ext.phantom.fields import Window
from nnunet_ext.phantom.shapes import Segment, superellipse
from nnunet_ext.phantom.trunk import Trunk, ramp

Array = NDArray[np.float32]
SPINE_BOX = ((-62.0, 62.0), (24.0, 135.0), (-400.0, 400.0))
BONE_END, CARTILAGE_END = 2.05, 2.85  # angles from the back, in radians


class Skeleton:
    """One patient's bones."""

    def __init__(self, *, rng: np.random.Generator, trunk: Trunk) -> None:
        self.trunk = trunk
        self.period = rng.uniform(29.5, 33)
        self.level = rng.uniform(8, 34)  # z of the lowest vertebra that carries a rib
        self.spongy, self.compact = rng.uniform(105, 195), rng.uniform(430, 620)
        self.bend, self.lean, self.phase = rng.uniform(0.02, 0.11), rng.normal(0, 0.015), rng.uniform(0, 6.28)
        self.drop = rng.uniform(105, 135)
        self.calcified = rng.uniform(0, 1) ** 2

    def paint(self, canvas: Canvas) -> None:
        """All bones; they lie outside the cavity, apart from the front of the spine."""
        self._paint_ribs(canvas)
        self._paint_spine(canvas)

    def _paint_ribs(self, canvas: Canvas) -> None:
        x, y, z = canvas.x, canvas.y, canvas.z
        cavity = canvas.cavity
        near = np.abs(cavity - 7.5) < 9
        if not near.any():
            return
        x, y, z, cavity = x[near], y[near], np.broadcast_to(z, near.shape)[near], cavity[near]
        angle = np.abs(np.arctan2(x, y - 5))
        drop = self.drop * np.sin(np.minimum(angle, BONE_END) * (np.pi / 2 / BONE_END)) ** 2
        drop = drop - 75 * np.maximum(angle - BONE_END, 0)
        turns = (z + drop - self.level) / self.period
        number = np.round(turns)
        along = (turns - number) * (self.period * 0.82)
        bone_end = np.where(number < 0.5, 1.15, np.where(number < 1.5, 1.6, BONE_END)).astype(np.float32)
        last = np.where(number < 1.5, bone_end, CARTILAGE_END)
        k = np.sqrt(((cavity - 7.2) / 4.0) ** 2 + (along / 6.8) ** 2)
        d = np.maximum(4.4 * (k - 1), (angle - last) * 110)
        d = np.where((number < -0.5) | (angle < 0.34), np.float32(50), d)
        marrow = ramp(-d, 1.2, 2.2)
        bone = self.compact * 1.25 + (self.spongy - 20 - self.compact * 1.25) * marrow
        gristle = 105 + 260 * self.calcified * (1 - marrow)
        value = np.where(angle < bone_end, bone, gristle).astype(np.float32)
        canvas.hu[near] += canvas.coverage(d) * (value - canvas.hu[near])

    def _paint_spine(self, canvas: Canvas) -> None:
        window = canvas.window(SPINE_BOX, margin=0)
        if window is None:
            return
        x, y, z = canvas.at(window)
        # Each vertebra is tilted a little, as the spine bends, and differently from its neighbours.
        tilt = self.bend * np.sin(z / 60 + self.phase) * (y - 52) + self.lean * np.cos(z / 80) * x
        turns = (z + tilt - self.level) / self.period
        up = (turns - np.round(turns)) * self.period
        self._paint_arch(canvas, window, x=x, y=y, up=up)
        canal = superellipse(x, y - 80, half=11.5, front=10, back=9.5)
        canvas.blend(window, canvas.coverage(canal), FAT + 20)
        cord = superellipse(x, y - 78.5, half=9.0, front=8, back=7.5)
        canvas.blend(window, canvas.coverage(cord), 18)
        canvas.blend(window, canvas.coverage(cord + 4), 42)
        self._paint_body(canvas, window, x=x, y=y, up=up)

    def _paint_body(self, canvas: Canvas, window: Window, *, x: Array, y: Array, up: Array) -> None:
        height = self.period / 2 - 4.2
        waist = 2.2 * (1 - np.minimum((up / height) ** 2, 1))
        hollow = 3.5 * np.exp(-((x / 9) ** 2)) * (y > 52)
        outline = superellipse(x, y - 52, half=23.5, front=17.5, back=18.5) + waist + hollow
        canvas.blend(window, canvas.coverage(outline - 1), 82)
        d = np.maximum(outline, np.abs(up) - height)
        grain = canvas.texture(window, which=1)
        cleft = 70 * np.exp(-((x / 5) ** 2) - (up / 3) ** 2) * (y > 52)
        shell = ramp(d, -2.6, -0.9)
        inside = self.spongy + 22 * grain - cleft
        canvas.blend(window, canvas.coverage(d), inside + (self.compact - inside) * shell)

    def _paint_arch(self, canvas: Canvas, window: Window, *, x: Array, y: Array, up: Array) -> None:
        """Both sides at once: the model spine is symmetric before warping."""
        side, flat = np.abs(x), up * 0.35
        parts = [
            Segment(start=(15, 62, 5), end=(18, 84, 3), r0=5.0, r1=6.0).distance(side, y, up),
            Segment(start=(18, 84, 5), end=(44, 91, 6), r0=5.0, r1=3.2).distance(side, y, up),
            Segment(start=(17, 88, -1), end=(3, 99, -2), r0=4.6, r1=3.6).distance(side, y, up * 0.5),
            Segment(start=(0, 98, -2), end=(0, 117, -4.4), r0=2.6, r1=3.6).distance(side, y, flat),
        ]
        d = np.minimum.reduce(parts)
        around = np.abs(up) - self.period / 2  # the joints between neighbouring vertebrae
        joint = Segment(start=(19, 88, 0), end=(22, 92, 0), r0=7.0, r1=6.0).distance(side, y, around * 0.6)
        d = np.minimum(d, joint)
        gap = np.exp(-((((side - 20) * 0.8 + (y - 90) * 0.6) / 0.8) ** 2)) * (np.abs(around) < 7)
        bone = self.compact * 1.15 + (self.spongy + 60 - self.compact * 1.15) * ramp(-d, 1.4, 2.8)
        canvas.blend(window, canvas.coverage(d), bone - 330 * gap)
