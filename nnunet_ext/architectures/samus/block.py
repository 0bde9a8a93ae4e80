"""Transformer blocks: SAM's own, and SAMUS's with adapters."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from nnunet_ext.architectures.samus.adapter import Adapter
from nnunet_ext.architectures.samus.attention import Attention, WindowAttention
from nnunet_ext.architectures.samus.cnn_branch import conv_norm_gelu
from nnunet_ext.architectures.samus.cross_branch_attention import CrossBranchAttention
from nnunet_ext.architectures.samus.linear import Linear
from nnunet_ext.architectures.samus.vit import ViT

ADAPTER_SCALE = 0.5  # official code; the paper has no factor


class MLP(nn.Module):
    """Two linear layers with GELU, four times as wide in between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lin1 = Linear(dim, 4 * dim)
        self.lin2 = Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin2(F.gelu(self.lin1(x)))


class Block(nn.Module):
    """SAM's transformer block: attention and MLP, each after a layer norm and around a skip connection.

    Args:
        vit: sizes of the transformer.
        grid: tokens per side of the map.
        windowed: attend within windows instead of the whole map.

    Shapes: (B, grid, grid, C) -> (B, grid, grid, C).
    """

    def __init__(self, *, vit: ViT, grid: int, windowed: bool) -> None:
        super().__init__()
        dim = vit.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        if windowed:
            self.attn = WindowAttention(dim=dim, num_heads=vit.num_heads, grid=vit.window_size)
        else:
            self.attn = Attention(dim=dim, num_heads=vit.num_heads, grid=grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class AdaptedBlock(Block):
    """SAMUS's global block (paper section 3.2): the CNN branch enters before the attention, an adapter beside the MLP.

    Shapes: tokens (B, grid, grid, C) and CNN features (B, C, grid, grid) -> the same two, both updated.
    """

    def __init__(self, *, vit: ViT, grid: int) -> None:
        super().__init__(vit=vit, grid=grid, windowed=False)
        dim = vit.embed_dim
        self.MLP_Adapter = Adapter(dim=dim)
        self.Space_Adapter = CrossBranchAttention(dim=dim, num_heads=vit.num_heads)
        self.refine_Adapter = Refine(dim)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm1(x)
        y = y + self.Space_Adapter(y, c.permute(0, 2, 3, 1))
        x = x + self.attn(y)
        z = self.norm2(x)
        return x + self.mlp(z) + ADAPTER_SCALE * self.MLP_Adapter(z), self.refine_Adapter(c)


class Refine(nn.Module):
    """One step of the CNN branch between two global blocks: 3x3 convolution, layer norm, GELU.

    Shapes: (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*conv_norm_gelu(dim, dim))

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        return self.conv(c)
