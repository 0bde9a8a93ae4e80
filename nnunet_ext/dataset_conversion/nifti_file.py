"""One NIfTI file: what its header says, its voxels slab by slab, and how another one is written from it.

A slab is some slices that fit into a core's cache. Measured on labels of 512 x 512 x 1000 voxels: reading them whole
takes 500 MB and six times as long. Workers import this: numpy and nibabel, and nothing heavier.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.grids import Reordering
from nnunet_ext.common.inflated import MAGIC, Inflated
from nnunet_ext.dataset_conversion.types import SourceError

NII, NII_GZ = (".nii", ".nii.gz")
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_SLAB_BYTES = 1 << 19
_LARGEST_RATIO = 1032  # of content to gzip, says its format
_NEARLY_WHOLE = 1e-3  # from a whole number: rounding, not a label of its own
_GZIP_LEVEL = 1  # higher levels cost far more time than they save in bytes, on labels and on CT


@dataclass(frozen=True, kw_only=True)
class NiftiFile:
    """A NIfTI file whose header has been read.

    Attributes:
        header: always NIfTI-1, which nnU-Net's reader understands; `version` says what the file itself is.
        compressed: whether the content is gzipped, whatever the file is called.
        offset: the first voxel's byte in the (decompressed) file.
        slope: value = stored number * slope + inter.
    """

    path: Path
    header: nib.Nifti1Header = field(repr=False)
    version: int
    shape: tuple[int, ...]
    compressed: bool
    offset: int
    dtype: np.dtype
    slope: float = 1.0
    inter: float = 0.0

    @property
    def ending(self) -> str:
        """The ending that fits the content, whatever the file is called."""
        return NII_GZ if self.compressed else NII

    @property
    def voxels(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """The bytes of all voxels, decompressed."""
        return self.voxels * self.dtype.itemsize

    @property
    def scaled(self) -> bool:
        """Whether the stored numbers are not the values."""
        return (self.slope, self.inter) != (1.0, 0.0)

    def repairs(self) -> list[str]:
        """Return what writing it anew would put right."""
        return ["NIfTI-2: rewritten as NIfTI-1"] if self.version == 2 else []

    def check_whole(self, *, verify: bool = False) -> list[str]:
        """Return what writing it anew would put right about its bytes; InputError where voxels are missing.

        That shows by length, or by gzip's trailer and, where that differs, by reading. `verify` reads a gzipped file in
        any case, so that its checksum is compared: a byte that has flipped does not change the length.
        """
        needed = self.offset + self.size
        found = self.path.stat().st_size
        if not self.compressed:
            if found < needed:
                raise InputError(f"{self.path}: is truncated ({found:,} of {needed:,} bytes); download it again.")
            return []
        if needed > _LARGEST_RATIO * found:
            raise InputError(
                f"{self.path}: is truncated or damaged (too short for {needed:,} bytes); download it again."
            )
        with self.path.open("rb") as raw:
            raw.seek(-4, os.SEEK_END)
            trailer = int.from_bytes(raw.read(4), "little")
        if trailer == needed % (1 << 32) and not verify:
            return []
        with self._reading() as stream:  # truncated, in several gzip members, or followed by other bytes
            found = sum(map(len, iter(lambda: stream.read(_SLAB_BYTES), b"")))
            if found < needed:
                raise EOFError(f"{found:,} of {needed:,} bytes")
            return ["bytes followed the end of the gzip data: left out"] if stream.raw.followed else []

    def stored(self) -> Iterator[np.ndarray]:
        """Yield the numbers as they are stored, slab by slab in file order; InputError where some are missing."""
        width, height, depth = self.shape
        slices = max(1, _SLAB_BYTES // (self.size // depth))
        with self._reading() as stream:
            _skip(stream, self.offset)
            for start in range(0, depth, slices):
                shape = (width, height, min(slices, depth - start))
                content = stream.read(math.prod(shape) * self.dtype.itemsize)
                if len(content) < math.prod(shape) * self.dtype.itemsize:
                    raise EOFError("end of file")
                yield np.frombuffer(content, self.dtype).reshape(shape, order="F")
            while self.compressed and stream.read(_SLAB_BYTES):  # at its end gzip compares the checksum
                pass

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with _opened(self.path, self.compressed) as stream:
                yield stream
        except (EOFError, OSError, ValueError, zlib.error) as e:
            raise _damaged(self.path, e) from e

    def labels(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the values slab by slab, with what they were before they became whole numbers where they nearly were.

        Scaling brings such errors, and so do programs that resample: 1.9999999 is 2, and 1.5 stays.
        """
        for stored in self.stored():
            values = stored * self.slope + self.inter if self.scaled else stored
            if values.dtype.kind != "f":
                yield values, values
                continue
            whole = np.rint(values)
            with np.errstate(invalid="ignore"):  # of infinite ones
                nearly = np.where(np.abs(values - whole) < _NEARLY_WHOLE, whole, values)
            yield nearly, nearly if self.scaled else values


