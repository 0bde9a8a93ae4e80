"""The gate by which high frequencies suppress, enhance and enter the features of SAMUS's CNN branch."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_ext.architectures.samus.layer_norm import LayerNorm2d


class HighFrequencyGate(nn.Module):
    """c * 2 sigmoid(vote) + inject(h): a multi-scale attention gate that begins as the identity.

    The vote is read from c, reduced by a 1x1 convolution, beside h, through three branches of different reach: 1x1,
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
            nn.Sequential(
                nn.Conv2d(
                    hidden + hf_channels,
                    hidden,
                    kernel_size,
                    padding=dilation * (kernel_size // 2),
                    dilation=dilation,
                    bias=False,
                ),
                LayerNorm2d(hidden),
                nn.GELU(),
            )
            for kernel_size, dilation in ((1, 1), (3, 1), (3, 2))
        )
        self.vote = nn.Conv2d(3 * hidden, channels, kernel_size=1)
        self.inject = nn.Conv2d(hf_channels, channels, kernel_size=1)
        for conv in (self.vote, self.inject):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        f = torch.cat([self.reduce(c), h], dim=1)
        vote = self.vote(torch.cat([branch(f) for branch in self.branches], dim=1))
        return c * (2 * torch.sigmoid(vote)) + self.inject(h)
