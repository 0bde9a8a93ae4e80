"""A synthetic breast under a linear probe: skin, fat, glandular tissue, muscle and ribs, with lesions inside."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom import lesion
from nnunet_ext.phantom.burnt_in import annotate
from nnunet_ext.phantom.fields import NoiseField
from nnunet_ext.phantom.ultrasound import Probe, Tissue

Array = NDArray[np.float32]
KINDS = ("benign", "malignant", "normal")
LESIONS = {"benign": lesion.benign, "malignant": lesion.malignant}
MOST_LESIONS = 3
TYPICAL_SEMI = {"benign": 5.5, "malignant": 7.0}  # mm, half the width


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What a machine would store, and what a reader would draw.

    Attributes:
        rgb: (height, width, 3) uint8, grey but for coloured markers.
        masks: one (height, width) array of bool per lesion.
    """

    rgb: NDArray[np.uint8]
    masks: tuple[NDArray[np.bool_], ...]


def lesion_count(*, seed: int, kind: str, patient: int) -> int:
    """How many lesions the picture of a patient shows; known without drawing it."""
    if kind == "normal":
        return 0
    draw = stream(seed, kind, patient, 0).uniform()
    return 1 + int(draw > 0.92) + int(draw > 0.985)


def stream(*numbers: int | str) -> np.random.Generator:
    """Random numbers that depend on the arguments alone."""
    return np.random.default_rng([KINDS.index(n) if isinstance(n, str) else n for n in numbers])


