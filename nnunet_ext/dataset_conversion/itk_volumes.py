"""Volumes in any of SimpleITK's formats, with one or several masks each; written as NIfTI where that is needed.

NIfTI with one mask goes the way of `nifti`, which need not rewrite it. All else is read whole and written anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.grids import reordering
from nnunet_ext.common.inflated import MAGIC, Inflated
from nnunet_ext.common.text import some
from nnunet_ext.dataset_conversion.nifti import Volumes
from nnunet_ext.dataset_conversion.nifti_file import NII_GZ
from nnunet_ext.dataset_conversion.nifti_space import NO_SIZE, Geometry
from nnunet_ext.dataset_conversion.types import Case, Checked, ImageFormat, OutputFile, SourceError

_GZIPPED_IMAGE, _GZIPPED_LABEL = 0.6, 0.05  # of the voxels' bytes, on the safe side
_BLOCK, _LONGEST_LINE = 1 << 19, 1 << 16
_COMPRESSED = ((b"encoding", b"gzip"), (b"encoding", b"gz"), (b"compresseddata", b"true"))  # of NRRD and of MetaImage
_BYTES_PER_SECOND = 3e7  # read, compressed and written on one core, for sharing out work


class AnyVolumes(ImageFormat):
    """The format of 3D images with one or several masks each; `verify` as in `Volumes`."""

    image_io = Volumes.image_io
    packages = Volumes.packages
    unites = True

    def __init__(self, *, verify: bool = False) -> None:
        self._nifti = Volumes(verify=verify)

    def check(self, case: Case, values: Mapping[int, int]) -> tuple[Checked | None, list[str]]:
        paths = [case.image, *case.masks]
        if len(case.masks) == 1 and all(path.name.lower().endswith((".nii", NII_GZ)) for path in paths):
            return self._nifti.check(case, values)
        try:
            image = read(case.image)
            label, repairs = united(case.masks, image, case.image, values)
        except InputError as e:
            return None, list(e.problems)
        if not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
            return None, [f"{case.image}: some voxels are NaN or infinite; replace them."]
        checked = CheckedItkVolume(
            case=case,
            marked=int(np.count_nonzero(label)),
            repairs=tuple(repairs),
            doubts=(NO_SIZE,) if Geometry.of(image).is_identity else (),
            ending=NII_GZ,
            size=image.GetSize(),
            bytes=image.GetNumberOfPixels() * image.GetSizeOfPixelComponent(),
        )
        return checked, []


@dataclass(frozen=True, kw_only=True)
class CheckedItkVolume(Checked):
    """A case that can be converted; `bytes` are those of the image's voxels."""

    bytes: int

    def image_file(self, target: str) -> OutputFile:
        recipe = WriteItkVolume(image=self.case.image)
        return self._written(target, (self.case.image,), recipe, _GZIPPED_IMAGE)

    def label_file(self, target: str, values: Mapping[int, int]) -> OutputFile:
        recipe = WriteItkLabel(image=self.case.image, masks=self.case.masks, values=values)
        return self._written(target, self.case.masks or (self.case.image,), recipe, _GZIPPED_LABEL)

    def _written(
        self, target: str, sources: tuple[Path, ...], recipe: WriteItkVolume | WriteItkLabel, gzipped: float
    ) -> OutputFile:
        return OutputFile(
            target=target,
            sources=sources,
            recipe=recipe,
            estimate=int(self.bytes * gzipped),
            seconds=self.bytes / _BYTES_PER_SECOND,
        )


def read(path: Path) -> sitk.Image:
    """Read a volume; InputError where it is damaged or anything but 3D with one value per voxel."""
    try:
        check_compressed(path)
        image = sitk.ReadImage(path)
    except (OSError, EOFError, RuntimeError, zlib.error) as e:
        reason = str(e).strip().splitlines()[-1]
        raise SourceError(f"{path}: cannot be read or is damaged ({reason}); download it again.", path=path) from e
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = " x ".join(map(str, image.GetSize()))
        raise InputError(
            f"{path}: is {shape} with {image.GetNumberOfComponentsPerPixel()} values each; only 3D volumes of one "
            "value per voxel can be converted."
        )
    return image


