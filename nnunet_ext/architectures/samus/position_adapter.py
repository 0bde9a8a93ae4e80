"""SAMUS's position adapter."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_ext.architectures.samus.cnn_branch import conv_norm_gelu


class PositionAdapter(nn.Module):
    """Brings SAM's position embedding, made for 1024 pixels, to the grid of a 256 pixel image.

    The adapted embedding depends on no image. In evaluation it is computed once and kept until a parameter changes.

    Args:
        dim: channels of a token.
        factor: tokens per side of the stored embedding over tokens per side of the image.

    Shapes: (1, factor grid, factor grid, dim) -> (1, grid, grid, dim).
    """

    def __init__(self, *, dim: int, factor: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList([PooledConvolution(dim, factor)])
        self._kept: tuple[tuple, torch.Tensor] | None = None
        self.register_load_state_dict_post_hook(self._forget)

    def _forget(self, *_: object) -> None:
        self._kept = None

    def forward(self, pos_embed: torch.Tensor) -> torch.Tensor:
        if self.training or torch.is_grad_enabled() or pos_embed.is_meta or torch.compiler.is_compiling():
            return self._compute(pos_embed)
        kind = (torch.is_autocast_enabled(pos_embed.device.type), torch.is_inference_mode_enabled())
        state = (*kind, *((t.data_ptr(), t._version, t.device, t.dtype) for t in (pos_embed, *self.parameters())))
        if self._kept is None or self._kept[0] != state:
            self._kept = state, self._compute(pos_embed)
        return self._kept[1]

    def _compute(self, pos_embed: torch.Tensor) -> torch.Tensor:
        return self.downs[0](pos_embed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def __getstate__(self) -> dict:
        """Copies and pickles do not take what is kept along."""
        return {**self.__dict__, "_kept": None}


class PooledConvolution(nn.Module):
    """Max pooling, 3x3 convolution, layer norm, GELU."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(factor), *conv_norm_gelu(dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.maxpool_conv(x)
