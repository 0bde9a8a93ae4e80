"""The slices of a series as one volume: their order, and all that can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.text import count, some
from nnunet_ext.dicom.series import Header, Series

_APART = 0.1  # of a pixel's side, by which a stack may lean; of the slices' distance, by which one may be off
_SAME_DIRECTION = 1e-3  # of direction cosines, which are stored with few digits
_SAME_PLACE = 1e-3  # mm
_SAME_SPACING = 1e-4  # mm


def has_places(series: Series) -> bool:
    """Tell whether each file says where in the patient it is, so that the series is a volume and not pictures."""
    return all(header.position and header.orientation for header in series.headers.values())


def ordered(series: Series) -> tuple[list[Path], np.ndarray]:
    """Return the files of a series in the order of their places, and the affine of the volume, (4, 4), in mm (LPS).

    Raises:
        InputError: slices are missing, twice there, of several directions, sizes or kinds, or not above each other
            (gantry tilt). Stacks that are oblique as a whole are volumes like others.
    """
    problems = list(_mixed(series))
    if problems:
        more = f" ({count(len(problems) - 1, 'file')} more like it)" if problems[1:] else ""
        raise InputError(f"{problems[0].removesuffix('.')}{more}.")
    first = series.first
    x, y = np.array(first.orientation, float).reshape(2, 3)
    normal = np.cross(x, y)
    row, column = first.spacing or (0.0, 0.0)
    off = np.abs([x @ x - 1, y @ y - 1, x @ y]).max()
    if off > _SAME_DIRECTION or row <= 0 or column <= 0:
        raise InputError(f"{_at(series)}: its directions or its pixel spacing are no such numbers.")
    places = {file: np.array(header.position, float) for file, header in series.headers.items()}
    files = sorted(places, key=lambda file: float(places[file] @ normal))
    points = np.array([places[file] for file in files])
    distances = np.diff(points @ normal)
    if problems := list(_gaps(series, files, distances)):
        raise InputError(*problems)
    step = (points[-1] - points[0]) / max(len(files) - 1, 1)
    lean = np.linalg.norm(points - points[0] - np.outer((points - points[0]) @ normal, normal), axis=1).max()
    if lean > _APART * min(row, column):
        raise InputError(
            f"{_at(series)}: its slices are shifted against each other by up to {lean:.3g} mm (gantry tilt), so that "
            "they are no block of voxels.",
            hint="Resample the series to upright slices first, as dcm2niix does.",
        )
    thickness = float(np.linalg.norm(step)) or first.thickness
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
        if header.enhanced:
            yield (
                f"{file} is an enhanced (multi-frame) image, which is not read; export it as single-frame DICOM, or "
                "convert it by dcm2niix."
            )
        elif (header.frames or 1) > 1:
            yield f"{file} has several frames and one place in space: which frame lies where, it does not say."
        elif header.photometric != "MONOCHROME2" or header.samples != 1:
            yield f"{file}: slices of a volume have to be MONOCHROME2; this one is {header.photometric}."
        elif (header.rows, header.columns) != (first.rows, first.columns):
            yield f"{file} has {header.columns}x{header.rows} pixels, {first_file} {first.columns}x{first.rows}."
        elif _differ(header.spacing, first.spacing, _SAME_SPACING):
            yield f"{file} and {first_file} of one series have other pixel spacings."
        elif _differ(header.orientation, first.orientation, _SAME_DIRECTION):
            yield f"{file} and {first_file} of one series lie in other directions, as those of localizers do."


def _differ(one: Sequence[float] | None, other: Sequence[float] | None, by: float) -> bool:
    return one is None or other is None or not np.allclose(one, other, rtol=0, atol=by)


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
    array = np.concatenate([decoded(file, series.headers[file]) for file in files])
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


def decoded(file: Path, header: Header) -> np.ndarray:
    """Return the pixels of a file as GDCM decodes them: (frames, y, x) or (frames, y, x, 3); InputError otherwise.

    Values are rescaled, MONOCHROME1 is inverted (bright is high), and colours are RGB.
    """
    if header.bits == 1 or (header.bits > 16 and "Big Endian" in header.compression):
        raise InputError(f"{file}: {header.bits} bits in {header.compression}, of which GDCM makes wrong values.")
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(file, imageIO="GDCMImageIO"))
    except RuntimeError as e:
        raise InputError(
            f"{file}: its pixels cannot be decoded: the file is cut off or damaged, or {header.compression} is a "
            "compression that GDCM does not know."
        ) from e
    shape = (header.frames or 1, header.rows, header.columns)
    if array.size == 3 * np.prod(shape) and array.dtype == np.uint8:  # palettes become RGB as well
        return array.reshape(*shape, 3)
    if array.size != np.prod(shape):
        raise InputError(
            f"{file}: {array.size} values of {array.dtype}, where {np.prod(shape)}, or colours of 8 bits, fit."
        )
    return array.reshape(shape)
