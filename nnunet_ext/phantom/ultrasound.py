"""A linear ultrasound probe: attenuation, speckle and log compression turn tissue into a B-mode image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
DECIBEL = np.float32(np.log(10) / 20)  # exp(DECIBEL * dB) is an amplitude
RAYLEIGH_MEAN = np.sqrt(np.pi / 2)  # of the envelope of unit-variance complex noise
MOST_GAIN, MOST_LOSS = 11.0, 34.0  # dB behind what lets more, or less, sound through than the rest


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


class Probe:
    """One examination's settings: focus, resolution, compounding, gain over depth."""

    def __init__(self, *, rng: np.random.Generator) -> None:
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

    def acquire(self, tissue: Tissue, *, pixel: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The image, shape (depth, width); `pixel` in mm."""
        depth = np.arange(len(tissue.echo), dtype=np.float32)[:, None] * pixel
        beam = (depth - self.focus) * self.spread
        wide = self.lateral + float(np.abs(beam).max())
        out_of_focus = np.abs(beam) / (wide - self.lateral)
        received = tissue.echo + self.gain - self.decline * depth + self._shadows(tissue.attenuation, pixel)
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

    def _shadows(self, attenuation: Array, pixel: float) -> Array:
        """Gain or loss in dB of what lies behind, blurred by the width of the beam."""
        behind = np.cumsum(attenuation, axis=0, dtype=np.float32) * np.float32(-pixel)
        behind = np.clip(behind, -MOST_LOSS, MOST_GAIN)
        return cv2.GaussianBlur(behind, (0, 0), sigmaX=max(2.5 * self.lateral / pixel, 0.3), sigmaY=0.3)

    def _blur(self, noise: Array, pixel: float, wide: float, out_of_focus: Array) -> Array:
        """Noise seen through a beam that widens away from the focus; unit variance stays."""
        pulse = response(self.axial / pixel)
        focused, defocused = (cv2.sepFilter2D(noise, -1, response(s / pixel), pulse) for s in (self.lateral, wide))
        return focused + out_of_focus * (defocused - focused)


def response(sigma: float) -> NDArray[np.float64]:
    """Gaussian filter taps that keep the variance of white noise; `sigma` in pixels, shape (taps, 1)."""
    taps = cv2.getGaussianKernel(2 * int(np.ceil(3 * sigma)) + 1, max(sigma, 0.1))
    return taps / np.sqrt((taps**2).sum())
