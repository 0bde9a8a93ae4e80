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
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

from nnunet_ext.architectures.raunet.attention_gate import AttentionGate
from nnunet_ext.architectures.raunet.bottleneck import BottleneckResidual
from nnunet_ext.architectures.raunet.double_conv import DoubleConv
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


class Geometry(NamedTuple):
    """What a layer is besides its tensors."""

    padding: tuple[int, ...]
    groups: int
    eps: float


class Layer(NamedTuple):
    """Convolution (stride 1) and GroupNorm."""

    weight: Tensor
    bias: Tensor | None
    gamma: Tensor
    beta: Tensor
    geometry: Geometry

    def convolve(self, x: Tensor) -> Tensor:
        convolution = F.conv2d if x.dim() == 4 else F.conv3d
        return convolution(x, self.weight, self.bias, padding=self.geometry.padding)


class Stats(NamedTuple):
    """Mean and 1 / standard deviation, (B, groups)."""

    mean: Tensor
    rstd: Tensor


def _wide(x: Tensor) -> Tensor:
    """Half-precision maps are normalised in float32, as autocast does."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _normalise(raw: Tensor, layer: Layer) -> tuple[Tensor, Stats]:
    """GroupNorm of a convolution's output, in at least float32."""
    b, c = raw.shape[:2]
    y, mean, rstd = torch.native_group_norm(
        _wide(raw), layer.gamma, layer.beta, b, c, raw[0, 0].numel(), layer.geometry.groups, layer.geometry.eps
    )
    return y, Stats(mean, rstd)


