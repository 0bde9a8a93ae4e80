"""The plain block of the U-Net and U-Net + attention rows."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_ext.architectures.raunet.layers import ConvNorm, Norm


class DoubleConv(nn.Module):
    """Twice 3x3 convolution, norm, ReLU (Ronneberger et al. 2015, with norm and padding).

    Shapes: (B, in_channels, *spatial) -> (B, out_channels, *spatial).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        mid_channels: int | None = None,
        norm: Norm = "group",
        groups: int = 32,
        dim: int = 2,
    ) -> None:
        super().__init__()
        mid_channels = mid_channels or out_channels
        self.first = ConvNorm(in_channels, mid_channels, 3, norm=norm, groups=groups, dim=dim)
        self.second = ConvNorm(mid_channels, out_channels, 3, norm=norm, groups=groups, dim=dim)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.second(self.relu(self.first(x))))
