"""The 2D networks of the paper's table 1: U-Net, U-Net + attention, U-Net + residual, RA-U-Net (figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from nnunet_ext.architectures.head import SegmentationHead
from nnunet_ext.architectures.raunet.attention_gate import AttentionGate
from nnunet_ext.architectures.raunet.bottleneck import BottleneckResidual
from nnunet_ext.architectures.raunet.double_conv import DoubleConv
from nnunet_ext.architectures.raunet.layers import CONV, CONV_TRANSPOSE, MAX_POOL, Norm
from nnunet_ext.architectures.raunet.u_shape import UShape


class UNet(UShape):
    """U-Net whose block and skip connections are exchangeable.

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
            head=SegmentationHead(conv=CONV[2], in_channels=features[0], out_channels=out_channels, binary=binary),
        )
