"""A widening 1x1 convolution with GroupNorm whose output is never stored.

The output of a 1x1 convolution is linear in the pixel's input: its means and variances follow from the mean and the
covariance of the input channels, and so do the sums that the backward of GroupNorm needs. Forward and backward become
matrix products between narrow maps and small matrices; no pass over the wide output before the norm is left. The
covariance costs I x I products per pixel, so this pays where I is at most half of O: the expansion of the bottleneck
and the shortcuts of the encoder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from nnunet_ext.architectures.raunet.fast.layer import Layer, Stats, Tensor, wide

STRIP = 512  # pixels


def applies(layer: Layer, x: Tensor) -> bool:
    """Whether `layer` is better computed this way: it widens, and there are many more pixels than channels."""
    o, i = layer.weight.shape[:2]
    return layer.pointwise and layer.bias is None and 2 * i <= o and x[0, 0].numel() >= 4 * i


class Moments(NamedTuple):
    """Of the input: mean (B, 1, I), covariance (B, I, I) over the pixels of an image."""

    mean: Tensor
    covariance: Tensor


def pixels(x: Tensor) -> Tensor:
    """(B, C, *spatial) -> (B, pixels, C); a view if `x` is channels-last."""
    return x.flatten(2).transpose(1, 2)


def _matrix(layer: Layer) -> Tensor:
    return wide(layer.weight.flatten(1))


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Sums over the pixels of products of channels: (B, pixels, C), (B, pixels, D) -> (B, C, D).

    Strip by strip: some matrix products of few rows and columns add up pixel after pixel, which loses digits on
    large maps.
    """
    whole = a.shape[1] // STRIP * STRIP
    parts = ((t[:, :whole].unflatten(1, (-1, STRIP)), t[:, whole:]) for t in (a, b))
    (a_strips, a_rest), (b_strips, b_rest) = parts
    return (a_strips.transpose(-2, -1) @ b_strips).sum(1).baddbmm_(a_rest.transpose(1, 2), b_rest)


def statistics(layer: Layer, x: Tensor) -> tuple[Stats, Moments]:
    """Group statistics of ``layer.convolve(x)``, and what they came from."""
    rows, weight = wide(pixels(x)), _matrix(layer)
    mean = rows.mean(1, keepdim=True)
    centred = rows - mean  # a difference of large second moments would lose the digits
    covariance = _inner(centred, centred) / rows.shape[1]
    mean = mean + centred.mean(1, keepdim=True)  # what rounding took from the sum of many pixels
    variance = ((weight @ covariance) * weight).sum(-1)
    return layer.group_statistics((mean @ weight.t()).squeeze(1), variance, x), Moments(mean, covariance)


def add_output(layer: Layer, x: Tensor, stats: Stats, add_to: Tensor) -> Tensor:
    """scale * convolve(x) added in place to `add_to`, (B, pixels, O), or to a row (B, 1, O)."""
    scaled = (layer.affine(stats)[0].flatten(1).unsqueeze(-1) * _matrix(layer)).transpose(1, 2)
    rows = wide(pixels(x))
    return add_to.baddbmm_(rows, scaled) if add_to.shape[1] == rows.shape[1] else add_to.baddbmm(rows, scaled)


def backward(
    layer: Layer, grad: Tensor, grad_sum: Tensor, x: Tensor, stats: Stats, moments: Moments
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of GroupNorm(convolve(x)): (x, weight, gamma, beta).

    Args:
        grad: of the normalised map, (B, pixels, O).
        grad_sum: its sum over the pixels, (B, O).
    """
    weight, n = _matrix(layer), grad.shape[1]
    centred = wide(pixels(x)) - moments.mean
    product = _inner(grad, centred)  # (B, O, I)
    rstd = stats.rstd.flatten(1)
    offset = (moments.mean @ weight.t()).squeeze(1) - stats.mean.flatten(1)  # of the channel within its group
    with_map = rstd * ((product * weight).sum(-1) + offset * grad_sum)
    of_grad, of_map, constant = (f.flatten(1) for f in layer.factors(with_map, grad_sum, stats, n))
    constant = constant + of_map * offset  # d_output = of_grad * grad + of_map * (weight @ centred) + constant

    scaled = of_grad.unsqueeze(-1) * weight
    curved = of_map.unsqueeze(-1) * weight
    d_x = torch.baddbmm(constant.unsqueeze(1) @ weight, grad, scaled).baddbmm_(centred, weight.t() @ curved)
    d_sum = of_grad * grad_sum + n * constant
    d_weight = of_grad.unsqueeze(-1) * product + n * (curved @ moments.covariance) + d_sum.unsqueeze(-1) * moments.mean
    d_x = d_x.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)
    return d_x.to(x.dtype), d_weight.sum(0).view_as(layer.weight), with_map.sum(0), grad_sum.sum(0)
