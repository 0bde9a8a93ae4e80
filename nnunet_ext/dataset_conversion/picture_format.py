"""Pictures as a format: soundness, grey values, masks that are united, and how both are written, as PNG.

Every file is read once, while it is checked; what is to be written is kept in memory, compressed, as long as there is
room. OpenCV compresses: ultrasound takes it 6 ms where Pillow needs 11, for 9 % fewer bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion.drawn_mask import draw, renumber
from nnunet_ext.dataset_conversion.picture_file import read
from nnunet_ext.dataset_conversion.same_frame import thumbnail
from nnunet_ext.dataset_conversion.types import Case, Checked, ImageFormat, OutputFile

_BYTES_PER_PIXEL = 1.0  # of an image that is written, on the safe side
_PIXELS_PER_SECOND = 4e7  # read and written on one core, for sharing out work


class Pictures(ImageFormat):
    """The format of grey or colour pictures with one or several masks each, all of the picture's size.

    Args:
        room: memory in bytes for images between checking and writing, so that few are decoded twice; threads may
            miscount it by an image or two.
        numbered: whether masks hold numbers of their own, and not just black and white.
        strict: whether a mask that looks inverted is a fault; else it is a doubt, since large structures look so too.
    """

    image_io = "NaturalImage2DIO"
    packages = ("nnunetv2", "numpy", "pillow", "opencv-python-headless")
    unites = True

    def __init__(self, *, room: int = 0, numbered: bool = False, strict: bool = True) -> None:
        self._room, self._numbered, self._strict = room, numbered, strict

    def check(self, case: Case, values: Mapping[int, int]) -> tuple[CheckedPicture | None, list[str]]:
        faults: list[str] = []
        picture = None
        try:
            picture = read(case.image)
        except InputError as e:
            faults += e.problems
        label: np.ndarray | None = None
        cuts: dict[Path, str] = {}
        doubts: list[str] = []
        for path in case.masks:
            try:
                mask = read(path, is_mask=True)
                if picture and mask.size != picture.size:
                    sizes = ["{} x {}".format(*file.size) for file in (picture, mask)]
                    raise InputError(f"{case.image} is {sizes[0]} pixels, but {path} is {sizes[1]}; they must agree.")
                if self._numbered:
                    numbers = renumber(mask, path, values)
                else:
                    drawn = draw(mask, path)
                    numbers = drawn.area * np.uint8(values[1])
                    cuts |= {path: drawn.cut} if drawn.cut else {}
                    doubts += [f"{path}: {doubt}" for doubt in drawn.doubts()]
                label = numbers if label is None else united(label, numbers, path)
            except InputError as e:
                faults += e.problems
        if self._strict:
            faults += doubts
        if faults or picture is None:
            return None, faults
        one_channel = grey(picture)
        plain = picture.format == "PNG" and picture.mode == "L" and "transparency" not in picture.info
        content = None if plain or self._room <= 0 else encoded(np.asarray(one_channel))
        self._room -= len(content or b"")
        if label is None:
            label = np.zeros(picture.size[::-1], np.uint8)
        checked = CheckedPicture(
            case=case,
            marked=int(np.count_nonzero(label)),
            repairs=(
                *([f"{case.image}: coloured pixels became grey"] if has_colour(picture) else []),
                *(f"{path}: {cut}" for path, cut in cuts.items()),
            ),
            doubts=tuple(doubts),
            ending=".png",
            size=picture.size,
            plain=plain,
            content=content,
            label=encoded(label),
            cuts=tuple(cuts.values()),
            thumbnail=thumbnail(one_channel),
        )
        return checked, []


def united(label: np.ndarray, other: np.ndarray, path: Path) -> np.ndarray:
    """Return what two label maps mark together; InputError where they disagree, `path` being that of the other."""
    if np.any((label != other) & (label > 0) & (other > 0)):
        raise InputError(f"{path}: marks pixels that another mask of the image gives another label.")
    return np.maximum(label, other)


@dataclass(frozen=True, kw_only=True)
class CheckedPicture(Checked):
    """A case that can be converted.

    Attributes:
        plain: whether the image's own bytes are right for nnU-Net: one channel for every reader.
        content: the PNG file of the image, where it has to be written and there was room to keep it.
        label: the PNG file of what all masks mark.
        cuts: how the grey levels of masks were cut that are not black and white.
    """

    plain: bool
    content: bytes | None
    label: bytes
    cuts: tuple[str, ...]

    def image_file(self, target: str) -> OutputFile:
        if self.plain:
            return OutputFile.unchanged(self.case.image, target)
        pixels = self.size[0] * self.size[1]
        return OutputFile(
            target=target,
            sources=(self.case.image,),
            recipe=WriteGrey(source=self.case.image, content=self.content),
            seconds=0.0 if self.content else pixels / _PIXELS_PER_SECOND,
            estimate=len(self.content) if self.content else int(pixels * _BYTES_PER_PIXEL),
        )

    def label_file(self, target: str, values: Mapping[int, int]) -> OutputFile:
        return OutputFile(
            target=target,
            sources=self.case.masks or (self.case.image,),
            recipe=WriteLabel(content=self.label, values=tuple(sorted(values.items()))),
            estimate=len(self.label),
            record={"lesion_pixels": self.marked} | ({"cuts": list(self.cuts)} if self.cuts else {}),
        )


def has_colour(picture: Image.Image) -> bool:
    """Tell whether any pixel is other than grey."""
    if picture.mode in ("1", "L", "LA"):
        return False
    red, green, blue = (channel.tobytes() for channel in picture.convert("RGB").split())
    return not red == green == blue


def grey(picture: Image.Image) -> Image.Image:
    """Return one 8-bit channel: luma by ITU-R BT.601, which leaves grey as it is; transparency does not count."""
    return picture.convert("L")


def encoded(pixels: np.ndarray) -> bytes:
    """Return (height, width) uint8 as a grey PNG file."""
    # run lengths of differences: matches, which deflate spends its time on, are rare in speckle and trivial in masks
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])
    return data.tobytes()


@dataclass(frozen=True, kw_only=True)
class WriteGrey:
    """Writes an image in one 8-bit channel, at its own size; `content` is that file, where it was made before."""

    source: Path
    content: bytes | None = field(default=None, repr=False, compare=False)

    def __call__(self, target: Path) -> None:
        target.write_bytes(self.content or encoded(np.asarray(grey(read(self.source)))))


@dataclass(frozen=True, kw_only=True)
class WriteLabel:
    """Writes a label map that is there already; `values` are those that it has in place of the masks'."""

    content: bytes = field(repr=False, compare=False)
    values: tuple[tuple[int, int], ...]

    def __call__(self, target: Path) -> None:
        target.write_bytes(self.content)
