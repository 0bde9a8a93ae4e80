"""The breast: skin, fat, gland, muscle and ribs as sound meets them, with benign and malignant lesions."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.canvas import Array, NoiseField, Rng
from nnunet_ext.phantom.ultrasound import Tissue

TYPICAL_SEMI = {"benign": 5.5, "malignant": 7.0}  # mm, half the width
FLAT = np.zeros((1, 1), np.float32)  # the only depth of textures that vary along the width alone


class Lesion:
    """A star-shaped outline around a centre, and what is inside and around it; lengths in mm, (depth, width).

    A benign one is wider than tall, smooth and well bounded; one in three is a cyst, and it is brighter behind. A
    malignant one is mostly taller than wide, with spicules, a blurred margin and a bright halo, and darker behind.
    """

    def __init__(self, rng: Rng, kind: str, *, centre: tuple[float, float], semi: float) -> None:
        self.centre = centre
        benign = kind == "benign"
        cyst = benign and rng.uniform() < 0.35
        tall = rng.uniform(0.5, 0.85) if benign else rng.uniform(0.85, 1.35)
        semi /= max(tall, 1)
        self.semi = (semi * tall, semi)
        self.degrees = rng.uniform(-14, 14) if benign else rng.uniform(-30, 30)
        cycles, height = (range(2, 5), 0.07 if cyst else 0.11) if benign else (range(2, 10), 0.2)
        self.waves = [  # (cycles around, height, phase) of the outline; the finer, the flatter
            (k, height * rng.uniform(0.3, 1) / np.sqrt(k), rng.uniform(0, 2 * np.pi)) for k in cycles
        ]
        # echo in dB, how uneven it is, attenuation in dB per mm
        if cyst:
            self.echo, self.uneven, self.attenuation = rng.uniform(1, 5), 0.8, rng.uniform(-1.6, -0.8)
        elif benign:
            self.echo, self.uneven, self.attenuation = rng.uniform((10, 1.2, -0.9), (18, 2.2, -0.3)).tolist()
        else:
            self.echo, self.uneven, self.attenuation = rng.uniform((8, 2, 0.2), (17, 4.5, 1.5)).tolist()
        self.margin = rng.uniform(0.3, 0.6) if benign else rng.uniform(0.9, 2.2)  # over which it fades
        self.capsule = rng.uniform(26, 40) if benign else 0  # dB, the bright interfaces that face the probe
        self.halo = 0 if benign else rng.uniform(2, 8)  # dB, the bright rim of an invading one
        self.spicules = 0 if benign else rng.integers(4, 11)
        self.specks = 0 if benign or rng.uniform() >= 0.35 else rng.integers(3, 9)  # microcalcifications

    def mask(self, y: Array, x: Array) -> NDArray[np.bool_]:
        """Return the outline filled, as a reader would draw it: without the thin spicules."""
        return self._radius(y, x)[0] < 1

    def _radius(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Return the distance from the centre in units of the outline's, and the angle in radians."""
        turn = np.deg2rad(self.degrees)
        dy, dx = y - np.float32(self.centre[0]), x - np.float32(self.centre[1])
        down = (dy * np.float32(np.cos(turn)) - dx * np.float32(np.sin(turn))) / np.float32(self.semi[0])
        across = (dx * np.float32(np.cos(turn)) + dy * np.float32(np.sin(turn))) / np.float32(self.semi[1])
        angle = np.arctan2(down, across)
        outline = np.ones_like(angle)
        for cycles, height, phase in self.waves:
            outline += np.float32(height) * np.cos(cycles * angle + np.float32(phase))
        return np.hypot(down, across) / outline, angle

    def paint(self, tissue: Tissue, y: Array, x: Array, rng: Rng) -> None:
        """Put the lesion into the tissue."""
        grain = _texture(rng, y, x, 1.3, 1.6)
        radius, angle = self._radius(y, x)
        outside = (radius - 1) * np.float32(np.sqrt(self.semi[0] * self.semi[1]))  # mm
        inside = 1 / (1 + np.exp(np.clip(outside / np.float32(self.margin / 3), -30, 30)))
        tissue.echo[:] += self.halo * np.exp(-(((outside - 1) / 1.3) ** 2)) * (1 + 0.4 * grain)
        tissue.echo[:] += inside * (self.echo + self.uneven * grain - tissue.echo)
        tissue.attenuation[:] += inside * (self.attenuation - tissue.attenuation)
        tissue.mirror[:] *= 1 - inside
        facing = np.abs(y - self.centre[0]) / np.hypot(y - self.centre[0], x - self.centre[1]).clip(0.1)
        if self.capsule:
            # sound is turned aside where it grazes a smooth wall: thin shadows behind both edges
            tissue.attenuation[:] += 1.0 * np.exp(-((outside / 0.5) ** 2)) * (facing < 0.35)
            tissue.reflect(self.capsule * np.exp(-((outside / 0.22) ** 2)) * facing**3 - 6)
        for _ in range(self.spicules):  # dark rays that leave the margin and thin out
            direction, reach, width = rng.uniform(-np.pi, np.pi), rng.uniform(1.5, 4.5), rng.uniform(0.05, 0.12)
            off = np.abs((angle - direction + np.pi) % (2 * np.pi) - np.pi)
            ray = np.exp(-((off / width) ** 2)) * np.clip(1 - outside / reach, 0, 1) * (outside > -1)
            tissue.echo[:] += ray * np.minimum(self.echo + 3 - tissue.echo, 0)
        for _ in range(self.specks):  # bright, inside
            away, towards = 0.75 * np.sqrt(rng.uniform()), rng.uniform(-np.pi, np.pi)
            at = self.centre + away * np.array(self.semi) * (np.sin(towards), np.cos(towards))
            speck = rng.uniform(30, 44) * np.exp(-(((y - at[0]) / 0.2) ** 2) - ((x - at[1]) / 0.35) ** 2)
            tissue.reflect(speck.astype(np.float32) - 4)


