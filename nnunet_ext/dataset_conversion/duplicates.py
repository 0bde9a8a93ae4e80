"""Groups of images that show the same frame, or all but the same, so that no split puts them on two sides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_ext.common.processes import Track, untracked
from nnunet_ext.dataset_conversion.same_frame import SAME, Pair, pairs
from nnunet_ext.dataset_conversion.splits import Split
from nnunet_ext.dataset_conversion.types import Checked

POLICIES = {
    "group": "each group on one side of every split",
    "drop": "one image of each group kept",
    "ignore": "left to chance",
}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Case ids of one frame and those all but like it, their classes, and which one stays when the others go.

    `similarity` is that of the weakest pair that links them.
    """

    ids: tuple[str, ...]
    categories: tuple[str, ...]
    similarity: float
    kept: str

    @property
    def conflict(self) -> bool:
        """Whether one frame stands under two classes, of which one must be wrong."""
        return len(self.categories) > 1


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The groups of near-duplicates in a dataset, and what becomes of them (`policy`, a key of `POLICIES`)."""

    policy: str
    groups: tuple[Group, ...] = ()

    def dropped(self) -> set[str]:
        """Return the cases that do not enter the dataset."""
        if self.policy != "drop":
            return set()
        return {id_ for group in self.groups for id_ in group.ids if id_ != group.kept}

    def units(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """Return what no split may tear apart, by its first case id."""
        units = {group.ids[0]: list(group.ids) for group in self.groups} if self.policy == "group" else {}
        together = {id_ for unit in units.values() for id_ in unit}
        return {**{id_: [id_] for id_ in ids if id_ not in together}, **units}

    def record(self) -> dict[str, Any]:
        """Return all about near-duplicates that conversion.json keeps."""
        groups = [
            {"cases": list(group.ids), "similarity": round(group.similarity, 3), "label_conflict": group.conflict}
            | ({"kept": group.kept} if self.policy == "drop" else {})
            for group in self.groups
        ]
        return {
            "method": "correlation of local contrast, where both images show the same once they are aligned",
            "threshold": SAME,
            "policy": POLICIES[self.policy],
            "groups": groups,
        }

    def summary(self) -> str:
        """Return one line for the user."""
        images = sum(len(group.ids) for group in self.groups)
        return f"near-duplicates: {len(self.groups)} groups of {images} images in all, {POLICIES[self.policy]}"

    def notes(self, split: Split) -> Iterator[str]:
        """Yield label conflicts, and how many groups are torn apart by a split that ignores them."""
        for group in self.groups:
            if group.conflict:
                kept = f"; {group.kept} is kept" if self.policy == "drop" else ""
                classes = " and ".join(group.categories)
                yield f"label conflict: {', '.join(group.ids)} show the same under {classes}{kept}"
        if self.policy == "ignore":
            sides = [set(split.test), *(set(val) for _, val in split.folds)]
            torn = sum(any(0 < len(side.intersection(g.ids)) < len(g.ids) for side in sides) for g in self.groups)
            yield (
                f"{torn} of {len(self.groups)} groups of near-duplicates are on two sides of a split: "
                "expect scores too good."
            )


def find_duplicates(pictures: Sequence[Checked], policy: str, track: Track = untracked) -> Duplicates:
    """Return the groups among some images. The one of most pixels stays, of equal ones the first by id."""
    groups = []
    thumbnails = [picture.thumbnail for picture in pictures if picture.thumbnail is not None]
    for members, similarity in connected(pairs(thumbnails, track), len(pictures)):
        together = sorted((pictures[i] for i in members), key=lambda picture: picture.case.id)
        groups.append(
            Group(
                ids=tuple(picture.case.id for picture in together),
                categories=tuple(sorted({picture.case.category for picture in together})),
                similarity=similarity,
                kept=max(together, key=lambda picture: math.prod(picture.size)).case.id,
            )
        )
    return Duplicates(policy=policy, groups=tuple(groups))


def connected(found: Sequence[Pair], count: int) -> list[tuple[tuple[int, ...], float]]:
    """Return the groups among `count` images that pairs link: their numbers, and the weakest similarity among them."""
    from scipy.sparse import coo_array  # here, because most datasets do without
    from scipy.sparse.csgraph import connected_components

    if not found:
        return []
    ends = ([pair.one for pair in found], [pair.other for pair in found])
    _, component = connected_components(coo_array((np.ones(len(found)), ends), shape=(count, count)), directed=False)
    weakest: dict[int, float] = {}
    for pair in found:
        group = int(component[pair.one])
        weakest[group] = min(pair.similarity, weakest.get(group, pair.similarity))
    return [(tuple(np.flatnonzero(component == group).tolist()), weakest[group]) for group in weakest]
