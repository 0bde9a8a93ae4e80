"""The liver: outline, portal and hepatic veins, tumours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.canvas import Canvas
from nnunet_ext.phantom.shapes import (
    Box,
    Ellipsoid,
    Segment,
    Tube,
    smooth_cut,
    smooth_union,
    tube,
)
from nnunet_ext.phantom.trunk import Trunk, ramp
from nnunet_ext.phantom.viscera import Enhancement, Viscera, near

Array = NDArray[np.float32]
TUMOUR_FREE = 8  # one case in so many has no tumour
MEDIAN_MM, LOG_SD, SMALLEST_MM, LARGEST_MM = 22.0, 0.6, 6.0, 90.0


@dataclass(frozen=True, kw_only=True)
class Tumour:
    """A hypodense lesion; `diameter` in scanner mm, the rest in HU."""

    body: Ellipsoid
    diameter: float
    contrast: float
    rim: float
    core: float
    lobulation: float
    edge: float


class LiverShape:
    """A right and a left lobe under the diaphragm, indented by the neighbours."""

    box: Box = ((-150, 100), (-110, 105), (-105, 105))

    def __init__(self, *, rng: np.random.Generator, trunk: Trunk, viscera: Viscera) -> None:
        self.trunk, self.viscera = trunk, viscera
        big = rng.uniform(0.92, 1.08)
        self.right = Ellipsoid(
            centre=near(rng, (-70, -4, 8), mm=4),
            semi=(80 * big, rng.uniform(88, 100), rng.uniform(88, 104)),
            degrees=(0, 8, 0),
        )
        self.left = Ellipsoid(
            centre=near(rng, (12, -50, 44), mm=5),
            semi=(rng.uniform(58, 88), rng.uniform(28, 38), rng.uniform(30, 42)),
            degrees=(0, rng.uniform(-14, 0), rng.uniform(0, 16)),
        )
        self.caudate = Ellipsoid(centre=near(rng, (-8, 2, 34), mm=3), semi=(17, 15, 26))
        self.tip = rng.uniform(-58, -38)
        kidney = viscera.kidneys[-1]
        kx, ky, kz = kidney.centre
        self.cuts = (
            (Ellipsoid(centre=kidney.centre, semi=tuple(s + 5 for s in kidney.semi), degrees=kidney.degrees), 14.0),
            (Ellipsoid(centre=(kx + 20, ky + 26, kz), semi=(36, 44, 62)), 14.0),  # its fat is open to the back
            (Ellipsoid(centre=(12, 52, 0), semi=(46, 46, 400)), 12.0),
            (tube(points=[(20, -10, 4), (-18, -14, 6), (-44, -4, 8)], radii=[11, 8, 5], pieces=1), 10.0),
            (Segment(start=(4, -96, -20), end=(0, -38, 20), r0=5.0, r1=3.0), 6.0),
            (Segment(start=(-24, 21, -10), end=(-24, 17, 40), r0=11, r1=11), 3.0),
            (Segment(start=(-24, 17, 40), end=(-16, 6, 82), r0=11, r1=12), 3.0),
        )

    def distance(self, x: Array, y: Array, z: Array, *, belly: Array) -> Array:
        """Signed distance in model mm, negative inside; `belly` is the trunk's envelope at the same points."""
        d = smooth_union(self.right.distance(x, y, z), self.left.distance(x, y, z), radius=28)
        limit = self.tip + 0.7 * np.minimum(x + 72, 78) + 0.3 * y
        d = -smooth_union(-d, -(limit - z) / 1.27, radius=16)
        d = smooth_union(d, self.caudate.distance(x, y, z), radius=8)
        for shape, radius in self.cuts:
            d = smooth_cut(d, shape.distance(x, y, z), radius=radius)
        if self.viscera.has_gallbladder:
            d = smooth_cut(d, self.viscera.gallbladder.distance(x, y, z) - 0.5, radius=4)
        return -smooth_union(-d, -belly, radius=6)

    def depth(self, points: Array) -> Array:
        """How deep `points` (n, 3) lie inside, in model mm."""
        x, y, z = points.T
        belly = self.trunk.envelope(cavity=self.trunk.cavity(x, y, z), dome=self.trunk.below_diaphragm(x, y, z))
        return -self.distance(x, y, z, belly=belly)


