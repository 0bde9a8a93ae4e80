"""NIfTI headers: what a file says it holds, and what nnU-Net's reader will make of it."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion.voxels import Voxels

NII, NII_GZ = (".nii", ".nii.gz")
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}


@dataclass(frozen=True, kw_only=True)
class NiftiFile:
    """One NIfTI file whose header has been read; `voxels` says how to read the rest.

    `header` is always NIfTI-1 (what nnU-Net's reader understands); `version` says what the file itself is.
    """

    path: Path
    header: nib.Nifti1Header
    version: int
    shape: tuple[int, ...]
    voxels: Voxels

    @property
    def ending(self) -> str:
        """The ending that fits the content, whatever the file is called."""
        return NII_GZ if self.voxels.compressed else NII


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
    voxels = Voxels(
        path=path,
        compressed=compressed,
        offset=int(header["vox_offset"]),
        dtype=dtype,
        count=int(np.prod(shape, dtype=np.int64)),
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
    )
    return NiftiFile(path=path, header=_as_nifti1(header), version=version, shape=shape, voxels=voxels)


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


def header_bytes(header: nib.Nifti1Header) -> bytes:
    """What a single-file NIfTI-1 starts with: this header, no extensions, voxels at byte 352."""
    header = header.copy()
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return header.binaryblock + bytes(4)


def label_header(image_header: nib.Nifti1Header, shape: tuple[int, ...]) -> nib.Nifti1Header:
    """An 8-bit label map's header in exactly the place of the volume."""
    header = image_header.as_byteswapped("<")
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    for field in ("cal_min", "cal_max", "glmin", "glmax"):
        header[field] = 0
    header["descrip"] = header["aux_file"] = b""
    return header
