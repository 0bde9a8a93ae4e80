"""SAM's image encoder (Kirillov et al., "Segment Anything", ICCV 2023), and the layers that SAMUS shares with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling.common import MLPBlock
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

PATCH = 16  # pixels per side of SAM's patches


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


def grey_convolution(conv: nn.Conv2d, image: torch.Tensor) -> torch.Tensor:
    """Apply `conv`, made for RGB, to an RGB image or to one grey channel, which needs one convolution, not three."""
    if image.shape[1] == conv.in_channels:
        return conv(image)
    weight = conv.weight.sum(1, keepdim=True)
    return nn.functional.conv2d(image, weight, conv.bias, conv.stride, conv.padding)


class Attention(nn.Module):
    """Multi-head attention over a square grid of tokens, with decomposed relative positions.

    SAM adds q . R_h[y_q - y_k] + q . R_w[x_q - x_k] to every logit, which takes a matrix of tokens x tokens per head.
    Here the two terms become features instead: q' = [q / sqrt(d), q . R_h, q . R_w], k' = [k, onehot(y), onehot(x)],
    so that q' . k' is the same logit and any fused attention kernel does the rest. v is padded to the length of q',
    because the CPU's kernel needs equal lengths.

    Shapes: (B, grid, grid, dim) -> (B, grid, grid, dim).
    """

    def __init__(self, *, dim: int, num_heads: int, grid: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.grid = grid
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid - 1, self.head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid - 1, self.head_dim))
        steps = torch.arange(grid)
        self.offsets: torch.Tensor
        self.register_buffer("offsets", steps[:, None] - steps + grid - 1, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(self.attend(self.qkv(x)))

    def attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """Return the attention among the tokens of a grid, or of the upper left part of one whose rest is padding.

        SAM pads with zeros before the projection, so that all padding tokens have the same key and value, those of
        the projection's bias, and no mask. Their exponentials are summed up here in two keys: one for what is missing
        to the right, one for the rows below.

        Shapes: (B, height, width, 3 dim) -> (B, height, width, dim), height and width at most `grid`.
        """
        batch, height, width = qkv.shape[:3]
        q, k, v = self._heads(qkv)
        on_grid = q.unflatten(2, (height, width))
        of_rows = torch.einsum("bnhwc,hkc->bnhwk", on_grid, self.rel_pos_h[self.offsets[:height]]).flatten(2, 3)
        of_columns = torch.einsum("bnhwc,wkc->bnhwk", on_grid, self.rel_pos_w[self.offsets[:width]]).flatten(2, 3)
        padding = []
        if width < self.grid:
            padding.append(of_rows[..., :height].logsumexp(-1) + of_columns[..., width:].logsumexp(-1))
        if height < self.grid:
            padding.append(of_rows[..., height:].logsumexp(-1) + of_columns.logsumexp(-1))
        extra = len(padding)
        q = torch.cat(
            [q * self.head_dim**-0.5, of_rows[..., :height], of_columns[..., :width], *(p[..., None] for p in padding)],
            -1,
        )
        if extra:
            _, k_padding, v_padding = self._heads(self.qkv.bias.expand(batch, 1, extra, -1))
            k, v = torch.cat([k, k_padding.to(k.dtype)], 2), torch.cat([v, v_padding.to(v.dtype)], 2)
        place = _one_hot_places(height, width, extra, k).expand(batch, self.num_heads, -1, -1)
        out = F.scaled_dot_product_attention(
            q.to(k.dtype), torch.cat([k, place], -1), F.pad(v, (0, place.shape[-1])), scale=1.0
        )
        return out[..., : self.head_dim].transpose(1, 2).reshape(batch, height, width, -1)

    def _heads(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Split (B, height, width, 3 dim) into q, k and v, each (B, heads, height width, head_dim)."""
        return qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind()


def _one_hot_places(height: int, width: int, extra: int, like: torch.Tensor) -> torch.Tensor:
    """Return the one-hot row and column of every token, then of the extra keys.

    Shapes: (height width + extra, height + width + extra).
    """
    rows = torch.eye(height, dtype=like.dtype, device=like.device).repeat_interleave(width, 0)
    columns = torch.eye(width, dtype=like.dtype, device=like.device).repeat(height, 1)
    return torch.block_diag(torch.cat([rows, columns], 1), torch.eye(extra, dtype=like.dtype, device=like.device))


class WindowAttention(Attention):
    """Attention within windows of `grid` x `grid` tokens of a larger map; windows at its far edges may be smaller.

    Shapes: (B, H, W, dim) -> (B, H, W, dim).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x)
        bands = [torch.cat([self._windows(part) for part in self._parts(band, 2)], 2) for band in self._parts(qkv, 1)]
        return self.proj(torch.cat(bands, 1))

    def _parts(self, x: torch.Tensor, dim: int) -> list[torch.Tensor]:
        """Return what whole windows cover along an axis, and what is left."""
        whole = x.shape[dim] // self.grid * self.grid
        return [part for part in x.tensor_split([whole], dim) if part.shape[dim]]

    def _windows(self, qkv: torch.Tensor) -> torch.Tensor:
        """Return the attention in each of the equal windows that make up a part: (B, H, W, 3 dim) -> (B, H, W, dim)."""
        batch, height, width, _ = qkv.shape
        h, w = min(height, self.grid), min(width, self.grid)
        rows, columns = height // h, width // w
        windows = qkv.unflatten(2, (columns, w)).unflatten(1, (rows, h)).transpose(2, 3)
        out = self.attend(windows.flatten(0, 2))
        return out.unflatten(0, (batch, rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


class Block(nn.Module):
    """SAM's transformer block: attention and MLP, each after a layer norm and around a skip connection.

    Shapes: (B, grid, grid, C) -> (B, grid, grid, C); the attention is among all tokens or, if `windowed`, in windows.
    """

    def __init__(self, *, vit: ViT, grid: int, windowed: bool) -> None:
        super().__init__()
        dim = vit.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        attention = WindowAttention if windowed else Attention
        self.attn = attention(dim=dim, num_heads=vit.num_heads, grid=vit.window_size if windowed else grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, 4 * dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


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


def position_embedding(grid: int, dim: int) -> nn.Parameter:
    """Return one vector per place, (1, grid, grid, dim); small and random as in ViT, until SAM's weights are loaded."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, grid, grid, dim), std=0.02))


def neck(vit: ViT) -> nn.Sequential:
    """Return what leads from tokens to the image embedding: 1x1 and 3x3 convolution, each with layer norm."""
    return nn.Sequential(
        nn.Conv2d(vit.embed_dim, vit.out_channels, 1, bias=False),
        LayerNorm2d(vit.out_channels),
        nn.Conv2d(vit.out_channels, vit.out_channels, 3, padding=1, bias=False),
        LayerNorm2d(vit.out_channels),
    )


class SAMImageEncoder(nn.Module):
    """SAM's image encoder for any image size that is a multiple of 16.

    Shapes: (B, 1 or 3, image_size, image_size) -> (B, out_channels, image_size / 16, image_size / 16).
    """

    stride = PATCH

    def __init__(self, *, vit: ViT, image_size: int) -> None:
        super().__init__()
        grid = image_size // PATCH
        self.patch_embed = PatchEmbed(dim=vit.embed_dim, stride=PATCH)
        self.pos_embed = position_embedding(grid, vit.embed_dim)
        self.blocks = nn.ModuleList(
            Block(vit=vit, grid=grid, windowed=i not in vit.global_blocks) for i in range(vit.depth)
        )
        self.neck = neck(vit)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(image) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))
