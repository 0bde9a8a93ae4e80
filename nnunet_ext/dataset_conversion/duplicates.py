"""Groups of images that show the same frame, or all but the same, so that no split puts them on two sides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_ext.common.processes import Track, untracked
from nnunet_ext.dataset_conversion.same_frame import SAME, pairs
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

    `similarity` is that of the weakest pair that links them; None where only a list does.
    """

    ids: tuple[str, ...]
    categories: tuple[str, ...]
    similarity: float | None
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

    def inseparable(self) -> list[Sequence[str]]:
        """Return the ids of cases that no split may part."""
        return [group.ids for group in self.groups] if self.policy == "group" else []

    def record(self) -> dict[str, Any]:
        """Return all about near-duplicates that conversion.json keeps."""
        groups = [
            {
                "cases": list(group.ids),
                "similarity": None if group.similarity is None else round(group.similarity, 3),
                "label_conflict": group.conflict,
            }
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


def find_duplicates(
    pictures: Sequence[Checked], policy: str, *, known: Iterable[Sequence[str]] = (), track: Track = untracked
) -> Duplicates:
    """Return the groups among some images, those that are known (by ids) and those that are found.

    The image of most pixels stays, of equal ones the first by id.
    """
    numbers = {picture.case.id: number for number, picture in enumerate(pictures)}
    links: dict[tuple[int, int], float | None] = {}
    for group in known:
        first, *others = [numbers[id_] for id_ in group if id_ in numbers] or [0]
        links |= {(first, other): None for other in others}
    thumbnails = [picture.thumbnail for picture in pictures if picture.thumbnail is not None]
    links |= {(pair.one, pair.other): pair.similarity for pair in pairs(thumbnails, track)}
    groups = []
    for members, similarity in connected(links, len(pictures)):
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


def connected(links: Mapping[tuple[int, int], float | None], count: int) -> list[tuple[tuple[int, ...], float | None]]:
    """Return the groups among `count` images that links make: their numbers, and the weakest known similarity."""
    from scipy.sparse import coo_array  # here, because most datasets do without
    from scipy.sparse.csgraph import connected_components

    if not links:
        return []
    ends = np.array(list(links)).T
    _, component = connected_components(coo_array((np.ones(len(links)), ends), shape=(count, count)), directed=False)
    similarities: dict[int, list[float]] = {int(component[one]): [] for one, _ in links}
    for (one, _), similarity in links.items():
        similarities[int(component[one])] += [] if similarity is None else [similarity]
    return [
        (tuple(np.flatnonzero(component == group).tolist()), min(known, default=None))
        for group, known in similarities.items()
    ]
