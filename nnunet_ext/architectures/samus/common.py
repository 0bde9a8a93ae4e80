"""What the parts of SAM's family share: sizes of transformers, layer norm, a convolution, full precision."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)


@dataclass(frozen=True, kw_only=True)
class ViT:
    """What distinguishes SAM's image encoders from each other.

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


def conv_norm_gelu(
    in_channels: int, out_channels: int, *, kernel_size: int = 3, dilation: int = 1
) -> tuple[nn.Module, ...]:
    """Return a convolution without bias that keeps the size, layer norm and GELU."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False)
    return conv, LayerNorm2d(out_channels), nn.GELU()


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Return a context without autocast on the device, for what half precision would change."""
    if device.type in ("cpu", "cuda"):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
