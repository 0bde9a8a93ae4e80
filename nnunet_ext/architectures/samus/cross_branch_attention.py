"""SAMUS's cross-branch attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from nnunet_ext.architectures.samus.linear import Linear


class CrossBranchAttention(nn.Module):
    """Tokens of the transformer ask, features of the CNN branch answer (paper eq. 2; official code: no position term).

    Shapes: x (B, H, W, dim), c (B, H, W, dim) -> (B, H, W, dim).
    """

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = Linear(dim, dim)
        self.k = Linear(dim, dim)
        self.v = Linear(dim, dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(t).flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, t in ((self.q, x), (self.k, c), (self.v, c))
        )
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(out.unflatten(1, x.shape[1:3]))
