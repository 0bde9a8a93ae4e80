"""The autograd nodes: a block, a gate, a pool, each saving little and recomputing the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

from nnunet_ext.architectures.raunet.fast import moments
from nnunet_ext.architectures.raunet.fast.layer import Geometry, Layer, Stats, Tensor, relu_backward_, wide

PARAMETERS = 4  # tensors per layer: convolution weight and bias, norm weight and bias


def _layers(parameters: Sequence[Tensor | None], geometries: Sequence[Geometry]) -> list[Layer]:
    """Regroup the flat parameters that autograd wants."""
    return [Layer(*parameters[PARAMETERS * i :][:PARAMETERS], g) for i, g in enumerate(geometries)]


class _End(NamedTuple):
    """The last layer of a branch, what it reads, and what its backward wants: two moments, or the map itself."""

    layer: Layer
    xs: tuple[Tensor, ...]
    stats: Stats
    kept: Sequence[Tensor]

    @classmethod
    def of(cls, layer: Layer, xs: tuple[Tensor, ...]) -> _End:
        if len(xs) == 1 and moments.applies(layer, xs[0]):
            return cls(layer, xs, *moments.statistics(layer, xs[0]))
        raw = layer.convolve(*xs)
        return cls(layer, xs, layer.statistics(raw), (raw,))

    def backward(
        self, grad: Tensor, *, needs_x: bool = True, shared: bool = False
    ) -> tuple[Sequence[Tensor | None], list[Tensor | None]]:
        """Gradients: (xs, parameters); `grad` is overwritten unless `shared`."""
        if len(self.kept) == 2:
            rows = moments.pixels(wide(grad))
            d_x, d_weight, *d_norm = moments.backward(
                self.layer, rows, rows.sum(1), self.xs[0], self.stats, moments.Moments(*self.kept)
            )
            return [d_x], [d_weight.to(self.layer.weight.dtype), None, *d_norm]
        into = "new" if shared else "grad"
        d_raw, *d_norm = self.layer.normalise_backward(grad, self.kept[0], self.stats, into=into)
        d_xs, *d_conv = self.layer.convolve_backward(d_raw, *self.xs, needs_x=needs_x)
        return d_xs, [*d_conv, *d_norm]


def _sum_of_ends(ends: Sequence[_End]) -> Tensor:
    """The sum of the normalised outputs of one or two layers, fresh, in at least float32."""
    shift = sum(end.layer.affine(end.stats)[1] for end in ends)
    y = None
    for layer, (x, *_), stats, kept in sorted(ends, key=lambda end: len(end.kept)):  # stored maps first
        if len(kept) == 1:
            scale = layer.affine(stats)[0]
            y = torch.addcmul(shift, wide(kept[0]), scale) if y is None else y.addcmul_(wide(kept[0]), scale)
        else:
            add_to = shift.flatten(2).transpose(1, 2) if y is None else moments.pixels(y)
            rows = moments.add_output(layer, x, stats, add_to)
            y = rows.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)
    return y


class Block(torch.autograd.Function):
    """relu(chain(x)) or relu(chain(x) + shortcut(x)): ReLU between the layers of the chain, one layer of shortcut.

    x is one map or the concatenation of two, which is not made where 1x1 convolutions read it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        other: Tensor | None,
        geometries: tuple[Geometry, ...],
        shortcut: bool,
        *parameters: Tensor | None,
    ) -> Tensor:
        xs = (x,) if other is None else (x, other)
        layers = _layers(parameters, geometries)
        chain, last = layers[: -1 - shortcut], layers[-1 - shortcut]
        kept, stats, source = [], [], xs
        for layer in chain:
            raw = layer.convolve(*source)
            stats.append(layer.statistics(raw))
            kept.append((raw,))
            source = (layer.normalise(raw, stats[-1]).relu_().to(x.dtype),)
        ends = [_End.of(last, source)] + ([_End.of(layers[-1], xs)] if shortcut else [])
        y = _sum_of_ends(ends).relu_().to(x.dtype)
        stats += [end.stats for end in ends]
        kept += [end.kept for end in ends]
        ctx.geometries, ctx.shortcut, ctx.kept, ctx.xs = geometries, shortcut, [len(k) for k in kept], len(xs)
        ctx.save_for_backward(*xs, y, *(t for k in kept for t in k), *(t for s in stats for t in s), *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        xs, y = tuple(next(saved) for _ in range(ctx.xs)), next(saved)
        kept = [[next(saved) for _ in range(count)] for count in ctx.kept]
        stats = [Stats(next(saved), next(saved)) for _ in kept]
        layers = _layers(list(saved), ctx.geometries)
        last = len(layers) - 1 - ctx.shortcut
        needs_x = any(ctx.needs_input_grad[:2])
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
        gradients: list[Tensor | None] = []
        d_xs = None
        if ctx.shortcut:
            end = _End(layers[-1], xs, stats[-1], kept[-1])
            d_xs, gradients = end.backward(grad, needs_x=needs_x, shared=True)
        for i in reversed(range(last + 1)):
            layer, before = layers[i], layers[i - 1]
            source = (before.normalise(*kept[i - 1], stats[i - 1]).relu_().to(y.dtype),) if i else xs
            if i == last:
                d_source, d_parameters = _End(layer, source, stats[i], kept[i]).backward(grad)
            else:
                grad, *d_norm = layer.normalise_backward(grad, *kept[i], stats[i], into="grad")
                d_source, *d_conv = layer.convolve_backward(
                    grad, *source, add_to=None if i or not needs_x else d_xs, needs_x=needs_x or i > 0
                )
                d_parameters = [*d_conv, *d_norm]
            gradients = [*d_parameters, *gradients]
            if i:
                grad = relu_backward_(d_source[0], source[0])
        return *d_source, *([None] * (2 - len(xs))), None, None, *gradients


class Gate(torch.autograd.Function):
    """x * sigmoid(psi(relu(gating(g) + skip(x))))."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, geometries: tuple[Geometry, ...], w: Tensor, b: Tensor, *parameters: Tensor
    ) -> Tensor:
        gating, skip = _layers(parameters, geometries)
        raw_g, raw_x = gating.convolve(g), skip.convolve(x)
        stats_g, stats_x = gating.statistics(raw_g), skip.statistics(raw_x)
        ends = (_End(gating, (g,), stats_g, (raw_g,)), _End(skip, (x,), stats_x, (raw_x,)))
        hidden = _sum_of_ends(ends).relu_().to(x.dtype)
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
        ends = (_End(gating, (g,), stats_g, (raw_g,)), _End(skip, (x,), stats_x, (raw_x,)))
        hidden = _sum_of_ends(ends).relu_().to(x.dtype)
        product = torch.mul(grad, x, out=torch.empty_like(x))  # the layout of x, whatever that of grad
        d_logit = product.sum(1, keepdim=True) * (a * (1 - a))
        d_x = torch.mul(grad, a, out=product)
        psi = Layer(w, b, w, b, gating.geometry)
        (d_hidden,), d_w, d_b = psi.convolve_backward(d_logit, hidden)
        relu_backward_(d_hidden, hidden)
        d_raw, *d_norm_x = skip.normalise_backward(d_hidden, raw_x, stats_x, into="raw")
        _, *d_conv_x = skip.convolve_backward(d_raw, x, add_to=[d_x])
        d_raw, *d_norm_g = gating.normalise_backward(d_hidden, raw_g, stats_g, into="grad")
        (d_g,), *d_conv_g = gating.convolve_backward(d_raw, g)
        return d_g, d_x, None, d_w, d_b, *d_conv_g, *d_norm_g, *d_conv_x, *d_norm_x


class Pool(torch.autograd.Function):
    """Halving max pooling, rounding up; the positions of the maxima are found again in the backward."""

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
