"""The blocks of the RA-U-Net paper: double convolution, bottleneck, attention gate, and the head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Norm = Literal["group", "batch"]

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def normalization(norm: Norm, channels: int, dim: int = 2, groups: int = 32) -> nn.Module:
    """Return GroupNorm with ``min(groups, channels)`` groups, or BatchNorm.

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


class DoubleConv(nn.Module):
    """Twice 3x3 convolution, norm, ReLU (Ronneberger et al. 2015, with norm and padding).

    Shapes: (B, in_channels, *spatial) -> (B, out_channels, *spatial).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        mid_channels: int | None = None,
        norm: Norm = "group",
        groups: int = 32,
        dim: int = 2,
    ) -> None:
        super().__init__()
        mid_channels = mid_channels or out_channels
        self.first = ConvNorm(in_channels, mid_channels, 3, norm=norm, groups=groups, dim=dim)
        self.second = ConvNorm(mid_channels, out_channels, 3, norm=norm, groups=groups, dim=dim)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.second(self.relu(self.first(x))))


class BottleneckResidual(nn.Module):
    """The paper's residual block (section 2.1, figure 2).

    1x1 reduction to a quarter, `num_3x3` 3x3 convolutions, 1x1 expansion, plus a projected shortcut. Every convolution
    is followed by its norm, all but the expansion and the shortcut also by ReLU; ReLU once more after the addition.
    The shortcut is always a 1x1 convolution with norm, because the channels always change.

    Args:
        num_3x3: 2 reproduces the parameter counts of the paper's table 1; 1 is the literal text ("1x1, 3x3, 1x1").
            See docs/deviations.md.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, num_3x3: int = 2, norm: Norm = "group", groups: int = 32
    ) -> None:
        super().__init__()
        mid_channels = out_channels // 4
        self.reduce = ConvNorm(in_channels, mid_channels, 1, norm=norm, groups=groups)
        self.spatial = nn.ModuleList(
            ConvNorm(mid_channels, mid_channels, 3, norm=norm, groups=groups) for _ in range(num_3x3)
        )
        self.expand = ConvNorm(mid_channels, out_channels, 1, norm=norm, groups=groups)
        self.shortcut = ConvNorm(in_channels, out_channels, 1, norm=norm, groups=groups)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.reduce(x))
        for conv in self.spatial:
            y = self.relu(conv(y))
        return self.relu(self.expand(y) + self.shortcut(x))


class AttentionGate(nn.Module):
    """Weights the skip connection x by a map in (0, 1) computed from x and the gating signal g.

    a = sigmoid(psi(ReLU(W_g g + W_x x))), out = x * a (section 2.2, figure 3; Oktay et al. 2018), with W_g and W_x 1x1
    convolutions to half the channels with bias and norm, and psi a 1x1 convolution to one channel with bias. psi has
    no norm: normalising one channel per image would fix the mean of the gate whatever the image shows.

    Shapes: g and x (B, channels, H, W), same resolution -> (B, channels, H, W).
    """

    def __init__(self, channels: int, *, norm: Norm = "group", groups: int = 32) -> None:
        super().__init__()
        inner = channels // 2
        self.gating = ConvNorm(channels, inner, 1, norm=norm, groups=groups, bias=True)
        self.skip = ConvNorm(channels, inner, 1, norm=norm, groups=groups, bias=True)
        self.psi = CONV[2](inner, 1, kernel_size=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.psi(self.relu(self.gating(g) + self.skip(x))))


class SegmentationHead(nn.Module):
    """1x1 convolution to logits; a binary task has one logit z per pixel and is emitted as the two channels [0, z].

    The papers' networks end in one sigmoid. nnU-Net expects one channel per class, background included, and a
    softmax; softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)], so its losses, its argmax and its averaging of logits
    act on the paper's network unchanged.

    The layer is called `seg_layers` because that is what nnU-Net leaves out when pretrained weights are transferred
    to another number of classes.

    Args:
        in_channels: channels of the last feature map.
        out_channels: channels that are emitted.
        binary: emit [0, z]; needs `out_channels` = 2.
        dim: 2 or 3.

    Shapes: (B, in_channels, *spatial) -> (B, out_channels, *spatial), always a fresh tensor.
    """

    def __init__(self, *, in_channels: int, out_channels: int, binary: bool, dim: int = 2) -> None:
        super().__init__()
        if binary and out_channels != 2:
            raise ValueError(f"a binary head emits 2 channels, not {out_channels}")
        self.binary = binary
        self.seg_layers = CONV[dim](in_channels, 1 if binary else out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.seg_layers(x)
        return torch.cat([torch.zeros_like(z), z], dim=1) if self.binary else z
