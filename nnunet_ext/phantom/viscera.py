"""Organs around the liver: great vessels, kidneys, spleen, pancreas, stomach, bowel, heart."""

from __future__ import annotations

from functools import partial

import numpy as np

from nnunet_ext.phantom.canvas import FAT, Array, Canvas, Ellipsoid, Organ, Rng, near, ramp, tube
from nnunet_ext.phantom.trunk import Trunk

SIDES = (-1, 1)  # right, left

# What is alike in all patients; lengths in mm.
CRURA = [
    tube([(s * 16 + 3, 34, -70), (s * 19 + 5, 30, -10), (s * 23 + 6, 22, 40), (s * 20 + 6, 18, 75)], [3.5, 5, 4.5, 3])
    for s in SIDES
]
ADRENALS = [tube([(s * 26 + 4, 34, 22), (s * 32, 40, 12), (s * 37, 50, 4)], [2.6, 2.8, 2.0]) for s in SIDES]
SPLENIC_AND_MESENTERIC = [
    tube([(88, 28, 30), (45, 12, 14), (14, -2, 2), (-6, -3, -2)], [3.5, 4, 4.5, 5]),
    tube([(-8, -4, -2), (-6, -14, -50), (-4, -20, -160)], [6, 5.5, 4]),
    tube([(8, 14, 6), (7, -8, -20), (6, -16, -60), (5, -22, -160)], 3.8),
]
COELIAC = [
    tube([(8, 16, 16), (7, 2, 20), (28, 0, 24), (60, 14, 30)], [3.6, 3.2, 2.6, 2.4]),
    tube([(7, 2, 20), (-14, -10, 14), (-28, -14, 8)], [3, 2.4, 2.0]),
]
OESOPHAGUS = tube([(22, 6, 62), (12, 14, 82), (9, 15, 160)], [8, 8, 7.5])
AORTA = (9, 27, -200), (9, 26, -60), (8, 25, 0), (11, 27, 60), (16, 32, 160)
CAVA = (-19, 30, -200), (-20, 27, -60), (-24, 21, 0), (-24, 17, 40), (-16, 6, 78), (-8, -2, 110)
DUODENUM = (-24, -30, -6), (-42, -12, -22), (-42, 4, -52), (-20, 8, -68), (14, 4, -66), (34, -14, -40)
STOMACH = (58, 10, 66), (68, -16, 38), (62, -42, 8), (34, -56, -14), (2, -46, -16), (-20, -34, -8)


class Enhancement:
    """Hounsfield units of a portal-venous phase: an early or a late one, strong or weak."""

    def __init__(self, rng: Rng) -> None:
        self.liver, strength, early = rng.uniform(92, 128), rng.uniform(32, 58), rng.uniform(0, 1)
        self.portal = self.liver + strength
        self.hepatic_vein = self.portal - 12 * early
        self.aorta, self.cava = self.portal + 5 + 30 * early, self.portal - 8 - 25 * early
        self.cortex = self.portal + rng.uniform(5, 40)
        self.medulla = self.cortex - 12 - 40 * early
        self.spleen = self.liver + rng.uniform(4, 22)
        self.bowel_wall = rng.uniform(75, 105)


