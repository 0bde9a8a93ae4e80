"""Optional: the same networks with less memory traffic per training step. Nothing in the package needs this file.

``accelerate(net)`` makes every block, gate and pool of a network compute the same function, with the same modules,
parameters and state dict, in one autograd node each. Three things are gained over the plain composition:

* Between forward and backward a block keeps its narrow convolution outputs and the group statistics. Normalised and
  rectified maps are recomputed, so are the gate's and the positions of the maxima (8 bytes each in torch).
* Maps are channels-last, where 1x1 and up-convolutions are one matrix product without reordering, and
  the wide maps before the sum mostly need not exist at all (`moments`).
* The backward of normalisation and ReLU works in place on buffers of its own.

Plain code runs instead wherever the above would be wrong, opaque or unmeasured: BatchNorm, tracing, ``torch.compile``,
``torch.export``, and any device but the CPU. Hooks on the layers inside a block do not fire, and there is no double
backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from nnunet_ext.architectures.raunet.attention_gate import AttentionGate
from nnunet_ext.architectures.raunet.bottleneck import BottleneckResidual
from nnunet_ext.architectures.raunet.double_conv import DoubleConv
from nnunet_ext.architectures.raunet.fast.layer import Geometry
from nnunet_ext.architectures.raunet.fast.nodes import Block, Gate, Pool
from nnunet_ext.architectures.raunet.layers import ConvNorm
from nnunet_ext.architectures.raunet.u_shape import UShape
from nnunet_ext.architectures.raunet.unet import UNet
from nnunet_ext.architectures.raunet.unet3d import UNet3D

Tensor = torch.Tensor

FEWEST_PIXELS = 16384  # of a batch's map: on smaller ones the bookkeeping costs more than it saves


def accelerate(net: UShape, *, enabled: bool = True) -> UShape:
    """Switch `net` in place to the fast modules, or back with ``enabled=False``; returns `net`.

    Parameters, module names and state dict stay as they are, so checkpoints, optimisers and DDP do not notice.
    """
    classes = FAST if enabled else {fast: plain for plain, fast in FAST.items()}
    for module in net.modules():
        module.__class__ = classes.get(type(module), type(module))
    return net


def _plain(x: Tensor) -> bool:
    """What is fast here is so on large maps on CPUs, and code that is going to be transformed has to be plain."""
    transformed = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.jit.is_scripting()
    return transformed or x.device.type != "cpu" or x.numel() < x.shape[1] * FEWEST_PIXELS


def _usable(x: Tensor, layers: Iterable[ConvNorm]) -> bool:
    return not _plain(x) and all(isinstance(layer.norm, nn.GroupNorm) for layer in layers)


def _prepare(*maps: Tensor) -> list[Tensor]:
    """To autocast's type and channels-last (also where one channel leaves the strides ambiguous)."""
    if torch.is_autocast_enabled("cpu"):
        maps = tuple(x.to(torch.get_autocast_dtype("cpu")) for x in maps)
    layout = torch.channels_last if maps[0].dim() == 4 else torch.channels_last_3d
    return [x if x.is_contiguous(memory_format=layout) and x.shape[1] > 1 else x.to(memory_format=layout) for x in maps]


def _block(maps: Sequence[Tensor], layers: Sequence[ConvNorm], *, shortcut: bool) -> Tensor:
    """A whole block on one map or two; casts happen here, where autograd sees them."""
    x, other = (*_prepare(*maps), None)[:2]
    geometries, parameters = _arguments(layers, x.dtype)
    with torch.autocast("cpu", enabled=False):
        return Block.apply(x, other, geometries, shortcut, *parameters)


def _arguments(layers: Sequence[ConvNorm], dtype: torch.dtype) -> tuple[tuple[Geometry, ...], list[Tensor | None]]:
    """Geometries and flat parameters; the convolutions' in the type of the maps."""
    geometries = tuple(Geometry(tuple(la.conv.padding), la.norm.num_groups, la.norm.eps) for la in layers)
    flat: list[Tensor | None] = []
    for la in layers:
        bias = la.conv.bias
        flat += [la.conv.weight.to(dtype), bias if bias is None else bias.to(dtype), la.norm.weight, la.norm.bias]
    return geometries, flat


class FastDoubleConv(DoubleConv):
    """`DoubleConv` as one autograd node; of two maps, it acts on their concatenation."""

    def forward(self, *maps: Tensor) -> Tensor:
        layers = (self.first, self.second)
        return (
            _block(maps, layers, shortcut=False)
            if _usable(maps[0], layers)
            else super().forward(torch.cat(maps, dim=1))
        )


class FastBottleneckResidual(BottleneckResidual):
    """`BottleneckResidual` as one autograd node; of two maps, it acts on their concatenation."""

    def forward(self, *maps: Tensor) -> Tensor:
        layers = (self.reduce, *self.spatial, self.expand, self.shortcut)
        return (
            _block(maps, layers, shortcut=True) if _usable(maps[0], layers) else super().forward(torch.cat(maps, dim=1))
        )


class FastAttentionGate(AttentionGate):
    """`AttentionGate` as one autograd node."""

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        layers = (self.gating, self.skip)
        if not _usable(x, layers):
            return super().forward(g, x)
        g, x = _prepare(g, x)
        geometries, parameters = _arguments(layers, x.dtype)
        psi = (self.psi.weight.to(x.dtype), self.psi.bias.to(x.dtype))
        with torch.autocast("cpu", enabled=False):
            return Gate.apply(g, x, geometries, *psi, *parameters)


class FastMaxPool2d(nn.MaxPool2d):
    """The halving `nn.MaxPool2d` without kept positions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if _plain(x) or self.kernel_size != 2 else Pool.apply(x)


class FastMaxPool3d(nn.MaxPool3d):
    """The halving `nn.MaxPool3d` without kept positions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if _plain(x) or self.kernel_size != 2 else Pool.apply(x)


class FastConvTranspose2d(nn.ConvTranspose2d):
    """The doubling `nn.ConvTranspose2d` of the networks as one matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        if _plain(x) or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        (x,) = _prepare(x)
        b, i, h, w = x.shape
        weight = self.weight.permute(0, 2, 3, 1).reshape(i, -1)  # each pixel becomes 2x2 pixels
        y = torch.addmm(self.bias.repeat(4), x.permute(0, 2, 3, 1).reshape(-1, i), weight)
        return y.view(b, h, w, 2, 2, -1).transpose(2, 3).reshape(b, 2 * h, 2 * w, -1).permute(0, 3, 1, 2)


class FastUShape(UShape):
    """`UShape` that leaves the concatenation to the block."""

    def merge(self, level: int, skip: Tensor, x: Tensor) -> Tensor:
        return self.decoder[level](skip, x)


class FastUNet(FastUShape, UNet):
    """`UNet`."""


class FastUNet3D(FastUShape, UNet3D):
    """`UNet3D`."""


FAST: dict[type[nn.Module], type[nn.Module]] = {
    UNet: FastUNet,
    UNet3D: FastUNet3D,
    DoubleConv: FastDoubleConv,
    BottleneckResidual: FastBottleneckResidual,
    AttentionGate: FastAttentionGate,
    nn.ConvTranspose2d: FastConvTranspose2d,
    nn.MaxPool2d: FastMaxPool2d,
    nn.MaxPool3d: FastMaxPool3d,
}
