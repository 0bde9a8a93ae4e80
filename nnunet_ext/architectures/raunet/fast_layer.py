"""Convolution and GroupNorm as plain arithmetic, forward and backward: what `fast` builds its autograd nodes of.

Maps are channels-last. A 1x1 convolution then is one matrix product over all pixels, and the statistics
of a map cost one read. Buffers are overwritten where that is safe: a fresh map costs more in page faults than the
arithmetic on it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

Tensor = torch.Tensor
aten = torch.ops.aten


class Geometry(NamedTuple):
    """What a layer is besides its tensors."""

    padding: tuple[int, ...]
    groups: int
    eps: float


class Stats(NamedTuple):
    """Mean and 1 / standard deviation of the channel's group: (B, C, 1, ...)."""

    mean: Tensor
    rstd: Tensor


def _rows(x: Tensor) -> Tensor:
    """(B, C, *spatial) -> (pixels, C); a view if `x` is channels-last."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def _map(rows: Tensor, like: Tensor) -> Tensor:
    """(pixels, C) -> (B, C, *spatial), channels-last, spatial as in `like`."""
    return rows.view(like.shape[0], *like.shape[2:], -1).movedim(-1, 1)


def _wide(x: Tensor) -> Tensor:
    """Half-precision maps are normalised in float32, as autocast does."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Layer(NamedTuple):
    """Convolution (stride 1) and GroupNorm."""

    weight: Tensor
    bias: Tensor | None
    gamma: Tensor
    beta: Tensor
    geometry: Geometry

    @property
    def pointwise(self) -> bool:
        """A matrix product: 1x1."""
        return self.weight[0, 0].numel() == 1

    def convolve(self, x: Tensor) -> Tensor:
        """(B, I, *spatial) -> (B, O, *spatial), before the norm."""
        if self.pointwise:
            return _map(F.linear(_rows(x), self.weight.flatten(1), self.bias), x)
        convolution = F.conv2d if x.dim() == 4 else F.conv3d
        return convolution(x, self.weight, self.bias, padding=self.geometry.padding)

    def convolve_backward(
        self, grad: Tensor, x: Tensor, *, add_to: Tensor | None = None, needs_x: bool = True
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Gradients of `convolve`: (x, weight, bias); that of x is added to `add_to`, in place."""
        if self.pointwise:
            g, weight = _rows(grad), self.weight.flatten(1)
            d_weight = (g.t() @ _rows(x)).view_as(self.weight)
            d_bias = None if self.bias is None else g.sum(0)
            if not needs_x:
                return None, d_weight, d_bias
            if add_to is None:
                return _map(g @ weight, x), d_weight, d_bias
            _rows(add_to).addmm_(g, weight)
            return add_to, d_weight, d_bias
        ones = (1,) * (x.dim() - 2)
        bias_sizes, mask = (None if self.bias is None else [len(self.bias)]), [needs_x, True, self.bias is not None]
        d_x, d_weight, d_bias = aten.convolution_backward(
            grad, x, self.weight, bias_sizes, ones, self.geometry.padding, ones, False, [0] * len(ones), 1, mask
        )
        return (d_x if add_to is None else add_to.add_(d_x)), d_weight, d_bias

    def statistics(self, raw: Tensor) -> Stats:
        """Of a convolution's output, in at least float32."""
        raw = _wide(raw)
        b, groups = raw.shape[0], self.geometry.groups
        # BatchNorm's one-pass statistics of each image, then of the group's channels together
        moments = [aten.batch_norm_update_stats(raw[i : i + 1], None, None, 0.0) for i in range(b)]
        mean_c, var_c = (torch.stack([m[which] for m in moments]).view(b, groups, -1) for which in (0, 1))
        mean = mean_c.mean(-1)
        var = (var_c + (mean_c - mean.unsqueeze(-1)) ** 2).mean(-1)
        return Stats(_spread(mean, raw), _spread((var + self.geometry.eps).rsqrt(), raw))

    def affine(self, stats: Stats) -> tuple[Tensor, Tensor]:
        """(scale, shift) such that the normalised map is raw * scale + shift."""
        scale = stats.rstd * self.gamma.view(-1, *stats.rstd.shape[2:])
        return scale, self.beta.view(-1, *stats.rstd.shape[2:]) - stats.mean * scale

    def normalise(self, raw: Tensor, stats: Stats) -> Tensor:
        """The normalised map, fresh, in at least float32."""
        scale, shift = self.affine(stats)
        return torch.addcmul(shift, _wide(raw), scale)

    def normalise_backward(
        self, grad: Tensor, raw: Tensor, stats: Stats, *, into_raw: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of normalisation: (raw, gamma, beta).

        The first is of_grad * grad + of_raw * raw + constant, with factors per image and channel. It overwrites
        `grad`, or `raw` if `into_raw`.
        """
        dtype, grad, raw = raw.dtype, _wide(grad), _wide(raw)
        b, c, groups, pixels = *raw.shape[:2], self.geometry.groups, raw[0, 0].numel()
        with_map, alone = _channel_sums(grad, raw, stats)
        of_group = groups / (pixels * c)
        mean_with_map, mean_alone = (
            _spread((s * self.gamma).view(b, groups, -1).sum(-1) * of_group, raw) for s in (with_map, alone)
        )
        of_grad = stats.rstd * self.gamma.view(-1, *stats.rstd.shape[2:])
        of_raw = -(stats.rstd**2) * mean_with_map
        constant = -stats.rstd * mean_alone - stats.mean * of_raw
        if into_raw:
            d_raw = raw.mul_(of_raw).addcmul_(grad, of_grad).add_(constant)
        else:
            d_raw = grad.mul_(of_grad).addcmul_(raw, of_raw).add_(constant)
        return d_raw.to(dtype), with_map.sum(0), alone.sum(0)


def _spread(per_group: Tensor, like: Tensor) -> Tensor:
    """(B, groups) -> (B, C, 1, ...)."""
    b, c = like.shape[:2]
    return per_group.repeat_interleave(c // per_group.shape[1], 1).view(b, c, *(1,) * (like.dim() - 2))


def _channel_sums(grad: Tensor, raw: Tensor, stats: Stats) -> tuple[Tensor, Tensor]:
    """Sums over space of `grad` times the standardised map, and of `grad`: two of (B, C).

    These are the gradients of the weight and bias of a BatchNorm over one image, whose backward computes them in one
    pass and without a temporary map.
    """
    sums = [
        aten.native_batch_norm_backward(
            grad[i : i + 1], raw[i : i + 1], None, None, None, mean.flatten(), rstd.flatten(), True, 0.0,
            [False, True, True],
        )
        for i, (mean, rstd) in enumerate(zip(*stats, strict=True))
    ]  # fmt: skip
    return torch.stack([s[1] for s in sums]), torch.stack([s[2] for s in sums])


def relu_backward_(grad: Tensor, y: Tensor) -> Tensor:
    """Zero `grad`, in place, where the rectified map `y` is zero."""
    return aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)


def add_normalised_(
    raw: Tensor, other: Tensor, layer: Layer | None, other_layer: Layer, stats: Stats | None, other_stats: Stats
) -> Tensor:
    """The sum of two normalised maps, in place of `raw`; without `layer` that one already is normalised."""
    scale, shift = other_layer.affine(other_stats)
    y = _wide(raw)
    if layer is not None:
        own_scale, own_shift = layer.affine(stats)
        y, shift = y.mul_(own_scale), shift + own_shift
    return y.addcmul_(_wide(other), scale).add_(shift)
