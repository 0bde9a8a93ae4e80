"""NIfTI files as they lie on disk: header, length, and voxels in pieces, compressed or not."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from nnunet_ext.errors import InputError

NII, NII_GZ = ENDINGS = (".nii", ".nii.gz")
CHUNK_BYTES = 1 << 20  # small enough to stay in a core's cache between reading, comparing and writing
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}


@dataclass(frozen=True, kw_only=True)
class NiftiFile:
    """One NIfTI file whose header has been read; voxels stay on disk.

    `header` is always NIfTI-1 (what nnU-Net's reader understands); `version` says what the file itself is.
    `slope` and `inter` turn stored numbers into values.
    """

    path: Path
    header: nib.Nifti1Header
    version: int
    compressed: bool
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    slope: float
    inter: float

    @property
    def ending(self) -> str:
        """The ending that fits the content, whatever the file is called."""
        return NII_GZ if self.compressed else NII

    @property
    def voxel_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def scaled(self) -> bool:
        return (self.slope, self.inter) != (1.0, 0.0)


def read(path: Path) -> NiftiFile:
    """Read the header of a 3-D NIfTI file; InputError where it is none or holds no real numbers."""
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            head = (gzip.GzipFile(fileobj=raw) if compressed else raw).read(544)
    except (OSError, EOFError, zlib.error) as e:
        raise InputError(f"{path}: cannot be read ({e or type(e).__name__}).") from e
    header, version = _parse(path, head)
    shape = _shape(path, header)
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{path}: holds {dtype} voxels; a CT or a label map needs plain integers or floats.")
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as e:
        raise InputError(f"{path}: its intensity scaling is broken ({e}).") from e
    return NiftiFile(path=path, header=_as_nifti1(header), version=version, compressed=compressed,
                     offset=int(header["vox_offset"]), shape=shape, dtype=dtype,
                     slope=1.0 if slope is None else float(slope), inter=0.0 if inter is None else float(inter))


def _parse(path: Path, head: bytes) -> tuple[nib.Nifti1Header, int]:
    sizes = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    header_class = next((_HEADERS[size] for size in sizes if size in _HEADERS), None)
    if header_class is None or len(head) < header_class.sizeof_hdr:
        raise InputError(f"{path}: is not a NIfTI file.")
    try:
        header = header_class.from_fileobj(BytesIO(head), check=False)
        shape_is_sane = 1 <= int(header["dim"][0]) <= 7
        header.get_data_dtype()
    except (HeaderDataError, ValueError, KeyError) as e:
        raise InputError(f"{path}: is not a NIfTI file ({e}).") from e
    magic = bytes(header["magic"].tobytes())[:3]
    if not shape_is_sane or magic not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: is not a single-file NIfTI.")
    return header, 1 if header_class is nib.Nifti1Header else 2


def _shape(path: Path, header: nib.Nifti1Header) -> tuple[int, ...]:
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:  # one time point: readers drop that axis
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        size = " x ".join(map(str, shape))
        raise InputError(f"{path}: is {len(shape)}-D ({size}); a single 3-D volume is needed.")
    return shape


def _as_nifti1(header: nib.Nifti1Header) -> nib.Nifti1Header:
    return header if type(header) is nib.Nifti1Header else nib.Nifti1Header.from_header(header, check=False)


def check_length(nifti: NiftiFile) -> None:
    """InputError when voxels are missing: by file length, or by gzip trailer and, if that differs, by reading."""
    size = os.path.getsize(nifti.path)
    needed = nifti.offset + nifti.voxel_bytes
    if not nifti.compressed:
        if size < needed:
            raise InputError(f"{nifti.path}: is truncated ({size:,} of {needed:,} bytes); download it again.")
        return
    with nifti.path.open("rb") as raw:
        raw.seek(-4, os.SEEK_END)
        trailer = int.from_bytes(raw.read(4), "little")
    if trailer != needed % (1 << 32):  # truncated, or in several gzip members: only reading tells
        for _ in voxel_chunks(nifti):
            pass


def voxel_chunks(nifti: NiftiFile, chunk_bytes: int = CHUNK_BYTES) -> Iterator[np.ndarray]:
    """Stored numbers in file order, in pieces, each valid until the next one; InputError when voxels are missing."""
    buffer = memoryview(bytearray(chunk_bytes))
    left = nifti.voxel_bytes
    try:
        with nifti.path.open("rb", buffering=0) as raw:
            stream = gzip.GzipFile(fileobj=raw) if nifti.compressed else raw
            stream.seek(nifti.offset)
            while left:
                piece = buffer[: min(chunk_bytes, left)]
                _fill(stream, piece)
                left -= len(piece)
                yield np.frombuffer(piece, nifti.dtype)
            if nifti.compressed:  # at its end gzip compares the checksum
                while stream.read(chunk_bytes):
                    pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise InputError(f"{nifti.path}: is truncated or damaged ({e or 'end of file'}); download it again.") from e


def _fill(stream: BinaryIO, piece: memoryview) -> None:
    done = 0
    while done < len(piece):
        count = stream.readinto(piece[done:])
        if not count:
            raise EOFError("end of file before the last voxel")
        done += count


def value_chunks(nifti: NiftiFile) -> Iterator[np.ndarray]:
    """Voxel values in file order: stored numbers with the header's scaling applied."""
    for stored in voxel_chunks(nifti):
        yield stored * nifti.slope + nifti.inter if nifti.scaled else stored


def header_bytes(header: nib.Nifti1Header) -> bytes:
    """What a single-file NIfTI-1 starts with: this header, no extensions, voxels at byte 352."""
    header = header.copy()
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return header.binaryblock + bytes(4)
