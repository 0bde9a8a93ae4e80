"""The slices of a series as one volume: their order, and all that can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.text import some
from nnunet_ext.dicom.series import Series, vector

_APART = 0.1  # of a pixel's side, by which a stack may lean; of the slices' distance, by which one may be off
_SAME_DIRECTION = 1e-3  # of direction cosines, which are stored with few digits
_SAME_PLACE = 1e-3  # mm


def has_places(series: Series) -> bool:
    """Tell whether each file says where in the patient it is, so that the series is a volume and not pictures."""
    return all(
        vector(header, "ImagePositionPatient", 3) and vector(header, "ImageOrientationPatient", 6)
        for header in series.headers.values()
    )


def ordered(series: Series) -> tuple[list[Path], np.ndarray]:
    """Return the files of a series in the order of their places, and the affine of the volume, (4, 4), in mm (LPS).

    Raises:
        InputError: slices are missing, twice there, of several directions, sizes or kinds, or not above each other
            (gantry tilt). Stacks that are oblique as a whole are volumes like others.
    """
    problems = list(_mixed(series))
    if problems:
        raise InputError(*problems)
    first = series.first
    x, y = np.array(vector(first, "ImageOrientationPatient", 6), float).reshape(2, 3)
    normal = np.cross(x, y)
    row, column = vector(first, "PixelSpacing", 2) or (0.0, 0.0)
    if abs(np.linalg.norm(normal) - 1) > _SAME_DIRECTION or not (0 < row < np.inf and 0 < column < np.inf):
        raise InputError(f"{_at(series)}: its directions or its pixel spacing are no such numbers.")
    places = {file: np.array(vector(h, "ImagePositionPatient", 3)) for file, h in series.headers.items()}
    files = sorted(places, key=lambda file: float(places[file] @ normal))
    points = np.array([places[file] for file in files])
    distances = np.diff(points @ normal)
    problems += _gaps(series, files, distances)
    if problems:
        raise InputError(*problems)
    step = (points[-1] - points[0]) / max(len(files) - 1, 1)
    lean = np.linalg.norm(points - points[0] - np.outer((points - points[0]) @ normal, normal), axis=1).max()
    if lean > _APART * min(row, column):
        raise InputError(
            f"{_at(series)}: its slices are shifted against each other by up to {lean:.3g} mm (gantry tilt), so that "
            "they are no block of voxels.",
            hint="Resample the series to upright slices first, as dcm2niix does.",
        )
    thickness = float(np.linalg.norm(step)) or float(first.get("SliceThickness") or 0)
    if not thickness > 0:
        raise InputError(f"{_at(series)}: a single slice without a slice thickness has no size in space.")
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([x * column, y * row, normal * thickness])
    affine[:3, 3] = points[0]
    return files, affine


def _mixed(series: Series) -> Iterator[str]:
    """Yield what keeps the files from being slices of one volume."""
    headers = series.headers
    first_file, first = next(iter(headers.items()))
    for file, header in headers.items():
        if "SharedFunctionalGroupsSequence" in header:
            yield (
                f"{file} is an enhanced (multi-frame) image, which is not read; export it as single-frame DICOM, or "
                "convert it by dcm2niix."
            )
        elif int(header.get("NumberOfFrames") or 1) > 1:
            yield f"{file} has several frames and one place in space: which frame lies where, it does not say."
        elif header.get("PhotometricInterpretation") != "MONOCHROME2":
            kind = header.get("PhotometricInterpretation")
            yield f"{file}: slices of a volume have to be MONOCHROME2; this one is {kind}."
        elif (header.Rows, header.Columns) != (first.Rows, first.Columns):
            yield f"{file} has {header.Columns}x{header.Rows} pixels, {first_file} {first.Columns}x{first.Rows}."
        elif _differ(header, first, "PixelSpacing", 2, 1e-4):
            yield f"{file} and {first_file} of one series have other pixel spacings."
        elif _differ(header, first, "ImageOrientationPatient", 6, _SAME_DIRECTION):
            yield f"{file} and {first_file} of one series lie in other directions, as those of localizers do."


def _differ(one: Any, other: Any, keyword: str, length: int, by: float) -> bool:
    a, b = vector(one, keyword, length), vector(other, keyword, length)
    return a is None or b is None or not np.allclose(a, b, rtol=0, atol=by)


def _gaps(series: Series, files: Sequence[Path], distances: np.ndarray) -> Iterator[str]:
    """Yield where slices are twice there, or missing."""
    if not len(distances):
        return
    twice = [f"{files[i]} and {files[i + 1]}" for i in np.flatnonzero(distances < _SAME_PLACE).tolist()]
    if twice:
        yield (
            f"{_at(series)}: two slices at one place ({some(twice, 2)}), as in series of several phases or echoes; "
            "export each as a series of its own."
        )
        return
    usual = float(np.median(distances))
    for i in np.flatnonzero(np.abs(distances - usual) > _APART * usual).tolist():
        yield (
            f"{_at(series)}: {distances[i]:.3g} mm between {files[i].name} and {files[i + 1].name}, where "
            f"{usual:.3g} mm is usual: slices are missing or of uneven distance."
        )


def _at(series: Series) -> str:
    """Return where a series is, for messages."""
    return f"{next(iter(series.headers)).parent} (series {series.name})"


def read_volume(series: Series) -> tuple[sitk.Image, list[Path]]:
    """Read a series as a volume: values after the modality's rescale (HU in CT), and its files in slice order.

    Each slice is rescaled by its own slope and intercept. Whole numbers are stored as int16 or int32, others as
    float32. Raises InputError as `ordered` does, or where pixels cannot be decoded.
    """
    files, affine = ordered(series)
    slices = [decoded(file, series.headers[file]) for file in files]
    array = np.stack([a.reshape(a.shape[-2:]) for a in slices])
    if array.dtype.kind in "iuf" and np.isfinite(array).all() and (array == np.rint(array)).all():
        small = np.abs(array).max(initial=0) < 1 << 15
        array = array.astype(np.int16 if small else np.int32)
    else:
        array = array.astype(np.float32)
    image = sitk.GetImageFromArray(array)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image, files


def decoded(file: Path, header: Any) -> np.ndarray:
    """Return the pixels of a file as GDCM decodes them: (frames, y, x) or (frames, y, x, 3); InputError otherwise.

    Values are rescaled, MONOCHROME1 is inverted (bright is high), and colours are RGB.
    """
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(file, imageIO="GDCMImageIO"))
    except RuntimeError as e:
        syntax = header.file_meta.TransferSyntaxUID
        raise InputError(
            f"{file}: its pixels cannot be decoded: the file is cut off or damaged, or {syntax.name} is a compression "
            "that GDCM does not know."
        ) from e
