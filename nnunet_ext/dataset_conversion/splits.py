"""Who trains, who validates, who is held out: seeded, by patient, five folds always.

nnU-Net silently makes up a random split for a fold that splits_final.json lacks, hence five even where five disjoint
validation sets cannot be had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FOLDS = 5
SPLITS = ("paper", "cv5")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Case ids: `test` is held out, `folds` are (train, validation) pairs of the others, `notes` compromises."""

    test: tuple[str, ...]
    folds: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    notes: tuple[str, ...] = ()

    def splits_final(self) -> list[dict[str, Any]]:
        """The content of nnU-Net's splits_final.json."""
        return [{"train": list(train), "val": list(val)} for train, val in self.folds]


def make_split(patients: Mapping[str, Sequence[str]], *, kind: str, seed: int) -> Split:
    """Split patients (patient -> case ids); the order they come in does not matter.

    `paper` is 8:1:1: a tenth of the patients is held out, and each fold validates on another tenth, fold 0 being the
    paper's one. `cv5` holds nobody out and validates everybody once. ValueError for an unknown kind or no patient.
    """
    if kind not in SPLITS or not patients:
        raise ValueError(f"kind is one of {', '.join(SPLITS)} and there is at least one patient")
    # each patient's place depends on nobody else, so that one patient more or less does not reshuffle the others
    order = sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
    tenth = max(1, int(len(order) / 10 + 0.5))
    held_out = tenth if kind == "paper" and len(order) >= 3 else 0
    test, rest = order[:held_out], order[held_out:]
    folds, notes = [], []
    for val in _validation_groups(rest, tenth if kind == "paper" else None):
        train = [p for p in rest if p not in val] or val
        folds.append((_cases(patients, train), _cases(patients, val)))
    if kind == "paper" and not held_out:
        notes.append(f"{len(order)} patients are too few to hold any out: there is no test set.")
    if len(rest) == 1:
        notes.append("Only one patient to train on: training and validation are the same.")
    elif len(rest) < FOLDS:
        notes.append(f"Only {len(rest)} patients to train on: folds {len(rest)} to {FOLDS - 1} repeat earlier ones.")
    return Split(test=_cases(patients, test), folds=tuple(folds), notes=tuple(notes))


def _validation_groups(rest: Sequence[str], size: int | None) -> list[list[str]]:
    """Five disjoint groups of `size` patients (None: all patients dealt out), cycling where there are too few."""
    if len(rest) < FOLDS:
        return [[rest[fold % len(rest)]] for fold in range(FOLDS)]
    if size is None:
        return [list(group) for group in np.array_split(np.array(rest, dtype=object), FOLDS)]
    return [list(rest[fold * size : (fold + 1) * size]) for fold in range(FOLDS)]


def _cases(patients: Mapping[str, Sequence[str]], chosen: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(case for patient in chosen for case in patients[patient]))
