"""A slow, plain SAMUS that only wants to be right: the check on the fast one, and the baseline of its benchmark.

Nothing here is shared with `nnunet_ext.architectures.samus`. The image encoder is spelled out, with the NxN matrices of
attention logits and zero-padded windows; prompt encoder and mask decoder are `segment_anything`'s own. Parameters bear
the names of the official checkpoints, so these load with `load_state_dict`.

Source: xianlin7/SAMUS at 030ed07, `models/segment_anything_samus` (Lin et al., arXiv 2309.06824).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d, MLPBlock
from torch import nn
from torch.nn import functional as F  # noqa: N812

PATCH, STRIDE = 16, 8  # SAM's patches at half their stride overlap
STEM = (64, 128, 256)  # widths of the CNN stem before its last scale, which has the encoder's
NECK = 256  # channels of the image embedding
TINY = {"image_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 2, "global_blocks": (2,), "window_size": 5}


def conv_norm_gelu(cin: int, cout: int) -> list[nn.Module]:
    """3x3 convolution without bias, LayerNorm over the channels, GELU."""
    return [nn.Conv2d(cin, cout, 3, padding=1, bias=False), LayerNorm2d(cout), nn.GELU()]


class SingleConv(nn.Module):
    """(B, Cin, H, W) -> (B, Cout, H, W)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*conv_norm_gelu(cin, cout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Down(nn.Module):
    """(B, Cin, H, W) -> (B, Cout, H/2, W/2)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), *conv_norm_gelu(cin, cout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.maxpool_conv(x)


class CNNStem(nn.Module):
    """The CNN branch up to the token grid: (B, 3, S, S) -> (B, C, S/8, S/8)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths = (*STEM, dim)
        self.inc = SingleConv(3, widths[0])
        self.downs = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inc(x)
        for down in self.downs:
            x = down(x)
        return x


class PositionAdapter(nn.Module):
    """SAM's position embedding brought to the token grid: (1, 2G, 2G, C) -> (1, G, G, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList([Down(dim, dim)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downs[0](x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Overlapping patches: (B, 3, S, S) -> (B, S/8, S/8, C).

    The image is enlarged by one stride so that unpadded windows of 16 at every 8th pixel give exactly S/8.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, stride=STRIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = [edge + PATCH - STRIDE for edge in x.shape[-2:]]
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        return self.proj(x).permute(0, 2, 3, 1)


class Adapter(nn.Module):
    """Bottleneck of a quarter of the width, on the last dimension; the skip connection is the caller's."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.D_fc1, self.D_fc2 = nn.Linear(dim, dim // 4), nn.Linear(dim // 4, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.D_fc2(F.gelu(self.D_fc1(x)))


def heads_first(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, H, W, C) -> (B, heads, H*W, C/heads)."""
    return x.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention with decomposed relative positions: (B, G, G, C) -> (B, G, G, C)."""

    def __init__(self, dim: int, heads: int, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid - 1, dim // heads))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = x.shape[1]
        q, k, v = (heads_first(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        position = torch.arange(grid, device=x.device)
        offset = position[:, None] - position + grid - 1  # of query and key, as a row of the tables
        q_grid = q.unflatten(2, (grid, grid))
        rows = torch.einsum("bnhwd,hkd->bnhwk", q_grid, self.rel_pos_h[offset])
        columns = torch.einsum("bnhwd,wkd->bnhwk", q_grid, self.rel_pos_w[offset])
        bias = rows[..., :, None] + columns[..., None, :]  # from the unscaled q, inside the softmax
        logits = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1) + bias.flatten(4).flatten(2, 3)
        return self.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))


class CrossBranchAttention(nn.Module):
    """Tokens ask, the CNN branch answers: (B, G, G, C) and (B, G, G, C) -> (B, G, G, C); no relative positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        q, k, v = (heads_first(part, self.heads) for part in (self.q(x), self.k(c), self.v(c)))
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(x.shape))


class WindowBlock(nn.Module):
    """SAM's block in windows; the CNN branch (B, C, G, G) passes by.

    Windows are filled up with zeros after the LayerNorm; these take part in the attention as any other token.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, window)
        self.mlp = MLPBlock(dim, 4 * dim)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, grid, _, dim = x.shape
        side = self.window
        padding = -grid % side
        number = (grid + padding) // side
        y = F.pad(self.norm1(x), (0, 0, 0, padding, 0, padding))
        y = y.reshape(batch, number, side, number, side, dim).transpose(2, 3)
        y = self.attn(y.flatten(0, 2)).reshape(batch, number, number, side, side, dim)
        y = y.transpose(2, 3).reshape(batch, grid + padding, grid + padding, dim)
        x = x + y[:, :grid, :grid]
        return x + self.mlp(self.norm2(x)), c


class GlobalBlock(nn.Module):
    """SAM's block over the whole grid, with cross-branch attention before and an adapter beside its MLP."""

    def __init__(self, dim: int, heads: int, grid: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, grid)
        self.mlp = MLPBlock(dim, 4 * dim)
        self.MLP_Adapter = Adapter(dim)
        self.Space_Adapter = CrossBranchAttention(dim, heads)
        self.refine_Adapter = SingleConv(dim, dim)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm1(x)
        y = y + self.Space_Adapter(y, c.permute(0, 2, 3, 1))  # c as it came; its refinement is for the next block
        x = x + self.attn(y)
        z = self.norm2(x)
        return x + self.mlp(z) + 0.5 * self.MLP_Adapter(z), self.refine_Adapter(c)


