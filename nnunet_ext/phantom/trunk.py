"""The trunk: skin, fat, muscle wall, abdominal cavity, diaphragm, lungs, back muscles, and the table beneath."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.canvas import FAT, Canvas
from nnunet_ext.phantom.fields import Window
from nnunet_ext.phantom.shapes import Ellipsoid, smooth_union, superellipse

Array = NDArray[np.float32]
EVERYWHERE = ((-400.0, 400.0), (-400.0, 400.0), (-400.0, 400.0))


def ramp(v: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((v - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


class Trunk:
    """One patient's trunk. Distances are model mm, negative inside."""

    def __init__(self, *, rng: np.random.Generator) -> None:
        self.half = rng.uniform(120, 132)
        self.front = rng.uniform(78, 94)
        self.back = rng.uniform(80, 88)
        self.wall = rng.uniform(15, 19)
        leanness = rng.beta(1.6, 2.6)
        self.fat_side, self.fat_front, self.fat_back = 4 + 30 * leanness, 5 + 34 * leanness, 6 + 18 * leanness
        self.dome_right, self.dome_left = rng.uniform(84, 94), rng.uniform(74, 88)
        self.muscle = rng.uniform(50, 66)
        self.fatty_muscle = rng.uniform(0.6, 1.5)
        self.psoas = rng.uniform(0.85, 1.15)
        self.table_gap = rng.uniform(5, 9)

    @property
    def lowest(self) -> float:
        """The y of the skin of the back."""
        return self.back + 33 + self.fat_back

    def _outline(self, x: Array, y: Array, z: Array, *, side: float, front: float, back: float) -> Array:
        half = self.half + side - 16 * ramp(z, 30, 130) - 8 * ramp(-z, 30, 110)
        depth = self.front + front - 10 * ramp(-z, 0, 90)
        return superellipse(x, y, half=half, front=depth, back=self.back + back)

    def cavity(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the inner surface of the body wall."""
        return self._outline(x, y, z, side=0, front=0, back=0)

    def muscle_wall(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the outer surface of the muscles; the back has its furrow over the spine."""
        furrow = 7 * np.exp(-((x / 14) ** 2)) * (y > 0) + 3 * np.exp(-((x / 9) ** 2)) * (y < 0)
        return self._outline(x, y, z, side=self.wall, front=10, back=33) + furrow

    def skin(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the skin."""
        furrow = 6 * np.exp(-((x / 16) ** 2)) * (y > 0)
        return furrow + self._outline(
            x, y, z, side=self.wall + self.fat_side, front=10 + self.fat_front, back=33 + self.fat_back
        )

    def below_diaphragm(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the two domes of the diaphragm, negative beneath them."""
        u, v = np.abs(x) * np.float32(1 / self.half), np.abs(y) * np.float32(1 / (self.front + 2))
        q = np.minimum(u * u * np.sqrt(u) + v * v * np.sqrt(v), np.float32(0.98))
        top = self.dome_right + (self.dome_left - self.dome_right) * ramp(x, -25, 40)
        top = top - 9 * np.exp(-(((x - 8) / 28) ** 2))
        fall = 78 + 26 * ramp(y, 0, 80) - 22 * ramp(-y, 20, 90)
        root = np.sqrt(1 - q)
        slope = fall * 1.2 * np.sqrt(q) / (self.front * root)
        return (z - top + fall * (1 - root)) / np.sqrt(1 + slope * slope)

    @staticmethod
    def envelope(*, cavity: Array, dome: Array) -> Array:
        """Distance to the space for viscera: inside the wall and below the diaphragm."""
        return -smooth_union(-(cavity + 2.5), -(dome + 1.6), radius=8)

    def paint_table(self, canvas: Canvas) -> None:
        """A curved couch top: two thin shells around foam."""
        _, y, x = canvas.scene.axes
        pose = canvas.scene.pose
        top = pose.shift[1] + (self.lowest * pose.scale[1]) + self.table_gap
        depth = y[:, None] - (top - (x[None, :] - pose.shift[0]) ** 2 / 900)
        depth = depth[None]
        canvas.blend(canvas.everything, canvas.coverage(np.abs(depth - 9) - 9), -905)
        for shell in (0.0, 18.0):
            canvas.blend(canvas.everything, canvas.coverage(np.abs(depth - shell) - 1.1), 40)

    def paint(self, canvas: Canvas) -> None:
        """Everything from the skin to the fat of the cavity, then lungs and diaphragm."""
        reach, lowest = self.half + self.wall + self.fat_side, self.lowest + 4
        window = canvas.window(((-reach, reach), (-self.front - 10 - self.fat_front, lowest), (-400, 400)), margin=0)
        (x, y, z), grain, other = canvas.at(window), canvas.texture(window), canvas.texture(window, which=1)
        skin, muscle, cavity = self.skin(x, y, z), self.muscle_wall(x, y, z), self.cavity(x, y, z)
        canvas.blend(window, canvas.coverage(skin), 5)
        septa = 30 * np.exp(-((other / 0.09) ** 2)) * (grain > 0.5)
        canvas.blend(window, canvas.coverage(skin + 1.6), FAT - 4 + 2.5 * grain + septa)
        self._paint_muscles(canvas, window, muscle=muscle, cavity=cavity, grain=grain, other=other)
        vessels = np.clip(1.4 - (grain * grain + other * other) / 0.07, 0, 1)
        canvas.blend(window, canvas.coverage(cavity), FAT + 3 * grain + 150 * vessels)
        dome = self.below_diaphragm(x, y, z)
        canvas.belly[window] = self.envelope(cavity=cavity, dome=dome)
        canvas.cavity[window] = cavity
        self._paint_lungs(canvas, window, cavity=cavity, dome=dome)

    def _paint_muscles(
        self, canvas: Canvas, window: Window, *, muscle: Array, cavity: Array, grain: Array, other: Array
    ) -> None:
        x, y, z = canvas.at(window)
        canvas.blend(window, canvas.coverage(muscle), self.muscle + 4 * other)
        side = ramp(np.abs(x), 30, 60)
        for depth, strength in ((4.5, 0.55), (10.5, 0.7)):
            plane = np.exp(-(((cavity - depth) / 0.9) ** 2)) * side * strength * np.clip(0.6 + 0.5 * grain, 0, 1)
            canvas.blend(window, plane, FAT)
        alba = np.exp(-((x / 3.5) ** 2)) * (y < 0) * 0.8
        rectus = np.exp(-(((np.abs(x) - 62) / 4) ** 2)) * (y < -20) * ramp(-z, -40, 0) * 0.75
        canvas.blend(window, np.maximum(alba, rectus) * canvas.coverage(-cavity), FAT)
        for sign in (-1, 1):
            self._paint_back(canvas, sign=sign)

    def _paint_back(self, canvas: Canvas, *, sign: int) -> None:
        """Erector spinae, multifidus, quadratus lumborum and psoas of one side."""

        def striated(window: Window, _distance: Array) -> Array:
            streak = np.clip(canvas.texture(window, which=1) - 1.1, 0, 1) * self.fatty_muscle
            return self.muscle + 3 * canvas.texture(window) - 90 * streak

        canvas.paint(
            Ellipsoid(centre=(sign * 39, self.back + 15, 0), semi=(27, 16, 500), degrees=(0, 0, sign * 14)),
            striated,
            halo=1.3,
        )
        canvas.paint(Ellipsoid(centre=(sign * 13, self.back + 20, 0), semi=(9.5, 13, 500)), striated, halo=1.0)
        canvas.paint(
            Ellipsoid(centre=(sign * 64, self.back - 9, -90), semi=(20, 7, 105), degrees=(0, 0, sign * -24)),
            striated,
            halo=1.2,
        )
        canvas.paint(
            Ellipsoid(
                centre=(sign * 38, 57, -120), semi=(19 * self.psoas, 22 * self.psoas, 135), degrees=(0, sign * -5, 0)
            ),
            striated,
            halo=1.2,
        )

    def _paint_lungs(self, canvas: Canvas, window: Window, *, cavity: Array, dome: Array) -> None:
        """The lungs: in the rib cage, above the diaphragm, beside the mediastinum."""
        if canvas.z[-1] < self.dome_left - 130:
            return
        (x, y, z), grain, other = canvas.at(window), canvas.texture(window), canvas.texture(window, which=1)
        middle = Ellipsoid(centre=(2, 45, 0), semi=(38, 52, 400)).distance(x, y, z)
        front = Ellipsoid(centre=(14, -66, 0), semi=(24, 50, 400)).distance(x, y, z)
        lung = np.maximum(np.maximum(cavity + 1.5, -dome), -smooth_union(middle, front, radius=40))
        sheet = canvas.coverage(np.abs(dome + 0.6) - 0.9) * canvas.coverage(cavity)
        canvas.blend(window, sheet, self.muscle)
        vessels = np.clip(1.6 - (grain * grain + other * other) / 0.035, 0, 1)
        bases = 60 * np.clip(1 - np.abs(lung) / 12, 0, 1) + 30 * ramp(y, 0, 90)
        canvas.blend(window, canvas.coverage(lung), -865 + bases + 12 * grain + 780 * vessels)
