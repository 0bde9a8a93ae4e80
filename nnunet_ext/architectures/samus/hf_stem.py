"""The stem that brings the high-frequency image to the token grid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nnunet_ext.architectures.samus.layer_norm import LayerNorm2d


class HighFrequencyStem(nn.Sequential):
    """3x3 convolution, layer norm and GELU per stage, with 2x2 max pooling between the stages.

    A narrow copy of the stem of SAMUS's CNN branch, so that both arrive at the same grid. 97,392 parameters as built
    by default.

    Args:
        features: channels of the stages, from full resolution down.

    Shapes: (B, 1, H, W) -> (B, features[-1], H / 8, W / 8) with four stages, rounded down.
    """

    def __init__(self, *, features: Sequence[int] = (16, 32, 64, 128)) -> None:
        layers: list[nn.Module] = []
        for i, o in zip((1, *features), features, strict=False):
            if layers:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.Conv2d(i, o, kernel_size=3, padding=1, bias=False), LayerNorm2d(o), nn.GELU()]
        super().__init__(*layers)
