"""What the 2D and 3D networks have in common: the way data takes through the U."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn


def crop_to(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Cut the far end of the spatial axes: an up-sampled map is one too long where pooling rounded an odd size up."""
    return x[(..., *(slice(n) for n in size))] if tuple(x.shape[2:]) != tuple(size) else x


class UShape(nn.Module):
    """Encoder stages with pooling between them, decoder stages with up-sampling, skip connections, head.

    Args:
        encoder: one block per stage, from full resolution down.
        pool: halves the size between two stages, rounding up.
        up, decoder, gates: one module per skip connection, from full resolution down. A gate maps (up-sampled
            decoder map, encoder map) to the encoder map that is concatenated.
        head: logits.
    """

    def __init__(
        self,
        *,
        encoder: Iterable[nn.Module],
        pool: nn.Module,
        up: Iterable[nn.Module],
        decoder: Iterable[nn.Module],
        head: nn.Module,
        gates: Iterable[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.pool = pool
        self.up = nn.ModuleList(up)
        self.gates = nn.ModuleList(gates) if gates is not None else None
        self.decoder = nn.ModuleList(decoder)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for stage in self.encoder[:-1]:
            x = stage(x)
            skips.append(x)
            x = self.pool(x)
        x = self.encoder[-1](x)

        for level in reversed(range(len(skips))):
            skip = skips[level]
            x = crop_to(self.up[level](x), skip.shape[2:])
            if self.gates is not None:
                skip = self.gates[level](x, skip)
            x = self.merge(level, skip, x)
        return self.head(x)

    def merge(self, level: int, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The decoder's block on both maps."""
        return self.decoder[level](torch.cat([skip, x], dim=1))
