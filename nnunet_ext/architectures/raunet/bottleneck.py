"""The paper's residual block (section 2.1, figure 2)."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_ext.architectures.raunet.layers import ConvNorm, Norm


class BottleneckResidual(nn.Module):
    """1x1 reduction to a quarter, `num_3x3` 3x3 convolutions, 1x1 expansion, plus a projected shortcut.

    Every convolution is followed by its norm, all but the expansion and the shortcut also by ReLU; ReLU once more
    after the addition. The shortcut is always a 1x1 convolution with norm, because the channels always change.

    Args:
        num_3x3: 2 reproduces the parameter counts of the paper's table 1; 1 is the literal text ("1x1, 3x3, 1x1").
            See docs/deviations.md.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, num_3x3: int = 2, norm: Norm = "group", groups: int = 32
    ) -> None:
        super().__init__()
        mid_channels = out_channels // 4
        self.reduce = ConvNorm(in_channels, mid_channels, 1, norm=norm, groups=groups)
        self.spatial = nn.ModuleList(
            ConvNorm(mid_channels, mid_channels, 3, norm=norm, groups=groups) for _ in range(num_3x3)
        )
        self.expand = ConvNorm(mid_channels, out_channels, 1, norm=norm, groups=groups)
        self.shortcut = ConvNorm(in_channels, out_channels, 1, norm=norm, groups=groups)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.reduce(x))
        for conv in self.spatial:
            y = self.relu(conv(y))
        return self.relu(self.expand(y) + self.shortcut(x))
