"""How much memory a training step of a network needs, and how to need less of it by computing more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

BYTES_PER_PARAMETER = 16  # weight, gradient and Adam's two moments, 4 bytes each; of a frozen one, the weight alone

# entered by the first run of every recomputed block: `saved_bytes` counts there what the second run will bring back
_first_run: ContextVar[Callable[[], contextlib.AbstractContextManager]] = ContextVar(
    "_first_run", default=contextlib.nullcontext
)


def set_recomputation(net: nn.Module, enabled: bool) -> None:
    """Have a network compute some of its blocks again in the backward pass, instead of keeping what is inside them."""
    for module in net.modules():
        if hasattr(module, "recompute"):
            module.recompute = enabled  # type: ignore[assignment]  # a flag, where torch's types expect a tensor


def recomputed(block: Callable[..., torch.Tensor], *inputs: torch.Tensor, enabled: bool) -> torch.Tensor:
    """Run a module or a method of one; if `enabled`, keep the inputs alone and run it again in the backward pass.

    The second run has the autocast and the random numbers of the first, and changes no running statistics. Compiled
    graphs have no side effects to take back; torch's ``eager`` backend, which keeps them, refuses batch norm.
    """
    if not (enabled and torch.is_grad_enabled()):
        return block(*inputs)
    if torch.compiler.is_compiling():
        return checkpoint(block, *inputs, use_reentrant=False)

    module: Any = getattr(block, "__self__", block)

    def contexts() -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
        return _first_run.get()(), _statistics_restored(module)

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


class SavedBytes(NamedTuple):
    """Bytes of activations that a training step needs.

    Args:
        kept: between forward and backward pass.
        recomputed: on top, while the largest of the recomputed blocks has its backward pass.
    """

    kept: int
    recomputed: int


def saved_bytes(forward: Callable[[], object], net: nn.Module) -> SavedBytes:
    """Count what autograd holds after `forward`, each storage once, parameters and buffers of `net` left out.

    On the ``meta`` device nothing is computed. The graph is of no use afterwards.
    """
    own = {t.untyped_storage() for t in (*net.parameters(), *net.buffers())}
    # storages, not tensors: a node that keeps its own output by way of Python would never be freed
    kept: set[torch.UntypedStorage] = set()
    blocks: list[int] = []

    @contextlib.contextmanager
    def first_run() -> Iterator[None]:
        inside: set[torch.UntypedStorage] = set()
        with saved_tensors_hooks(lambda t: inside.add(t.untyped_storage()), _lost):
            yield
        blocks.append(_size(inside - own - kept))

    token = _first_run.set(first_run)
    try:
        with saved_tensors_hooks(lambda t: kept.add(t.untyped_storage()), _lost):
            forward()
    finally:
        _first_run.reset(token)
    return SavedBytes(kept=_size(kept - own), recomputed=max(blocks, default=0))


def _lost(_: Any) -> torch.Tensor:
    raise RuntimeError("saved_bytes counts tensors and does not keep them: there is no backward pass")


def _size(storages: set[torch.UntypedStorage]) -> int:
    return sum(s.nbytes() for s in storages)


def saved_activations(net: nn.Module, shape: Sequence[int]) -> SavedBytes:
    """Count the activations of a training step for an fp32 input of `shape`, batch first."""
    x = torch.empty(tuple(shape), device=next(net.parameters()).device)
    with _FusedAttention() if x.is_meta else contextlib.nullcontext():
        return saved_bytes(lambda: net.train()(x), net)


class _FusedAttention(TorchFunctionMode):
    """Attention that keeps what fused kernels keep, for the meta device, where torch keeps all pairs of tokens."""

    def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            return _Kept.apply(*args)
        return function(*args, **(kwargs or {}))


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out)
        return out


def training_memory(build: Callable[[], nn.Module], shape: Sequence[int]) -> int:
    """Estimate the bytes of a training step in fp32 with Adam: weights, gradients, moments, activations.

    Workspaces and the CUDA context come on top.

    Args:
        build: makes the network.
        shape: of the input, batch first.
    """
    with torch.device("meta"):
        net = build()
    of_parameters = sum(p.numel() * (BYTES_PER_PARAMETER if p.requires_grad else 4) for p in net.parameters())
    return of_parameters + sum(saved_activations(net, shape))
