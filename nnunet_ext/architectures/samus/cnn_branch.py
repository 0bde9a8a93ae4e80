"""SAMUS's CNN branch: before it meets the transformer, and between the global blocks."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import nn

from nnunet_ext.architectures.samus.common import conv_norm_gelu


class CNNBranch(nn.Module):
    """Local features at 1/8 of the resolution: one convolution, then three times pooling and convolution.

    Args:
        in_channels: of the image as the network sees it.
        channels: after each of the four convolutions.

    Shapes: (B, 1 or in_channels, H, W) and, optionally, a summand of the first convolution's output
    (B, channels[0], H, W) -> (B, channels[-1], H / 8, W / 8), channels last in memory.
    """

    def __init__(self, *, in_channels: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.inc = Convolution(in_channels, channels[0])
        self.downs = nn.ModuleList(Down(a, b) for a, b in itertools.pairwise(channels))

    def forward(self, image: torch.Tensor, summand: torch.Tensor | None = None) -> torch.Tensor:
        c = self.inc(image, summand)
        for down in self.downs:
            c = down(c)
        return c


class Convolution(nn.Module):
    """3x3 convolution, layer norm, GELU; a grey image is taken as three equal channels, without making them.

    Shapes: (B, 1 or in_channels, H, W) and, optionally, a summand of the convolution's output (B, out_channels, H, W)
    -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*conv_norm_gelu(in_channels, out_channels))

    def forward(self, x: torch.Tensor, summand: torch.Tensor | None = None) -> torch.Tensor:
        conv, norm, gelu = self.conv
        c = grey_convolution(cast(nn.Conv2d, conv), x)
        return gelu(norm(c if summand is None else c + summand))


class Down(nn.Module):
    """Max pooling, 3x3 convolution, layer norm, GELU.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H / factor, W / factor).
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int = 2) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(factor), *conv_norm_gelu(in_channels, out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.maxpool_conv(x)


def grey_convolution(conv: nn.Conv2d, image: torch.Tensor) -> torch.Tensor:
    """Apply `conv`, made for RGB, to an RGB image or to one grey channel, which needs one convolution, not three."""
    if image.shape[1] == conv.in_channels:
        return conv(image)
    weight = conv.weight.sum(1, keepdim=True)
    return nn.functional.conv2d(image, weight, conv.bias, conv.stride, conv.padding)
