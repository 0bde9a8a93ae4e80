"""The two files of a case: whether they fit together, by their headers, and their labels as arrays.

nnU-Net's readers read the voxels. Headers are read without them, so that all that is wrong with sizes and positions is
known before anything is computed.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.known_labels import as_labels
from nnunet_ext.evaluation.source import CaseFiles, Source
from nnunet_ext.metrics.definitions import PHYSICAL, PIXELS, PLANAR, Units

_APART = 0.1  # of the smallest voxel side: nearer corners are taken for rounding
_NO_DEPTH = 999  # nnU-Net's spacing of the axis that a 2D image lacks, or so many times its pixels


class Segmentations(NamedTuple):
    """What was read of a case.

    Args:
        prediction, reference: labels (slices, height, width); equal shapes.
        spacing: of the reference, along each of these axes.
        units: of lengths and volumes.
    """

    prediction: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, ...]
    units: Units


@dataclass(frozen=True, kw_only=True)
class CaseReader:
    """Reads and checks the files of cases, all of them in the same way.

    Args:
        reader: nnU-Net's class that reads the files.
        known: all labels that a segmentation may hold.
    """

    reader: type[BaseReaderWriter]
    known: frozenset[int]

    @classmethod
    def of(cls, source: Source) -> CaseReader:
        """Take nnU-Net's choice of a reader, which may depend on what can read the first reference.

        Raises:
            InputError: nnU-Net has no reader for files of this kind.
        """
        with _silence():
            for file in (str(source.cases[0].reference), None):  # a broken one is named later, with all others
                with contextlib.suppress(RuntimeError):
                    reader = determine_reader_writer_from_dataset_json(source.dataset, file, verbose=False)
                    return cls(reader=reader, known=source.structures.known)
        raise InputError(
            f"nnU-Net has no reader for {source.dataset['file_ending']} files.",
            hint='Correct "file_ending" or "overwrite_image_reader_writer" in dataset.json.',
        )

    def check_headers(self, cases: Sequence[CaseFiles], *, geometry: bool = True) -> int:
        """Compare what headers say about sizes and, with `geometry`, about positions in space.

        Returns:
            The number of voxels of all references; 0 if only reading files as a whole would show it.

        Raises:
            InputError: headers that cannot be read or that differ, all of them.
        """
        read = next((read for kind, read in _HEADERS.items() if issubclass(self.reader, kind)), None)
        if read is None:
            return 0
        problems: list[str] = []
        voxels, apart = 0, False
        for files in cases:
            prediction, reference = (_header(read, file, problems) for file in (files.prediction, files.reference))
            if prediction is None or reference is None:
                continue
            voxels += math.prod(reference.size)
            if difference := prediction.differences(reference, geometry=geometry):
                problems.append(f"{files.case}: {difference} (prediction and reference).")
                apart |= prediction.size == reference.size
        if problems:
            hint = "Nothing has been computed."
            raise InputError(*problems, hint=f"{hint} --ignore-geometry compares by index." if apart else hint)
        return voxels

    def read(self, files: CaseFiles) -> Segmentations:
        """Read both files of a case.

        Raises:
            InputError: files that cannot be read, that differ in shape, or that hold labels nobody knows.
        """
        found: list[tuple[np.ndarray, tuple[float, ...]]] = []
        problems: list[str] = []
        for file in (files.prediction, files.reference):
            try:
                found.append(self._read(file))
            except InputError as e:
                problems += e.problems
        if problems:
            raise InputError(*problems)
        (prediction, _), (reference, spacing) = found
        if prediction.shape != reference.shape:
            raise InputError(f"{files.case}: prediction has shape {prediction.shape}, reference {reference.shape}.")
        return Segmentations(prediction, reference, spacing, self._units(reference.shape, spacing, files.reference))

    def _read(self, file: Path) -> tuple[np.ndarray, tuple[float, ...]]:
        """Return the labels of a file, (slices, height, width), and their spacing."""
        try:
            _check_whole(file)
            with _silence():
                array, properties = self.reader().read_seg(str(file))
        except Exception as e:
            raise InputError(_unreadable(file, e)) from e
        if array.shape[0] != 1:
            raise InputError(f"{file} has {array.shape[0]} channels, and a segmentation has one.")
        return as_labels(array[0], self.known, file), tuple(map(float, properties["spacing"]))

    def _units(self, shape: Sequence[int], spacing: Sequence[float], file: Path) -> Units:
        """Return pixels where there is no spacing: for pictures, and for TIFF files without nnU-Net's JSON file.

        nnU-Net makes 2D images volumes of one slice, with a spacing there that means nothing. With pixels of 1 besides,
        which is what formats say that know none, nothing is known of their size.
        """
        if issubclass(self.reader, NaturalImage2DIO):
            return PIXELS
        if issubclass(self.reader, Tiff3DIO):
            return PHYSICAL if file.with_suffix(".json").is_file() else PIXELS
        depth, *sides = spacing
        if shape[0] == 1 and any(np.isclose(depth, none) for none in (_NO_DEPTH, _NO_DEPTH * max(sides))):
            return PIXELS if sides == [1, 1] else PLANAR
        return PHYSICAL


class Header(NamedTuple):
    """Size along each axis, and where indices lie in space.

    Args:
        size: in the order of the file format; both files of a case have the same one.
        affine: (axes + 1, axes + 1), index to position in mm; None for pictures.
    """

    size: tuple[int, ...]
    affine: np.ndarray | None = None

    def differences(self, other: Header, *, geometry: bool = True) -> str:
        """Return in words what tells the two apart, their positions only with `geometry`; empty if nothing does."""
        if self.size != other.size:
            return "sizes differ, {} and {}".format(*("x".join(map(str, header.size)) for header in (self, other)))
        if not geometry or self.affine is None or other.affine is None:
            return ""
        corners = np.array([[*corner, 1] for corner in product(*((0, n - 1) for n in self.size))])
        shift = np.linalg.norm((corners @ (self.affine - other.affine).T)[:, :-1], axis=1).max()
        side = np.linalg.norm(other.affine[:-1, :-1], axis=0).min()
        return "" if shift <= _APART * side else f"positions in space differ, by up to {shift:.3g} mm"


def _header(read: Callable[[Path], Header], file: Path, problems: list[str]) -> Header | None:
    try:
        return read(file)
    except Exception as e:  # noqa: BLE001  (five libraries, each with its own errors)
        problems.append(_unreadable(file, e))
        return None


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

    image: Any = nibabel.load(file)
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


_HEADERS = {
    NaturalImage2DIO: _picture,
    SimpleITKIO: _simpleitk,
    NibabelIO: _nibabel,
    NibabelIOWithReorient: _nibabel,
    Tiff3DIO: _tiff,
}


def _unreadable(file: Path, error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{file} cannot be read ({said[-1].strip() if said else type(error).__name__})."


def _check_whole(file: Path) -> None:
    """Raise what gzip does for a truncated or damaged file: ITK fills up what is missing without a word."""
    if file.suffix == ".gz":
        with gzip.open(file) as stream:
            while stream.read(1 << 22):
                pass


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep nnU-Net's readers from printing what is said better here."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
