"""Self-attention of SAM's image encoder."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from nnunet_ext.architectures.samus.linear import Linear


class Attention(nn.Module):
    """Multi-head attention over a square grid of tokens, with decomposed relative positions.

    SAM adds q . R_h[y_q - y_k] + q . R_w[x_q - x_k] to every logit, which takes a matrix of tokens x tokens per head.
    Here the two terms become features instead: q' = [q / sqrt(d), q . R_h, q . R_w], k' = [k, onehot(y), onehot(x)],
    so that q' . k' is the same logit and any fused attention kernel does the rest. v is padded to the length of q',
    because the CPU's kernel needs equal lengths.

    Args:
        dim: channels of a token.
        num_heads: attention heads.
        grid: tokens per side.

    Shapes: (B, grid, grid, dim) -> (B, grid, grid, dim).
    """

    def __init__(self, *, dim: int, num_heads: int, grid: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.grid = grid
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid - 1, self.head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid - 1, self.head_dim))
        steps = torch.arange(grid)
        self.register_buffer("offsets", steps[:, None] - steps + grid - 1, persistent=False)
        rows, columns = torch.eye(grid).repeat_interleave(grid, 0), torch.eye(grid).repeat(grid, 1)
        self.register_buffer("place", torch.cat([rows, columns], 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(self.attend(self.qkv(x)))

    def attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """Shapes: (B, grid, grid, 3 dim) -> (B, grid, grid, dim)."""
        batch, n = len(qkv), self.grid * self.grid
        q, k, v = qkv.reshape(batch, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        on_grid = q.unflatten(2, (self.grid, self.grid))
        of_rows = torch.einsum("bnhwc,hkc->bnhwk", on_grid, self.rel_pos_h[self.offsets]).flatten(2, 3)
        of_columns = torch.einsum("bnhwc,wkc->bnhwk", on_grid, self.rel_pos_w[self.offsets]).flatten(2, 3)
        place = self.place.to(k.dtype).expand(batch, self.num_heads, -1, -1)
        out = F.scaled_dot_product_attention(
            torch.cat([q * self.head_dim**-0.5, of_rows.to(q.dtype), of_columns.to(q.dtype)], -1),
            torch.cat([k, place], -1),
            F.pad(v, (0, 2 * self.grid)),
            scale=1.0,
        )
        return out[..., : self.head_dim].transpose(1, 2).reshape(batch, self.grid, self.grid, -1)


class WindowAttention(Attention):
    """Attention within windows of `grid` x `grid` tokens of a larger map.

    SAM pads the map with zeros to whole windows, and the padding takes part as keys: after the projection it is the
    projection's bias. So only real tokens are projected, before and after.

    Shapes: (B, H, W, dim) -> (B, H, W, dim).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, _ = x.shape
        qkv = self.qkv(x)
        missing = -height % self.grid, -width % self.grid
        rows, columns = (height + missing[0]) // self.grid, (width + missing[1]) // self.grid
        qkv = torch.cat([qkv, self.qkv.bias.to(qkv.dtype).expand(batch, height, missing[1], -1)], 2)
        qkv = torch.cat([qkv, self.qkv.bias.to(qkv.dtype).expand(batch, missing[0], qkv.shape[2], -1)], 1)
        windows = qkv.unflatten(2, (columns, self.grid)).unflatten(1, (rows, self.grid)).transpose(2, 3)
        out = self.attend(windows.flatten(0, 2))
        out = out.unflatten(0, (batch, rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return self.proj(out[:, :height, :width])
