"""The multi-scale attention gate as published with CMU-Net (Tang et al., ISBI 2023)."""

from __future__ import annotations

import torch
from torch import nn


class MultiScaleAttentionGate(nn.Module):
    """x + x * w, with w in (0, 1) read from x through three branches of different reach.

    w = sigmoid(norm(vote(ReLU(concat of the branches)))); the branches are a 1x1, a 3x3 and a 3x3 convolution with
    dilation 2, each keeping the channels, with bias and batch norm. The literal variant: see `HighFrequencyGate` for
    the one that SAMUS-HF uses and why.

    Shapes: (B, channels, H, W) -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, kernel_size, padding=dilation * (kernel_size // 2), dilation=dilation),
                nn.BatchNorm2d(channels),
            )
            for kernel_size, dilation in ((1, 1), (3, 1), (3, 2))
        )
        self.vote = nn.Sequential(
            nn.ReLU(), nn.Conv2d(3 * channels, channels, kernel_size=1), nn.BatchNorm2d(channels), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x * self.vote(torch.cat([branch(x) for branch in self.branches], dim=1))
