"""One NIfTI file: what its header says, its voxels slab by slab, and how another one is written from it.

A slab is some slices that fit into a core's cache. Measured on labels of 512 x 512 x 1000 voxels: reading them whole
takes 500 MB and six times as long. Workers import this: numpy and nibabel, and nothing heavier.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError

from nnunet_ext.common.errors import InputError

NII, NII_GZ = (".nii", ".nii.gz")
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_SLAB_BYTES = 1 << 19
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
        return int(np.prod(self.shape, dtype=np.int64))

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

    def check_length(self) -> None:
        """Raise InputError if voxels are missing: by length, or by gzip trailer and, if that differs, by reading."""
        needed = self.offset + self.size
        with self.path.open("rb") as raw:
            found = raw.seek(0, os.SEEK_END)
            if not self.compressed:
                if found < needed:
                    raise InputError(f"{self.path}: is truncated ({found:,} of {needed:,} bytes); download it again.")
                return
            raw.seek(-4, os.SEEK_END)
            trailer = int.from_bytes(raw.read(4), "little")
        if trailer != needed % (1 << 32):  # truncated, or in several gzip members: only reading them shows it
            for _ in self.stored():
                pass

    def stored(self) -> Iterator[np.ndarray]:
        """Yield the numbers as they are stored, slab by slab in file order; InputError where some are missing."""
        slices = max(1, _SLAB_BYTES // (self.size // self.shape[2]))
        try:
            with _opened(self.path, self.compressed) as stream:
                proxy = ArrayProxy(stream, (self.shape, self.dtype, self.offset), mmap=False)
                for start in range(0, self.shape[2], slices):
                    yield proxy[..., start : start + slices]
                while self.compressed and stream.read(_SLAB_BYTES):  # at its end gzip compares the checksum
                    pass
        except (EOFError, OSError, ValueError, zlib.error) as e:
            raise InputError(
                f"{self.path}: is truncated or damaged ({str(e) or 'end of file'}); download it again."
            ) from e

    def labels(self) -> Iterator[np.ndarray]:
        """Yield the values slab by slab, rid of the rounding error that scaling brings: 1.9999999 is 2, 1.5 stays."""
        for stored in self.stored():
            if not self.scaled:
                yield stored
                continue
            values = stored * self.slope + self.inter
            whole = np.rint(values)
            yield np.where(np.abs(values - whole) < 1e-4, whole, values)


def read(path: Path) -> NiftiFile:
    """Read the header of a 3-D NIfTI file; InputError where it is none or holds no real numbers."""
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
        with _opened(path, compressed) as stream:
            head = stream.read(max(_HEADERS))
    except (OSError, EOFError, zlib.error) as e:
        raise InputError(f"{path}: cannot be read ({str(e) or type(e).__name__}).") from e
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
        offset=int(header["vox_offset"]),
        dtype=dtype,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
    )


@contextlib.contextmanager
def _opened(path: Path, compressed: bool) -> Iterator[io.BufferedIOBase]:
    with path.open("rb") as raw:
        yield gzip.GzipFile(fileobj=raw) if compressed else raw


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

    They are its stored numbers, bit for bit, or 8-bit labels where `values` gives the new value of each old one.
    """

    source: NiftiFile
    header: bytes
    compress: bool
    values: Mapping[int, int] | None = None

    def __call__(self, target: Path) -> None:
        slabs = self.source.stored() if self.values is None else map(self._renumbered, self.source.labels())
        with contextlib.ExitStack() as stack:
            stream: io.BufferedIOBase = stack.enter_context(target.open("wb"))
            if self.compress:  # no name and no time inside, so that the same input gives the same bytes
                stream = stack.enter_context(gzip.GzipFile("", "wb", _GZIP_LEVEL, stream, mtime=0))
            stream.write(self.header)
            for slab in slabs:
                stream.write(slab.tobytes(order="F"))  # nibabel writes row by row, which takes gzip 45 % longer

    def _renumbered(self, old: np.ndarray) -> np.ndarray:
        kept = [(before, after) for before, after in (self.values or {}).items() if after]
        # a voxel has one value, so at most one of the terms is not zero
        return functools.reduce(np.bitwise_or, [(old == before) * np.uint8(after) for before, after in kept])
