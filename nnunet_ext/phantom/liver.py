"""The liver: outline, portal and hepatic veins, tumours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_ext.phantom.canvas import Array, Canvas, Ellipsoid, Organ, Rng, Segment, Tube, near, ramp, smooth_min, tube
from nnunet_ext.phantom.viscera import Viscera

BOX = ((-150, 100), (-110, 105), (-105, 105))
MEDIAN_MM, LOG_SD, SMALLEST_MM, LARGEST_MM = 22.0, 0.6, 6.0, 90.0  # of the tumours' diameters
Ends = list[tuple[tuple[int, int, int], float]]  # where the branches of a vein lead, and how wide they begin, in mm
RIGHT_PORTAL: Ends = [(end, 4.6) for end in ((-84, -48, 34), (-100, 36, 26), (-90, 24, -30), (-78, -44, -20))]
LEFT_PORTAL: Ends = [(end, 3.8) for end in ((44, -56, 46), (-28, -68, 18), (24, -64, 26))]
HEPATIC: Ends = [((-104, 30, 34), 6.0), ((-96, 0, -14), 4.8), ((-46, -52, 22), 5.4)]
HEPATIC += [((24, -52, 48), 4.8), ((-84, -36, 62), 3.2)]


class Tumour:
    """A hypodense lesion: diameter and edge in scanner mm, lobulation in radii, contrast, rim and core in HU."""

    def __init__(self, rng: Rng, *, centre: Array, diameter: float, contrast: float, scale: float) -> None:
        stretch = np.exp(rng.normal(0, 0.12, 3))
        semi = diameter / 2 / scale * stretch / stretch.prod() ** (1 / 3)
        self.diameter = diameter
        self.contrast = float(np.clip(contrast + rng.normal(0, 7), 20, 60))
        self.body = Ellipsoid(tuple(map(float, centre)), tuple(map(float, semi)), tuple(rng.uniform(-90, 90, 3)))
        self.rim = rng.uniform(10, 28) if rng.uniform() < 0.35 else 0.0
        self.core = rng.uniform(14, 36) if diameter > 24 and rng.uniform() < 0.6 else 0.0
        self.lobulation = rng.uniform(0.03, 0.11)
        self.edge = rng.uniform(0.8, 2.4)

    def paint(self, canvas: Canvas, parenchyma: float) -> None:
        """Paint it in HU where there is liver, and its label's coverage; `parenchyma` is the liver's HU."""
        found = canvas.distance(self.body, 6)
        if found is None:
            return
        part, d = found
        radius = self.diameter / 2
        d = d + self.lobulation * radius * part.grain
        value = parenchyma - self.contrast + 3 * part.other
        value = value - self.core * ramp(-d + 0.08 * radius * part.other, 0.3 * radius, 0.55 * radius)
        value = value + self.rim * np.exp(-(((d + 0.09 * radius) / (0.07 * radius + 0.6)) ** 2))
        soft = np.clip(0.5 - d / (2 * max(self.edge, 0.5 * part.pixel)), 0, 1)
        part.blend(soft * part.liver, value)
        part.tumour[:] = np.maximum(part.tumour, part.coverage(d) * part.liver)


class Liver:
    """One patient's liver: a right and a left lobe under the diaphragm, indented by the viscera around it.

    `scale` says how many scanner mm a model mm is, for the size of the tumours.
    """

    def __init__(self, rng: Rng, viscera: Viscera, *, has_tumours: bool, scale: float) -> None:
        self.trunk, self.e, self.scale = viscera.trunk, viscera.e, scale
        big = rng.uniform(0.92, 1.08)
        self.right = Ellipsoid(
            near(rng, (-70, -4, 8), 4), (80 * big, rng.uniform(88, 100), rng.uniform(88, 104)), (0, 8, 0)
        )
        self.left = Ellipsoid(
            near(rng, (12, -50, 44), 5),
            (rng.uniform(58, 88), rng.uniform(28, 38), rng.uniform(30, 42)),
            (0, rng.uniform(-14, 0), rng.uniform(0, 16)),
        )
        self.caudate = Ellipsoid(near(rng, (-8, 2, 34), 3), (17, 15, 26))
        self.tip = rng.uniform(-58, -38)
        kidney = viscera.kidneys[-1]
        (x, y, z), (a, b, c) = kidney.centre, kidney.semi
        # what indents it, how far away it stays, and how round the rim is
        self.cuts: list[tuple[Ellipsoid | Segment | Tube, float, float]] = [
            (Ellipsoid(kidney.centre, (a + 5, b + 5, c + 5), kidney.degrees), 0, 14),
            (Ellipsoid((x + 20, y + 26, z), (36, 44, 62)), 0, 14),  # the kidney's fat is open to the back
            (Ellipsoid((12, 52, 0), (46, 46, 400)), 0, 12),
            (tube([(20, -10, 4), (-18, -14, 6), (-44, -4, 8)], [11, 8, 5], pieces=1), 0, 10),
            (Segment((4, -96, -20), (0, -38, 20), 5, 3), 0, 6),
            (Segment((-24, 21, -10), (-24, 17, 40), 11, 11), 0, 3),
            (Segment((-24, 17, 40), (-16, 6, 82), 11, 12), 0, 3),
        ]
        if viscera.gallbladder:
            self.cuts.append((viscera.gallbladder, 0.5, 4))
        self.patchy = rng.uniform(1.0, 2.6)
        hilum = near(rng, (-26, -10, 8), 3)
        right, left = near(rng, (-56, -2, 14), 4), near(rng, (2, -40, 32), 4)
        trunk = Segment((-7, -4, -2), hilum, 6.3, 6.3), Segment(hilum, right, 5.8, 4.8), Segment(hilum, left, 5.0, 4.2)
        twigs = self._twigs(rng, right, RIGHT_PORTAL, 10) + self._twigs(rng, left, LEFT_PORTAL, 10)
        self.portal = Tube((*trunk, *self._kept(twigs)))
        self.hepatic = Tube(self._kept(self._twigs(rng, (-18.0, 6.0, 72.0), HEPATIC, 9)))
        self.tumours = self._draw_tumours(rng) if has_tumours else []

    def distance(self, x: Array, y: Array, z: Array, *, belly: Array) -> Array:
        """Return the distance in model mm, negative inside; `belly` is that to the space for viscera."""
        d = smooth_min(self.right.distance(x, y, z), self.left.distance(x, y, z), 28)
        limit = self.tip + 0.7 * np.minimum(x + 72, 78) + 0.3 * y
        d = -smooth_min(-d, -(limit - z) / 1.27, 16)
        d = smooth_min(d, self.caudate.distance(x, y, z), 8)
        for shape, away, radius in self.cuts:
            d = -smooth_min(-d, shape.distance(x, y, z) - away, radius)
        return -smooth_min(-d, -belly, 6)

    def depth(self, points: Array) -> Array:
        """Return how deep points (n, 3) lie inside, in model mm."""
        x, y, z = points.T
        belly = self.trunk.belly(self.trunk.outline(x, y, z), self.trunk.dome(x, y, z))
        return -self.distance(x, y, z, belly=belly)

    def _twigs(self, rng: Rng, start: Sequence[float], ends: Ends, mm: float) -> list[Segment]:
        """Draw branches from a point to near their ends."""
        branches = (self._branch(rng, np.array(start), np.array(near(rng, end, mm)), radius) for end, radius in ends)
        return [segment for branch in branches for segment in branch]

    def _branch(self, rng: Rng, start: Array, end: Array, radius: float) -> list[Segment]:
        """Draw a curved branch in three pieces, with side branches that shrink until they are below 1.2 mm."""
        length = float(np.linalg.norm(end - start))
        stops = np.linspace(0, 1, 4)[:, None]
        path = start + (end - start) * stops + rng.normal(0, 0.06 * length, 3) * np.sin(np.pi * stops)
        radii = radius * np.linspace(1, 0.62, 4)
        out = [Segment(tuple(path[i]), tuple(path[i + 1]), radii[i], radii[i + 1]) for i in range(3)]
        if radius < 1.2:
            return out
        ahead = (end - start) / max(length, 1)
        for i in (1, 2, 3):
            sideways = rng.normal(0, 1, 3)
            sideways -= ahead * (sideways @ ahead)
            aim = ahead * rng.uniform(0.5, 1.0) + sideways / np.linalg.norm(sideways) * rng.uniform(0.5, 1.0)
            reach = length * rng.uniform(0.4, 0.62)
            out += self._branch(rng, path[i], path[i] + aim * reach, radii[i] * rng.uniform(0.55, 0.8))
        return out

    def _kept(self, segments: list[Segment]) -> tuple[Segment, ...]:
        """Keep only what lies inside the liver."""
        depth = self.depth(np.array([s.end for s in segments], np.float32))
        return tuple(s for s, d in zip(segments, depth, strict=True) if d > 3 + s.r1)

    def _draw_tumours(self, rng: Rng) -> list[Tumour]:
        """Draw tumours inside the liver, within the usual scan range and apart from each other."""
        count = min(1 + rng.geometric(0.4), 9) if rng.uniform() < 0.75 else 1
        diameters = np.clip(MEDIAN_MM * np.exp(LOG_SD * rng.standard_normal(count)), SMALLEST_MM, LARGEST_MM)
        diameters = np.sort(diameters)[::-1]
        diameters[0] = max(diameters[0], rng.uniform(16, 30))  # a case with tumours has one that can be learnt
        diameters[3:] = np.minimum(diameters[3:], 25)
        contrast = rng.uniform(30, 52)
        tumours: list[Tumour] = []
        for diameter in diameters.tolist():
            radius = diameter / 2 / self.scale
            points = rng.uniform((-135, -90, -38), (60, 85, 62), (600, 3)).astype(np.float32)
            fits = self.depth(points) > max(min(0.75 * radius, 24), 4)
            for other in tumours:
                gap = np.linalg.norm(points - np.asarray(other.body.centre, np.float32), axis=1)
                fits &= gap > 0.95 * (radius + max(other.body.semi))
            if fits.any():
                centre = points[np.argmax(fits)]
                tumours.append(Tumour(rng, centre=centre, diameter=diameter, contrast=contrast, scale=self.scale))
        return tumours

    def paint(self, canvas: Canvas) -> None:
        """Paint parenchyma, veins and tumours in HU, and the two labels' coverage."""
        part = canvas.part(BOX, margin=3)
        if part is None:
            return
        part.liver[:] = part.coverage(self.distance(*part.at, belly=part.belly))
        part.blend(part.liver, self.e.liver + self.patchy * part.grain)
        canvas.paint(Organ(self.hepatic, self.e.hepatic_vein))
        canvas.paint(Organ(self.portal, self.e.portal))
        for tumour in self.tumours:
            tumour.paint(canvas, self.e.liver)
