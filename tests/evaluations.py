"""Evaluations made of numbers, for tests of what comes after them, and segmentations to evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nnunet_ext.evaluation.evaluation import Evaluation, columns
from nnunet_ext.metrics.definitions import PHYSICAL, Units

REFERENCE_VOXELS = 1000


def evaluation(
    dice: Sequence[float] | np.ndarray,
    *,
    cases: Sequence[str] | None = None,
    structure: str = "tumour",
    labels: tuple[int, ...] = (1,),
    units: Units = PHYSICAL,
    others: Mapping[str, Sequence[float]] | None = None,
    voxels: int = REFERENCE_VOXELS,
    **info: Any,
) -> Evaluation:
    """One structure whose Dice is given; case_00, case_01, ... and the counts of a prediction of the right size.

    Args:
        others: more metrics by key; all else is undefined.
        info: of the evaluation; without prompts unless it says so.
        voxels: of every reference.
    """
    dice = np.asarray(dice, dtype=float)
    cases = [f"case_{i:02}" for i in range(dice.size)] if cases is None else list(cases)
    table = pd.DataFrame({name: np.full(dice.size, np.nan) for name in columns(units)})
    hit = np.rint(np.nan_to_num(dice) * voxels).astype(int)
    table = table.assign(case=cases, structure=structure, tp=hit, fp=voxels - hit, fn=voxels - hit, tn=9 * voxels)
    table["dice"], table["iou"] = dice, dice / (2 - dice)
    for key, values in (others or {}).items():
        table[units.column(key)] = np.asarray(values, dtype=float)
    info = {"prompts": "none", **info}
    return Evaluation(table=table, units=units, structures={structure: labels}, info=info)


def joined(*parts: Evaluation) -> Evaluation:
    """One evaluation of all structures of several, which have the same cases."""
    table = pd.concat([part.table for part in parts], ignore_index=True)
    labels = {name: own for part in parts for name, own in part.structures.items()}
    return Evaluation(table=table, units=parts[0].units, structures=labels, info=parts[0].info)


def boxes(seed: int, highest: int = 1, shape: tuple[int, ...] = (6, 20, 22)) -> np.ndarray:
    """A segmentation: boxes of random labels in random places."""
    rng = np.random.default_rng(seed)
    out = np.zeros(shape, np.uint8)
    for _ in range(5):
        start = [rng.integers(0, n) for n in shape]
        out[tuple(slice(s, s + rng.integers(1, 9)) for s in start)] = rng.integers(1, highest + 1)
    return out