def read(path: Path) -> NiftiFile:
    """Read the header of a 3-D NIfTI file; InputError where it is none or holds no real numbers."""
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == MAGIC
        with _opened(path, compressed) as stream:
            head = bytes(stream.read(max(_HEADERS)))
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror or e}).") from e
    except (EOFError, zlib.error) as e:
        raise _damaged(path, e) from e
    header, version = _parse(path, head)
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:  # one time point: readers drop that axis
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        size = " x ".join(map(str, shape))
        raise InputError(f"{path}: is {len(shape)}-D ({size}); a single 3-D volume is needed.")
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{path}: holds {dtype} voxels; a CT or a label map needs plain integers or floats.")
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as e:
        raise InputError(f"{path}: its intensity scaling is broken ({e}).") from e
    return NiftiFile(
        path=path,
        header=nib.Nifti1Header.from_header(header, check=False) if version == 2 else header,
        version=version,
        shape=shape,
        compressed=compressed,
        offset=_offset(path, header),
        dtype=dtype,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
    )


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path}: is truncated or damaged ({error}); download it again.", path=path)


@contextlib.contextmanager
def _opened(path: Path, compressed: bool) -> Iterator[io.BufferedReader]:
    with path.open("rb") as raw:
        yield io.BufferedReader(Inflated(raw), 1 << 17) if compressed else raw


def _offset(path: Path, header: nib.Nifti1Header) -> int:
    """Return where voxels begin; InputError where no file's could."""
    offset = float(header["vox_offset"])
    if not (len(header.binaryblock) <= offset < 1 << 40 and offset.is_integer()):
        raise InputError(f"{path}: says that its voxels begin at byte {offset:g}; it is damaged, download it again.")
    return int(offset)


def _skip(stream: io.BufferedReader, number: int) -> None:
    while number > 0:
        skipped = len(stream.read(min(number, _SLAB_BYTES)))
        if not skipped:
            raise EOFError("end of file")
        number -= skipped


def _parse(path: Path, head: bytes) -> tuple[nib.Nifti1Header, int]:
    """Return the header, without the extensions that may follow it, and its version."""
    sizes = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    length = next((size for size in sizes if size in _HEADERS), 0)
    if not length or len(head) < length:
        raise InputError(f"{path}: is not a NIfTI file.")
    try:
        header = _HEADERS[length](head[:length], check=False)
        shape_is_sane = 1 <= int(header["dim"][0]) <= 7
        header.get_data_dtype()
    except (HeaderDataError, ValueError, KeyError) as e:
        raise InputError(f"{path}: is not a NIfTI file ({e}).") from e
    magic = bytes(header["magic"].tobytes())[:3]
    if not shape_is_sane or magic not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: is not a single-file NIfTI.")
    return header, 1 if length == 348 else 2


def header_bytes(header: nib.Nifti1Header) -> bytes:
    """Return what a single-file NIfTI-1 starts with: this header, no extensions, voxels at byte 352."""
    header = header.copy()
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return header.binaryblock + bytes(4)


def label_header(image_header: nib.Nifti1Header, shape: tuple[int, ...]) -> nib.Nifti1Header:
    """Return the header of an 8-bit label map in exactly the place of the volume."""
    header = image_header.as_byteswapped("<")
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    for name in ("cal_min", "cal_max", "glmin", "glmax"):
        header[name] = 0
    header["descrip"] = header["aux_file"] = b""
    return header


@dataclass(frozen=True, kw_only=True)
class WriteVolume:
    """Writes the source's voxels behind `header`.

    They are its stored numbers, bit for bit, or 8-bit labels where `values` gives the new value of each old one. A
    `reordering` brings labels into another order of voxels, for which they are read whole: a byte for each.
    """

    source: NiftiFile
    header: bytes
    compress: bool
    values: Mapping[int, int] | None = None
    reordering: Reordering | None = None

    def __call__(self, target: Path) -> None:
        slabs = self.source.stored() if self.values is None else map(self._renumbered, self.source.labels())
        if self.reordering:
            slabs = iter([self.reordering(np.concatenate(list(slabs), axis=-1))])
        with contextlib.ExitStack() as stack:
            stream: io.BufferedIOBase = stack.enter_context(target.open("wb"))
            if self.compress:  # no name and no time inside, so that the same input gives the same bytes
                stream = stack.enter_context(gzip.GzipFile("", "wb", _GZIP_LEVEL, stream, mtime=0))
            stream.write(self.header)
            for slab in slabs:
                stream.write(slab.tobytes(order="F"))  # nibabel writes row by row, which takes gzip 45 % longer

    def _renumbered(self, labels: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        old, _ = labels
        kept = [(before, after) for before, after in (self.values or {}).items() if after]
        # a voxel has one value, so at most one of the terms is not zero
        return functools.reduce(np.bitwise_or, [(old == before) * np.uint8(after) for before, after in kept])
