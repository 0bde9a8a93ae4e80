"""Who trains, who validates, who is held out: seeded, by patient or other group, stratified, five folds always.

nnU-Net silently makes up a random split for a fold that splits_final.json lacks, hence five even where five disjoint
validation sets cannot be had.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.text import count, some

FOLDS = 5
SPLITS = ("paper", "cv5")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Case ids: `test` is held out, `folds` are (train, validation) pairs of the others, `notes` compromises."""

    test: tuple[str, ...]
    folds: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    notes: tuple[str, ...] = ()

    def splits_final(self) -> list[dict[str, Any]]:
        """Return the content of nnU-Net's splits_final.json."""
        return [{"train": list(train), "val": list(val)} for train, val in self.folds]


def joined(ids: Iterable[str], groups: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """Return what no split may tear apart, by the first of it: each id with all that groups link it to, however far."""
    units = {id_: [id_] for id_ in ids}
    for group in groups:
        unit = sorted({id_ for member in group for id_ in units.get(member, ())})
        units |= dict.fromkeys(unit, unit)
    return {unit[0]: unit for unit in units.values()}


def make_split(
    groups: Mapping[str, Sequence[str]],
    *,
    kind: str,
    seed: int,
    strata: Mapping[str, str] | None = None,
    tenths: tuple[int, int] = (1, 1),
    unit: str = "patient",
) -> Split:
    """Split groups (patient or other group -> case ids) that nothing may tear apart; their order does not matter.

    `paper` holds out so many `tenths` of the cases, and each fold validates on so many others, fold 0 being the paper's
    one: 8:1:1 by default. `cv5` holds nobody out and validates everybody once. `strata` (group -> stratum, a class for
    example) have the same shares of every side, as nearly as whole groups allow. `unit` is what a group is in `notes`.
    ValueError for an unknown kind or no group.
    """
    if kind not in SPLITS or not groups:
        raise ValueError(f"kind is one of {', '.join(SPLITS)} and there is at least one group")
    order = _order(groups, seed, strata or {})
    sizes = [len(groups[group]) for group in order]
    test_size, val_size = (max(1, int(sum(sizes) * share / 10 + 0.5)) for share in tenths)
    held_out = _first(sizes, test_size, leave=2) if kind == "paper" and len(order) >= 3 else 0
    test, rest = order[:held_out], order[held_out:]
    folds, notes = [], []
    for val in _validation_groups(rest, sizes[held_out:], val_size if kind == "paper" else None):
        train = [group for group in rest if group not in val] or val
        folds.append((_cases(groups, train), _cases(groups, val)))
    if kind == "paper" and not held_out:
        notes.append(f"{len(order)} {unit}s are too few to hold any out: there is no test set.")
    if len(rest) == 1:
        notes.append(f"Only one {unit} to train on: training and validation are the same.")
    elif len(rest) < FOLDS:
        notes.append(f"Only {len(rest)} {unit}s to train on: folds {len(rest)} to {FOLDS - 1} repeat earlier ones.")
    return Split(test=_cases(groups, test), folds=tuple(folds), notes=tuple(notes))


OFFICIAL = "official"
_SIDES = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}


def official_split(
    sides: Mapping[str, str], groups: Mapping[str, Sequence[str]], *, seed: int, strata: Mapping[str, str]
) -> Split:
    """Return the split that a dataset came with; what it leaves open is split by group, as in `make_split`.

    Args:
        sides: what it says of each case: train, val or test, or to which fold it belongs.
        groups: what no further split may tear apart.
        seed, strata: as in `make_split`.

    Raises:
        InputError: a case is on no side, some are on sides and others in folds, or there is nothing to train on.
    """
    if nowhere := [case for case, side in sides.items() if not side]:
        raise InputError(f"the official split puts {count(len(nowhere), 'case')} nowhere: {some(nowhere)}.")
    named = {case: _SIDES.get(side.casefold(), "") for case, side in sides.items()}
    if not any(named.values()):
        return _official_folds(sides)
    if unknown := sorted({side for case, side in sides.items() if not named[case]}):
        raise InputError(f"the official split says {some(unknown)}, which is not train, val or test.")
    train, val, test = (tuple(sorted(c for c in named if named[c] == side)) for side in ("train", "val", "test"))
    if not train:
        raise InputError("the official split has no training cases.")
    learned = {group: [case for case in cases if named.get(case) != "test"] for group, cases in groups.items()}
    others = make_split({g: cases for g, cases in learned.items() if cases}, kind="cv5", seed=seed, strata=strata)
    folds = ((train, val), *others.folds[: FOLDS - 1]) if val else others.folds
    note = "fold 0 is the official one; folds 1 to 4 deal out its training and validation cases in another way"
    return Split(
        test=test, folds=folds, notes=(note,) if val else ("only the test set is official; the folds are not",)
    )


def _official_folds(sides: Mapping[str, str]) -> Split:
    """Return a split that validates on each fold in turn, cycling where there are fewer than five."""
    names = sorted(set(sides.values()), key=lambda name: (float(name) if _is_number(name) else math.inf, name))
    if len(names) < 2:
        raise InputError(f"the official split has one fold only, {names[0]}.")
    folds = []
    for fold in range(max(FOLDS, len(names))):
        name = names[fold % len(names)]
        train, val = (tuple(sorted(c for c in sides if (sides[c] == name) is held)) for held in (False, True))
        folds.append((train, val))
    listed = ", ".join(f"fold {number} validates on {name}" for number, name in enumerate(names))
    notes = [f"official folds: {listed}"]
    if len(names) < FOLDS:
        notes.append(f"Only {len(names)} official folds: folds {len(names)} to {FOLDS - 1} repeat earlier ones.")
    return Split(test=(), folds=tuple(folds), notes=tuple(notes))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _order(groups: Mapping[str, Sequence[str]], seed: int, strata: Mapping[str, str]) -> list[str]:
    """Return the groups shuffled, the strata mixed so evenly that any stretch holds its share of each."""
    # each group's place depends on nobody else, so that one group more or less does not reshuffle the others
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    totals: Counter[str | None] = Counter()
    middles = {}
    for group in order:
        stratum = strata.get(group)
        middles[group] = totals[stratum] + len(groups[group]) / 2
        totals[stratum] += len(groups[group])
    return sorted(order, key=lambda group: middles[group] / totals[strata.get(group)])


def _first(sizes: Sequence[int], cases: int, *, leave: int) -> int:
    """Return how many groups from the front come nearest to so many cases: at least one, and some are left."""
    count, total = 1, sizes[0]
    while count < len(sizes) - leave and abs(total + sizes[count] - cases) < abs(total - cases):
        total += sizes[count]
        count += 1
    return count


def _validation_groups(rest: Sequence[str], sizes: Sequence[int], val_size: int | None) -> list[list[str]]:
    """Return five disjoint stretches of `val_size` cases (None: all dealt out), or cycle where groups are too few."""
    if len(rest) < FOLDS:
        return [[rest[fold % len(rest)]] for fold in range(FOLDS)]
    stretches, start = [], 0
    for left in range(FOLDS, 0, -1):
        cases = val_size or math.ceil(sum(sizes[start:]) / left)
        end = start + _first(sizes[start:], cases, leave=left - 1)
        stretches.append(list(rest[start:end]))
        start = end
    return stretches


def _cases(groups: Mapping[str, Sequence[str]], chosen: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(case for group in chosen for case in groups[group]))
