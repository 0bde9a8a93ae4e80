"""The networks of the RA-U-Net paper's table 1: one U, in 2D with exchangeable blocks and gates, and in 3D.

With `recompute` (see `memory.set_recomputation`) all that a U holds between forward and backward pass is the maps
between its parts; what is inside of them is computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import nn

from nnunet_ext.architectures.memory import recomputed

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
    """k x k convolution, normalisation and, if `relu`, ReLU. Keeps the size.

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
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.conv = CONV[dim](in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm = normalization(norm, out_channels, dim, groups)
        if relu:
            self.relu = nn.ReLU(inplace=True)


class DoubleConv(nn.Module):
    """Twice 3x3 convolution, norm, ReLU (Ronneberger et al. 2015, with norm and padding).

    Shapes: (B, in_channels, *spatial) -> (B, out_channels, *spatial).
    """

    recompute = False

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
        self.first = ConvNorm(in_channels, mid_channels, 3, norm=norm, groups=groups, dim=dim, relu=True)
        self.second = ConvNorm(mid_channels, out_channels, 3, norm=norm, groups=groups, dim=dim, relu=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in (self.first, self.second):
            x = recomputed(part, x, enabled=self.recompute)
        return x


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

    recompute = False

    def __init__(
        self, in_channels: int, out_channels: int, *, num_3x3: int = 2, norm: Norm = "group", groups: int = 32
    ) -> None:
        super().__init__()
        mid_channels = out_channels // 4
        self.reduce = ConvNorm(in_channels, mid_channels, 1, norm=norm, groups=groups, relu=True)
        self.spatial = nn.Sequential(
            *(ConvNorm(mid_channels, mid_channels, 3, norm=norm, groups=groups, relu=True) for _ in range(num_3x3))
        )
        self.expand = ConvNorm(mid_channels, out_channels, 1, norm=norm, groups=groups)
        self.shortcut = ConvNorm(in_channels, out_channels, 1, norm=norm, groups=groups)
        self.relu = nn.ReLU(inplace=True)

    def narrow(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the expansion expands: (B, in_channels, H, W) -> (B, out_channels / 4, H, W)."""
        return self.spatial(self.reduce(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = recomputed(self.narrow, x, enabled=self.recompute)
        y = recomputed(self.expand, y, enabled=self.recompute)
        return self.relu(y + recomputed(self.shortcut, x, enabled=self.recompute))


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

    Shapes: (B, in_channels, *spatial) -> (B, out_channels, *spatial), always a fresh tensor.

    Raises:
        ValueError: `binary`, but `out_channels` is not 2.
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


class UShape(nn.Module):
    """Encoder stages with pooling between them, decoder stages with up-sampling, skip connections, head.

    Args:
        encoder: one block per stage, from full resolution down.
        pool: halves the size between two stages, rounding up.
        up, decoder, gates: one module per skip connection, from full resolution down. A gate maps (up-sampled
            decoder map, encoder map) to the encoder map that is concatenated.
        head: logits.
    """

    recompute = False

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
            skips.append(stage(x))
            x = recomputed(self.pool, skips[-1], enabled=self.recompute)
        x = self.encoder[-1](x)
        for level in reversed(range(len(skips))):
            x = recomputed(self.merge, level, x, skips[level], enabled=self.recompute)
            x = self.decoder[level](x)
        return self.head(x)

    def merge(self, level: int, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return a skip connection, gated, and the map from below, up-sampled, as one map."""
        x = crop_to(self.up[level](x), skip.shape[2:])
        if self.gates is not None:
            skip = self.gates[level](x, skip)
        return torch.cat([skip, x], dim=1)


def crop_to(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Cut the far end of the spatial axes: an up-sampled map is one too long where pooling rounded an odd size up."""
    for dim, length in enumerate(size, start=2):
        x = x.narrow(dim, 0, length) if x.shape[dim] != length else x
    return x


class UNet(UShape):
    """U-Net whose block and skip connections are exchangeable (figure 1); RA-U-Net by default.

    >>> network = UNet()
    >>> sum(parameter.numel() for parameter in network.parameters())
    7294133
    >>> network(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 2, 64, 64])

    The other rows of table 1 are U-Net (``double`` blocks, no gates), U-Net + attention (``double`` blocks) and U-Net +
    residual (no gates).

    Each stage but the first halves the size by 2x2 max pooling; the decoder doubles it by a 2x2 transposed
    convolution that halves the channels, gates the encoder map, concatenates and applies a block.

    Args:
        in_channels: image channels.
        out_channels: emitted channels (nnU-Net's segmentation heads).
        binary: one logit, emitted as [0, z] (see `SegmentationHead`).
        features: channels of the stages, from full resolution down.
        block: ``double`` or ``bottleneck``.
        gates: attention gates on the skip connections.
        num_3x3: 3x3 convolutions inside the bottleneck.
        norm: ``group`` or ``batch``.
        groups: groups of GroupNorm, at most.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H, W), any size.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 2,
        binary: bool = True,
        features: Sequence[int] = (64, 128, 256, 512, 1024),
        block: Literal["double", "bottleneck"] = "bottleneck",
        gates: bool = True,
        num_3x3: int = 2,
        norm: Norm = "group",
        groups: int = 32,
    ) -> None:
        def make_block(i: int, o: int) -> nn.Module:
            if block == "double":
                return DoubleConv(i, o, norm=norm, groups=groups)
            return BottleneckResidual(i, o, num_3x3=num_3x3, norm=norm, groups=groups)

        above = features[:-1]
        super().__init__(
            encoder=[make_block(i, o) for i, o in zip((in_channels, *above), features, strict=True)],
            pool=MAX_POOL[2](2, ceil_mode=True),
            up=[CONV_TRANSPOSE[2](2 * c, c, kernel_size=2, stride=2) for c in above],
            gates=[AttentionGate(c, norm=norm, groups=groups) for c in above] if gates else None,
            decoder=[make_block(2 * c, c) for c in above],
            head=SegmentationHead(in_channels=features[0], out_channels=out_channels, binary=binary),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":  # measured there alone: faster forward with bottlenecks, faster step without
            x = x.to(memory_format=torch.channels_last)
        return super().forward(x)


class UNet3D(UShape):
    """3D U-Net in the layout of Cicek et al. 2016.

    >>> UNet3D(features=(8, 16, 32, 64))(torch.zeros(1, 1, 16, 32, 32)).shape
    torch.Size([1, 2, 16, 32, 32])

    The first convolution of an encoder pair has half the width, and the up-convolutions keep the channels.

    The RA-U-Net paper names the row and gives no size; `features` of 32 to 256 has 4,769,457 parameters, 64 to 512
    the 19,071,329 of the original (one channel in, binary).

    Args: as `UNet`.

    Shapes: (B, in_channels, D, H, W) -> (B, out_channels, D, H, W), any size.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 2,
        binary: bool = True,
        features: Sequence[int] = (32, 64, 128, 256),
        norm: Norm = "group",
        groups: int = 32,
    ) -> None:
        def make_block(i: int, o: int, mid: int) -> DoubleConv:
            return DoubleConv(i, o, mid_channels=mid, norm=norm, groups=groups, dim=3)

        above = features[:-1]
        super().__init__(
            encoder=[make_block(i, o, o // 2) for i, o in zip((in_channels, *above), features, strict=True)],
            pool=MAX_POOL[3](2, ceil_mode=True),
            up=[CONV_TRANSPOSE[3](2 * c, 2 * c, kernel_size=2, stride=2) for c in above],
            decoder=[make_block(3 * c, c, c) for c in above],
            head=SegmentationHead(in_channels=features[0], out_channels=out_channels, binary=binary, dim=3),
        )