class Viscera:
    """One patient's organs apart from the liver, which makes room for the kidneys and the gallbladder."""

    def __init__(self, rng: Rng, trunk: Trunk, enhancement: Enhancement) -> None:
        self.trunk, self.e = trunk, enhancement
        lift = rng.uniform(-12, 12)
        self.kidneys = {
            sign: Ellipsoid(
                near(rng, (sign * 64, 43, -46 + 8 * (sign > 0) + lift), 4),
                (rng.uniform(24, 29), rng.uniform(27, 32), rng.uniform(50, 60)),
                (8, sign * -9, sign * rng.uniform(25, 45)),
            )
            for sign in SIDES
        }
        spleen = Ellipsoid(
            near(rng, (100, 36, 34), 5),
            (rng.uniform(26, 34), rng.uniform(48, 60), rng.uniform(44, 60)),
            (-18, 8, rng.uniform(14, 28)),
        )
        gallbladder = Ellipsoid(
            near(rng, (-47, -42, -22), 5),
            (rng.uniform(11, 17), rng.uniform(13, 19), rng.uniform(24, 36)),
            (-20, 12, 0),
        )
        self.gallbladder = gallbladder if rng.uniform() < 0.85 else None
        bile = rng.uniform(3, 16)
        vessels = self._vessels(rng)
        stomach = self._stomach(rng)
        bowel = self._bowel(rng)
        pancreas = self._pancreas(rng)
        kidneys = self._kidneys(rng)
        self._organs = [  # back to front, in the order of who indents whom
            *(Organ(crus, trunk.muscle + 5, halo=1) for crus in CRURA),
            *bowel,
            *(Organ(vein, self.e.portal, halo=2) for vein in SPLENIC_AND_MESENTERIC),
            pancreas,
            stomach,
            Organ(spleen, lambda part, _: self.e.spleen + 2 * part.grain, halo=2, in_belly=True),
            *kidneys,
            *(Organ(adrenal, 75) for adrenal in ADRENALS),
            *self._heart(rng),
            *vessels,
            *([Organ(self.gallbladder, bile, halo=1, wall=(1.6, 75))] if self.gallbladder else []),
        ]

    def paint(self, canvas: Canvas) -> None:
        """Paint everything but the liver."""
        for organ in self._organs:
            canvas.paint(organ)

    def _vessels(self, rng: Rng) -> list[Organ]:
        aorta = tube(AORTA, np.array([8.5, 9.5, 10.5, 11.5, 12]) * rng.uniform(0.85, 1.2))
        calcified = rng.uniform() < 0.4
        cava = tube(CAVA, np.array([10, 10.5, 11, 12, 12.5, 13]) * rng.uniform(0.85, 1.1))
        (x, y, z), (u, v, w) = (self.kidneys[sign].centre for sign in SIDES)
        renal = [
            tube([(u - 12, v - 8, w + 8), (30, 16, -24), (2, 11, -20), (-18, 21, -18)], [4, 4.5, 4.5, 4.5]),
            tube([(x + 12, y - 8, z + 6), (-26, 25, -26)], 4.5),
        ]

        def with_plaques(part: Canvas, distance: Array) -> Array:
            plaque = (part.grain > 1.3) * np.exp(-(((distance + 0.8) / 0.8) ** 2)) * calcified
            return self.e.aorta + 500 * plaque

        small = [Organ(vessel, self.e.cava + 10, halo=0.8) for vessel in (*renal, *COELIAC)]
        return [*small, Organ(cava, self.e.cava, halo=1), Organ(aorta, with_plaques, halo=1.2)]

    def _stomach(self, rng: Rng) -> Organ:
        full = rng.uniform(0.8, 1.2)
        shape = tube([near(rng, p, 4) for p in STOMACH], np.array([27, 30, 25, 19, 15, 10]) * full)
        gas_level = rng.uniform(-58, -36)
        hu = rng.uniform(5, 35) if rng.uniform() < 0.75 else rng.uniform(150, 260)  # water or contrast

        def content(part: Canvas, distance: Array) -> Array:
            folds = 35 * np.clip(part.grain - 0.6, 0, 1) * ramp(distance, -9, -3)
            food = hu + folds + 6 * part.other
            return food + (-960 - food) * part.coverage(part.y - gas_level)

        return Organ(shape, content, halo=2.5, wall=(3.2, self.e.bowel_wall), in_belly=True)

    def _bowel(self, rng: Rng) -> list[Organ]:
        out, wall = self.trunk.half - 26, self.e.bowel_wall
        points = [(-out, 22, -190), (-out - 2, 18, -110), (-out + 8, 4, -66), (-62, -46, -64), (-20, -66, -74)]
        points += [(26, -66, -66), (70, -46, -34), (out - 8, 8, 2), (out - 2, 34, -40), (out, 32, -190)]
        colon = tube([near(rng, p, 6) for p in points], rng.uniform(13, 21, len(points)), pieces=4)
        gas = rng.uniform(0.6, 1.5)
        duodenum = tube(DUODENUM, rng.uniform(9, 13, 6))
        loops = []
        for _ in range(34):
            start = np.array([rng.uniform(-72, 88), rng.uniform(-66, 14), rng.uniform(-170, -30)])
            steps = rng.normal(0, 1, (3, 3)) * (22, 17, 12)
            path = np.clip(start + np.vstack([np.zeros(3), steps.cumsum(0)]), (-88, -68, -190), (98, 28, -30))
            loops.append(tube(path, rng.uniform(8, 13), pieces=2))

        def chyme(hu: float, part: Canvas, distance: Array) -> Array:
            folds = ramp(part.grain + ramp(distance, -6, -2), 0.6, 1.3)
            return hu + (wall - hu) * folds - (hu + 900) * ramp(part.other, 1.7, 2.1)  # bubbles

        def stool(part: Canvas, _distance: Array) -> Array:
            bubbles = ramp(part.grain + 0.5 * part.other, gas - 0.4, gas + 0.4)
            return 35 + 25 * part.other - 780 * bubbles

        return [
            *(
                Organ(loop, partial(chyme, hu), halo=1.2, wall=(2.0, wall), in_belly=True)
                for loop, hu in zip(loops, rng.uniform(10, 60, len(loops)).tolist(), strict=True)
            ),
            Organ(duodenum, partial(chyme, 25.0), halo=1.6, wall=(2.4, wall)),
            Organ(colon, stool, halo=2, wall=(2.2, wall - 15), in_belly=True),
        ]

    def _pancreas(self, rng: Rng) -> Organ:
        head, tail = near(rng, (-24, -8, -24), 4), near(rng, (74, 28, 26), 5)
        radii = np.array([13, 12, 8.5, 9, 7.5]) * rng.uniform(0.85, 1.15)
        fat = rng.uniform(0.2, 1.2)

        def lobulated(part: Canvas, distance: Array) -> Array:
            clefts = np.clip(part.other - 0.5, 0, 1) * fat
            return 98 - 130 * clefts * ramp(distance, -6, 0) - 30 * clefts

        return Organ(tube([head, (-20, -12, -8), (4, -16, -2), (34, 0, 10), tail], radii), lobulated, halo=2)

    def _kidneys(self, rng: Rng) -> list[Organ]:
        """Draw both kidneys with cortex and pyramids, each followed by the fat and the pelvis of its sinus."""

        def parenchyma(kidney: Ellipsoid, phase: float, part: Canvas, distance: Array) -> Array:
            x, y, z = kidney.local(*part.at)
            columns = 0.7 * np.cos(5 * np.arctan2(y, x) + phase + 0.5 * part.grain)
            columns = columns + 0.7 * np.cos(z * 7 + phase) + 0.5 * part.grain
            pyramid = ramp(columns, -0.4, 0.4) * ramp(-distance, 5, 7)
            return self.e.cortex + (self.e.medulla - self.e.cortex) * pyramid

        def fat_and_pelvis(part: Canvas, _distance: Array) -> Array:
            return FAT + 110 * ramp(part.grain + 0.6 * part.other, 0.2, 0.8)

        organs = []
        for (sign, kidney), phase in zip(self.kidneys.items(), rng.uniform(0, 6.28, 2).tolist(), strict=True):
            x, y, z = kidney.centre
            sinus = Ellipsoid((x - sign * 13, y - 7, z), (18, 9, 27), (0, 0, sign * 35))
            organs += [Organ(kidney, partial(parenchyma, kidney, phase), halo=3), Organ(sinus, fat_and_pelvis)]
        return organs

    def _heart(self, rng: Rng) -> list[Organ]:
        """Draw pericardial fat, muscle, two chambers, and the oesophagus behind."""
        up = rng.uniform(104, 116)
        blood = self.e.aorta
        parts = [((22, -38, 0), (70, 52, 36), FAT), ((24, -36, 4), (58, 42, 30), 105)]
        parts += [((36, -30, 6), (28, 19, 22), blood), ((2, -48, 6), (22, 17, 20), blood)]
        heart = [Organ(Ellipsoid((x, y, up + z), semi, (0, 14, 25)), value) for (x, y, z), semi, value in parts]
        return [*heart, Organ(OESOPHAGUS, 20, halo=1.5, wall=(4, 60))]
