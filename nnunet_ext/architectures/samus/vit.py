"""Sizes of SAM's vision transformers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ViT:
    """What tells one of SAM's image encoders from another.

    Args:
        embed_dim: channels of a token.
        depth: number of blocks.
        num_heads: attention heads per block.
        global_blocks: the blocks that attend to the whole image; the others attend within windows.
        window_size: tokens per side of a window.
        position_grid: tokens per side of the stored position embedding (1024 pixels / 16 in SAM).
        stem_channels: widths of the CNN branch before `embed_dim` (SAMUS only).
        out_channels: channels of the image embedding, hence of prompts and of the mask decoder.
    """

    embed_dim: int
    depth: int
    num_heads: int
    global_blocks: tuple[int, ...]
    window_size: int = 14
    position_grid: int = 64
    stem_channels: tuple[int, int, int] = (64, 128, 256)
    out_channels: int = 256

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.embed_dim // self.num_heads


VIT_B = ViT(embed_dim=768, depth=12, num_heads=12, global_blocks=(2, 5, 8, 11))
VIT_L = ViT(embed_dim=1024, depth=24, num_heads=16, global_blocks=(5, 11, 17, 23))
VIT_H = ViT(embed_dim=1280, depth=32, num_heads=16, global_blocks=(7, 15, 23, 31))
# no pretrained weights exist for it: for tests, and for a look at the method without a GPU
VIT_TINY = ViT(
    embed_dim=96,
    depth=4,
    num_heads=4,
    global_blocks=(1, 3),
    window_size=7,
    position_grid=64,
    stem_channels=(16, 24, 48),
    out_channels=64,
)
