"""What becomes of near-duplicates: kept together, all but one dropped, or left to chance as in published splits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nnunet_ext.dataset_conversion import near_duplicates
from nnunet_ext.dataset_conversion.splits import Split

POLICIES = {
    "group": "each group on one side of every split",
    "drop": "one image of each group kept",
    "ignore": "left to chance",
}


class ClassifiedImage(Protocol):
    """An image with its class, its (width, height) and what `near_duplicates.thumbnail` makes of it."""

    @property
    def id(self) -> str: ...
    @property
    def diagnosis(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def thumbnail(self) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup:
    """Case ids of one frame and those all but like it, their classes, and which one stays when the others go."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    similarity: float
    kept: str

    @property
    def conflict(self) -> bool:
        """Whether one frame stands under two classes, of which one must be wrong."""
        return len(self.classes) > 1

    def record(self) -> dict[str, Any]:
        """As conversion.json keeps it."""
        return {"cases": list(self.ids), "similarity": round(self.similarity, 3), "label_conflict": self.conflict}


def duplicate_groups(images: Sequence[ClassifiedImage]) -> list[DuplicateGroup]:
    """The groups among some images. The one of most pixels stays, of equal ones the first by id."""
    groups = []
    for found in near_duplicates.near_duplicates([image.thumbnail for image in images]):
        members = sorted((images[i] for i in found.members), key=lambda image: image.id)
        groups.append(
            DuplicateGroup(
                ids=tuple(image.id for image in members),
                classes=tuple(sorted({image.diagnosis for image in members})),
                similarity=found.similarity,
                kept=max(members, key=lambda image: image.size[0] * image.size[1]).id,
            )
        )
    return groups


def dropped(groups: Sequence[DuplicateGroup], policy: str) -> set[str]:
    """The cases that do not enter the dataset."""
    return {id_ for group in groups for id_ in group.ids if id_ != group.kept} if policy == "drop" else set()


def split_units(ids: Collection[str], groups: Sequence[DuplicateGroup], policy: str) -> dict[str, list[str]]:
    """What no split shall tear apart, by its first case id."""
    units = {group.ids[0]: list(group.ids) for group in groups} if policy == "group" else {}
    together = {id_ for unit in units.values() for id_ in unit}
    return {**{id_: [id_] for id_ in ids if id_ not in together}, **units}


def record(groups: Sequence[DuplicateGroup], policy: str) -> dict[str, Any]:
    """All about near-duplicates that conversion.json keeps."""
    return {
        "method": f"correlation of {near_duplicates.SIDE} x {near_duplicates.SIDE} thumbnails",
        "threshold": near_duplicates.THRESHOLD,
        "policy": POLICIES[policy],
        "groups": [group.record() | ({"kept": group.kept} if policy == "drop" else {}) for group in groups],
    }


def summary(groups: Sequence[DuplicateGroup], policy: str) -> str:
    """One line."""
    images = sum(len(group.ids) for group in groups)
    return f"near-duplicates: {len(groups)} groups of {images} images in all, {POLICIES[policy]}"


def notes(groups: Sequence[DuplicateGroup], split: Split, policy: str) -> Iterator[str]:
    """Label conflicts, and what a split that ignores the groups tears apart."""
    for group in groups:
        if group.conflict:
            kept = f"; {group.kept} is kept" if policy == "drop" else ""
            yield f"label conflict: {', '.join(group.ids)} show the same under {' and '.join(group.classes)}{kept}"
    if policy == "ignore":
        torn = sum(any(_tears(side, group) for side in _sides(split)) for group in groups)
        yield f"{torn} of {len(groups)} groups of near-duplicates are on two sides of a split: expect scores too good."


def _sides(split: Split) -> list[set[str]]:
    return [set(split.test), *(set(val) for _, val in split.folds)]


def _tears(side: set[str], group: DuplicateGroup) -> bool:
    return 0 < len(side.intersection(group.ids)) < len(group.ids)