def place_lesions(rng: Rng, kind: str, count: int, depth: float, width: float) -> list[Lesion]:
    """Draw lesions that lie next to each other, each in a strip of its own, within fat and gland."""
    lesions = []
    for i in range(count):
        strip = 0.86 * width / count
        widest = min(0.4 * strip, 0.25 * depth)
        semi = float(np.clip(rng.lognormal(np.log(TYPICAL_SEMI[kind]), 0.42), 2.2, widest))
        left = -0.43 * width + i * strip
        room = 1.15 * semi
        across = rng.uniform(left + room, left + strip - room) if strip > 2 * room else left + strip / 2
        down = rng.uniform(0.12 * depth + semi, max(0.62 * depth - semi, 0.14 * depth + semi))
        lesions.append(Lesion(rng, kind, centre=(float(down), float(across)), semi=semi))
    return lesions


def draw_tissue(rng: Rng, y: Array, x: Array, depth: float) -> Tissue:
    """Draw tissue without lesions, from the skin to the ribs."""
    bend = 0.9 * _texture(rng, y, x, 14, 18) + np.float32(rng.uniform(-0.08, 0.08)) * x
    level = y + bend * np.clip(y / 8, 0, 1)  # the probe flattens what is near
    skin = rng.uniform(1.0, 1.8)
    fat, gland, muscle = np.array([rng.uniform(0.14, 0.32), rng.uniform(0.5, 0.66), rng.uniform(0.74, 0.88)]) * depth
    lobules = _texture(rng, y, x, 2.6, 5.0)
    fine = _texture(rng, y, x, 0.6, 1.6)
    echo = np.full_like(level, rng.uniform(23, 29)) + 1.5 * fine + 1.2 * lobules
    echo += (rng.uniform(3, 8) * _ridges(lobules, 0.14) * _step(fine, -0.3, 0.6)).astype(np.float32)
    echo = _blend(echo, _glandular(rng, y, x, fine), _step(level, fat + 0.8 * lobules, 0.6))
    echo = _blend(echo, _muscular(rng, level, x, fine), _step(level, gland, 0.4))
    echo = _blend(echo, np.float32(rng.uniform(8, 15)) + 2 * fine, _step(level, muscle, 0.5))
    echo = _blend(np.float32(rng.uniform(32, 39)) + 2 * fine, echo, _step(y + 0.15 * lobules, skin, 0.12))
    echo += 2.2 * _texture(rng, y, x, 9, 9)
    tissue = Tissue(echo=echo, mirror=np.zeros_like(echo), attenuation=0.05 * _texture(rng, y, x, 5, 2.5))
    for at in (fat, gland, gland + 1.2, muscle):  # fasciae: interrupted bright lines between the layers
        wave = 0.35 * _texture(rng, FLAT, x, 1, 9)
        seen = _step(_texture(rng, FLAT, x, 1, 6), rng.uniform(-0.3, 0.8), 0.3)
        tissue.reflect(rng.uniform(28, 38) * seen * np.exp(-(((level - at - wave) / 0.28) ** 2)))
    _add_ligaments(rng, tissue, y, x, deepest=gland)
    # the bright face of the probe, both faces of the skin, and their fading repeats
    for at, strength in ((0.0, 50), (skin, rng.uniform(36, 46)), (2 * skin, rng.uniform(20, 34))):
        tissue.reflect(strength * np.exp(-(((y - at) / 0.13) ** 2)))
    if rng.uniform() < 0.4:
        _add_ribs(rng, tissue, level, x, muscle)
    _add_shades(rng, tissue, y, x)
    return tissue


