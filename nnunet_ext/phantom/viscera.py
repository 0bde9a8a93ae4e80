"""Organs around the liver: great vessels, kidneys, spleen, pancreas, stomach, bowel, heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.canvas import FAT, Canvas
from nnunet_ext.phantom.fields import Window
from nnunet_ext.phantom.shapes import Ellipsoid, Tube, tube
from nnunet_ext.phantom.trunk import Trunk, ramp

Array = NDArray[np.float32]
Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Enhancement:
    """Hounsfield units of a portal-venous phase."""

    liver: float
    portal: float
    hepatic_vein: float
    aorta: float
    cava: float
    spleen: float
    cortex: float
    medulla: float
    bowel_wall: float

    @classmethod
    def draw(cls, *, rng: np.random.Generator) -> Enhancement:
        """An early or late phase, a strong or a weak one."""
        liver, strength, early = rng.uniform(92, 128), rng.uniform(32, 58), rng.uniform(0, 1)
        portal = liver + strength
        cortex = portal + rng.uniform(5, 40)
        return cls(
            liver=liver,
            portal=portal,
            hepatic_vein=portal - 12 * early,
            aorta=portal + 5 + 30 * early,
            cava=portal - 8 - 25 * early,
            spleen=liver + rng.uniform(4, 22),
            cortex=cortex,
            medulla=cortex - 12 - 40 * early,
            bowel_wall=rng.uniform(75, 105),
        )


def near(rng: np.random.Generator, point: Point, *, mm: float) -> Point:
    """`point`, moved by up to `mm` along each axis."""
    return tuple(float(v) for v in np.asarray(point) + rng.uniform(-mm, mm, 3))


class Viscera:
    """One patient's organs apart from the liver, in painting order."""

    def __init__(self, *, rng: np.random.Generator, trunk: Trunk, enhancement: Enhancement) -> None:
        self.trunk, self.e = trunk, enhancement
        lift = rng.uniform(-12, 12)
        self.kidneys = {
            sign: Ellipsoid(
                centre=near(rng, (sign * 64, 43, -46 + 8 * (sign > 0) + lift), mm=4),
                semi=(rng.uniform(24, 29), rng.uniform(27, 32), rng.uniform(50, 60)),
                degrees=(8, sign * -9, sign * rng.uniform(25, 45)),
            )
            for sign in (-1, 1)
        }
        self.spleen = Ellipsoid(
            centre=near(rng, (100, 36, 34), mm=5),
            semi=(rng.uniform(26, 34), rng.uniform(48, 60), rng.uniform(44, 60)),
            degrees=(-18, 8, rng.uniform(14, 28)),
        )
        self.gallbladder = Ellipsoid(
            centre=near(rng, (-47, -42, -22), mm=5),
            semi=(rng.uniform(11, 17), rng.uniform(13, 19), rng.uniform(24, 36)),
            degrees=(-20, 12, 0),
        )
        self.has_gallbladder = rng.uniform() < 0.85
        self.bile = rng.uniform(3, 16)
        self._draw_vessels(rng)
        self._draw_stomach(rng)
        self._draw_bowel(rng)
        head, tail = near(rng, (-24, -8, -24), mm=4), near(rng, (74, 28, 26), mm=5)
        self.pancreas = tube(
            points=[head, (-20, -12, -8), (4, -16, -2), (34, 0, 10), tail],
            radii=np.array([13, 12, 8.5, 9, 7.5]) * rng.uniform(0.85, 1.15),
        )
        self.pancreas_fat = rng.uniform(0.2, 1.2)
        self.pyramids = rng.uniform(0, 6.28, 2)
        self.heart = rng.uniform(104, 116)

    def _draw_vessels(self, rng: np.random.Generator) -> None:
        wide = rng.uniform(0.85, 1.2)
        self.aorta = tube(
            points=[(9, 27, -200), (9, 26, -60), (8, 25, 0), (11, 27, 60), (16, 32, 160)],
            radii=np.array([8.5, 9.5, 10.5, 11.5, 12]) * wide,
        )
        self.calcified = rng.uniform() < 0.4
        self.cava = tube(
            points=[(-19, 30, -200), (-20, 27, -60), (-24, 21, 0), (-24, 17, 40), (-16, 6, 78), (-8, -2, 110)],
            radii=np.array([10, 10.5, 11, 12, 12.5, 13]) * rng.uniform(0.85, 1.1),
        )
        left, right = self.kidneys[1].centre, self.kidneys[-1].centre
        self.renal_veins = [
            tube(
                points=[(left[0] - 12, left[1] - 8, left[2] + 8), (30, 16, -24), (2, 11, -20), (-18, 21, -18)],
                radii=[4.0, 4.5, 4.5, 4.5],
            ),
            tube(points=[(right[0] + 12, right[1] - 8, right[2] + 6), (-26, 25, -26)], radii=4.5),
        ]
        self.splenic_vein = tube(points=[(88, 28, 30), (45, 12, 14), (14, -2, 2), (-6, -3, -2)], radii=[3.5, 4, 4.5, 5])
        self.mesenteric = [
            tube(points=[(-8, -4, -2), (-6, -14, -50), (-4, -20, -160)], radii=[6, 5.5, 4]),
            tube(points=[(8, 14, 6), (7, -8, -20), (6, -16, -60), (5, -22, -160)], radii=[3.8] * 4),
        ]
        self.coeliac = [
            tube(points=[(8, 16, 16), (7, 2, 20), (28, 0, 24), (60, 14, 30)], radii=[3.6, 3.2, 2.6, 2.4]),
            tube(points=[(7, 2, 20), (-14, -10, 14), (-28, -14, 8)], radii=[3, 2.4, 2.0]),
        ]
        self.adrenals = [
            tube(points=[(s * 26 + 4, 34, 22), (s * 32, 40, 12), (s * 37, 50, 4)], radii=[2.6, 2.8, 2.0])
            for s in (-1, 1)
        ]
        self.crura = [
            tube(
                points=[(s * 16 + 3, 34, -70), (s * 19 + 5, 30, -10), (s * 23 + 6, 22, 40), (s * 20 + 6, 18, 75)],
                radii=[3.5, 5, 4.5, 3],
            )
            for s in (-1, 1)
        ]

    def _draw_stomach(self, rng: np.random.Generator) -> None:
        full = rng.uniform(0.8, 1.2)
        self.stomach = tube(
            points=[
                near(rng, p, mm=4)
                for p in ((58, 10, 66), (68, -16, 38), (62, -42, 8), (34, -56, -14), (2, -46, -16), (-20, -34, -8))
            ],
            radii=np.array([27, 30, 25, 19, 15, 10]) * full,
        )
        self.gas_level = rng.uniform(-58, -36)
        self.stomach_content = rng.uniform(5, 35) if rng.uniform() < 0.75 else rng.uniform(150, 260)  # or contrast

    def _draw_bowel(self, rng: np.random.Generator) -> None:
        outer = self.trunk.half - 26
        colon = [
            (-outer, 22, -190),
            (-outer - 2, 18, -110),
            (-outer + 8, 4, -66),
            (-62, -46, -64),
            (-20, -66, -74),
            (26, -66, -66),
            (70, -46, -34),
            (outer - 8, 8, 2),
            (outer - 2, 34, -40),
            (outer, 32, -190),
        ]
        points = np.array([near(rng, p, mm=6) for p in colon])
        self.colon = tube(points=points, radii=rng.uniform(13, 21, len(colon)), pieces=4)
        self.stool = rng.uniform(0.6, 1.5)
        self.duodenum = tube(
            points=[(-24, -30, -6), (-42, -12, -22), (-42, 4, -52), (-20, 8, -68), (14, 4, -66), (34, -14, -40)],
            radii=rng.uniform(9, 13, 6),
        )
        self.loops: list[Tube] = []
        for _ in range(34):
            start = np.array([rng.uniform(-72, 88), rng.uniform(-66, 14), rng.uniform(-170, -30)])
            steps = rng.normal(0, 1, (3, 3)) * (22, 17, 12)
            points = np.clip(start + np.vstack([np.zeros(3), steps.cumsum(0)]), (-88, -68, -190), (98, 28, -30))
            self.loops.append(tube(points=points, radii=rng.uniform(8, 13), pieces=2))
        self.loop_content = rng.uniform(10, 60, len(self.loops))

    def paint(self, canvas: Canvas) -> None:
        """Everything but the liver, back to front in the order of who indents whom."""
        for shape in self.crura:
            canvas.paint(shape, self.trunk.muscle + 5, halo=1)
        self._paint_bowel(canvas)
        for shape in (self.splenic_vein, *self.mesenteric):
            canvas.paint(shape, self.e.portal, halo=2)
        canvas.paint(self.pancreas, self._lobulated(canvas, 98), halo=2)
        self._paint_stomach(canvas)
        canvas.paint(self.spleen, lambda w, d: self.e.spleen + 2 * canvas.texture(w), halo=2, within=canvas.belly)
        for sign in (-1, 1):
            self._paint_kidney(canvas, sign=sign)
        for shape in self.adrenals:
            canvas.paint(shape, 75)
        self._paint_heart(canvas)
        for shape in (*self.renal_veins, *self.coeliac):
            canvas.paint(shape, self.e.cava + 10, halo=0.8)
        canvas.paint(self.cava, self.e.cava, halo=1)
        canvas.paint(self.aorta, self._aorta_value(canvas), halo=1.2)
        if self.has_gallbladder:
            canvas.paint(self.gallbladder, self.bile, halo=1, wall=(1.6, 75))

    def _lobulated(self, canvas: Canvas, hu: float):
        def value(window: Window, distance: Array) -> Array:
            clefts = np.clip(canvas.texture(window, which=1) - 0.5, 0, 1) * self.pancreas_fat
            return hu - 130 * clefts * ramp(distance, -6, 0) - 30 * clefts

        return value

    def _aorta_value(self, canvas: Canvas):
        def value(window: Window, distance: Array) -> Array:
            plaque = (canvas.texture(window) > 1.3) * np.exp(-(((distance + 0.8) / 0.8) ** 2)) * self.calcified
            return self.e.aorta + 500 * plaque

        return value

    def _paint_kidney(self, canvas: Canvas, *, sign: int) -> None:
        kidney = self.kidneys[sign]
        phase = float(self.pyramids[(sign + 1) // 2])

        def parenchyma(window: Window, distance: Array) -> Array:
            x, y, z = kidney.local(*canvas.at(window))
            angle = np.arctan2(y, x)
            grain = canvas.texture(window)
            columns = 0.7 * np.cos(5 * angle + phase + 0.5 * grain) + 0.7 * np.cos(z * 7 + phase) + 0.5 * grain
            pyramid = ramp(columns, -0.4, 0.4) * ramp(-distance, 5, 7)
            return self.e.cortex + (self.e.medulla - self.e.cortex) * pyramid

        canvas.paint(kidney, parenchyma, halo=3)
        cx, cy, cz = kidney.centre
        sinus = Ellipsoid(centre=(cx - sign * 13, cy - 7, cz), semi=(18, 9, 27), degrees=(0, 0, sign * 35))

        def fat_and_pelvis(window: Window, distance: Array) -> Array:
            return FAT + 110 * ramp(canvas.texture(window) + 0.6 * canvas.texture(window, which=1), 0.2, 0.8)

        canvas.paint(sinus, fat_and_pelvis)

    def _paint_stomach(self, canvas: Canvas) -> None:
        def content(window: Window, distance: Array) -> Array:
            folds = 35 * np.clip(canvas.texture(window) - 0.6, 0, 1) * ramp(distance, -9, -3)
            gas = canvas.coverage(canvas.y[window] - self.gas_level)
            food = self.stomach_content + folds + 6 * canvas.texture(window, which=1)
            return food + (-960 - food) * gas

        canvas.paint(self.stomach, content, halo=2.5, wall=(3.2, self.e.bowel_wall), within=canvas.belly)

    def _chyme(self, canvas: Canvas, hu: float):
        def value(window: Window, distance: Array) -> Array:
            folds = ramp(canvas.texture(window) + ramp(distance, -6, -2), 0.6, 1.3)
            bubbles = ramp(canvas.texture(window, which=1), 1.7, 2.1)
            return hu + (self.e.bowel_wall - hu) * folds - (hu + 900) * bubbles

        return value

    def _paint_bowel(self, canvas: Canvas) -> None:
        for loop, inside in zip(self.loops, self.loop_content, strict=True):
            canvas.paint(
                loop, self._chyme(canvas, float(inside)), halo=1.2, wall=(2.0, self.e.bowel_wall), within=canvas.belly
            )
        canvas.paint(self.duodenum, self._chyme(canvas, 25.0), halo=1.6, wall=(2.4, self.e.bowel_wall))

        def stool(window: Window, distance: Array) -> Array:
            grain, other = canvas.texture(window), canvas.texture(window, which=1)
            bubbles = ramp(grain + 0.5 * other, self.stool - 0.4, self.stool + 0.4)
            return 35 + 25 * other - 780 * bubbles

        canvas.paint(self.colon, stool, halo=2, wall=(2.2, self.e.bowel_wall - 15), within=canvas.belly)

    def _paint_heart(self, canvas: Canvas) -> None:
        sac = Ellipsoid(centre=(22, -38, self.heart), semi=(70, 52, 36), degrees=(0, 14, 25))
        canvas.paint(sac, FAT)
        canvas.paint(Ellipsoid(centre=(24, -36, self.heart + 4), semi=(58, 42, 30), degrees=(0, 14, 25)), 105)
        for centre, semi in (((36, -30, self.heart + 6), (28, 19, 22)), ((2, -48, self.heart + 6), (22, 17, 20))):
            canvas.paint(Ellipsoid(centre=centre, semi=semi, degrees=(0, 14, 25)), self.e.aorta)
        gullet = tube(points=[(22, 6, 62), (12, 14, 82), (9, 15, 160)], radii=[8, 8, 7.5])
        canvas.paint(gullet, 20, halo=1.5, wall=(4, 60))
