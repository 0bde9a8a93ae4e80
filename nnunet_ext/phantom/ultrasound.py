"""A linear ultrasound probe that turns tissue into a B-mode image, and what is written into such images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.canvas import Array, Rng

DECIBEL = np.float32(np.log(10) / 20)  # exp(DECIBEL * dB) is an amplitude
RAYLEIGH_MEAN = np.sqrt(np.pi / 2)  # of the envelope of unit-variance complex noise
MOST_GAIN, MOST_LOSS = 11.0, 34.0  # dB behind what lets more, or less, sound through than the rest
WHITE, COLOURED, DARK = (235, 235, 235), (250, 220, 60), (20, 20, 20)
LABELS = ("LT", "RT", "LT 2 O'CLOCK", "RT UOQ", "RT 1", "lt breast", "AXILLA")
SMALLEST_FOR_TEXT = 96  # pixels; below it letters are blots
Pixel = tuple[int, ...]  # (x, y)


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """What the sound meets, on the pixel grid (depth, width); the probe is on top.

    Attributes:
        echo: scattering in dB above black, the mean after log compression.
        mirror: echo of smooth interfaces that reflect without speckle, in dB; 0 where there are none.
        attenuation: dB per mm, to and fro, beyond what time gain compensation assumes.
    """

    echo: Array
    mirror: Array
    attenuation: Array

    def reflect(self, line: Array) -> None:
        """Add a smooth interface, in dB; where there is a brighter one, that stays."""
        np.maximum(self.mirror, line.astype(np.float32), out=self.mirror)


class Probe:
    """One examination's settings: focus, resolution, compounding, gain over depth."""

    def __init__(self, rng: Rng) -> None:
        self.axial = rng.uniform(0.07, 0.11)  # mm, standard deviation of the pulse
        self.lateral = rng.uniform(0.13, 0.22)  # mm, of the beam in focus
        self.spread = rng.uniform(0.006, 0.014)  # how much wider, mm per mm out of focus
        self.focus = rng.uniform(10, 20)  # mm
        self.looks = int(rng.integers(2, 4))  # angles compounded: speckle fades with their number
        self.decline = rng.uniform(0.05, 0.5)  # dB per mm that the time gain compensation falls short
        self.smoothing = rng.uniform(0.4, 0.9)  # of the machine's speckle reduction, in pulse lengths
        self.floor = rng.uniform(3, 8)  # dB, the receiver's noise
        self.gain = rng.uniform(-3, 4)  # dB
        self.dynamic_range = rng.uniform(46, 60)  # dB from black to white

    def acquire(self, tissue: Tissue, *, pixel: float, rng: Rng) -> NDArray[np.uint8]:
        """Return the image, shape (depth, width); `pixel` in mm."""
        depth = np.arange(len(tissue.echo), dtype=np.float32)[:, None] * pixel
        beam = (depth - self.focus) * self.spread
        wide = self.lateral + float(np.abs(beam).max())
        out_of_focus = np.abs(beam) / (wide - self.lateral)
        behind = np.cumsum(tissue.attenuation, axis=0, dtype=np.float32) * np.float32(-pixel)  # gain or loss in dB
        behind = np.clip(behind, -MOST_LOSS, MOST_GAIN)
        shadows = cv2.GaussianBlur(behind, (0, 0), sigmaX=max(2.5 * self.lateral / pixel, 0.3), sigmaY=0.3)
        received = tissue.echo + self.gain - self.decline * depth + shadows
        scatter = np.hypot(np.exp(DECIBEL * received), np.exp(DECIBEL * self.floor))
        coherent = np.exp(DECIBEL * (tissue.mirror + received - tissue.echo)) * (tissue.mirror > 0)
        envelope = np.zeros_like(scatter)
        for _ in range(self.looks):
            real, imaginary = (
                self._blur(rng.standard_normal(scatter.shape, dtype=np.float32) * scatter, pixel, wide, out_of_focus)
                for _ in range(2)
            )
            envelope += np.hypot(real + coherent, imaginary)
        decibel = np.log(envelope / np.float32(self.looks * RAYLEIGH_MEAN) + 1e-3) / DECIBEL
        decibel = cv2.GaussianBlur(decibel, (0, 0), sigmaX=max(self.smoothing * self.axial / pixel, 0.2))
        return np.rint(np.clip(decibel * (255 / self.dynamic_range), 0, 255)).astype(np.uint8)

    def _blur(self, noise: Array, pixel: float, wide: float, out_of_focus: Array) -> Array:
        """See noise through a beam that widens away from the focus; unit variance stays."""
        pulse = response(self.axial / pixel)
        focused, defocused = (cv2.sepFilter2D(noise, -1, response(s / pixel), pulse) for s in (self.lateral, wide))
        return np.asarray(focused + out_of_focus * (defocused - focused), np.float32)


