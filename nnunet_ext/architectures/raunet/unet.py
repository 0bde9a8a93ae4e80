"""The networks of the RA-U-Net paper's table 1: one U, in 2D with exchangeable blocks and gates, and in 3D."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import nn

from nnunet_ext.architectures.memory import recomputed
from nnunet_ext.architectures.raunet.blocks import (
    CONV_TRANSPOSE,
    MAX_POOL,
    AttentionGate,
    BottleneckResidual,
    DoubleConv,
    Norm,
    SegmentationHead,
)

RECOMPUTED = 3  # stages, from full resolution down


class UShape(nn.Module):
    """Encoder stages with pooling between them, decoder stages with up-sampling, skip connections, head.

    With `recompute` (see `memory.set_recomputation`) the blocks and gates of the `RECOMPUTED` finest stages, which hold
    most of the activations, are computed again in the backward pass.

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
        for level, stage in enumerate(self.encoder[:-1]):
            x = self._run(level, stage, x)
            skips.append(x)
            x = self.pool(x)
        x = self.encoder[-1](x)

        for level in reversed(range(len(skips))):
            skip = skips[level]
            x = crop_to(self.up[level](x), skip.shape[2:])
            if self.gates is not None:
                skip = self._run(level, self.gates[level], x, skip)
            x = self._run(level, self.decoder[level], torch.cat([skip, x], dim=1))
        return self.head(x)

    def _run(self, level: int, block: nn.Module, *maps: torch.Tensor) -> torch.Tensor:
        return recomputed(block, *maps, enabled=self.recompute and level < RECOMPUTED)


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

    ===================  ==============  =========  ==================================
    row of table 1       `block`         `gates`    parameters (1 channel in, binary)
    ===================  ==============  =========  ==================================
    U-Net                ``double``      no         31,036,481
    U-Net + attention    ``double``      yes        31,388,005
    U-Net + residual     ``bottleneck``  no          6,942,609
    RA-U-Net             ``bottleneck``  yes         7,294,133
    ===================  ==============  =========  ==================================

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
