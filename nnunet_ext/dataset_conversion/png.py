"""PNG files: soundness, grey values, lesions.

Pillow reads them: it knows every mode and refuses what is damaged. OpenCV writes them: ultrasound takes it 6 ms
where Pillow needs 11, for 9 % fewer bytes. Workers import this: numpy and these two, and nothing heavier.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from nnunet_ext.common.errors import InputError

MAX_PIXELS = 50_000_000  # fifty times the largest image of BUSI; a bomb claims far more than its bytes could hold
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR = struct.Struct(">8sI4sIIB")  # signature, length, name, width, height, bit depth


@dataclass(frozen=True, kw_only=True)
class PngFile:
    """A file whose bytes are whole; `size` is (width, height) in pixels."""

    path: Path
    size: tuple[int, int]

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    def decode(self) -> Image.Image:
        """The picture as it is stored; InputError where pixels are missing."""
        with _opened(self.path) as image:
            image.load()
            return image


def read(path: Path) -> PngFile:
    """The header, before decoding can fill the memory, and the checksums of all bytes; InputError if unfit."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_IHDR.size)
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}).") from e
    if not head.startswith(_SIGNATURE):
        raise InputError(f"{path}: is not a PNG file{_actual_format(path)}; save it as 8-bit grey or RGB PNG.")
    if len(head) < _IHDR.size or head[12:16] != b"IHDR":
        raise InputError(f"{path}: is truncated or damaged (no header); download it again.")
    *_, width, height, bit_depth = _IHDR.unpack(head)
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(
            f"{path}: claims {width:,} x {height:,} pixels, where {MAX_PIXELS:,} are allowed: it is damaged or a "
            "decompression bomb; download it again."
        )
    if bit_depth > 8:
        raise InputError(f"{path}: has {bit_depth} bits per channel; save it with 8.")
    with _opened(path) as image:
        image.verify()
    return PngFile(path=path, size=(width, height))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """For Pillow, which tells damage in many ways."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            yield image
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as e:
        reason = "not decodable" if isinstance(e, UnidentifiedImageError) else e
        raise InputError(f"{path}: is truncated or damaged ({reason}); download it again.") from e


def _actual_format(path: Path) -> str:
    """What a file of another format is, as far as Pillow can say without decoding it."""
    try:
        with Image.open(path) as image:
            return f" but {image.format} in mode {image.mode}"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""


def is_grey(image: Image.Image) -> bool:
    """Whether nnU-Net reads one 8-bit channel from the file as it is."""
    return image.mode == "L" and "transparency" not in image.info


def has_colour(image: Image.Image) -> bool:
    """Whether any pixel is other than grey."""
    if image.mode in ("1", "L", "LA"):
        return False
    red, green, blue = (channel.tobytes() for channel in image.convert("RGB").split())
    return not red == green == blue


def grey(image: Image.Image) -> Image.Image:
    """One 8-bit channel: luma by ITU-R BT.601, which leaves grey as it is; transparency does not count."""
    return image.convert("L")


def lesion(image: Image.Image) -> np.ndarray:
    """(height, width) bool: where the picture is not black, in whatever mode; transparency does not count."""
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")) > 0
    return np.asarray(image.convert("RGB")).any(axis=-1)


def write(pixels: np.ndarray, target: Path) -> None:
    """(height, width) uint8 to a grey PNG, under any name."""
    # run lengths of differences: matches, which deflate spends its time on, are rare in speckle and trivial in masks
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])
    target.write_bytes(data)
