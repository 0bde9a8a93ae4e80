"""The high frequencies of SAMUS-HF (sections 3.4 and 4.2): the image of them, and how it enters the CNN branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pywt
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

from nnunet_ext.architectures.samus.image_encoder import conv_norm_gelu

QUANTILES = (0.02, 0.98)
REACH = ((1, 1), (3, 1), (3, 2))  # kernel size and dilation of a multi-scale attention gate's branches


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


class HighFrequencyStem(nn.Sequential):
    """3x3 convolution, layer norm and GELU per stage, with 2x2 max pooling between the stages.

    A narrow copy of the stem of SAMUS's CNN branch, so that both arrive at the same grid. 97,392 parameters as built
    by default.

    Args:
        features: channels of the stages, from full resolution down.

    Shapes: (B, 1, H, W) -> (B, features[-1], H / 8, W / 8) with four stages, rounded down.
    """

    def __init__(self, *, features: Sequence[int] = (16, 32, 64, 128)) -> None:
        layers: list[nn.Module] = []
        for i, o in zip((1, *features), features, strict=False):
            if layers:
                layers.append(nn.MaxPool2d(2))
            layers += conv_norm_gelu(i, o)
        super().__init__(*layers)


class HighFrequencyGate(nn.Module):
    """c * 2 sigmoid(vote) + inject(h): a multi-scale attention gate that begins as the identity.

    The vote is read from c, reduced by a 1x1 convolution, and from h, through three branches of different reach: 1x1,
    3x3 and 3x3 with dilation 2, each with layer norm and GELU. Vote and injection begin with zero weights, hence with
    exactly c, and 2 sigmoid(0) is the middle of (0, 2). The gate of CMU-Net that the paper names
    (`MultiScaleAttentionGate`) has the range (1, 2) instead: it cannot suppress, and training cannot begin where the
    network without the gate does. 1,116,544 parameters as built by default.

    Args:
        channels: of the gated map.
        hidden: of the reduced map and of each branch.
        hf_channels: of the high-frequency features.

    Shapes: c (B, channels, H, W), h (B, hf_channels, H, W) -> (B, channels, H, W).
    """

    def __init__(self, *, channels: int = 768, hidden: int = 128, hf_channels: int = 128) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, kernel_size=1)
        self.branches = nn.ModuleList(
            nn.Sequential(*conv_norm_gelu(hidden + hf_channels, hidden, kernel_size=kernel_size, dilation=dilation))
            for kernel_size, dilation in REACH
        )
        self.vote = nn.Conv2d(3 * hidden, channels, kernel_size=1)
        self.inject = nn.Conv2d(hf_channels, channels, kernel_size=1)
        for parameter in (*self.vote.parameters(), *self.inject.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        f = torch.cat([self.reduce(c), h], dim=1)
        vote = self.vote(torch.cat([branch(f) for branch in self.branches], dim=1))
        return c * (2 * torch.sigmoid(vote)) + self.inject(h)


class MultiScaleAttentionGate(nn.Module):
    """x + x * w, with w in (0, 1) read from x through three branches of different reach.

    Source: CMU-Net (Tang et al., ISBI 2023). w = sigmoid(norm(vote(ReLU(concat of the branches)))); the branches are a
    1x1, a 3x3 and a 3x3 convolution with dilation 2, each keeping the channels, with bias and batch norm. The literal
    variant: see `HighFrequencyGate` for the one that SAMUS-HF uses and why.

    Shapes: (B, channels, H, W) -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, kernel_size, padding=dilation * (kernel_size // 2), dilation=dilation),
                nn.BatchNorm2d(channels),
            )
            for kernel_size, dilation in REACH
        )
        self.vote = nn.Sequential(
            nn.ReLU(), nn.Conv2d(3 * channels, channels, kernel_size=1), nn.BatchNorm2d(channels), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x * self.vote(torch.cat([branch(x) for branch in self.branches], dim=1))


class LiteralGate(nn.Module):
    """Adds the high-frequency features to the CNN branch and applies CMU-Net's gate as it was published.

    Shapes: c (B, channels, H, W), h (B, hf_channels, H, W) -> (B, channels, H, W).
    """

    def __init__(self, *, channels: int, hf_channels: int) -> None:
        super().__init__()
        self.inject = nn.Conv2d(hf_channels, channels, 1)
        self.gate = MultiScaleAttentionGate(channels)

    def forward(self, c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return self.gate(c + self.inject(h))


class FourthChannel(nn.Conv2d):
    """A fourth input channel of the CNN branch's first convolution, as a summand of its output.

    Its weights begin at zero, hence with SAMUS; kept apart, so that the other three channels load from a SAMUS file.

    Shapes: H (B, 1, S, S) -> (B, channels, S, S).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.weight)