def _glandular(rng: Rng, y: Array, x: Array, fine: Array) -> Array:
    """Draw gland: bright, streaky, with dark ducts and fat lobules."""
    streaks = _texture(rng, y, x, 0.7, 3.5)
    islands = _texture(rng, y, x, 1.8, 4.5)
    echo = np.float32(rng.uniform(28, 37)) + 2.5 * streaks + 1.5 * fine
    echo += np.float32(rng.uniform(4, 11)) * _ridges(_texture(rng, y, x, 1.8, 7), 0.25) * _step(fine, -0.8, 1)
    return echo - np.float32(rng.uniform(2, 9)) * _step(islands, rng.uniform(0.2, 0.9), 0.25)


def _muscular(rng: Rng, level: Array, x: Array, fine: Array) -> Array:
    """Draw muscle: dark with bright fibres along the chest wall."""
    fibres = _texture(rng, level[:, :1], x, 0.8, 9)
    rows = np.clip((level - level[0, 0]) / max(float(level[-1, 0] - level[0, 0]), 1e-3), 0, 1) * (len(level) - 1)
    columns = np.broadcast_to(np.arange(level.shape[1], dtype=np.float32), level.shape)
    bent = cv2.remap(fibres, columns, rows.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.float32(rng.uniform(17, 24)) + 4.5 * np.maximum(bent, -0.8) + fine


def _add_ligaments(rng: Rng, tissue: Tissue, y: Array, x: Array, *, deepest: float) -> None:
    """Add Cooper's ligaments: thin curved lines above the muscle, here the zero lines of smooth noise."""
    web = _texture(rng, y, x, 4.0, 13.0)
    slope = np.gradient(web, axis=0) / max(float(y[1, 0] - y[0, 0]), 1e-6)
    seen = _step(_texture(rng, y, x, 3, 9), 0.4, 0.6) * (1 - _step(y, deepest - 2, 1))
    tissue.reflect(rng.uniform(26, 37) * seen * np.exp(-((web / np.abs(slope).clip(0.12) / 0.2) ** 2)))


def _add_ribs(rng: Rng, tissue: Tissue, level: Array, x: Array, depth: float) -> None:
    """Add one or two ribs: a bright face and nothing behind."""
    for side in rng.permutation([-1, 1])[: rng.integers(1, 3)]:
        across, half = side * rng.uniform(0.2, 0.42) * float(np.ptp(x)), rng.uniform(4, 7)
        radius = np.hypot((x - across) / half, (level - depth - 2.5) / 2.5)
        inside = 1 - _step(radius, 1, 0.06)
        tissue.echo[:] = _blend(tissue.echo, np.float32(12), inside)
        tissue.attenuation[:] += 2.5 * inside
        face = rng.uniform(36, 46) * np.exp(-(((radius - 1) / 0.08) ** 2))
        tissue.reflect(face * np.clip((depth + 2.5 - level) / 1.5, 0, 1))


def _add_shades(rng: Rng, tissue: Tissue, y: Array, x: Array) -> None:
    """Add dark columns where the probe loses contact, or where a nipple or a ligament shades."""
    half = float(np.ptp(x)) / 2
    loss = 0.25 * np.maximum(_texture(rng, FLAT, x, 1, 3.5) - 1, 0)
    if rng.uniform() < 0.3:
        loss = loss + rng.uniform(2, 6) * _step(x * rng.choice([-1, 1]), rng.uniform(0.55, 0.9) * half, 0.06 * half)
    tissue.attenuation[:] += loss * np.exp(-y / 3)  # it builds up over the first millimetres


def _texture(rng: Rng, y: Array, x: Array, tall: float, wide: float) -> Array:
    """Draw unit-variance smooth noise of so large a grain in mm on the grid of y (h, 1) and x (1, w)."""
    axes = [np.zeros(1, np.float32)]
    for positions, size in zip((y, x), (tall, wide), strict=True):
        axes.append(np.float32(2 / size) * (positions.ravel() - positions.mean()))
    reach = tuple(float(np.abs(a).max()) for a in axes)
    return NoiseField(rng, knot=1.0, reach=reach, axes=tuple(axes))(slice(0, 1))[0]


def _step(value: Array, at: float | Array, width: float) -> Array:
    """Rise from 0 to 1 at `at`, smoothly over about `width`."""
    return 1 / (1 + np.exp(np.clip(np.float32(-4 / width) * (value - at), -30, 30)))


def _blend(below: Array, above: Array | np.float32, weight: Array) -> Array:
    """Put `above` where the weight is 1."""
    return (below + weight * (above - below)).astype(np.float32)


def _ridges(noise: Array, width: float) -> Array:
    """Draw thin lines along the zeros of smooth noise."""
    return np.exp(-((noise / np.float32(width)) ** 2))
