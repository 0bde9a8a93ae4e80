"""Seeds: everything random in an epoch follows from (seed, epoch, rank)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from batchgenerators.dataloading.data_loader import DataLoader


def reseed(*entropy: int) -> None:
    """Seed Python's, numpy's and torch's generators from a tuple of non-negative integers."""
    a, b, c = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(a))
    np.random.seed(int(b))
    torch.manual_seed(int(c))


def worker_seeds(n: int, *entropy: int) -> list[int]:
    """One seed for each of `n` worker processes."""
    return [int(s) for s in np.random.SeedSequence(entropy).generate_state(n)]


class SeedingLoader:
    """A data loader that seeds torch in the worker it is sent to.

    batchgenerators seeds numpy there and then sets the worker's number; nnU-Net's transforms draw from torch as well,
    whose state all workers would have in common.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def set_thread_id(self, number: int) -> None:
        """Called once in each worker, after numpy has been seeded."""
        torch.manual_seed(np.random.randint(2**31))
        self.loader.set_thread_id(number)

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict:
        return next(self.loader)
