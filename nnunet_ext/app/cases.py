"""Which images the page has: their files, and their pixels where no model reads them."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.grids import affine, agree
from nnunet_ext.common.nnunet_files import HIGHEST
from nnunet_ext.common.text import some
from nnunet_ext.dataset_conversion import picture_file
from nnunet_ext.dataset_conversion.itk_volumes import check_compressed

PICTURES = picture_file.ENDINGS
VOLUMES = (".nii.gz", ".nii", ".mha", ".nrrd")


@dataclass(frozen=True)
class Case:
    """An image: the name under which its mask is saved, and the files of its channels."""

    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Pixels:
    """What is shown.

    Args:
        array: (c, z, y, x).
        spacing: the distance of pixels (z, y, x) in mm; None for pictures.
        affine: of a volume that was read here, as ITK has it; else None.
    """

    array: np.ndarray
    spacing: tuple[float, float, float] | None
    affine: np.ndarray | None = None

    @property
    def is_colour(self) -> bool:
        """Whether it is a picture of red, green and blue."""
        return len(self.array) == 3 and self.spacing is None

    @cached_property
    def is_bytes(self) -> bool:
        """Whether all values are whole numbers from 0 to 255."""
        array = self.array
        return bool(((array >= 0) & (array <= 255) & (array == np.rint(array))).all())

    def plane(self, z: int) -> bytes:
        """Return a slice: float32 or, where all are `is_bytes`, bytes; three per pixel of a picture in colours."""
        plane = self.array[:, z] if self.is_colour else self.array[:1, z]
        kind = np.uint8 if self.is_bytes else np.dtype("<f4")
        return np.ascontiguousarray(np.moveaxis(plane, 0, -1)).astype(kind).tobytes()


def find_cases(source: Path) -> list[Case]:
    """Return the images of a folder, or the one that a file is.

    Files that are called as nnU-Net calls them (``NAME_0000.png``) are the channels of cases; others are a case each.

    Raises:
        InputError: there are none, or two would be saved under one name.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist.")
    files = [source] if source.is_file() else sorted(file for file in source.iterdir() if not file.is_dir())
    found: dict[str, list[Path]] = {}
    endings: dict[str, set[str]] = {}
    for file in files:
        ending = ending_of(file)
        if not ending or file.name.startswith("."):
            continue
        stem = file.name[: -len(ending)]
        channel = re.fullmatch(r"(.+)_\d{4}", stem)
        name = channel[1] if channel else stem
        found.setdefault(name, []).append(file)
        endings.setdefault(name, set()).add(ending + ("" if channel else " alone"))
    if not found:
        kinds = ", ".join(PICTURES + VOLUMES)
        raise InputError(f"{source} has no images ({kinds}, or DICOM).", hint="Name a folder or a file with -i.")
    twice = [name for name, of in endings.items() if len(of) > 1]
    if twice:
        raise InputError(f"{source}: several images would be saved under one name: {some(twice)}.")
    return [Case(name, tuple(of)) for name, of in found.items()]


def ending_of(file: Path) -> str:
    """Return the ending of an image's name as it is written, empty for other files."""
    known = next((e for e in PICTURES + VOLUMES if file.name.lower().endswith(e)), "")
    return file.name[-len(known) :] if known else ""


def read_pixels(case: Case) -> Pixels:
    """Read the first channel of a case as it lies in its file.

    Raises:
        InputError: it cannot be read.
    """
    file = case.files[0]
    if ending_of(file).lower() in PICTURES:
        picture = np.asarray(picture_file.read(file))
        planes = np.moveaxis(picture[..., :3], -1, 0) if picture.ndim == 3 else picture[None]
        return Pixels(planes[:, None], None)
    image = _read(file)
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"{file} has several values in each voxel, which are not shown.")
    spacing = [*image.GetSpacing(), 1.0][:3]
    return Pixels(array.reshape(1, -1, *array.shape[-2:]), (spacing[2], spacing[1], spacing[0]), _affine(image))


def read_labels(folder: Path, case: Case, shown: Pixels) -> np.ndarray | None:
    """Read a segmentation of a case from a folder: (z, y, x) as the image, uint16; None where there is none.

    Raises:
        InputError: it cannot be read, holds anything but labels, or does not lie on the image.
    """
    files = [f for e in PICTURES + VOLUMES for f in (folder / f"{case.name}{e}",) if f.is_file()]
    if not files:
        return None
    if len(files) > 1:
        raise InputError(f"{folder} has several segmentations of {case.name}: {some([f.name for f in files])}.")
    [file] = files
    image = _read(file)
    labels = sitk.GetArrayFromImage(image)
    whole = np.clip(np.rint(labels.astype(np.float64)), 0, HIGHEST)
    if image.GetNumberOfComponentsPerPixel() > 1 or not np.array_equal(labels, whole):
        raise InputError(f"{file} holds something else than labels.")
    mask = whole.reshape(-1, *labels.shape[-2:]).astype(np.uint16)
    if mask.shape != shown.array.shape[1:]:
        shapes = ("x".join(map(str, of[::-1])) for of in (mask.shape, shown.array.shape[1:]))
        raise InputError("{} has {} pixels or voxels, the image {}.".format(file, *shapes))
    if shown.affine is not None:
        own = _affine(image)
        if own.shape != shown.affine.shape or not agree(own, shown.affine, image.GetSize()):
            raise InputError(f"{file} and {case.files[0]} lie in different places in space.")
    return mask


def _read(file: Path) -> sitk.Image:
    try:
        check_compressed(file)
        return sitk.ReadImage(file)
    except (OSError, EOFError, RuntimeError, zlib.error) as e:
        raise InputError(f"{file} cannot be read ({str(e).strip().splitlines()[-1]}).") from e


def _affine(image: sitk.Image) -> np.ndarray:
    return affine(image.GetSpacing(), image.GetDirection(), image.GetOrigin())