def check_compressed(path: Path) -> None:
    """Compare the checksum of what is compressed in a file; zlib.error or EOFError where it is not right.

    Without a word ITK reads wrong voxels from a .mha file in which a byte has flipped, and from a .nii.gz file that is
    cut off. Voxels in a file of their own are not looked at.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(0)
        if start.startswith(MAGIC) or _reads_up_to_compressed(stream, nrrd=start == b"NRRD"):
            content = Inflated(stream)
            while content.read(_BLOCK):
                pass


def _reads_up_to_compressed(stream: BinaryIO, *, nrrd: bool) -> bool:
    """Read the header of an NRRD or MetaImage file; tell whether compressed voxels follow."""
    compressed = False
    for line in iter(lambda: stream.readline(_LONGEST_LINE), b""):
        name, _, value = (part.strip().lower() for part in line.partition(b":" if nrrd else b"="))
        compressed |= (name, value) in _COMPRESSED
        if nrrd and not line.strip():
            return compressed
        if name == b"elementdatafile":
            return compressed and value == b"local"
        if name in (b"data file", b"datafile") or not line.isascii():
            return False  # elsewhere, or no header in lines
    return False


def united(
    masks: Sequence[Path], image: sitk.Image, image_path: Path, values: Mapping[int, int]
) -> tuple[np.ndarray, list[str]]:
    """Return the label map of all masks of an image, uint8 (z, y, x), numbered as in the dataset, and repairs.

    A mask on the image's grid that is stored in another order of voxels is put into the image's.

    Raises:
        InputError: a mask lies elsewhere than the image or holds other values, or two give a voxel different ones.
    """
    label = np.zeros(image.GetSize()[::-1], np.uint8)
    problems: list[str] = []
    repairs: list[str] = []
    for path in masks:
        try:
            mask = read(path)
        except InputError as e:
            problems += e.problems
            continue
        places = [(Geometry.of(volume).affine, volume.GetSize()) for volume in (mask, image)]
        order = reordering(*places[0], *places[1])  # of axes in ITK's order, of which numpy's is the reverse
        if order is None:
            problems.append(
                f"{path}: is not on the grid of {image_path} (size, spacing, origin, direction); resample it."
            )
            continue
        if not order.nothing:
            repairs.append(f"{path}: voxels were stored in another order than the image's ({order}): put into that")
        array = order(sitk.GetArrayViewFromImage(mask).T).T
        found = np.unique(array)
        if strange := [value for value in found.tolist() if value not in values]:
            known = ", ".join(map(str, values))
            problems.append(f"{path}: holds {some(strange)}, where {known} are known; say with --labels what is what.")
            continue
        for value in found.tolist():
            where = (array == value) & (values[value] > 0)
            if np.any(label[where] != 0) and np.any(label[where] != values[value]):
                problems.append(f"{path}: marks voxels that another mask of the image gives another label.")
            label[where] = values[value]
    if problems:
        raise InputError(*problems)
    return label, repairs


@dataclass(frozen=True, kw_only=True)
class WriteItkVolume:
    """Writes a volume as compressed NIfTI."""

    image: Path

    def __call__(self, target: Path) -> None:
        write_gzipped(read(self.image), target)


@dataclass(frozen=True, kw_only=True)
class WriteItkLabel:
    """Writes the label map of all masks of an image, where the image lies, as compressed NIfTI."""

    image: Path
    masks: tuple[Path, ...]
    values: Mapping[int, int]

    def __call__(self, target: Path) -> None:
        image = read(self.image)
        array, _ = united(self.masks, image, self.image, self.values)
        label = sitk.GetImageFromArray(array)
        label.CopyInformation(image)
        write_gzipped(label, target)


def write_gzipped(image: sitk.Image, target: Path) -> None:
    named = target.with_name(target.name + NII_GZ)  # the format goes by the ending
    try:
        sitk.WriteImage(image, named, useCompression=True)
        named.replace(target)
    finally:
        named.unlink(missing_ok=True)
