"""The layers that every box of the RA-U-Net paper is made of."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["group", "batch"]

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def normalization(norm: Norm, channels: int, dim: int = 2, groups: int = 32) -> nn.Module:
    """GroupNorm with ``min(groups, channels)`` groups, or BatchNorm.

    Section 2.3 of the paper recommends 32 groups; the narrow layers have 16 channels, which 32 does not divide.

    Raises:
        ValueError: `groups` does not divide `channels`.
    """
    if norm == "batch":
        return BATCH_NORM[dim](channels)
    return nn.GroupNorm(min(groups, channels), channels)


class ConvNorm(nn.Sequential):
    """k x k convolution, then normalisation. Keeps the size.

    By default the convolution has no bias, since the norm has one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        norm: Norm = "group",
        groups: int = 32,
        dim: int = 2,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = CONV[dim](in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm = normalization(norm, out_channels, dim, groups)
