"""Seeds: everything random in an epoch follows from (seed, epoch, rank)."""

from __future__ import annotations

import random

import numpy as np
import torch


def reseed(*entropy: int) -> None:
    """Seed Python's, numpy's and torch's generators from a tuple of non-negative integers."""
    a, b, c = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(a))
    np.random.seed(int(b))
    torch.manual_seed(int(c))


def worker_seeds(n: int, *entropy: int) -> list[int]:
    """One seed for each of `n` worker processes."""
    return [int(s) for s in np.random.SeedSequence(entropy).generate_state(n)]