class Liver:
    """One patient's liver. `case` decides deterministically who has no tumour."""

    def __init__(
        self,
        *,
        rng: np.random.Generator,
        case: int,
        trunk: Trunk,
        viscera: Viscera,
        enhancement: Enhancement,
        scale: float,
    ) -> None:
        self.e = enhancement
        self.shape = LiverShape(rng=rng, trunk=trunk, viscera=viscera)
        self.patchy = rng.uniform(1.0, 2.6)
        self.portal, self.hepatic = self._portal_tree(rng), self._hepatic_tree(rng)
        self.tumours = [] if case % TUMOUR_FREE == TUMOUR_FREE - 3 else self._draw_tumours(rng, scale=scale)

    def _portal_tree(self, rng: np.random.Generator) -> Tube:
        hilum = near(rng, (-26, -10, 8), mm=3)
        right, left = near(rng, (-56, -2, 14), mm=4), near(rng, (2, -40, 32), mm=4)
        trunk = [
            Segment(start=(-7, -4, -2), end=hilum, r0=6.3, r1=6.3),
            Segment(start=hilum, end=right, r0=5.8, r1=4.8),
            Segment(start=hilum, end=left, r0=5.0, r1=4.2),
        ]
        twigs = []
        for start, ends, radius in (
            (right, ((-84, -48, 34), (-100, 36, 26), (-90, 24, -30), (-78, -44, -20)), 4.6),
            (left, ((44, -56, 46), (-28, -68, 18), (24, -64, 26)), 3.8),
        ):
            for end in ends:
                twigs += self._branch(rng, start=np.array(start), end=np.array(near(rng, end, mm=10)), radius=radius)
        return Tube(segments=(*trunk, *self._kept(twigs)))

    def _hepatic_tree(self, rng: np.random.Generator) -> Tube:
        mouth = np.array((-18.0, 6.0, 72.0))
        twigs = []
        for end, radius in (
            ((-104, 30, 34), 6.0),
            ((-96, 0, -14), 4.8),
            ((-46, -52, 22), 5.4),
            ((24, -52, 48), 4.8),
            ((-84, -36, 62), 3.2),
        ):
            twigs += self._branch(rng, start=mouth, end=np.array(near(rng, end, mm=9)), radius=radius)
        return Tube(segments=self._kept(twigs))

    def _branch(self, rng: np.random.Generator, *, start: Array, end: Array, radius: float) -> list[Segment]:
        """A curved branch in three pieces, with side branches that shrink until they are below 0.8 mm."""
        length = float(np.linalg.norm(end - start))
        stops = np.linspace(0, 1, 4)[:, None]
        path = start + (end - start) * stops + rng.normal(0, 0.06 * length, 3) * np.sin(np.pi * stops)
        radii = radius * np.linspace(1, 0.62, 4)
        out = [Segment(start=tuple(path[i]), end=tuple(path[i + 1]), r0=radii[i], r1=radii[i + 1]) for i in range(3)]
        if radius < 1.2:
            return out
        ahead = (end - start) / max(length, 1)
        for i in (1, 2, 3):
            sideways = rng.normal(0, 1, 3)
            sideways -= ahead * (sideways @ ahead)
            aim = ahead * rng.uniform(0.5, 1.0) + sideways / np.linalg.norm(sideways) * rng.uniform(0.5, 1.0)
            reach = length * rng.uniform(0.4, 0.62)
            out += self._branch(rng, start=path[i], end=path[i] + aim * reach, radius=radii[i] * rng.uniform(0.55, 0.8))
        return out

    def _kept(self, segments: list[Segment]) -> tuple[Segment, ...]:
        """Only what lies inside the liver."""
        ends = np.array([s.end for s in segments], np.float32)
        depth = self.shape.depth(ends)
        return tuple(s for s, d in zip(segments, depth, strict=True) if d > 3 + s.r1)

    def _draw_tumours(self, rng: np.random.Generator, *, scale: float) -> list[Tumour]:
        count = min(1 + rng.geometric(0.4), 9) if rng.uniform() < 0.75 else 1
        diameters = np.clip(MEDIAN_MM * np.exp(LOG_SD * rng.standard_normal(count)), SMALLEST_MM, LARGEST_MM)
        diameters = np.sort(diameters)[::-1]
        diameters[0] = max(diameters[0], rng.uniform(16, 30))  # a case with tumours has one that can be learnt
        diameters[3:] = np.minimum(diameters[3:], 25)
        base = rng.uniform(30, 52)
        tumours: list[Tumour] = []
        for diameter in diameters:
            centre = self._seat(rng, radius=diameter / 2 / scale, taken=tumours)
            if centre is not None:
                tumours.append(self._tumour(rng, centre=centre, diameter=float(diameter), base=base, scale=scale))
        return tumours

    def _seat(self, rng: np.random.Generator, *, radius: float, taken: list[Tumour]) -> Array | None:
        """A place inside the liver, within the usual scan range and apart from the other tumours."""
        points = rng.uniform((-135, -90, -38), (60, 85, 62), (600, 3)).astype(np.float32)
        depth = self.shape.depth(points)
        fits = depth > max(min(0.75 * radius, 24), 4)
        for other in taken:
            gap = np.linalg.norm(points - np.asarray(other.body.centre, np.float32), axis=1)
            fits &= gap > 0.95 * (radius + max(other.body.semi))
        return points[np.argmax(fits)] if fits.any() else None

    def _tumour(self, rng: np.random.Generator, *, centre: Array, diameter: float, base: float, scale: float) -> Tumour:
        stretch = np.exp(rng.normal(0, 0.12, 3))
        semi = diameter / 2 / scale * stretch / stretch.prod() ** (1 / 3)
        contrast = float(np.clip(base + rng.normal(0, 7), 20, 60))
        return Tumour(
            body=Ellipsoid(
                centre=tuple(map(float, centre)), semi=tuple(map(float, semi)), degrees=tuple(rng.uniform(-90, 90, 3))
            ),
            diameter=diameter,
            contrast=contrast,
            rim=rng.uniform(10, 28) if rng.uniform() < 0.35 else 0.0,
            core=rng.uniform(14, 36) if diameter > 24 and rng.uniform() < 0.6 else 0.0,
            lobulation=rng.uniform(0.03, 0.11),
            edge=rng.uniform(0.8, 2.4),
        )

    def paint(self, canvas: Canvas) -> None:
        """Parenchyma, veins and tumours in HU, and the two labels' coverage."""
        window = canvas.window(self.shape.box, margin=3)
        if window is None:
            return
        inside = canvas.coverage(self.shape.distance(*canvas.at(window), belly=canvas.belly[window]))
        grain = canvas.texture(window)
        canvas.blend(window, inside, self.e.liver + self.patchy * grain)
        canvas.liver[window] = inside
        for tree, value in ((self.hepatic, self.e.hepatic_vein), (self.portal, self.e.portal)):
            canvas.paint(tree, value)
        for tumour in self.tumours:
            self._paint_tumour(canvas, tumour)

    def _paint_tumour(self, canvas: Canvas, tumour: Tumour) -> None:
        found = canvas.distance(tumour.body, margin=6)
        if found is None:
            return
        window, d = found
        grain, other = canvas.texture(window), canvas.texture(window, which=1)
        radius = tumour.diameter / 2
        d = d + tumour.lobulation * radius * grain
        inside = canvas.liver[window]
        value = self.e.liver - tumour.contrast + 3 * other
        value = value - tumour.core * ramp(-d + 0.08 * radius * other, 0.3 * radius, 0.55 * radius)
        value = value + tumour.rim * np.exp(-(((d + 0.09 * radius) / (0.07 * radius + 0.6)) ** 2))
        soft = np.clip(0.5 - d / (2 * max(tumour.edge, 0.5 * canvas.scene.pixel)), 0, 1)
        canvas.blend(window, soft * inside, value)
        covered = canvas.coverage(d) * inside
        np.maximum(canvas.tumour[window], covered, out=canvas.tumour[window])
