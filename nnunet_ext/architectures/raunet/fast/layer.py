"""Convolution and GroupNorm as plain arithmetic, forward and backward: what the autograd nodes are made of.

On the CPU maps are channels-last. A 1x1 convolution then is one matrix product over all pixels, and the statistics
of a map cost one read. Buffers are overwritten where that is safe: a fresh map costs more in page faults than the
arithmetic on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

Tensor = torch.Tensor
aten = torch.ops.aten

STRIP = 2048  # pixels


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


def _concatenated(xs: Sequence[Tensor]) -> Tensor:
    return xs[0] if len(xs) == 1 else torch.cat(tuple(xs), 1)


def wide(x: Tensor) -> Tensor:
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

    def convolve(self, *xs: Tensor) -> Tensor:
        """(B, I, *spatial) -> (B, O, *spatial), before the norm; several maps as if concatenated."""
        if self.pointwise:
            first, *others = self._shares(xs)
            y = F.linear(_rows(xs[0]), first, self.bias)
            for x, share in zip(xs[1:], others, strict=True):
                y.addmm_(_rows(x), share.t())
            return _map(y, xs[0])
        convolution = F.conv2d if xs[0].dim() == 4 else F.conv3d
        return convolution(_concatenated(xs), self.weight, self.bias, padding=self.geometry.padding)

    def convolve_backward(
        self, grad: Tensor, *xs: Tensor, add_to: Sequence[Tensor] | None = None, needs_x: bool = True
    ) -> tuple[Sequence[Tensor | None], Tensor, Tensor | None]:
        """Gradients of `convolve`: (xs, weight, bias); those of the maps are added to `add_to`, in place."""
        d_xs: Sequence[Tensor | None] = [None] * len(xs)
        if self.pointwise:
            g = _rows(grad)
            d_weight = torch.cat([g.t() @ _rows(x) for x in xs], 1).view_as(self.weight)
            if needs_x and add_to is None:
                d_xs = [_map(g @ share, grad) for share in self._shares(xs)]
            elif needs_x:
                d_xs = add_to
                for d_x, share in zip(d_xs, self._shares(xs), strict=True):
                    d_x.movedim(1, -1).view(-1, d_x.shape[1]).addmm_(g, share)
            return d_xs, d_weight, None if self.bias is None else g.sum(0)
        ones = (1,) * (grad.dim() - 2)
        bias_sizes, mask = (None if self.bias is None else [len(self.bias)]), [needs_x, True, self.bias is not None]
        d_x, d_weight, d_bias = aten.convolution_backward(
            grad, _concatenated(xs), self.weight, bias_sizes, ones, self.geometry.padding, ones, False,
            [0] * len(ones), 1, mask,
        )  # fmt: skip
        if needs_x:
            d_xs = d_x.split([x.shape[1] for x in xs], 1)
        if needs_x and add_to is not None:
            d_xs = [d_x.add_(more) for d_x, more in zip(add_to, d_xs, strict=True)]
        return d_xs, d_weight, d_bias

    def _shares(self, xs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The columns of the weight that meet each map."""
        return self.weight.flatten(1).split([x.shape[1] for x in xs], 1)

    def statistics(self, raw: Tensor) -> Stats:
        """Of a convolution's output, in at least float32."""
        raw = wide(raw)
        return self.group_statistics(*_channel_moments(raw), raw)

    def group_statistics(self, mean: Tensor, var: Tensor, like: Tensor) -> Stats:
        """From the channels' means and variances, (B, O) each."""
        mean, var = (m.view(len(m), self.geometry.groups, -1) for m in (mean, var))
        group_mean = mean.mean(-1, keepdim=True)
        rstd = ((var + (mean - group_mean) ** 2).mean(-1) + self.geometry.eps).rsqrt()
        return Stats(*(_spread(s, self.gamma, like.dim() - 2) for s in (group_mean.squeeze(-1), rstd)))

    def affine(self, stats: Stats) -> tuple[Tensor, Tensor]:
        """(scale, shift) such that the normalised map is raw * scale + shift."""
        scale = stats.rstd * self.gamma.view(-1, *stats.rstd.shape[2:])
        return scale, self.beta.view(-1, *stats.rstd.shape[2:]) - stats.mean * scale

    def normalise(self, raw: Tensor, stats: Stats) -> Tensor:
        """The normalised map, fresh, in at least float32."""
        scale, shift = self.affine(stats)
        return torch.addcmul(shift, wide(raw), scale)

    def factors(self, with_map: Tensor, alone: Tensor, stats: Stats, pixels: int) -> tuple[Tensor, Tensor, Tensor]:
        """(F, G, H) such that the gradient of the map before the norm is F * grad + G * (map - mean) + H.

        `with_map` and `alone` are the sums over space of `grad` times the standardised map, and of `grad`: (B, C).
        """
        b, groups = len(with_map), self.geometry.groups
        count = pixels * with_map.shape[1] // groups
        sums = ((s * self.gamma).view(b, groups, -1).sum(-1) / count for s in (with_map, alone))
        mean_with_map, mean_alone = (_spread(s, self.gamma, stats.mean.dim() - 2) for s in sums)
        of_grad = stats.rstd * self.gamma.view(-1, *stats.rstd.shape[2:])
        return of_grad, -(stats.rstd**2) * mean_with_map, -stats.rstd * mean_alone

    def normalise_backward(
        self, grad: Tensor, raw: Tensor, stats: Stats, *, into: Literal["grad", "raw", "new"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of normalisation: (raw, gamma, beta).

        The first may overwrite `grad` or `raw`, whose values then are lost, or be `new`.
        """
        dtype, grad, raw = raw.dtype, wide(grad), wide(raw)
        with_map, alone = _channel_sums(grad, raw, stats)
        of_grad, of_map, constant = self.factors(with_map, alone, stats, raw[0, 0].numel())
        constant = constant - stats.mean * of_map
        if into == "grad":
            d_raw = torch.addcmul(constant, grad, of_grad, out=grad).addcmul_(raw, of_map)
        else:
            out = raw if into == "raw" else None
            d_raw = torch.addcmul(constant, raw, of_map, out=out).addcmul_(grad, of_grad)
        return d_raw.to(dtype), with_map.sum(0), alone.sum(0)


def _channel_moments(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances over space: two of (B, C).

    BatchNorm has them in one read, but adds up pixel after pixel, which loses digits on large maps: strips of at most
    about `STRIP` pixels are measured and put together.
    """
    rows = max(1, STRIP // raw[0, 0, 0].numel())
    of_images = []
    for image in raw.split(1):
        strips = image.split(rows, dim=2)
        measured = [aten.batch_norm_update_stats(strip, None, None, 0.0) for strip in strips]
        means, variances = (torch.stack(m) for m in zip(*measured, strict=True))
        share = torch.tensor([s.shape[2] / raw.shape[2] for s in strips], dtype=raw.dtype).unsqueeze(1)
        mean = (share * means).sum(0)
        of_images.append((mean, (share * (variances + (means - mean) ** 2)).sum(0)))
    mean, variance = (torch.stack(m) for m in zip(*of_images, strict=True))
    return mean, variance


def _spread(per_group: Tensor, channels: Tensor, dim: int) -> Tensor:
    """(B, groups) -> (B, C, 1, ...), C as long as `channels`, `dim` spatial axes."""
    b, groups = per_group.shape
    return per_group.repeat_interleave(len(channels) // groups, 1).view(b, -1, *(1,) * dim)


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
