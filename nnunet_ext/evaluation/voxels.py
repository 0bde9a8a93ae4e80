"""One segmentation file: where it lies in space, by its header, and its voxels, by nnU-Net's readers or faster.

nnU-Net's readers make floats of everything. NIfTI and grey PNG files are mostly read here as what they are stored as:
whole numbers, inflated once, with the checksum compared, which ITK does not do.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.common import grids
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.inflated import Inflated
from nnunet_ext.dataset_conversion import nifti_file

NO_DEPTH = 999  # nnU-Net's spacing of the axis that a 2D image lacks, or so many times its pixels
Reader = type[BaseReaderWriter]
Voxels = tuple[np.ndarray, tuple[float, ...]]
_STORED_AS_READ = (SimpleITKIO, NibabelIO)  # readers that leave the order of voxels as it is stored


class Header(NamedTuple):
    """Size along each axis, and where indices lie in space.

    Args:
        size: in the order of the file format; both files of a case have the same one.
        affine: (axes + 1, axes + 1), index to position in mm; None for pictures.
        spacing: between voxels, along the axes of the array that nnU-Net reads; None for pictures.
    """

    size: tuple[int, ...]
    affine: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None


def header_reader(reader: Reader) -> Callable[[Path], Header] | None:
    """Return what reads headers of nnU-Net's reader's files; None where only reading a file as a whole would tell."""
    return next((read for kind, read in _HEADERS.items() if issubclass(reader, kind)), None)


def reorients(reader: Reader) -> bool:
    """Return whether a reader brings all files into one order of voxels by itself."""
    return issubclass(reader, NibabelIOWithReorient | SimpleITKIOWithReorient)


def read_voxels(file: Path, reader: Reader) -> Voxels:
    """Return the values of a file, (slices, height, width), and the spacing along these axes, as nnU-Net reads them.

    Raises:
        InputError: the file cannot be read, is damaged, or has several channels.
    """
    try:
        if reader in _STORED_AS_READ and file.name.endswith((".nii", ".nii.gz")) and (found := _nifti(file, reader)):
            return found
        if reader is NaturalImage2DIO and file.suffix == ".png" and (found := _grey_png(file)):
            return found
        _check_whole(file)
        with silence():
            array, properties = reader().read_seg(str(file))
    except Exception as e:
        raise InputError(unreadable(file, e)) from e
    if array.shape[0] != 1:
        raise InputError(f"{file} has {array.shape[0]} channels, and a segmentation has one.")
    return array[0], tuple(map(float, properties["spacing"]))


def _nifti(file: Path, reader: Reader) -> Voxels | None:
    """Read a volume of plain numbers; None for other NIfTI files, which nnU-Net's readers may know better."""
    header = _HEADERS[reader](file)
    if len(header.size) != 3 or header.spacing is None:
        return None
    try:
        found = nifti_file.read(file)
    except InputError:
        return None
    if found.scaled or found.version != 1:
        return None
    array = _fast(found) if found.compressed else None
    return np.concatenate(list(found.stored()), axis=-1).T if array is None else array, header.spacing


def _fast(found: nifti_file.NiftiFile) -> np.ndarray | None:
    """Read voxels by ITK, which inflates several times as fast as Python; None unless the file's checksum proves them.

    ITK itself does not compare it, and fills up what is missing without a word.
    """
    with found.path.open("rb") as raw:
        head = io.BufferedReader(Inflated(raw)).read(found.offset)
        raw.seek(-8, io.SEEK_END)
        checksum, size = struct.unpack("<II", raw.read(8))
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(found.path)))
    except RuntimeError:
        return None
    proven = zlib.crc32(array.data, zlib.crc32(head)) == checksum and (len(head) + array.nbytes) % (1 << 32) == size
    return array if proven and array.dtype == found.dtype and array.shape == found.shape[::-1] else None


def _grey_png(file: Path) -> Voxels | None:
    """Read a picture of 8 or 16 bits; None for others."""
    from PIL import Image

    with Image.open(file) as image:
        return (np.asarray(image)[None], (NO_DEPTH, 1.0, 1.0)) if image.mode in ("L", "I;16") else None


def _simpleitk(file: Path) -> Header:
    image = sitk.ImageFileReader()
    image.SetFileName(str(file))
    image.ReadImageInformation()
    sides = image.GetSpacing()
    affine = grids.affine(sides, image.GetDirection(), image.GetOrigin())
    depth = (NO_DEPTH * max(sides),) if len(sides) == 2 else ()
    return Header(image.GetSize(), affine, depth + tuple(sides[::-1]))


def _nibabel(file: Path) -> Header:
    import nibabel

    image: Any = nibabel.load(file)
    sides = tuple(float(side) for side in image.header.get_zooms()[::-1])
    return Header(image.shape, image.affine if image.ndim == 3 else None, sides)


def _picture(file: Path) -> Header:
    from PIL import Image

    if file.suffix == ".tif":
        return _tiff(file)
    with Image.open(file) as image:
        return Header(image.size)


def _tiff(file: Path) -> Header:
    from tifffile import TiffFile

    with TiffFile(file) as tiff:
        return Header(tiff.series[0].shape)


_HEADERS: dict[Reader, Callable[[Path], Header]] = {
    NaturalImage2DIO: _picture,
    SimpleITKIO: _simpleitk,
    NibabelIO: _nibabel,
    NibabelIOWithReorient: _nibabel,
    Tiff3DIO: _tiff,
}


def unreadable(file: Path, error: Exception) -> str:
    """Return in a sentence why a file cannot be read."""
    said = str(error).strip().removeprefix(f"{file}: ").splitlines()
    return f"{file} cannot be read ({said[-1].strip().rstrip('.') if said else type(error).__name__})."


def _check_whole(file: Path) -> None:
    """Raise what gzip does for a truncated or damaged file: ITK fills up what is missing without a word."""
    if file.suffix == ".gz":
        with gzip.open(file) as stream:
            while stream.read(1 << 22):
                pass


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep nnU-Net's readers from printing what is said better here."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