def _per_channel(stats: Stats, raw: Tensor) -> Stats:
    """(B, groups) -> (B, C, 1, ...)."""
    b, c = raw.shape[:2]
    ones = (1,) * (raw.dim() - 2)
    mean, rstd = (s.reshape(b, -1, 1).repeat(1, 1, c // s.shape[1]).view(b, c, *ones) for s in stats)
    return Stats(mean, rstd)


def _normalise_again(raw: Tensor, layer: Layer, stats: Stats) -> Tensor:
    """The map `_normalise` gave, from the statistics it gave."""
    mean, rstd = _per_channel(stats, raw)
    scale = rstd * layer.gamma.view(-1, *mean.shape[2:])
    return torch.addcmul(layer.beta.view(-1, *mean.shape[2:]) - mean * scale, _wide(raw), scale)


def _channel_sums(grad: Tensor, raw: Tensor, channel: Stats) -> tuple[Tensor, Tensor]:
    """Sums over space of `grad` times the standardised map, and of `grad`: two of (B, C).

    These are the gradients of the weight and bias of a BatchNorm over one image, whose backward computes them in one
    pass and without a temporary map.
    """
    sums = [
        torch.ops.aten.native_batch_norm_backward(
            grad[i : i + 1], raw[i : i + 1], None, None, None, mean.flatten(), rstd.flatten(), True, 0.0,
            [False, True, True],
        )[1:]
        for i, (mean, rstd) in enumerate(zip(*channel, strict=True))
    ]  # fmt: skip
    return torch.stack([s[0] for s in sums]), torch.stack([s[1] for s in sums])


def _normalise_backward(
    grad: Tensor, raw: Tensor, layer: Layer, stats: Stats, *, into: Literal["grad", "raw", "new"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_normalise`: (raw, gamma, beta).

    The first is A * grad + B * raw + D with A, B, D per image and channel. On the CPU it may overwrite `grad` or
    `raw`: a fresh map costs more in page faults than the arithmetic.
    """
    dtype, grad, raw = raw.dtype, _wide(grad), _wide(raw)
    b, c = raw.shape[:2]
    pixels, groups = raw[0, 0].numel(), layer.geometry.groups
    if grad.device.type != "cpu":
        d_raw, d_gamma, d_beta = torch.ops.aten.native_group_norm_backward(
            grad.contiguous(), raw.contiguous(), *stats, layer.gamma, b, c, pixels, groups, [True] * 3
        )
        return d_raw.to(dtype), d_gamma, d_beta

    channel = _per_channel(stats, raw)
    with_map, alone = _channel_sums(grad, raw, channel)
    group_means = ((s * layer.gamma).view(b, groups, -1).sum(-1) * groups / (pixels * c) for s in (with_map, alone))
    mean_with_map, mean_alone = _per_channel(Stats(*group_means), raw)
    of_grad = channel.rstd * layer.gamma.view(-1, *channel.rstd.shape[2:])
    of_raw = -(channel.rstd**2) * mean_with_map
    constant = -channel.rstd * mean_alone - channel.mean * of_raw
    if into == "grad":
        d_raw = grad.mul_(of_grad).addcmul_(raw, of_raw).add_(constant)
    else:
        d_raw = raw.mul_(of_raw).add_(constant) if into == "raw" else torch.addcmul(constant, raw, of_raw)
        d_raw.addcmul_(grad, of_grad)
    return d_raw.to(dtype), with_map.sum(0), alone.sum(0)


def _convolve_backward(grad: Tensor, x: Tensor, layer: Layer, *, needs_x: bool = True) -> tuple[Tensor | None, ...]:
    """Gradients of `Layer.convolve`: (x, weight, bias)."""
    ones = (1,) * (x.dim() - 2)
    bias_sizes = None if layer.bias is None else [layer.weight.shape[0]]
    return torch.ops.aten.convolution_backward(
        grad, x, layer.weight, bias_sizes, ones, layer.geometry.padding, ones, False, [0] * len(ones), 1,
        [needs_x, True, layer.bias is not None],
    )  # fmt: skip


def _relu_backward_(grad: Tensor, y: Tensor) -> Tensor:
    """Zero `grad`, in place, where the rectified map `y` is zero."""
    return torch.ops.aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)


def _layers(parameters: Sequence[Tensor | None], geometries: Sequence[Geometry]) -> list[Layer]:
    """Regroup the flat parameters that autograd wants."""
    return [Layer(*parameters[PARAMETERS * i :][:PARAMETERS], g) for i, g in enumerate(geometries)]


class _Block(torch.autograd.Function):
    """relu(chain(x)) or relu(chain(x) + shortcut(x)): ReLU between the layers of the chain, the shortcut is one layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, geometries: tuple[Geometry, ...], shortcut: bool, *parameters: Tensor) -> Tensor:
        layers = _layers(parameters, geometries)
        chain = layers[:-1] if shortcut else layers
        raws, stats, y = [], [], x
        for layer in chain:
            raws.append(layer.convolve(y))
            y, s = _normalise(raws[-1], layer)
            y = (y if layer is chain[-1] else y.relu_()).to(x.dtype)
            stats += s
        if shortcut:
            del raws[-1]  # a 1x1 convolution of a narrow map: cheaper to repeat than to keep
            other, s = _normalise(layers[-1].convolve(x), layers[-1])
            stats += s
            y.add_(other)
        y.relu_()
        ctx.geometries, ctx.shortcut, ctx.raws, ctx.stats = geometries, shortcut, len(raws), len(stats)
        ctx.save_for_backward(x, y, *raws, *stats, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, *rest = ctx.saved_tensors
        raws, rest = rest[: ctx.raws], rest[ctx.raws :]
        stats = [Stats(*rest[i : i + 2]) for i in range(0, ctx.stats, 2)]
        layers = _layers(rest[ctx.stats :], ctx.geometries)
        chain = layers[:-1] if ctx.shortcut else layers
        maps = [x]  # what each layer of the chain has read
        for raw, layer, s in zip(raws[: len(chain) - 1], chain, stats, strict=False):
            maps.append(_normalise_again(raw, layer, s).relu_().to(x.dtype))
        needs_x = ctx.needs_input_grad[0]
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
        gradients: list[Tensor | None] = []
        d_x = None
        if ctx.shortcut:
            d_raw, *d_norm = _normalise_backward(grad, layers[-1].convolve(x), layers[-1], stats[-1], into="raw")
            d_x, *d_conv = _convolve_backward(d_raw, x, layers[-1], needs_x=needs_x)
            gradients = [*d_conv, *d_norm]
            raws.append(chain[-1].convolve(maps[-1]))
        for i in reversed(range(len(chain))):
            d_raw, *d_norm = _normalise_backward(grad, raws.pop(), chain[i], stats[i], into="grad")
            grad, *d_conv = _convolve_backward(d_raw, maps[i], chain[i], needs_x=needs_x or i > 0)
            gradients = [*d_conv, *d_norm, *gradients]
            if i > 0:
                _relu_backward_(grad, maps.pop())
        if needs_x and d_x is not None:
            grad.add_(d_x)
        return grad, None, None, *gradients


class _Gate(torch.autograd.Function):
    """x * sigmoid(psi(relu(gating(g) + skip(x))))."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, geometries: tuple[Geometry, ...], w: Tensor, b: Tensor, *parameters: Tensor
    ) -> Tensor:
        gating, skip = _layers(parameters, geometries)
        raw_g, raw_x = gating.convolve(g), skip.convolve(x)
        hidden, stats_g = _normalise(raw_g, gating)
        other, stats_x = _normalise(raw_x, skip)
        hidden = hidden.add_(other).relu_().to(x.dtype)
        a = F.conv2d(hidden, w, b).sigmoid_()
        ctx.geometries = geometries
        ctx.save_for_backward(g, x, a, raw_g, raw_x, *stats_g, *stats_x, w, b, *parameters)
        return x * a

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        g, x, a, raw_g, raw_x, mean_g, rstd_g, mean_x, rstd_x, w, b, *parameters = ctx.saved_tensors
        gating, skip = _layers(parameters, ctx.geometries)
        stats_g, stats_x = Stats(mean_g, rstd_g), Stats(mean_x, rstd_x)
        hidden = _normalise_again(raw_g, gating, stats_g).add_(_normalise_again(raw_x, skip, stats_x)).relu_()
        hidden = hidden.to(x.dtype)
        product = grad * x
        d_logit = product.sum(1, keepdim=True) * (a * (1 - a))
        d_x = torch.mul(grad, a, out=product)
        psi = Layer(w, b, w, b, gating.geometry)
        d_hidden, d_w, d_b = _convolve_backward(d_logit, hidden, psi)
        _relu_backward_(d_hidden, hidden)
        d_raw, *d_norm_x = _normalise_backward(d_hidden, raw_x, skip, stats_x, into="new")
        more, *d_conv_x = _convolve_backward(d_raw, x, skip)
        d_x.add_(more)
        d_raw, *d_norm_g = _normalise_backward(d_hidden, raw_g, gating, stats_g, into="grad")
        d_g, *d_conv_g = _convolve_backward(d_raw, g, gating)
        return d_g, d_x, None, d_w, d_b, *d_conv_g, *d_norm_g, *d_conv_x, *d_norm_x


class _Pool(torch.autograd.Function):
    """Halving max pooling; the positions of the maxima are found again in the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (F.max_pool2d if x.dim() == 4 else F.max_pool3d)(x, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        n = x.dim() - 2
        pool, name = (F.max_pool2d, "max_pool2d") if n == 2 else (F.max_pool3d, "max_pool3d")
        _, indices = pool(x, 2, return_indices=True)
        pool_backward = getattr(torch.ops.aten, f"{name}_with_indices_backward")
        return pool_backward(grad, x, [2] * n, [2] * n, [0] * n, [1] * n, False, indices)


def _plain() -> bool:
    """Code that someone else is going to transform or write down has to be the plain composition."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.jit.is_scripting()


def _usable(layers: Iterable[ConvNorm]) -> bool:
    return not _plain() and all(isinstance(layer.norm, nn.GroupNorm) for layer in layers)


def _prepare(*maps: Tensor) -> list[Tensor]:
    """To autocast's type and, on the CPU, channels-last (also where one channel leaves the strides ambiguous)."""
    kind = maps[0].device.type
    if torch.is_autocast_enabled(kind):
        maps = tuple(x.to(torch.get_autocast_dtype(kind)) for x in maps)
    if kind != "cpu":
        return list(maps)
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
        if not _usable(layers):
            return super().forward(x)
        (x,) = _prepare(x)
        geometries, parameters = _arguments(layers, x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return _Block.apply(x, geometries, False, *parameters)


class FastBottleneckResidual(BottleneckResidual):
    """`BottleneckResidual` as one autograd node."""

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.reduce, *self.spatial, self.expand, self.shortcut)
        if not _usable(layers):
            return super().forward(x)
        (x,) = _prepare(x)
        geometries, parameters = _arguments(layers, x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return _Block.apply(x, geometries, True, *parameters)


class FastAttentionGate(AttentionGate):
    """`AttentionGate` as one autograd node."""

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        layers = (self.gating, self.skip)
        if not _usable(layers):
            return super().forward(g, x)
        g, x = _prepare(g, x)
        geometries, parameters = _arguments(layers, x.dtype)
        psi = (self.psi.weight.to(x.dtype), self.psi.bias.to(x.dtype))
        with torch.autocast(x.device.type, enabled=False):
            return _Gate.apply(g, x, geometries, *psi, *parameters)


class FastMaxPool2d(nn.MaxPool2d):
    """The halving `nn.MaxPool2d` of the networks without kept indices."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if _plain() else _Pool.apply(x)


class FastMaxPool3d(nn.MaxPool3d):
    """The halving `nn.MaxPool3d` of the networks without kept indices."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if _plain() else _Pool.apply(x)


FAST: dict[type[nn.Module], type[nn.Module]] = {
    DoubleConv: FastDoubleConv,
    BottleneckResidual: FastBottleneckResidual,
    AttentionGate: FastAttentionGate,
    nn.MaxPool2d: FastMaxPool2d,
    nn.MaxPool3d: FastMaxPool3d,
}
