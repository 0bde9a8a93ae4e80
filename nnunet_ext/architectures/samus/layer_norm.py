"""Layer norm over the channels of a map."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)


class LayerNorm2d(nn.Module):
    """Normalises the channels at each pixel: biased variance, then weight and bias per channel.

    The arithmetic and the parameter names are those of `segment_anything.modeling.common.LayerNorm2d`; torch's fused
    kernel does it in one pass over the map with the channels last.

    Shapes: (B, channels, H, W) -> (B, channels, H, W), channels last in memory.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)
