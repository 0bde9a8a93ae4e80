"""A mask drawn as a picture, to the pixels that it marks: black and white as they are, grey rims cut, doubt refused.

Masks that went through JPEG, a resize or a drawing program have grey rims, an alpha channel, a palette, or the wrong
side white. Where two readings differ and the file does not prove which is right, neither is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.text import some

MOST_OF_AN_IMAGE = 0.8  # the largest lesion of BUSI covers 0.43 of its image
MOST_OF_A_BORDER = 0.5  # and none more than 0.03 of the border


@dataclass(frozen=True, kw_only=True)
class DrawnMask:
    """What a mask marks: `area` is (height, width) bool; `cut` says how grey levels were cut, "" where none were."""

    area: np.ndarray
    cut: str = ""

    def doubts(self) -> Iterator[str]:
        """Yield a sentence where the mask looks as if black and white had changed sides."""
        border = np.concatenate([self.area[0], self.area[-1], self.area[:, 0], self.area[:, -1]])
        for where, share, most in (
            ("image", self.area.mean(), MOST_OF_AN_IMAGE),
            ("image's border", border.mean(), MOST_OF_A_BORDER),
        ):
            if share > most:
                yield f"marks {100 * share:.0f} % of the {where}, as inverted masks do; make what it marks white."
                return


def draw(picture: Image.Image, path: Path) -> DrawnMask:
    """Return what a mask marks: all but 0 where it has one other value, else what is above half of the full range.

    InputError where an alpha channel or a palette may mean something else than the colours do, and where a mask has
    more grey pixels than white ones.
    """
    levels = _levels(picture, path)
    values, counts = _counted(levels)
    if len(values) == 1 or (len(values) == 2 and values[0] == 0):
        return DrawnMask(area=levels > 0)
    top = 255 if values[-1] <= 255 else 65535
    white = counts[values > 0.75 * top].sum()
    grey = counts[values > 0.25 * top].sum() - white
    found = f"{len(values)} values from {values[0]} to {values[-1]}"
    if grey > white:
        raise InputError(
            f"{path}: is not black and white: of {found}, {grey:,} pixels are grey and {white:,} white; save what it "
            "marks as 255 and all else as 0."
        )
    area = levels > top / 2
    marked = f"{np.count_nonzero(area):,} pixels are marked, {np.count_nonzero(levels):,} are above 0"
    return DrawnMask(area=area, cut=f"{found} were cut at half of {top}: {marked}")


def _counted(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values that there are, and how often."""
    if levels.dtype != np.uint8:
        return np.unique(levels, return_counts=True)
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel()  # in a tenth of the time
    values = np.flatnonzero(counts)
    return values, counts[values].astype(int)


def renumber(picture: Image.Image, path: Path, values: Mapping[int, int]) -> np.ndarray:
    """Return (height, width) uint8, the dataset's number for each that a mask holds, in a palette for each index.

    InputError for numbers that `values` lacks, and for colours.
    """
    if picture.mode not in ("1", "L", "P") and not picture.mode.startswith("I"):
        raise InputError(f"{path}: is in mode {picture.mode}, but should hold numbers; save it as grey.")
    stored = np.asarray(picture).astype(np.int64)
    found, counts = np.unique(stored, return_counts=True)
    strange = [f"{value} ({n:,} pixels)" for value, n in zip(found, counts, strict=True) if int(value) not in values]
    if strange:
        known = ", ".join(map(str, values))
        raise InputError(f"{path}: holds {some(strange)}, where {known} are known; say with --labels what is what.")
    numbers = np.zeros(stored.shape, np.uint8)
    for value in found.tolist():
        numbers[stored == value] = values[value]
    return numbers


def _levels(picture: Image.Image, path: Path) -> np.ndarray:
    """Return (height, width) whole numbers: the brightest channel of each pixel."""
    if picture.has_transparency_data:
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
        if alpha.min() != alpha.max():
            raise InputError(
                f"{path}: has an alpha channel that is not the same everywhere; whether the mask is there or in its "
                "colours is not certain: save it in black and white, without alpha."
            )
    if picture.mode == "1":
        return np.asarray(picture, np.uint8)
    if picture.mode == "L" or picture.mode.startswith("I"):
        return np.asarray(picture)
    levels = np.asarray(picture.convert("RGB")).max(axis=-1)
    if picture.mode == "P" and np.any((np.asarray(picture) > 0) != (levels > 0)):
        raise InputError(
            f"{path}: has a palette in which black is not number 0 alone; whether the mask is in the numbers or in the "
            "colours is not certain: save it in black and white, without a palette."
        )
    return levels
