"""The output layer that all networks of this package share with nnU-Net's conventions."""

from __future__ import annotations

import torch
from torch import nn


class SegmentationHead(nn.Module):
    """1x1 convolution to logits; a binary task has one logit z per pixel and is emitted as the two channels [0, z].

    The papers' networks end in one sigmoid. nnU-Net expects one channel per class, background included, and a
    softmax; softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)], so its losses, its argmax and its averaging of logits
    act on the paper's network unchanged.

    The layer is called `seg_layers` because that is what nnU-Net leaves out when pretrained weights are transferred
    to another number of classes.

    Args:
        conv: ``nn.Conv2d`` or ``nn.Conv3d``.
        in_channels: channels of the last feature map.
        out_channels: channels that are emitted.
        binary: emit [0, z]; needs `out_channels` = 2.

    Shapes: (B, in_channels, *spatial) -> (B, out_channels, *spatial), always a fresh tensor.
    """

    def __init__(self, *, conv: type[nn.Module], in_channels: int, out_channels: int, binary: bool) -> None:
        super().__init__()
        if binary and out_channels != 2:
            raise ValueError(f"a binary head emits 2 channels, not {out_channels}")
        self.binary = binary
        self.seg_layers = conv(in_channels, 1 if binary else out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.seg_layers(x)
        return torch.cat([torch.zeros_like(z), z], dim=1) if self.binary else z
