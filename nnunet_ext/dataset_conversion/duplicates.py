"""Images that show the same frame, or all but the same, so that no split puts them on two sides.

Thumbnails of 16 x 16 pixels are correlated. Every B-mode image is bright above and dark below, so that plain thumbnails
of unrelated images correlate by up to 0.93; the means of rows and columns therefore count a quarter.

docs/busi.md says what the threshold was measured on, and what is found and missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from nnunet_ext.dataset_conversion.splits import Split
from nnunet_ext.dataset_conversion.types import Checked

SIDE = 16
THRESHOLD = 0.83
POLICIES = {
    "group": "each group on one side of every split",
    "drop": "one image of each group kept",
    "ignore": "left to chance",
}
_MEANS_WEIGHT = 0.25
_ROWS = 512  # of the correlation matrix at a time


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
            "method": f"correlation of {SIDE} x {SIDE} thumbnails",
            "threshold": THRESHOLD,
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


def find_duplicates(pictures: Sequence[Checked], policy: str) -> Duplicates:
    """Return the groups among some images. The one of most pixels stays, of equal ones the first by id."""
    groups = []
    for members, similarity in similar(np.array([picture.thumbnail for picture in pictures])):
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


def thumbnail(image: Image.Image) -> np.ndarray:
    """Return (16, 16) float32 area means of a one-channel image of any size and aspect."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)


def similar(thumbnails: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """Return groups of two and more of (N, 16, 16) thumbnails: their indices, and the weakest similarity among them.

    They are connected components of the pairs whose similarity reaches `THRESHOLD`. One matrix product, a stretch of
    rows at a time: memory grows with the number of images only, and 10,000 of them take a second.
    """
    from scipy.sparse import coo_array  # here, because workers import this file for nothing but thumbnails
    from scipy.sparse.csgraph import connected_components

    if not len(thumbnails):
        return []
    features = _features(thumbnails)
    pairs, similarities = [], []
    for start in range(0, len(features), _ROWS):
        similarity = features[start : start + _ROWS] @ features[start:].T
        rows, columns = np.nonzero(np.triu(similarity >= THRESHOLD, k=1))
        pairs.append(np.stack([rows, columns]) + start)
        similarities.append(similarity[rows, columns])
    (rows, columns), weights = np.concatenate(pairs, axis=1), np.concatenate(similarities)
    shape = (len(features), len(features))
    _, component = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=shape), directed=False)
    return [
        (tuple(np.flatnonzero(component == found).tolist()), float(weights[component[rows] == found].min()))
        for found in dict.fromkeys(component[rows].tolist())
    ]


def _features(thumbnails: np.ndarray) -> np.ndarray:
    """Return (N, 256) rows whose scalar products are the similarities; an even image resembles nothing."""
    centred = thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)
    means = centred.mean(axis=1, keepdims=True) + centred.mean(axis=2, keepdims=True)
    flat = (centred - (1 - _MEANS_WEIGHT) * means).reshape(len(thumbnails), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-3)
