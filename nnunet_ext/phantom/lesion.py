"""Breast lesions: outline, echo, attenuation and margin, drawn as a benign or a malignant one would look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.ultrasound import Tissue

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A star-shaped outline around a centre, and what is inside and around it; lengths in mm."""

    centre: tuple[float, float]  # (depth, width)
    semi: tuple[float, float]  # (depth, width)
    degrees: float
    waves: tuple[tuple[int, float, float], ...]  # (cycles around, height, phase) of the outline
    echo: float  # dB
    texture: float  # dB, how uneven the inside is
    attenuation: float  # dB per mm
    margin: float  # mm over which it fades into the surroundings
    capsule: float  # dB, the bright interfaces that face the probe
    halo: float  # dB, the bright rim of an invading one
    spicules: int
    specks: int  # microcalcifications

    def radius(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Distance from the centre in units of the outline's (below 1 is inside), and the angle in radians."""
        turn = np.deg2rad(self.degrees)
        dy, dx = y - np.float32(self.centre[0]), x - np.float32(self.centre[1])
        down = (dy * np.float32(np.cos(turn)) - dx * np.float32(np.sin(turn))) / np.float32(self.semi[0])
        across = (dx * np.float32(np.cos(turn)) + dy * np.float32(np.sin(turn))) / np.float32(self.semi[1])
        angle = np.arctan2(down, across)
        outline = np.ones_like(angle)
        for cycles, height, phase in self.waves:
            outline += np.float32(height) * np.cos(cycles * angle + np.float32(phase))
        return np.hypot(down, across) / outline, angle

    @property
    def mean_semi(self) -> float:
        """Half the diameter of the circle of the same area."""
        return float(np.sqrt(self.semi[0] * self.semi[1]))

    def mask(self, y: Array, x: Array) -> NDArray[np.bool_]:
        """The outline filled, as a reader would draw it: without the thin spicules."""
        return self.radius(y, x)[0] < 1

    def paint(self, tissue: Tissue, *, y: Array, x: Array, uneven: Array, rng: np.random.Generator) -> None:
        """Put the lesion into the tissue; `uneven` is unit-variance smooth noise."""
        radius, angle = self.radius(y, x)
        outside = (radius - 1) * np.float32(self.mean_semi)  # mm
        inside = 1 / (1 + np.exp(np.clip(outside / np.float32(self.margin / 3), -30, 30)))
        tissue.echo[:] += self.halo * np.exp(-(((outside - 1) / 1.3) ** 2)) * (1 + 0.4 * uneven)
        tissue.echo[:] += inside * (self.echo + self.texture * uneven - tissue.echo)
        tissue.attenuation[:] += inside * (self.attenuation - tissue.attenuation)
        tissue.mirror[:] *= 1 - inside
        facing = np.abs(y - self.centre[0]) / np.hypot(y - self.centre[0], x - self.centre[1]).clip(0.1)
        if self.capsule:
            # sound is turned aside where it grazes a smooth wall: thin shadows behind both edges
            tissue.attenuation[:] += 1.0 * np.exp(-((outside / 0.5) ** 2)) * (facing < 0.35)
            ring = self.capsule * np.exp(-((outside / 0.22) ** 2)) * facing**3 - 6
            np.maximum(tissue.mirror, ring, out=tissue.mirror)
        self._invade(tissue, outside, angle, rng)
        self._calcify(tissue, y, x, rng)

    def _invade(self, tissue: Tissue, outside: Array, angle: Array, rng: np.random.Generator) -> None:
        """Spicules: dark rays that leave the margin and thin out."""
        for _ in range(self.spicules):
            direction, reach, width = rng.uniform(-np.pi, np.pi), rng.uniform(1.5, 4.5), rng.uniform(0.05, 0.12)
            off = np.abs((angle - direction + np.pi) % (2 * np.pi) - np.pi)
            ray = np.exp(-((off / width) ** 2)) * np.clip(1 - outside / reach, 0, 1) * (outside > -1)
            tissue.echo[:] += ray * np.minimum(self.echo + 3 - tissue.echo, 0)

    def _calcify(self, tissue: Tissue, y: Array, x: Array, rng: np.random.Generator) -> None:
        """Bright specks inside."""
        for _ in range(self.specks):
            distance, angle = 0.75 * np.sqrt(rng.uniform()), rng.uniform(-np.pi, np.pi)
            at = self.centre + distance * np.array(self.semi) * (np.sin(angle), np.cos(angle))
            speck = rng.uniform(30, 44) * np.exp(-(((y - at[0]) / 0.2) ** 2) - ((x - at[1]) / 0.35) ** 2)
            np.maximum(tissue.mirror, speck.astype(np.float32) - 4, out=tissue.mirror)


def waves(rng: np.random.Generator, cycles: range, height: float) -> tuple[tuple[int, float, float], ...]:
    """Random waves around an outline; the finer, the flatter."""
    return tuple((k, height * rng.uniform(0.3, 1) / np.sqrt(k), rng.uniform(0, 2 * np.pi)) for k in cycles)


def benign(rng: np.random.Generator, *, centre: tuple[float, float], semi: float) -> Lesion:
    """Wider than tall, smooth, well bounded: one in three a cyst, the others solid; brighter behind."""
    cyst = rng.uniform() < 0.35
    flat = rng.uniform(0.5, 0.85)
    return Lesion(
        centre=centre,
        semi=(semi * flat, semi),
        degrees=rng.uniform(-14, 14),
        waves=waves(rng, range(2, 5), 0.07 if cyst else 0.11),
        echo=rng.uniform(1, 5) if cyst else rng.uniform(10, 18),
        texture=0.8 if cyst else rng.uniform(1.2, 2.2),
        attenuation=rng.uniform(-1.6, -0.8) if cyst else rng.uniform(-0.9, -0.3),
        margin=rng.uniform(0.3, 0.6),
        capsule=rng.uniform(26, 40),
        halo=0.0,
        spicules=0,
        specks=0,
    )


def malignant(rng: np.random.Generator, *, centre: tuple[float, float], semi: float) -> Lesion:
    """Mostly taller than wide, irregular, spiculated, with a blurred margin and a bright halo; darker behind."""
    tall = rng.uniform(0.85, 1.35)
    semi /= max(tall, 1)
    return Lesion(
        centre=centre,
        semi=(semi * tall, semi),
        degrees=rng.uniform(-30, 30),
        waves=waves(rng, range(2, 10), 0.2),
        echo=rng.uniform(8, 17),
        texture=rng.uniform(2, 4.5),
        attenuation=rng.uniform(0.2, 1.5),
        margin=rng.uniform(0.9, 2.2),
        capsule=0.0,
        halo=rng.uniform(2, 8),
        spicules=int(rng.integers(4, 11)),
        specks=int(rng.integers(3, 9)) if rng.uniform() < 0.35 else 0,
    )
