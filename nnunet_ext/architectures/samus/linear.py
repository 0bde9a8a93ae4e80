"""Linear layers that are as fast on AMD processors as on others."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

SMALLEST = 1 << 24  # multiplications; below, the overhead of a Python autograd function counts


class Linear(nn.Linear):
    """``nn.Linear``; large fp32 products on an AMD CPU go to oneDNN, elsewhere it is the layer it derives from.

    torch sends them to MKL, which does 92 GFLOP/s on a core of an AMD EPYC where oneDNN does 205.
    The results differ by rounding. Never taken in export, compilation, autocast and on other devices.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (
            not torch.compiler.is_compiling()
            and type(x) is torch.Tensor
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and x.numel() * self.out_features >= SMALLEST
            and not torch.is_autocast_enabled("cpu")
            and onednn_is_better()
        ):
            return _OneDNNLinear.apply(x, self.weight, self.bias)
        return super().forward(x)


@functools.cache
def onednn_is_better() -> bool:
    """By the processor's make and never by a stopwatch, so that a resumed training computes the same bits."""
    try:
        amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
        a, b = torch.ones(2, 3), torch.ones(4, 3)
        return amd and torch.backends.mkl.is_available() and torch.equal(_product(a, b), F.linear(a, b))
    except (OSError, AttributeError, RuntimeError, NotImplementedError):  # no Linux, no oneDNN, another signature
        return False


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x @ weight.T + bias, by torch's private oneDNN operator."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    """The operator has no derivative of its own; a frozen weight's input is not kept."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        rows = grad.flatten(0, -2)
        of_x = _product(grad, weight.t()) if ctx.needs_input_grad[0] else None  # reads any strides without a copy
        of_weight = _product(rows.t(), x.flatten(0, -2).t()) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, rows.sum(0) if ctx.needs_input_grad[2] else None