def response(sigma: float) -> NDArray[np.float64]:
    """Return Gaussian filter taps (n, 1) that keep the variance of white noise; `sigma` in pixels."""
    taps = cv2.getGaussianKernel(2 * int(np.ceil(3 * sigma)) + 1, max(sigma, 0.1)).astype(np.float64)
    return taps / np.sqrt((taps**2).sum())


def annotate(grey: NDArray[np.uint8], *, masks: Sequence[NDArray[np.bool_]], rng: Rng) -> NDArray[np.uint8]:
    """Return the image as (height, width, 3), on some with what machines and readers write into them.

    Callipers span the lesions on a quarter of the images with any, one in twenty has them in colour, as in BUSI.
    """
    rgb = np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))
    scale = max(grey.shape) / 600
    colour = COLOURED if rng.uniform() < 0.05 else WHITE
    measured, labelled, marked = rng.uniform(size=3) < (0.3, 0.3, 0.4)
    if measured:
        for mask in masks:
            _draw_callipers(rgb, mask, colour=colour, scale=scale, dotted=bool(rng.uniform() < 0.6))
    if max(grey.shape) >= SMALLEST_FOR_TEXT:
        height, width = grey.shape
        if labelled:
            at = (round(rng.uniform(0.04, 0.6) * width), round(rng.uniform(0.68, 0.94) * height))
            _write(rgb, str(rng.choice(LABELS)), at, colour=WHITE, scale=0.6 * scale)
        if marked:
            _write(rgb, "USG", (0, round(9 * scale)), colour=WHITE, scale=0.35 * scale)
    return rgb


def _draw_callipers(
    rgb: NDArray[np.uint8], mask: NDArray[np.bool_], *, colour: tuple[int, int, int], scale: float, dotted: bool
) -> None:
    """Draw numbered crosses at both ends of the lesion's longest diameter and across it."""
    arm, thick = max(round(6 * scale), 1), max(round(1.5 * scale), 1)
    for name, (start, end) in zip("12", diameters(mask), strict=True):
        if dotted:
            points = np.linspace(start, end, max(int(np.hypot(*np.subtract(start, end)) / (5 * scale)), 2))
            for x, y in np.rint(points).astype(int):
                cv2.circle(rgb, (int(x), int(y)), max(round(0.6 * scale), 0), colour, -1)
        for x, y in (start, end):
            cv2.line(rgb, (x - arm, y), (x + arm, y), colour, thick)
            cv2.line(rgb, (x, y - arm), (x, y + arm), colour, thick)
        if max(mask.shape) >= SMALLEST_FOR_TEXT:
            at = (end[0] + round(5 * scale), end[1] + round(14 * scale))
            _write(rgb, name, at, colour=colour, scale=0.45 * scale)


def diameters(mask: NDArray[np.bool_]) -> list[tuple[Pixel, ...]]:
    """Return the ends of a mask along its principal axis and across it."""
    points = np.argwhere(mask)[:, ::-1].astype(np.float64)
    centre = points.mean(0)
    offsets = points - centre
    _, axes = np.linalg.eigh(offsets.T @ offsets)
    ends = []
    for axis in axes.T[::-1]:
        along = offsets @ axis
        ends.append(tuple(tuple(int(v) for v in np.rint(centre + t * axis)) for t in (along.min(), along.max())))
    return ends


def _write(rgb: NDArray[np.uint8], text: str, at: Pixel, *, colour: tuple[int, int, int], scale: float) -> None:
    """Write letters with a dark edge, their lower left corner at `at`."""
    thickness = max(round(2 * scale), 1)
    for ink, width in ((DARK, thickness + 2), (colour, thickness)):
        cv2.putText(rgb, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, width, cv2.LINE_AA)
