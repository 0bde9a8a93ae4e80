"""The high-frequency image of SAMUS-HF (sections 3.4 and 4.2), computed in the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pywt
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

QUANTILES = (0.02, 0.98)


class HighFrequencyImage(nn.Module):
    """H = the min-max normalised sum of the min-max normalised bands HL, LH and HH of a one-level wavelet transform.

    Equal to the paper's listing (`pywt.dwt2`, numpy, bilinear `cv2.resize`), whose factors of 255 cancel but for the
    last, which is left out. No positive linear change of the intensities changes H, so it makes no difference how
    nnU-Net normalised the image. No parameters, no gradients, no autocast; the taps are constants, so nothing enters
    a state dict.

    The bands are signed: flat tissue lies in the middle of the range, not at its end. A band without variation, such
    as those of a constant image, is 0 where the listing divides by zero.

    Args:
        wavelet: any discrete wavelet of `pywt.wavelist(kind="discrete")`.
        normalization: ``minmax`` is the paper's. ``percentile`` puts the 2nd and 98th percentile of a band in place of
            its extremes and clips to them: the edges of a rotated or zero-padded image are stronger than any tissue,
            and min-max leaves little contrast for the rest.

    Shapes: (B, 1, H, W) of any size and intensity scale -> (B, 1, H, W) in [0, 1], float32 (float64 for float64).

    Raises:
        ValueError: unknown wavelet or normalization.
    """

    def __init__(self, *, wavelet: str = "haar", normalization: Literal["minmax", "percentile"] = "minmax") -> None:
        super().__init__()
        if normalization not in ("minmax", "percentile"):
            raise ValueError(f"normalization must be minmax or percentile, not {normalization!r}")
        filters = pywt.Wavelet(wavelet)
        self.low, self.high = tuple(filters.dec_lo), tuple(filters.dec_hi)
        self.wavelet, self.normalization = wavelet, normalization

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.detach()
        if x.dtype != torch.float64:
            x = x.float()
        x = _stretch(x, *_extremes(x))  # without an offset, differences of neighbours keep their digits
        # sums of slices, since convolutions would be TF32 on GPUs and bfloat16 under autocast
        high, low = _filter(x, self.high, -2), _filter(x, self.low, -2)
        hl, lh, hh = (
            self._normalize(band)
            for band in (_filter(high, self.low, -1), _filter(low, self.high, -1), _filter(high, self.high, -1))
        )
        return F.interpolate(self._normalize(hl + lh + hh), size=x.shape[-2:], mode="bilinear", align_corners=False)

    def _normalize(self, band: torch.Tensor) -> torch.Tensor:
        if self.normalization == "minmax":
            low, high = _extremes(band)
        else:
            low, high = _percentiles(band)
            band = band.clamp(low, high)
        return _stretch(band, low, high, noise=100 * torch.finfo(band.dtype).eps)


def _filter(x: torch.Tensor, taps: Sequence[float], dim: int) -> torch.Tensor:
    """Convolve one axis and keep every second value, as `pywt.dwt` does: out[i] = sum over k of taps[k] x[2i + 1 - k].

    The image continues mirrored, its border pixels doubled (pywt's mode ``symmetric``).
    """
    size, before = x.shape[dim], len(taps) - 2
    length = (size + len(taps) - 1) // 2
    if before or size % 2:
        position = torch.arange(-before, 2 * length, device=x.device) % (2 * size)
        x = x.index_select(dim, torch.minimum(position, 2 * size - 1 - position))
    windows = x.unfold(dim, len(taps), 2)
    out = windows[..., 0] * taps[-1]
    for i, tap in enumerate(reversed(taps[:-1]), start=1):
        out = out.add(windows[..., i], alpha=tap)
    return out


def _extremes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)


def _percentiles(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = torch.quantile(x.flatten(-2), x.new_tensor(QUANTILES), dim=-1)
    return low[..., None, None], high[..., None, None]


def _stretch(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, *, noise: float = 0.0) -> torch.Tensor:
    """Map [low, high] to [0, 1]; 0 everywhere if the two differ by no more than `noise`."""
    extent = high - low
    return (x - low) / extent.where(extent > noise, torch.inf)
