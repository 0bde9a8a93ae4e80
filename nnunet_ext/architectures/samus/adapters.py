"""What SAMUS adds to SAM's image encoder (Lin et al., MICCAI 2024, section 3.2)."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

from nnunet_ext.architectures.memory import recomputed
from nnunet_ext.architectures.samus.image_encoder import (
    PATCH,
    Block,
    PatchEmbed,
    ViT,
    conv_norm_gelu,
    grey_convolution,
    neck,
    position_embedding,
)

ADAPTER_SCALE = 0.5  # official code; the paper has no factor
CNN_SCALE = 0.5  # of the CNN branch in the final fusion; official code, the paper says "merge both branches"


class CNNBranch(nn.Module):
    """Local features at 1/8 of the resolution: one convolution, then three times pooling and convolution.

    Shapes: (B, 1 or 3, H, W) and, optionally, a summand of the first convolution's output
    (B, channels[0], H, W) -> (B, channels[-1], H / 8, W / 8), channels last in memory.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.inc = Convolution(3, channels[0])
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


class Adapter(nn.Module):
    """A bottleneck of two linear layers with GELU (paper eq. 1; the biases are the official code's).

    Shapes: (..., dim) -> (..., dim).
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.D_fc1 = nn.Linear(dim, dim // 4)
        self.D_fc2 = nn.Linear(dim // 4, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.D_fc2(F.gelu(self.D_fc1(x)))


class PositionAdapter(nn.Module):
    """Brings SAM's position embedding, made for 1024 pixels, to the grid of a 256 pixel image.

    Args:
        dim: channels of a token.
        factor: tokens per side of the stored embedding over tokens per side of the image.

    Shapes: (1, factor grid, factor grid, dim) -> (1, grid, grid, dim).
    """

    def __init__(self, *, dim: int, factor: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList([Down(dim, dim, factor)])

    def forward(self, pos_embed: torch.Tensor) -> torch.Tensor:
        return self.downs[0](pos_embed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class CrossBranchAttention(nn.Module):
    """Tokens of the transformer ask, features of the CNN branch answer (paper eq. 2; official code: no position term).

    Shapes: x (B, H, W, dim), c (B, H, W, dim) -> (B, H, W, dim).
    """

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(t).flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, t in ((self.q, x), (self.k, c), (self.v, c))
        )
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(out.unflatten(1, x.shape[1:3]))


class AdaptedBlock(Block):
    """SAMUS's global block: the CNN branch enters before the attention, an adapter stands next to the MLP.

    With `recompute` both attentions are computed again in the backward pass.

    Shapes: tokens (B, grid, grid, C) and CNN features (B, C, grid, grid) -> the same two, both updated.
    """

    recompute = False

    def __init__(self, *, vit: ViT, grid: int) -> None:
        super().__init__(vit=vit, grid=grid, windowed=False)
        dim = vit.embed_dim
        self.MLP_Adapter = Adapter(dim=dim)
        self.Space_Adapter = CrossBranchAttention(dim=dim, num_heads=vit.num_heads)
        self.refine_Adapter = Convolution(dim, dim)

    def attend(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Add to the tokens what they find in the CNN branch, then among themselves."""
        y = self.norm1(x)
        y = y + self.Space_Adapter(y, c.permute(0, 2, 3, 1))
        return x + self.attn(y)

    def forward(  # type: ignore[override]  # the block of SAM with the CNN branch next to it
        self, x: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = recomputed(self.attend, x, c, enabled=self.recompute)
        z = self.norm2(x)
        return x + self.mlp(z) + ADAPTER_SCALE * self.MLP_Adapter(z), self.refine_Adapter(c)


class SAMUSImageEncoder(nn.Module):
    """SAM's encoder with overlapping patches, position adapter, feature adapters and a CNN branch.

    With `recompute` (see `memory.set_recomputation`) the CNN branch, the windowed blocks and the attentions of the
    global ones are computed again in the backward pass.

    Shapes: (B, 1 or 3, image_size, image_size) in [0, 1] -> (B, out_channels, image_size / 8, image_size / 8).
    """

    stride = PATCH // 2
    recompute = False

    def __init__(self, *, vit: ViT, image_size: int) -> None:
        super().__init__()
        dim, grid = vit.embed_dim, image_size // self.stride
        self.pos_embed = position_embedding(vit.position_grid, dim)
        self.cnn_embed = CNNBranch((*vit.stem_channels, dim))
        self.patch_embed = PatchEmbed(dim=dim, stride=self.stride)
        self.post_pos_embed = PositionAdapter(dim=dim, factor=vit.position_grid // grid)
        self.blocks = nn.ModuleList(
            AdaptedBlock(vit=vit, grid=grid) if i in vit.global_blocks else Block(vit=vit, grid=grid, windowed=True)
            for i in range(vit.depth)
        )
        self.neck = neck(vit)
        self.input_Adapter = Adapter(dim=dim)

    def branch(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the transformer sees of the CNN: (B, 1 or 3, S, S) -> (B, dim, S / 8, S / 8)."""
        return self.cnn_embed(image)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        c = recomputed(self.branch, image, enabled=self.recompute)
        x = self.patch_embed(image)
        x = x + self.input_Adapter(x) + self.post_pos_embed(self.pos_embed)
        for block in self.blocks:
            if isinstance(block, AdaptedBlock):
                x, c = block(x, c)
            else:
                x = recomputed(block, x, enabled=self.recompute)
        return self.neck(x.permute(0, 3, 1, 2) + CNN_SCALE * c)
