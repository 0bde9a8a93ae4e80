"""Optional: the same networks with less memory traffic per training step. Nothing in the package needs this file.

``accelerate(net)`` makes every block, gate and pool of a network compute the same function, with the same modules,
parameters and state dict, in one autograd node each. Three things are gained over the plain composition:

* Between forward and backward a block keeps its convolution outputs and the group statistics. Normalised and
  rectified maps, the expansion, the shortcut and the sums are recomputed, pooling indices (8 bytes each) too.
* On the CPU maps are channels-last, where a 1x1 convolution is one matrix product without reordering.
* The backward of normalisation and ReLU works in place on buffers of its own.

Plain code runs instead wherever the above would be wrong or opaque: BatchNorm, tracing, ``torch.compile`` and
``torch.export``. Hooks on the layers inside a block do not fire, and there is no double backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

from nnunet_ext.architectures.raunet.attention_gate import AttentionGate
from nnunet_ext.architectures.raunet.bottleneck import BottleneckResidual
from nnunet_ext.architectures.raunet.double_conv import DoubleConv
from nnunet_ext.architectures.raunet.fast_layer import Geometry, Layer, Stats, add_normalised_, relu_backward_
from nnunet_ext.architectures.raunet.layers import ConvNorm
from nnunet_ext.architectures.raunet.u_shape import UShape

Tensor = torch.Tensor
PARAMETERS = 4  # tensors per layer: convolution weight and bias, norm weight and bias


def accelerate(net: UShape, *, enabled: bool = True) -> UShape:
    """Switch `net` in place to the fast modules, or back with ``enabled=False``; returns `net`.

    Parameters, module names and state dict stay as they are, so checkpoints, optimisers and DDP do not notice.
    """
    classes = FAST if enabled else {fast: plain for plain, fast in FAST.items()}
    for module in net.modules():
        module.__class__ = classes.get(type(module), type(module))
    return net


def _layers(parameters: Sequence[Tensor | None], geometries: Sequence[Geometry]) -> list[Layer]:
    """Regroup the flat parameters that autograd wants."""
    return [Layer(*parameters[PARAMETERS * i :][:PARAMETERS], g) for i, g in enumerate(geometries)]


class _Block(torch.autograd.Function):
    """relu(chain(x)) or relu(chain(x) + shortcut(x)): ReLU between the layers of the chain; one layer as shortcut."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, geometries: tuple[Geometry, ...], shortcut: bool, *parameters: Tensor) -> Tensor:
        layers = _layers(parameters, geometries)
        chain = layers[:-1] if shortcut else layers
        raws, stats, y = [], [], x
        for layer in chain:
            if raws:
                y = chain[len(raws) - 1].normalise(raws[-1], stats[-1]).relu_().to(x.dtype)
            raws.append(layer.convolve(y))
            stats.append(layer.statistics(raws[-1]))
        if shortcut:
            raw, other = raws.pop(), layers[-1].convolve(x)  # neither is kept
            stats.append(layers[-1].statistics(other))
            y = add_normalised_(raw, other, chain[-1], layers[-1], *stats[-2:])
        else:
            y = chain[-1].normalise(raws[-1], stats[-1])
        y = y.relu_().to(x.dtype)
        ctx.geometries, ctx.shortcut, ctx.raws = geometries, shortcut, len(raws)
        ctx.save_for_backward(x, y, *raws, *(t for s in stats for t in s), *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, *rest = ctx.saved_tensors
        raws, rest = rest[: ctx.raws], rest[ctx.raws :]
        stats = [Stats(*rest[2 * i : 2 * i + 2]) for i in range(len(ctx.geometries))]
        layers = _layers(rest[2 * len(stats) :], ctx.geometries)
        chain = layers[:-1] if ctx.shortcut else layers
        needs_x = ctx.needs_input_grad[0]
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
        gradients: list[Tensor | None] = []
        d_x = None
        if ctx.shortcut:
            d_raw, *d_norm = layers[-1].normalise_backward(grad, layers[-1].convolve(x), stats[-1], into_raw=True)
            d_x, *d_conv = layers[-1].convolve_backward(d_raw, x, needs_x=needs_x)
            del d_raw
            gradients = [*d_conv, *d_norm]
        for i in reversed(range(len(chain))):
            layer = chain[i]
            y = chain[i - 1].normalise(raws[i - 1], stats[i - 1]).relu_().to(x.dtype) if i else x
            raw = raws[i] if i < len(raws) else layer.convolve(y)
            grad, *d_norm = layer.normalise_backward(grad, raw, stats[i], into_raw=False)
            grad, *d_conv = layer.convolve_backward(grad, y, add_to=None if i else d_x, needs_x=needs_x or i > 0)
            gradients = [*d_conv, *d_norm, *gradients]
            if i:
                relu_backward_(grad, y)
        return grad, None, None, *gradients


class _Gate(torch.autograd.Function):
    """x * sigmoid(psi(relu(gating(g) + skip(x))))."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, geometries: tuple[Geometry, ...], w: Tensor, b: Tensor, *parameters: Tensor
    ) -> Tensor:
        gating, skip = _layers(parameters, geometries)
        raw_g, raw_x = gating.convolve(g), skip.convolve(x)
        stats_g, stats_x = gating.statistics(raw_g), skip.statistics(raw_x)
        hidden = add_normalised_(raw_g, raw_x, gating, skip, stats_g, stats_x).relu_().to(x.dtype)
        a = F.conv2d(hidden, w, b).sigmoid_()
        ctx.geometries = geometries
        ctx.save_for_backward(g, x, a, *stats_g, *stats_x, w, b, *parameters)
        return x * a

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        g, x, a, mean_g, rstd_g, mean_x, rstd_x, w, b, *parameters = ctx.saved_tensors
        gating, skip = _layers(parameters, ctx.geometries)
        stats_g, stats_x = Stats(mean_g, rstd_g), Stats(mean_x, rstd_x)
        raw_g, raw_x = gating.convolve(g), skip.convolve(x)
        hidden = gating.normalise(raw_g, stats_g)
        hidden = add_normalised_(hidden, raw_x, None, skip, None, stats_x).relu_().to(x.dtype)
        product = grad * x
        d_logit = product.sum(1, keepdim=True) * (a * (1 - a))
        d_x = torch.mul(grad, a, out=product)
        psi = Layer(w, b, w, b, gating.geometry)
        d_hidden, d_w, d_b = psi.convolve_backward(d_logit, hidden)
        relu_backward_(d_hidden, hidden)
        d_raw, *d_norm_x = skip.normalise_backward(d_hidden, raw_x, stats_x, into_raw=True)
        d_x, *d_conv_x = skip.convolve_backward(d_raw, x, add_to=d_x)
        d_raw, *d_norm_g = gating.normalise_backward(d_hidden, raw_g, stats_g, into_raw=False)
        d_g, *d_conv_g = gating.convolve_backward(d_raw, g)
        return d_g, d_x, None, d_w, d_b, *d_conv_g, *d_norm_g, *d_conv_x, *d_norm_x


class _Pool(torch.autograd.Function):
    """Halving max pooling; the positions of the maxima are found again in the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (F.max_pool2d if x.dim() == 4 else F.max_pool3d)(x, 2, ceil_mode=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        n = x.dim() - 2
        pool, name = (F.max_pool2d, "max_pool2d") if n == 2 else (F.max_pool3d, "max_pool3d")
        _, indices = pool(x, 2, ceil_mode=True, return_indices=True)
        pool_backward = getattr(torch.ops.aten, f"{name}_with_indices_backward")
        return pool_backward(grad, x, [2] * n, [2] * n, [0] * n, [1] * n, True, indices)


def _plain(x: Tensor) -> bool:
    """What is fast here was measured on CPUs only, and code that is going to be transformed has to be plain."""
    transformed = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.jit.is_scripting()
    return transformed or x.device.type != "cpu"


def _usable(x: Tensor, layers: Iterable[ConvNorm]) -> bool:
    return not _plain(x) and all(isinstance(layer.norm, nn.GroupNorm) for layer in layers)


def _prepare(*maps: Tensor) -> list[Tensor]:
    """To autocast's type and channels-last (also where one channel leaves the strides ambiguous)."""
    if torch.is_autocast_enabled("cpu"):
        maps = tuple(x.to(torch.get_autocast_dtype("cpu")) for x in maps)
    layout = torch.channels_last if maps[0].dim() == 4 else torch.channels_last_3d
    return [x if x.is_contiguous(memory_format=layout) and x.shape[1] > 1 else x.to(memory_format=layout) for x in maps]


def _arguments(layers: Sequence[ConvNorm], dtype: torch.dtype) -> tuple[tuple[Geometry, ...], list[Tensor | None]]:
    """Geometries and flat parameters; the convolutions' in the type of the maps, a cast that autograd sees."""
    geometries = tuple(Geometry(tuple(la.conv.padding), la.norm.num_groups, la.norm.eps) for la in layers)
    flat: list[Tensor | None] = []
    for la in layers:
        bias = la.conv.bias
        flat += [la.conv.weight.to(dtype), bias if bias is None else bias.to(dtype), la.norm.weight, la.norm.bias]
    return geometries, flat


class FastDoubleConv(DoubleConv):
    """`DoubleConv` as one autograd node."""

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.first, self.second)
        if not _usable(x, layers):
            return super().forward(x)
        (x,) = _prepare(x)
        geometries, parameters = _arguments(layers, x.dtype)
        with torch.autocast("cpu", enabled=False):
            return _Block.apply(x, geometries, False, *parameters)


class FastBottleneckResidual(BottleneckResidual):
    """`BottleneckResidual` as one autograd node."""

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.reduce, *self.spatial, self.expand, self.shortcut)
        if not _usable(x, layers):
            return super().forward(x)
        (x,) = _prepare(x)
        geometries, parameters = _arguments(layers, x.dtype)
        with torch.autocast("cpu", enabled=False):
            return _Block.apply(x, geometries, True, *parameters)


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
            return _Gate.apply(g, x, geometries, *psi, *parameters)


class FastMaxPool2d(nn.MaxPool2d):
    """The halving `nn.MaxPool2d` of the networks without kept indices."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if _plain(x) else _Pool.apply(x)


class FastMaxPool3d(nn.MaxPool3d):
    """The halving `nn.MaxPool3d` of the networks without kept indices."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if _plain(x) else _Pool.apply(x)


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


FAST: dict[type[nn.Module], type[nn.Module]] = {
    DoubleConv: FastDoubleConv,
    BottleneckResidual: FastBottleneckResidual,
    AttentionGate: FastAttentionGate,
    nn.ConvTranspose2d: FastConvTranspose2d,
    nn.MaxPool2d: FastMaxPool2d,
    nn.MaxPool3d: FastMaxPool3d,
}
