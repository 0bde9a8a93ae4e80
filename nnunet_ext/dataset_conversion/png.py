"""PNG pictures as a format: soundness, grey values, masks that are united, and how both are written.

Pillow reads them: it knows every mode and refuses what is damaged. OpenCV writes them: ultrasound takes it 6 ms
where Pillow needs 11, for 9 % fewer bytes. Workers import this: numpy and these two, and nothing heavier.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion.drawn_mask import DrawnMask, draw
from nnunet_ext.dataset_conversion.same_frame import thumbnail
from nnunet_ext.dataset_conversion.types import Case, Checked, ImageFormat, OutputFile

MAX_PIXELS = 50_000_000  # fifty times the largest image of BUSI; a bomb claims far more than its bytes could hold
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR = struct.Struct(">8sI4sIIBB")  # signature, length, name, width, height, bit depth, colour type
_GREY_TYPE = 0
_BYTES_PER_PIXEL_OF_IMAGE, _BYTES_PER_PIXEL_OF_LABEL = 1.0, 0.05  # of what is written, on the safe side
_PIXELS_PER_SECOND = 4e7  # written on one core, for sharing out work


class Pictures(ImageFormat):
    """The format of grey or colour pictures with one or several masks each, all of the picture's size.

    `room` is the memory in bytes for grey images between checking and writing, so that few are decoded twice; threads
    may miscount it by an image or two. Without thumbnails nobody can look for near-duplicates.
    """

    image_io = "NaturalImage2DIO"
    packages = ("nnunetv2", "numpy", "pillow", "opencv-python-headless")
    unites = True

    def __init__(self, *, room: int = 0) -> None:
        self._room = room

    def check(self, case: Case, values: Mapping[int, int]) -> tuple[CheckedPicture | None, list[str]]:
        faults: list[str] = []
        image, picture = None, None
        try:
            image = read(case.image)
            picture = image.decode()
        except InputError as e:
            faults += e.problems
        drawn: dict[Path, DrawnMask] = {}
        for path in case.masks:
            try:
                mask = read(path, is_mask=True)
                drawn[path] = draw(mask.decode(), path)
                faults += [f"{path}: {doubt}" for doubt in drawn[path].doubts()]
                if image and mask.size != image.size:
                    sizes = ["{} x {}".format(*file.size) for file in (image, mask)]
                    faults.append(f"{image.path} is {sizes[0]} pixels, but {path} is {sizes[1]}; they must agree.")
            except InputError as e:
                faults += e.problems
        if faults or image is None or picture is None:
            return None, faults
        plain = picture.mode == "L" and "transparency" not in picture.info  # one channel for every reader
        one_channel = grey(picture)
        self._room -= 0 if plain else image.pixels
        union = np.logical_or.reduce([mask.area for mask in drawn.values()]) if drawn else np.zeros((1, 1), bool)
        cuts = {path: mask.cut for path, mask in drawn.items() if mask.cut}
        checked = CheckedPicture(
            case=case,
            marked=int(np.count_nonzero(union)),
            repairs=(
                *([f"{image.path}: coloured pixels became grey"] if has_colour(picture) else []),
                *(f"{path}: {cut}" for path, cut in cuts.items()),
            ),
            ending=".png",
            size=image.size,
            image=image,
            label=encoded(union * np.uint8(values[1])),
            cuts=cuts,
            plain=plain,
            pixels=None if plain or self._room < 0 else np.asarray(one_channel),
            thumbnail=thumbnail(one_channel),
        )
        return checked, []


@dataclass(frozen=True, kw_only=True)
class CheckedPicture(Checked):
    """A case that can be converted.

    Attributes:
        plain: whether the image's own bytes are right for nnU-Net.
        pixels: the grey image, where it has to be written and there was room to keep it.
        label: the PNG file of what all masks mark.
        cuts: how the grey levels of a mask were cut, for those that are not black and white.
    """

    image: PngFile
    label: bytes
    cuts: Mapping[Path, str]
    plain: bool
    pixels: np.ndarray | None

    def image_file(self, target: str) -> OutputFile:
        if self.plain:
            return OutputFile.unchanged(self.image.path, target)
        return OutputFile(
            target=target,
            sources=(self.image.path,),
            recipe=WriteGrey(source=self.image, pixels=self.pixels),
            seconds=self.image.pixels / _PIXELS_PER_SECOND,
            estimate=int(self.image.pixels * _BYTES_PER_PIXEL_OF_IMAGE),
        )

    def label_file(self, target: str, values: Mapping[int, int]) -> OutputFile:
        return OutputFile(
            target=target,
            sources=self.case.masks,
            recipe=WriteLabel(content=self.label, value=values[1]),
            seconds=self.image.pixels / _PIXELS_PER_SECOND,
            estimate=int(self.image.pixels * _BYTES_PER_PIXEL_OF_LABEL),
            record={"lesion_pixels": self.marked} | ({"cuts": list(self.cuts.values())} if self.cuts else {}),
        )


@dataclass(frozen=True, kw_only=True)
class PngFile:
    """A file whose bytes are whole; `size` is (width, height) in pixels."""

    path: Path
    size: tuple[int, int]

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    def decode(self) -> Image.Image:
        """Return the picture as it is stored; InputError where pixels are missing."""
        with _opened(self.path) as image:
            image.load()
            return image


def read(path: Path, *, is_mask: bool = False) -> PngFile:
    """Check the header, before decoding can fill the memory, and the checksums of all bytes; InputError if unfit.

    Only grey masks may have 16 bits: nobody can tell how an image's should become 8.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_IHDR.size)
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}).") from e
    if not head.startswith(_SIGNATURE):
        raise InputError(f"{path}: is not a PNG file{_actual_format(path)}; save it as 8-bit grey or RGB PNG.")
    if len(head) < _IHDR.size or head[12:16] != b"IHDR":
        raise InputError(f"{path}: is truncated or damaged (no header); download it again.")
    *_, width, height, bit_depth, colour_type = _IHDR.unpack(head)
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(
            f"{path}: claims {width:,} x {height:,} pixels, where {MAX_PIXELS:,} are allowed: it is damaged or a "
            "decompression bomb; download it again."
        )
    if bit_depth > 8 and not (is_mask and colour_type == _GREY_TYPE):
        raise InputError(f"{path}: has {bit_depth} bits per channel; save it with 8.")
    with _opened(path) as image:
        image.verify()
    return PngFile(path=path, size=(width, height))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open for Pillow, which reports damage in many ways."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            yield image
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as e:
        reason = "not decodable" if isinstance(e, UnidentifiedImageError) else e
        raise InputError(f"{path}: is truncated or damaged ({reason}); download it again.") from e


