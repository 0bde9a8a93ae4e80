"""The 3D U-Net row of the paper's table 1."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_ext.architectures.head import SegmentationHead
from nnunet_ext.architectures.raunet.double_conv import DoubleConv
from nnunet_ext.architectures.raunet.layers import CONV, CONV_TRANSPOSE, MAX_POOL, Norm
from nnunet_ext.architectures.raunet.u_shape import UShape


class UNet3D(UShape):
    """3D U-Net in the layout of Cicek et al. 2016.

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
            head=SegmentationHead(conv=CONV[3], in_channels=features[0], out_channels=out_channels, binary=binary),
        )
