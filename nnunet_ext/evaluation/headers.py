"""Sizes and positions of image files, from their headers: what can be checked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

_APART = 0.1  # of the smallest voxel side: nearer corners are taken for rounding


class Header(NamedTuple):
    """Size along each axis, and where indices lie in space.

    Args:
        size: in the order of the file format; both files of a case have the same one.
        affine: (axes + 1, axes + 1), index to position in mm; None for pictures.
    """

    size: tuple[int, ...]
    affine: np.ndarray | None = None

    def differences(self, other: Header) -> str:
        """What tells the two apart, in words; empty if nothing does."""
        if self.size != other.size:
            return f"sizes differ, {_by(self.size)} and {_by(other.size)}"
        if self.affine is None or other.affine is None:
            return ""
        corners = np.array([[*corner, 1] for corner in product(*((0, n - 1) for n in self.size))])
        shift = np.linalg.norm((corners @ (self.affine - other.affine).T)[:, :-1], axis=1).max()
        side = np.linalg.norm(other.affine[:-1, :-1], axis=0).min()
        return f"positions in space differ, by up to {shift:.3g} mm" if not shift <= _APART * side else ""


def header_reader(reader: type[BaseReaderWriter]) -> Callable[[Path], Header] | None:
    """How to read headers of the files that an nnU-Net reader reads; None if only reading them as a whole tells.

    Reading raises whatever the library does for a broken file.
    """
    kinds = (
        (NaturalImage2DIO, _picture),
        (SimpleITKIO, _simpleitk),
        (NibabelIO, _nibabel),
        (NibabelIOWithReorient, _nibabel),
        (Tiff3DIO, _tiff),
    )
    return next((read for kind, read in kinds if issubclass(reader, kind)), None)


def _simpleitk(file: Path) -> Header:
    image = sitk.ImageFileReader()
    image.SetFileName(str(file))
    image.ReadImageInformation()
    n = image.GetDimension()
    affine = np.eye(n + 1)
    affine[:n, :n] = np.reshape(image.GetDirection(), (n, n)) * image.GetSpacing()
    affine[:n, n] = image.GetOrigin()
    return Header(image.GetSize(), affine)


def _nibabel(file: Path) -> Header:
    import nibabel

    image = nibabel.load(file)
    return Header(image.shape, image.affine if image.ndim == 3 else None)


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


def _by(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
