"""How much memory a training step of a network needs, and how to need less of it by computing more."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)
from torch.utils.checkpoint import checkpoint

from nnunet_ext.common.host import TorchDispatchMode

BYTES_OF_MOMENTS = 8  # Adam's two, of each trained parameter


def set_recomputation(net: nn.Module, enabled: bool) -> None:
    """Have a network compute some of its blocks again in the backward pass, instead of keeping what is inside them."""
    for module in net.modules():
        if hasattr(module, "recompute"):
            module.recompute = enabled  # type: ignore[assignment]  # a flag, where torch's types expect a tensor


def recomputed(block: Callable[..., torch.Tensor], *inputs: Any, enabled: bool) -> torch.Tensor:
    """Run a module or a method of one; if `enabled`, keep the inputs alone and run it again in the backward pass.

    The second run has the autocast and the random numbers of the first, and changes no running statistics. Compiled
    graphs have no side effects to take back. torch's debugging backend ``eager`` does: it takes batch norm's counter
    for an input of the block, finds it changed in the backward pass and raises RuntimeError.
    """
    if not (enabled and torch.is_grad_enabled()):
        return block(*inputs)
    if torch.compiler.is_compiling():
        return checkpoint(block, *inputs, use_reentrant=False)
    module: Any = getattr(block, "__self__", block)
    contexts = lambda: (contextlib.nullcontext(), _statistics_restored(module))  # noqa: E731
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def _statistics_restored(module: nn.Module) -> Iterator[None]:
    """Give batch norm its running statistics back: the first run has updated them already."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def training_memory(build: Callable[[], nn.Module], shape: Sequence[int], device: str = "meta") -> int:
    """Return the largest number of bytes that tensors hold at one moment of a training step in fp32 with Adam.

    That is weights, gradients, moments, activations and their gradients. The loss, the workspaces of kernels and the
    CUDA context come on top.

    Args:
        build: makes the network.
        shape: of the input, batch first.
        device: where to run the step; on ``meta`` nothing is computed.
    """
    with contextlib.ExitStack() as stack:
        if device == "meta":
            fused = lambda *qkv, **_: _FusedAttention.apply(*qkv)  # noqa: E731
            stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", fused))
        live = stack.enter_context(_LiveBytes())
        stack.enter_context(torch.device(device))
        net = build().train()
        out = net(torch.empty(tuple(shape)))
        out.backward(torch.empty_like(out))
    return live.highest + BYTES_OF_MOMENTS * sum(p.numel() for p in net.parameters() if p.requires_grad)


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, each once, after every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.highest = 0
        self._alive: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        self.highest = max(self.highest, self.now)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._alive:
            self._alive.add(storage)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.now -= size


class _FusedAttention(torch.autograd.Function):
    """Attention that holds what fused kernels hold, for the meta device, where torch keeps all pairs of tokens."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors[:3])
