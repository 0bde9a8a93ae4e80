"""Segmentations as whole numbers, all of which a dataset.json must know."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_ext.common.errors import InputError


def as_labels(array: npt.NDArray[Any], known: Collection[int], file: Path) -> npt.NDArray[Any]:
    """Return a segmentation in the smallest unsigned type that holds all known labels.

    Args:
        array: numbers of any type and shape, as a reader returns them.
        known: all labels that a segmentation of the dataset may hold.
        file: where it was read from, for messages.

    Raises:
        InputError: it holds other values: 255 for instance, where the label is 1.
    """
    highest = max(known)
    smallest = np.min_scalar_type(highest)
    if array.dtype.kind in "ui" and len(known) == highest + 1:  # all numbers up to it: two passes say enough
        if not array.size or (array.max() <= highest and array.min() >= 0):
            return array.astype(smallest, copy=False)
    else:
        with np.errstate(invalid="ignore"):
            labels = array.astype(smallest)
        if np.array_equal(labels, array) and sum(np.count_nonzero(labels == label) for label in known) == labels.size:
            return labels
    unknown = sorted(set(np.unique(array).tolist()) - set(known))
    shown = ", ".join(f"{value:g}" for value in unknown[:5]) + (" ..." if len(unknown) > 5 else "")
    allowed = ", ".join(map(str, sorted(known)))
    raise InputError(f"{file} holds {shown}, and dataset.json knows the labels {allowed}.")
