"""How long a training is, counted in passes over the training cases (DESIGN: an epoch is a pass)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset


def tiles(shape: Sequence[int], patch_size: Sequence[int]) -> int:
    """Patches that tile an image side by side: of a 2D patch that covers the slice, the number of slices.

    Args:
        shape: spatial shape of a preprocessed case, three axes.
        patch_size: two or three axes.
    """
    patch = (1,) * (len(shape) - len(patch_size)) + tuple(patch_size)
    return math.prod(math.ceil(s / p) for s, p in zip(shape, patch, strict=True))


def iterations_per_pass(dataset: nnUNetBaseDataset, patch_size: Sequence[int], global_batch_size: int) -> int:
    """Batches whose number of samples equals the patches that tile all cases of a preprocessed dataset."""
    total = sum(tiles(dataset.load_case(k)[0].shape[1:], patch_size) for k in dataset.identifiers)
    return max(1, math.ceil(total / global_batch_size))
