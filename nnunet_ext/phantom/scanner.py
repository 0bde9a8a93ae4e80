"""The scanner: sampling in z, blur, and correlated noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float32]
AIR = -1012.0
PSF_MM = 0.55


def noise_filter(*, shape: tuple[int, int], pixel: float, cutoff: float) -> Array:
    """Frequency response (rfft2 layout) of unit-variance CT noise: the ramp of filtered back-projection, rolled off.

    `pixel` is in mm, `cutoff` in cycles per mm.
    """
    fy, fx = fft.fftfreq(shape[0], pixel)[:, None], fft.rfftfreq(shape[1], pixel)[None, :]
    f = np.hypot(fy, fx)
    response = np.sqrt(f + 0.01) * np.exp(-((f / cutoff) ** 2))
    # Each rfft2 column but the first and last stands for itself and its mirror image.
    twice = np.where((np.arange(response.shape[1]) > 0) & (np.arange(response.shape[1]) < shape[1] / 2), 2, 1)
    return (response / np.sqrt((response**2 * twice).sum() / np.prod(shape))).astype(np.float32)


class Scanner:
    """Turns mean attenuation into one noisy slice after the other, each correlated with the one before."""

    def __init__(
        self,
        *,
        rng: np.random.Generator,
        axes: tuple[Array, Array, Array],
        thickness: float,
        body: tuple[float, float, float, float],
    ) -> None:
        _, y, x = axes
        self._rng = rng
        self._pixel = float(x[1] - x[0])
        self._filter = noise_filter(shape=(len(y), len(x)), pixel=self._pixel, cutoff=rng.uniform(0.36, 0.52))
        cx, cy, a, b = body
        q = np.minimum(((x[None, :] - cx) / a) ** 2 + ((y[:, None] - cy) / b) ** 2, 1.6)
        # Rays through the middle lose most photons; outside the body little noise is left.
        profile = 1.2 - 0.42 * np.minimum(q, 1) - 0.45 * np.clip(q - 1, 0, 1)
        self._sd = (rng.uniform(10, 12.5) * profile).astype(np.float32)
        self._memory = float(np.exp(-thickness / 1.2))
        self._last: Array | None = None
        self._outside = (np.hypot(x[None, :], y[:, None]) > x.max()) & (rng.uniform() < 0.5)

    def noise(self) -> Array:
        """Unit-variance noise of the next slice."""
        white = self._rng.standard_normal(self._sd.shape, dtype=np.float32)
        fresh = fft.irfft2(fft.rfft2(white) * self._filter, s=white.shape)
        if self._last is not None:
            fresh = self._memory * self._last + np.sqrt(1 - self._memory**2) * fresh
        self._last = fresh
        return fresh

    def acquire(self, mean: Array) -> NDArray[np.int16]:
        """One slice (y, x) in HU from the mean attenuation of the slab it covers."""
        blurred = gaussian_filter(mean, PSF_MM / self._pixel, truncate=3) if PSF_MM / self._pixel > 0.3 else mean
        out = np.where(blurred < -990, AIR + (blurred + 1000), blurred) + self._sd * self.noise()
        out[self._outside] = -1024
        return np.rint(np.clip(out, -1024, 3071)).astype(np.int16)
