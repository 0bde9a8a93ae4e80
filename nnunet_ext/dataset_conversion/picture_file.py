"""Files of pictures (PNG, JPEG, BMP, TIFF): whether they are sound, and their pixels. Pillow reads them.

Workers import this: Pillow, and nothing heavier.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from nnunet_ext.common.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 50_000_000  # fifty times the largest image of BUSI; a bomb claims far more than its bytes could hold
_KINDS: dict[bytes, type[ImageFile.ImageFile]] = {  # by how they begin; without Pillow's own limit, which only warns
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"BM": BmpImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
}
_IHDR = struct.Struct(">8sI4sIIBB")  # a PNG's signature, length, name, width, height, bit depth, colour type
_IEND = b"IEND\xaeB`\x82"  # with its checksum, at which Pillow does not look
_GREY_TYPE = 0
_BITS, _ORIENTATION = 258, 274  # tags of TIFF and EXIF
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_ANYTHING = (  # with which Pillow reports damage
    *(OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError),
    *(EOFError, MemoryError, struct.error, zlib.error),
)


def read(path: Path, *, is_mask: bool = False) -> ImageFile.ImageFile:
    """Return a picture with its pixels, once its header, its checksums and its size are found to be sound.

    Raises:
        InputError: it is damaged, of another format or mode, larger than `MAX_PIXELS`, several pictures or one to be
            turned; has more than 8 bits per channel, which only a grey mask may have; or is a mask saved with losses.
    """
    try:
        content = path.read_bytes()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}).") from e
    if not content:
        raise InputError(f"{path}: is empty; download it again.")
    kind = next((kind for start, kind in _KINDS.items() if content.startswith(start)), None)
    if kind is None:
        raise InputError(f"{path}: is not a PNG, JPEG, BMP or TIFF file{_actual_format(path)}; save it as PNG.")
    bits, is_grey = _png_header(path, content) if kind is PngImageFile else (8, False)
    with _opened(path, content, kind) as picture:
        _check_size(path, *picture.size)
        if kind is TiffImageFile:
            stored = picture.tag_v2.get(_BITS, (1,))  # type: ignore[attr-defined]
            bits, is_grey = max(stored), len(stored) == 1
        pages = getattr(picture, "n_frames", 1)
        orientation = picture.getexif().get(_ORIENTATION, 1) if kind in (JpegImageFile, TiffImageFile) else 1
    if bits > 8 and not (is_mask and is_grey):
        raise InputError(f"{path}: has {bits} bits per channel; save it with 8.")
    if picture.mode not in _MODES and not picture.mode.startswith("I"):
        raise InputError(f"{path}: is in mode {picture.mode}; save it as 8-bit grey or RGB.")
    if pages > 1:
        raise InputError(f"{path}: holds {pages} pictures; save the one that counts.")
    if orientation not in (0, 1):
        raise InputError(f"{path}: is to be turned or mirrored, says its EXIF data, which most readers ignore; do it.")
    if is_mask and kind is JpegImageFile:
        raise InputError(f"{path}: is JPEG, whose losses blur what a mask marks; save the mask as PNG, BMP or TIFF.")
    with _opened(path, content, kind) as picture:
        picture.verify()
    with _opened(path, content, kind) as picture:
        picture.load()
    return picture


def _png_header(path: Path, content: bytes) -> tuple[int, bool]:
    """Return the bits per channel and whether there is one channel, before Pillow believes anything else."""
    if len(content) < _IHDR.size or content[12:16] != b"IHDR" or _IEND not in content:
        raise InputError(f"{path}: is truncated or damaged (no header or no end); download it again.")
    *_, width, height, bits, colour_type = _IHDR.unpack(content[: _IHDR.size])
    _check_size(path, width, height)
    return bits, colour_type == _GREY_TYPE


def _check_size(path: Path, width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(
            f"{path}: claims {width:,} x {height:,} pixels, where {MAX_PIXELS:,} are allowed: it is damaged or a "
            "decompression bomb; download it again."
        )


@contextmanager
def _opened(path: Path, content: bytes, kind: type[ImageFile.ImageFile]) -> Iterator[ImageFile.ImageFile]:
    try:
        yield kind(io.BytesIO(content), path.name)
    except InputError:
        raise
    except _ANYTHING as e:
        raise InputError(f"{path}: is truncated or damaged ({str(e) or type(e).__name__}); download it again.") from e


def _actual_format(path: Path) -> str:
    """Say what a file of another format is, as far as Pillow knows without decoding it."""
    try:
        with Image.open(path) as picture:
            return f" but {picture.format}"
    except (*_ANYTHING, Image.DecompressionBombError):
        return ""