def render(*, seed: int, kind: str, number: int, size: int | None, patient: int | None = None) -> Picture:
    """Draw one picture.

    Args:
        kind: benign, malignant or normal.
        number: of the picture.
        size: pixels of the longer side; None for sizes that vary as BUSI's do.
        patient: whose breast is seen, by default one per picture. Two pictures of one patient are near-duplicates:
            they differ in noise, gain, markers and a few pixels of the frame.
    """
    patient = number if patient is None else patient
    anatomy, view = stream(seed, kind, patient, 1), stream(seed, kind, number, 2)
    width, height, depth = frame(anatomy, size)
    pixel = depth / height
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(pixel)
    x = (np.arange(width, dtype=np.float32)[None, :] - np.float32(width / 2)) * np.float32(pixel)
    probe = Probe(rng=anatomy)
    lesions = place(anatomy, kind, lesion_count(seed=seed, kind=kind, patient=patient), depth, pixel * width)
    tissue = layers(anatomy, y=y, x=x, depth=depth)
    for one in lesions:
        uneven = texture(anatomy, y, x, grain=(1.3, 1.6))
        one.paint(tissue, y=y, x=x, uneven=uneven, rng=anatomy)
    probe.gain += view.uniform(-1, 1)
    top, right = view.integers(0, 1 + (height // 100 if patient != number else 0), 2)
    framed = slice(top, height), slice(0, width - right)
    grey = probe.acquire(tissue, pixel=pixel, rng=view)[framed]
    masks = tuple(one.mask(y, x)[framed] for one in lesions)
    return Picture(rgb=annotate(grey, masks=masks, rng=stream(seed, kind, number, 3)), masks=masks)


def frame(rng: np.random.Generator, size: int | None) -> tuple[int, int, float]:
    """Width and height in pixels, depth in mm."""
    width = float(np.clip(rng.normal(600, 110), 300, 900))
    height = width * rng.uniform(0.68, 0.95)
    scale = 1 if size is None else size / max(width, height)
    return round(width * scale), round(height * scale), float(rng.uniform(28, 42))


def place(rng: np.random.Generator, kind: str, count: int, depth: float, width: float) -> list[lesion.Lesion]:
    """Lesions beside each other, each in a strip of its own, within fat and gland."""
    lesions = []
    for i in range(count):
        strip = 0.86 * width / count
        widest = min(0.4 * strip, 0.25 * depth)
        semi = float(np.clip(rng.lognormal(np.log(TYPICAL_SEMI[kind]), 0.42), 2.2, widest))
        left = -0.43 * width + i * strip
        room = 1.15 * semi
        across = rng.uniform(left + room, left + strip - room) if strip > 2 * room else left + strip / 2
        down = rng.uniform(0.12 * depth + semi, max(0.62 * depth - semi, 0.14 * depth + semi))
        lesions.append(LESIONS[kind](rng, centre=(float(down), float(across)), semi=semi))
    return lesions


def layers(rng: np.random.Generator, *, y: Array, x: Array, depth: float) -> Tissue:
    """Tissue without lesions, from the skin to the ribs."""
    bend = 0.9 * texture(rng, y, x, grain=(14, 18)) + np.float32(rng.uniform(-0.08, 0.08)) * x
    level = y + bend * np.clip(y / 8, 0, 1)  # the probe flattens what is near
    skin = rng.uniform(1.0, 1.8)
    fat, gland, muscle = np.array([rng.uniform(0.14, 0.32), rng.uniform(0.5, 0.66), rng.uniform(0.74, 0.88)]) * depth
    lobules = texture(rng, y, x, grain=(2.6, 5.0))
    fine = texture(rng, y, x, grain=(0.6, 1.6))
    echo = np.full_like(level, rng.uniform(23, 29)) + 1.5 * fine + 1.2 * lobules
    echo += (rng.uniform(3, 8) * ridges(lobules, 0.14) * step(fine, -0.3, 0.6)).astype(np.float32)
    echo = blend(echo, glandular(rng, y, x, fine), step(level, fat + 0.8 * lobules, 0.6))
    echo = blend(echo, muscular(rng, level, x, fine), step(level, gland, 0.4))
    echo = blend(echo, np.float32(rng.uniform(8, 15)) + 2 * fine, step(level, muscle, 0.5))
    echo = blend(np.float32(rng.uniform(32, 39)) + 2 * fine, echo, step(y + 0.15 * lobules, skin, 0.12))
    echo += 2.2 * texture(rng, y, x, grain=(9, 9))
    tissue = Tissue(echo=echo, mirror=np.zeros_like(echo), attenuation=0.05 * texture(rng, y, x, grain=(5, 2.5)))
    fascia(rng, tissue, level, x, np.array([fat, gland, gland + 1.2, muscle]))
    ligaments(rng, tissue, y, x, deepest=gland)
    reverberation(rng, tissue, y, skin)
    if rng.uniform() < 0.4:
        ribs(rng, tissue, level, x, muscle)
    contact(rng, tissue, y, x)
    return tissue


def glandular(rng: np.random.Generator, y: Array, x: Array, fine: Array) -> Array:
    """Bright, streaky, with dark ducts and fat lobules."""
    streaks = texture(rng, y, x, grain=(0.7, 3.5))
    islands = texture(rng, y, x, grain=(1.8, 4.5))
    echo = np.float32(rng.uniform(28, 37)) + 2.5 * streaks + 1.5 * fine
    echo += np.float32(rng.uniform(4, 11)) * ridges(texture(rng, y, x, grain=(1.8, 7)), 0.25) * step(fine, -0.8, 1)
    return echo - np.float32(rng.uniform(2, 9)) * step(islands, rng.uniform(0.2, 0.9), 0.25)


def muscular(rng: np.random.Generator, level: Array, x: Array, fine: Array) -> Array:
    """Dark with bright fibres along the chest wall."""
    fibres = texture(rng, level[:, :1], x, grain=(0.8, 9))
    rows = np.clip((level - level[0, 0]) / max(float(level[-1, 0] - level[0, 0]), 1e-3), 0, 1) * (len(level) - 1)
    columns = np.broadcast_to(np.arange(level.shape[1], dtype=np.float32), level.shape)
    bent = cv2.remap(fibres, columns, rows.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.float32(rng.uniform(17, 24)) + 4.5 * np.maximum(bent, -0.8) + fine


def fascia(rng: np.random.Generator, tissue: Tissue, level: Array, x: Array, depths: Array) -> None:
    """Interrupted bright lines between the layers."""
    for at in depths:
        wave = 0.35 * texture(rng, np.zeros((1, 1), np.float32), x, grain=(1, 9))
        seen = step(texture(rng, np.zeros((1, 1), np.float32), x, grain=(1, 6)), rng.uniform(-0.3, 0.8), 0.3)
        line = rng.uniform(28, 38) * seen * np.exp(-(((level - at - wave) / 0.28) ** 2))
        np.maximum(tissue.mirror, line, out=tissue.mirror)


def ligaments(rng: np.random.Generator, tissue: Tissue, y: Array, x: Array, *, deepest: float) -> None:
    """Cooper's ligaments: thin curved lines above the muscle, here the zero lines of smooth noise."""
    web = texture(rng, y, x, grain=(4.0, 13.0))
    slope = np.gradient(web, axis=0) / max(float(y[1, 0] - y[0, 0]), 1e-6)
    seen = step(texture(rng, y, x, grain=(3, 9)), 0.4, 0.6) * (1 - step(y, deepest - 2, 1))
    line = rng.uniform(26, 37) * seen * np.exp(-((web / np.abs(slope).clip(0.12) / 0.2) ** 2))
    np.maximum(tissue.mirror, line.astype(np.float32), out=tissue.mirror)


def reverberation(rng: np.random.Generator, tissue: Tissue, y: Array, skin: float) -> None:
    """The bright face of the probe, both faces of the skin, and their fading repeats."""
    for at, strength in ((0.0, 50), (skin, rng.uniform(36, 46)), (2 * skin, rng.uniform(20, 34))):
        line = strength * np.exp(-(((y - at) / 0.13) ** 2))
        np.maximum(tissue.mirror, np.broadcast_to(line, tissue.mirror.shape), out=tissue.mirror)


def ribs(rng: np.random.Generator, tissue: Tissue, level: Array, x: Array, depth: float) -> None:
    """One or two ribs: a bright face and nothing behind."""
    for side in rng.permutation([-1, 1])[: rng.integers(1, 3)]:
        across, half = side * rng.uniform(0.2, 0.42) * float(np.ptp(x)), rng.uniform(4, 7)
        radius = np.hypot((x - across) / half, (level - depth - 2.5) / 2.5)
        inside = 1 - step(radius, 1, 0.06)
        tissue.echo[:] = blend(tissue.echo, np.float32(12), inside)
        tissue.attenuation[:] += 2.5 * inside
        face = rng.uniform(36, 46) * np.exp(-(((radius - 1) / 0.08) ** 2)) * np.clip((depth + 2.5 - level) / 1.5, 0, 1)
        np.maximum(tissue.mirror, face.astype(np.float32), out=tissue.mirror)


def contact(rng: np.random.Generator, tissue: Tissue, y: Array, x: Array) -> None:
    """Where the probe loses contact, or a nipple or a ligament shades: dark columns."""
    top = np.exp(-y / 3)  # the loss builds up over the first millimetres
    half = float(np.ptp(x)) / 2
    loss = 0.25 * np.maximum(texture(rng, np.zeros((1, 1), np.float32), x, grain=(1, 3.5)) - 1, 0)
    if rng.uniform() < 0.3:
        loss = loss + rng.uniform(2, 6) * step(x * rng.choice([-1, 1]), rng.uniform(0.55, 0.9) * half, 0.06 * half)
    tissue.attenuation[:] += loss * top


def texture(rng: np.random.Generator, y: Array, x: Array, *, grain: tuple[float, float]) -> Array:
    """Unit-variance smooth noise on the grid; grain (depth, width) in mm. Shapes (h, 1), (1, w) -> (h, w)."""
    axes = [np.zeros(1, np.float32)]
    for positions, size in zip((y, x), grain, strict=True):
        axes.append(np.float32(2 / size) * (positions.ravel() - positions.mean()))
    reach = tuple(float(np.abs(a).max()) for a in axes)
    field = NoiseField(rng=rng, knot=1.0, reach=reach, axes=tuple(axes))
    return field((slice(0, 1), slice(None), slice(None)))[0]


def step(value: Array, at: float | Array, width: float) -> Array:
    """0 below, 1 above, smooth over about `width`."""
    return 1 / (1 + np.exp(np.clip(np.float32(-4 / width) * (value - at), -30, 30)))


def blend(below: Array, above: Array, weight: Array) -> Array:
    """`above` where the weight is 1."""
    return (below + weight * (above - below)).astype(np.float32)


def ridges(noise: Array, width: float) -> Array:
    """Thin lines along the zeros of smooth noise."""
    return np.exp(-((noise / np.float32(width)) ** 2))
