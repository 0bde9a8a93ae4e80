"""Every private name of nnU-Net, torch and segment-anything that this package touches, each with a test.

A private name may move with any release of its owner. tests/test_host.py says which of them did.
"""

from __future__ import annotations

from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel


def unwrapped(network: nn.Module) -> nn.Module:
    """Return a network without what DDP and ``torch.compile`` wrap around it."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network
