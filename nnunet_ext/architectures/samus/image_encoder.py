"""Image encoders: SAM's own, and SAMUS's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from nnunet_ext.architectures.samus.adapter import Adapter
from nnunet_ext.architectures.samus.block import AdaptedBlock, Block
from nnunet_ext.architectures.samus.cnn_branch import CNNBranch, grey_convolution
from nnunet_ext.architectures.samus.layer_norm import LayerNorm2d
from nnunet_ext.architectures.samus.position_adapter import PositionAdapter
from nnunet_ext.architectures.samus.vit import ViT

PATCH = 16  # pixels per side of SAM's patches
Checkpointing = Literal["none", "windowed", "all"]
CNN_SCALE = 0.5  # of the CNN branch in the final fusion; official code, the paper says "merge both branches"


class PatchEmbed(nn.Module):
    """One convolution from pixels to tokens.

    Args:
        dim: channels of a token.
        stride: 16 as in SAM, or 8 for SAMUS's overlapping patches; those of an enlarged image fill the grid.

    Shapes: (B, 1 or 3, S, S) -> (B, S / stride, S / stride, dim).
    """

    def __init__(self, *, dim: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, stride=stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        overlap = PATCH - self.proj.stride[0]
        if overlap:
            size = [s + overlap for s in image.shape[-2:]]
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        return grey_convolution(self.proj, image).permute(0, 2, 3, 1)


def neck(vit: ViT) -> nn.Sequential:
    """From tokens to the image embedding: 1x1 and 3x3 convolution, each with layer norm."""
    return nn.Sequential(
        nn.Conv2d(vit.embed_dim, vit.out_channels, 1, bias=False),
        LayerNorm2d(vit.out_channels),
        nn.Conv2d(vit.out_channels, vit.out_channels, 3, padding=1, bias=False),
        LayerNorm2d(vit.out_channels),
    )


class SAMImageEncoder(nn.Module):
    """SAM's image encoder for any image size that is a multiple of 16.

    Args:
        vit: sizes of the transformer.
        image_size: pixels per side.

    Shapes: (B, 1 or 3, image_size, image_size) -> (B, out_channels, image_size / 16, image_size / 16).
    """

    def __init__(self, *, vit: ViT, image_size: int) -> None:
        super().__init__()
        grid = image_size // PATCH
        self.patch_embed = PatchEmbed(dim=vit.embed_dim, stride=PATCH)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, vit.embed_dim))
        self.blocks = nn.ModuleList(
            Block(vit=vit, grid=grid, windowed=i not in vit.global_blocks) for i in range(vit.depth)
        )
        self.neck = neck(vit)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(image) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


class SAMUSImageEncoder(nn.Module):
    """SAM's encoder with overlapping patches, position adapter, feature adapters and a CNN branch (paper section 3.2).

    Args:
        vit: sizes of the transformer.
        image_size: pixels per side.
        checkpointing: which blocks are recomputed in the backward pass instead of being kept in memory.

    Shapes: (B, 1 or 3, image_size, image_size) in [0, 1] -> (B, out_channels, image_size / 8, image_size / 8).
    """

    stride = PATCH // 2

    def __init__(self, *, vit: ViT, image_size: int, checkpointing: Checkpointing = "none") -> None:
        super().__init__()
        dim, grid = vit.embed_dim, image_size // self.stride
        self.checkpointing = checkpointing
        self.pos_embed = nn.Parameter(torch.zeros(1, vit.position_grid, vit.position_grid, dim))
        self.cnn_embed = CNNBranch(in_channels=3, channels=(*vit.stem_channels, dim))
        self.patch_embed = PatchEmbed(dim=dim, stride=self.stride)
        self.post_pos_embed = PositionAdapter(dim=dim, factor=vit.position_grid // grid)
        self.blocks = nn.ModuleList(
            AdaptedBlock(vit=vit, grid=grid) if i in vit.global_blocks else Block(vit=vit, grid=grid, windowed=True)
            for i in range(vit.depth)
        )
        self.neck = neck(vit)
        self.input_Adapter = Adapter(dim=dim)

    def branch(self, image: torch.Tensor) -> torch.Tensor:
        """What the transformer sees of the CNN: (B, 1 or 3, S, S) -> (B, dim, S / 8, S / 8)."""
        return self.cnn_embed(image)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        c = self.branch(image)
        x = self.patch_embed(image)
        x = x + self.input_Adapter(x) + self.post_pos_embed(self.pos_embed)
        for block in self.blocks:
            if isinstance(block, AdaptedBlock):
                x, c = self._run(block, x, c)
            else:
                x = self._run(block, x)
        return self.neck(x.permute(0, 3, 1, 2) + CNN_SCALE * c)

    def _run(self, block: Block, *features: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        recomputed = self.checkpointing == "all" or (
            self.checkpointing == "windowed" and not isinstance(block, AdaptedBlock)
        )
        if recomputed and self.training and torch.is_grad_enabled():
            return checkpoint(block, *features, use_reentrant=False)
        return block(*features)
