"""SAMUS's feature adapter."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from nnunet_ext.architectures.samus.linear import Linear


class Adapter(nn.Module):
    """A bottleneck of two linear layers with GELU (paper eq. 1; the biases are the official code's).

    Shapes: (..., dim) -> (..., dim).
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.D_fc1 = Linear(dim, dim // 4)
        self.D_fc2 = Linear(dim // 4, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.D_fc2(F.gelu(self.D_fc1(x)))
