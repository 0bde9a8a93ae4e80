"""How much memory a training step of a network needs, computed without allocating it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

BYTES_PER_PARAMETER = 16  # weight, gradient and Adam's two moments, 4 bytes each; of a frozen one, the weight alone


def saved_activations(net: nn.Module, shape: Sequence[int]) -> int:
    """Bytes that autograd holds between forward and backward for an fp32 input of `shape`, batch first.

    Storages that several operations save are counted once; parameters are not counted. A network on the ``meta``
    device is measured without computing anything.
    """
    parameters = {p.untyped_storage()._cdata for p in net.parameters()}
    sizes: dict[int, int] = {}
    keep = []  # a freed storage's address may be used again

    def pack(t: torch.Tensor) -> None:  # a tensor that its own node kept by way of Python would never be freed
        storage = t.untyped_storage()
        if storage._cdata not in parameters:
            sizes[storage._cdata] = storage.nbytes()
            keep.append(storage)

    x = torch.empty(tuple(shape), device=next(net.parameters()).device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda _: None):
        net.train()(x)
    return sum(sizes.values())


def training_memory(build: Callable[[], nn.Module], shape: Sequence[int]) -> int:
    """Estimated bytes of a training step in fp32 with Adam: weights, gradients, moments, saved activations.

    Mixed precision needs about half of the activations. Workspaces and the CUDA context come on top.

    Args:
        build: makes the network.
        shape: of the input, batch first.
    """
    with torch.device("meta"):
        net = build()
    of_parameters = sum(p.numel() * (BYTES_PER_PARAMETER if p.requires_grad else 4) for p in net.parameters())
    return of_parameters + saved_activations(net, shape)