def _actual_format(path: Path) -> str:
    """Say what a file of another format is, as far as Pillow knows without decoding it."""
    try:
        with Image.open(path) as image:
            return f" but {image.format} in mode {image.mode}"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""


def has_colour(image: Image.Image) -> bool:
    """Tell whether any pixel is other than grey."""
    if image.mode in ("1", "L", "LA"):
        return False
    red, green, blue = (channel.tobytes() for channel in image.convert("RGB").split())
    return not red == green == blue


def grey(image: Image.Image) -> Image.Image:
    """Return one 8-bit channel: luma by ITU-R BT.601, which leaves grey as it is; transparency does not count."""
    return image.convert("L")


def encoded(pixels: np.ndarray) -> bytes:
    """Return (height, width) uint8 as a grey PNG file."""
    # run lengths of differences: matches, which deflate spends its time on, are rare in speckle and trivial in masks
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])
    return data.tobytes()


@dataclass(frozen=True, kw_only=True)
class WriteGrey:
    """Writes the image in one 8-bit channel, at its own size; `pixels` saves decoding it where that was done before."""

    source: PngFile
    pixels: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __call__(self, target: Path) -> None:
        pixels = np.asarray(grey(self.source.decode())) if self.pixels is None else self.pixels
        target.write_bytes(encoded(pixels))


@dataclass(frozen=True, kw_only=True)
class WriteLabel:
    """Writes a label map that is there already, with `value` where the masks of an image mark anything."""

    content: bytes = field(repr=False, compare=False)
    value: int

    def __call__(self, target: Path) -> None:
        target.write_bytes(self.content)
