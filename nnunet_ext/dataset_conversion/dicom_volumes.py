"""Volumes and their masks as folders of DICOM slices, one folder per structure; written as compressed NIfTI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.grids import reordering
from nnunet_ext.dataset_conversion.itk_volumes import write_gzipped
from nnunet_ext.dataset_conversion.nifti_file import NII_GZ
from nnunet_ext.dataset_conversion.nifti_space import Geometry
from nnunet_ext.dataset_conversion.types import Case, Checked, ImageFormat, OutputFile
from nnunet_ext.dicom.series import Series, scan
from nnunet_ext.dicom.stack import decoded, has_places, read_volume

BY_NUMBER = (
    "masks do not say where in the patient they lie; they were matched with the images by instance number. "
    "Look at some before training"
)
_GZIPPED_IMAGE, _GZIPPED_LABEL = 0.6, 0.05  # of the voxels' bytes, on the safe side
_BYTES_PER_SECOND = 2e7  # decoded, compressed and written on one core, for sharing out work


class DicomVolumes(ImageFormat):
    """The format of folders of DICOM slices: a case's image and each of its masks is the folder of the file named.

    Args:
        number: returns the value that a voxel gets by a folder of masks; higher ones win where masks overlap.
    """

    image_io = "SimpleITKIO"
    packages = ("nnunetv2", "numpy", "SimpleITK", "pydicom")
    unites = True

    def __init__(self, number: Callable[[Path], int]) -> None:
        self._number = number

    def check(self, case: Case, values: Mapping[int, int]) -> tuple[Checked | None, list[str]]:
        masks = {path.parent: self._number(path.parent) for path in case.masks}
        try:
            image, series, files = _volume(case.image.parent)
            label, by_number = united(masks, image, series, files, values)
        except InputError as e:
            return None, list(e.problems)
        checked = CheckedDicomVolume(
            case=case,
            marked=int(np.count_nonzero(label)),
            repairs=(),
            doubts=(BY_NUMBER,) if by_number else (),
            ending=NII_GZ,
            size=image.GetSize(),
            bytes=image.GetNumberOfPixels() * image.GetSizeOfPixelComponent(),
            files=tuple(files),
            masks=masks,
        )
        return checked, []


@dataclass(frozen=True, kw_only=True)
class CheckedDicomVolume(Checked):
    """A case that can be converted; `bytes` are those of the image's voxels, `files` its slices."""

    bytes: int
    files: tuple[Path, ...]
    masks: Mapping[Path, int]

    def image_file(self, target: str) -> OutputFile:
        recipe = WriteDicomVolume(image=self.case.image.parent)
        return self._written(target, self.files, recipe, _GZIPPED_IMAGE)

    def label_file(self, target: str, values: Mapping[int, int]) -> OutputFile:
        recipe = WriteDicomLabel(image=self.case.image.parent, masks=tuple(self.masks.items()), values=values)
        return self._written(target, (*self.case.masks, *self.files), recipe, _GZIPPED_LABEL)

    def _written(
        self, target: str, sources: tuple[Path, ...], recipe: WriteDicomVolume | WriteDicomLabel, gzipped: float
    ) -> OutputFile:
        return OutputFile(
            target=target,
            sources=sources,
            recipe=recipe,
            estimate=int(self.bytes * gzipped),
            seconds=self.bytes / _BYTES_PER_SECOND,
        )


def _only_series(folder: Path) -> Series:
    found = scan(folder).series
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} series of images, where one is expected.")
    return found[0]


def _volume(folder: Path) -> tuple[sitk.Image, Series, list[Path]]:
    """Return the volume of a folder, its headers and its files in slice order."""
    series = _only_series(folder)
    if not has_places(series):
        raise InputError(f"{folder}: its slices do not say where in the patient they lie (ImagePositionPatient).")
    image, files = read_volume(series)
    return image, series, files


def united(
    masks: Mapping[Path, int], image: sitk.Image, series: Series, files: Sequence[Path], values: Mapping[int, int]
) -> tuple[np.ndarray, bool]:
    """Return the label map of an image, uint8 (z, y, x), and whether masks were matched by instance number.

    Args:
        masks: the value that each folder of mask slices stands for, before `values` map it to the dataset's.
        image: the volume of `series`, whose slices are `files`.

    Raises:
        InputError: a mask lies elsewhere than the image, or holds more than nothing and one value.
    """
    label = np.zeros(image.GetSize()[::-1], np.uint8)
    problems: list[str] = []
    by_number = False
    for folder, number in sorted(masks.items(), key=lambda item: item[1]):
        try:
            mask = _only_series(folder)
            if has_places(mask):
                array = _in_place(folder, read_volume(mask)[0], image)
            else:
                array, by_number = _by_number(folder, mask, series, files), True
            if array.shape != label.shape:
                raise InputError(f"{folder} has other pixels than the image.")
            if len(found := np.unique(array)) > 2 or not {0}.issuperset(found[:1].tolist()):
                raise InputError(f"{folder}: a mask holds 0 and one other value; this one {found[:5].tolist()}.")
            label[array > 0] = number
        except InputError as e:
            problems += e.problems
    if problems:
        raise InputError(*problems)
    table = np.array([values[i] for i in range(max(values) + 1)], np.uint8)
    return table[label], by_number


def _in_place(folder: Path, mask: sitk.Image, image: sitk.Image) -> np.ndarray:
    places = [(Geometry.of(volume).affine, volume.GetSize()) for volume in (mask, image)]
    order = reordering(*places[0], *places[1])
    if order is None:
        raise InputError(f"{folder} does not lie where the image's slices do.")
    return order(sitk.GetArrayFromImage(mask).T).T


def _by_number(folder: Path, mask: Series, series: Series, files: Sequence[Path]) -> np.ndarray:
    """Return the slices of a mask without places in the image's order, by their instance numbers."""
    wanted = [series.headers[file].number for file in files]
    there = {header.number: file for file, header in mask.headers.items()}
    if len(there) != len(mask.headers) or None in there or len(set(wanted)) != len(wanted) or set(wanted) != set(there):
        raise InputError(f"{folder}: its slices have neither places nor the instance numbers of the image's.")
    return np.concatenate([decoded(there[n], mask.headers[there[n]]) for n in wanted])


@dataclass(frozen=True, kw_only=True)
class WriteDicomVolume:
    """Writes a folder of slices as compressed NIfTI."""

    image: Path

    def __call__(self, target: Path) -> None:
        write_gzipped(_volume(self.image)[0], target)


@dataclass(frozen=True, kw_only=True)
class WriteDicomLabel:
    """Writes the label map of all masks of an image, where the image lies, as compressed NIfTI."""

    image: Path
    masks: tuple[tuple[Path, int], ...]
    values: Mapping[int, int]

    def __call__(self, target: Path) -> None:
        image, series, files = _volume(self.image)
        array, _ = united(dict(self.masks), image, series, files, self.values)
        label = sitk.GetImageFromArray(array)
        label.CopyInformation(image)
        write_gzipped(label, target)
