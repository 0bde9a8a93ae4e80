"""The attention gate on a skip connection (section 2.2, figure 3; Oktay et al. 2018)."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_ext.architectures.raunet.layers import CONV, ConvNorm, Norm


class AttentionGate(nn.Module):
    """Weights the skip connection x by a map in (0, 1) computed from x and the gating signal g.

    a = sigmoid(psi(ReLU(W_g g + W_x x))), out = x * a, with W_g and W_x 1x1 convolutions to half the channels with
    bias and norm, and psi a 1x1 convolution to one channel with bias. psi has no norm: normalising one channel per
    image would fix the mean of the gate whatever the image shows.

    Shapes: g and x (B, channels, H, W), same resolution -> (B, channels, H, W).
    """

    def __init__(self, channels: int, *, norm: Norm = "group", groups: int = 32) -> None:
        super().__init__()
        inner = channels // 2
        self.gating = ConvNorm(channels, inner, 1, norm=norm, groups=groups, bias=True)
        self.skip = ConvNorm(channels, inner, 1, norm=norm, groups=groups, bias=True)
        self.psi = CONV[2](inner, 1, kernel_size=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.psi(self.relu(self.gating(g) + self.skip(x))))