class ImageEncoder(nn.Module):
    """(B, 1, S, S) in [0, 1] -> (B, 256, S/8, S/8)."""

    def __init__(self, size: int, dim: int, depth: int, heads: int, global_blocks: Sequence[int], window: int) -> None:
        super().__init__()
        grid = size // STRIDE
        self.pos_embed = nn.Parameter(torch.zeros(1, 2 * grid, 2 * grid, dim))
        self.cnn_embed = CNNStem(dim)
        self.patch_embed = PatchEmbed(dim)
        self.input_Adapter = Adapter(dim)
        self.post_pos_embed = PositionAdapter(dim)
        self.blocks = nn.ModuleList(
            GlobalBlock(dim, heads, grid) if i in global_blocks else WindowBlock(dim, heads, window)
            for i in range(depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(dim, NECK, 1, bias=False),
            LayerNorm2d(NECK),
            nn.Conv2d(NECK, NECK, 3, padding=1, bias=False),
            LayerNorm2d(NECK),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = image.repeat(1, 3, 1, 1)
        x = self.patch_embed(image)
        x = x + self.input_Adapter(x)
        x = x + self.post_pos_embed(self.pos_embed)
        c = self.cnn_embed(image)
        for block in self.blocks:
            x, c = block(x, c)
        return self.neck(x.permute(0, 3, 1, 2) + 0.5 * c)


class ReferenceSAMUS(nn.Module):
    """SAMUS, by default with SAM's ViT-B at 256x256: 133,323,568 parameters, 39,653,120 of them trained.

    Args:
        image_size: S, edge of the square input in pixels, a multiple of 8.
        embed_dim: C, width of the image encoder.
        depth: number of its blocks.
        num_heads: number of heads of all attentions of the image encoder.
        global_blocks: the blocks that attend to the whole grid of S/8 x S/8 tokens and to the CNN branch.
        window_size: edge of the windows of the other blocks in tokens.
    """

    def __init__(
        self,
        *,
        image_size: int = 256,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        window_size: int = 14,
    ) -> None:
        super().__init__()
        grid = image_size // STRIDE
        self.image_encoder = ImageEncoder(image_size, embed_dim, depth, num_heads, global_blocks, window_size)
        self.prompt_encoder = PromptEncoder(
            embed_dim=NECK,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        )
        self.mask_decoder = MaskDecoder(
            transformer_dim=NECK,
            transformer=TwoWayTransformer(depth=2, embedding_dim=NECK, num_heads=8, mlp_dim=2048),
        )
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(is_trained(name, global_blocks))

    def predict_low_res(self, image: torch.Tensor, points_xy: torch.Tensor, point_labels: torch.Tensor) -> torch.Tensor:
        """Logits of the clicked object at half the resolution.

        Args:
            image: (B, 1, S, S) in [0, 1].
            points_xy: (B, N, 2) clicks in pixels, x first.
            point_labels: (B, N), 1 on the object, 0 on the background.

        Returns:
            (B, 1, S/2, S/2).
        """
        embedding = self.image_encoder(image)
        sparse, dense = self.prompt_encoder(points=(points_xy, point_labels), boxes=None, masks=None)
        positions = self.prompt_encoder.get_dense_pe()
        masks = []
        for i in range(len(image)):  # SAM's decoder takes one image at a time
            one = slice(i, i + 1)
            masks += self.mask_decoder(embedding[one], positions, sparse[one], dense[one], multimask_output=False)[:1]
        return torch.cat(masks)

    def forward(self, image: torch.Tensor, points_xy: torch.Tensor, point_labels: torch.Tensor) -> torch.Tensor:
        """`predict_low_res` at the resolution of the image: (B, 1, S, S)."""
        low_res = self.predict_low_res(image, points_xy, point_labels)
        return F.interpolate(low_res, image.shape[-2:], mode="bilinear", align_corners=False)


def is_trained(name: str, global_blocks: Sequence[int] = (2, 5, 8, 11)) -> bool:
    """Whether SAMUS trains the parameter of this name: CNN branch, adapters, relative positions of global blocks."""
    tables = re.search(r"blocks\.(\d+)\.attn\.rel_pos", name)
    if tables:
        return int(tables[1]) in global_blocks
    return any(part in name for part in ("cnn_embed", "post_pos_embed", "Adapter"))


def official_loss(low_res: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """0.8 Dice + 0.2 cross-entropy with foreground counting twice.

    Dice has squared denominators and one sum over the whole batch.

    Args:
        low_res: logits of any shape.
        mask: 0 and 1, same shape.
    """
    p = low_res.sigmoid()
    dice = 1 - (2 * (p * mask).sum() + 1e-5) / ((p * p).sum() + (mask * mask).sum() + 1e-5)
    entropy = F.binary_cross_entropy_with_logits(low_res, mask, pos_weight=low_res.new_tensor(2.0))
    return 0.8 * dice + 0.2 * entropy
