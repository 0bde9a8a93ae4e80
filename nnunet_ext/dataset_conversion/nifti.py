"""NIfTI volumes as a format: what is wrong with a case's files, what of it is put right, what is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.grids import Reordering
from nnunet_ext.common.text import some
from nnunet_ext.dataset_conversion.nifti_file import (
    NII_GZ,
    NiftiFile,
    WriteVolume,
    header_bytes,
    label_header,
    read,
)
from nnunet_ext.dataset_conversion.nifti_space import Agreement, Place, locate, reconcile
from nnunet_ext.dataset_conversion.types import Case, Checked, ImageFormat, OutputFile

# what gzip level 1 leaves of an uncompressed file, on the safe side
_GZIPPED_IMAGE, _GZIPPED_LABEL = 0.6, 0.05
# voxel bytes per second on one core, for sharing out work: a plain file, decompression, compression
_PLAIN, _GUNZIP, _GZIP = 1e9, 3e8, 1e8


class Volumes(ImageFormat):
    """The format of 3-D images with one segmentation each; `verify` reads every byte, for the checksum in gzip."""

    image_io = "SimpleITKIO"  # for .nii too, which nnU-Net would read with nibabel: one notion of space
    packages = ("nnunetv2", "numpy", "nibabel", "SimpleITK")
    unites = False

    def __init__(self, *, verify: bool = False) -> None:
        self._verify = verify

    def check(self, case: Case, values: Mapping[int, int]) -> tuple[CheckedVolume | None, list[str]]:
        faults: list[str] = []
        image, label, found = None, None, None
        try:
            image = check_image(read(case.image), verify=self._verify)
            found = Agreement(header=image.place.header, doubts=image.place.all_doubts)
        except InputError as e:
            faults += e.problems
        try:
            if case.masks:
                label_file = read(case.masks[0])
                if image and (found := fit(image, label_file)) is None:
                    sizes = [" x ".join(map(str, f.shape)) for f in (image.file, label_file)]
                    faults.append(
                        f"{image.file.path} is {sizes[0]} voxels, but {label_file.path} is {sizes[1]}; they must agree."
                    )
                label = check_label(label_file, values)
        except InputError as e:
            faults += e.problems
        if not image or not found or faults:
            return None, faults
        image = replace(image, repairs=(*image.repairs, *found.image_repairs))
        label = label and replace(label, repairs=(*label.repairs, *found.label_repairs))
        parts: list[Volume | Segmentation] = [image, label] if label else [image]
        checked = CheckedVolume(
            case=case,
            marked=sum(count for value, count in label.counts.items() if value) if label else 0,
            repairs=tuple(f"{part.file.path}: {repair}" for part in parts for repair in part.repairs),
            doubts=found.doubts,
            ending=image.file.ending,
            size=image.file.shape,
            image=image,
            label=label,
            header=found.header,
            reordering=found.reordering,
        )
        return checked, []


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume that can be used; `repairs` says what writing it anew puts right."""

    file: NiftiFile
    repairs: tuple[str, ...]
    place: Place


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A segmentation that can be used; `counts` are its voxels per value."""

    file: NiftiFile
    repairs: tuple[str, ...]
    counts: Mapping[int, int]


@dataclass(frozen=True, kw_only=True)
class CheckedVolume(Checked):
    """A case that can be converted.

    Attributes:
        label: None where it has no segmentation.
        header: what stands in front of the volume's voxels, once it is repaired, and says where both lie.
        reordering: brings the segmentation's voxels into the volume's order.
    """

    image: Volume
    label: Segmentation | None
    header: nib.Nifti1Header
    reordering: Reordering | None

    def image_file(self, target: str) -> OutputFile:
        image, record = self.image, {"repairs": list(self.image.repairs)}
        if not image.repairs and target.endswith(image.file.ending):
            return OutputFile.unchanged(image.file.path, target, record=record)
        recipe = WriteVolume(source=image.file, header=header_bytes(self.header), compress=target.endswith(NII_GZ))
        return _written(recipe, target, record, image.file.size, _GZIPPED_IMAGE)

    def label_file(self, target: str, values: Mapping[int, int]) -> OutputFile:
        label = self.label
        assert label is not None
        record = {"repairs": list(label.repairs), "source_voxels": {str(v): n for v, n in label.counts.items()}}
        same_values = not label.file.scaled and all(old == new or not label.counts[old] for old, new in values.items())
        if same_values and not label.repairs and target.endswith(label.file.ending):
            return OutputFile.unchanged(label.file.path, target, share=False, record=record)
        recipe = WriteVolume(
            source=label.file,
            header=header_bytes(label_header(self.header, self.image.file.shape)),
            compress=target.endswith(NII_GZ),
            values=values,
            reordering=self.reordering,
        )
        return _written(recipe, target, record, label.file.voxels, _GZIPPED_LABEL)


def _written(recipe: WriteVolume, target: str, record: dict[str, Any], voxel_bytes: int, gzipped: float) -> OutputFile:
    size = len(recipe.header) + voxel_bytes
    return OutputFile(
        target=target,
        sources=(recipe.source.path,),
        recipe=recipe,
        seconds=voxel_bytes * (1 / _PLAIN + recipe.source.compressed / _GUNZIP + recipe.compress / _GZIP),
        size=None if recipe.compress else size,
        estimate=int(size * gzipped) if recipe.compress else size,
        record=record,
    )


def check_image(file: NiftiFile, *, verify: bool) -> Volume:
    """Check length, place in space and, of floats, finiteness; InputError where nothing can be put right."""
    floats = file.dtype.kind == "f"  # are read below anyway
    repairs = [*file.repairs(), *file.check_whole(verify=verify and not floats)]
    if floats:
        bad = sum(slab.size - int(np.count_nonzero(np.isfinite(slab))) for slab in file.stored())
        if bad:
            raise InputError(
                f"{file.path}: {bad:,} voxels are NaN or infinite; replace them by a HU value such as -1024."
            )
    place = locate(file.header, file.shape)
    if place is None:
        raise InputError(f"{file.path}: its header has no usable orientation or spacing; set a valid sform.")
    return Volume(file=file, repairs=(*repairs, *place.repairs), place=place)


def fit(image: Volume, label: NiftiFile) -> Agreement | None:
    """Return how a segmentation goes with its volume; None where their shapes do not."""
    place = locate(label.header, label.shape)
    found = reconcile(image.place, place, label.shape)
    repairs = place.repairs if place else ()
    return found and replace(found, label_repairs=(*repairs, *found.label_repairs))


def check_label(file: NiftiFile, allowed: Collection[int]) -> Segmentation:
    """Check every voxel's value; InputError naming those that are not allowed."""
    repairs = [*file.repairs(), *file.check_whole()]
    counts, rounded = _count_labels(file, allowed)
    if rounded:
        repairs.append(f"{rounded:,} voxels were not quite whole numbers: rounded")
    return Segmentation(file=file, repairs=tuple(repairs), counts=counts)


def _count_labels(file: NiftiFile, allowed: Collection[int]) -> tuple[dict[int, int], int]:
    """Return voxels per label and how many had to be rounded; InputError naming values that are not allowed.

    Comparing with each allowed value and counting is several times faster than a histogram: numpy does it without
    widening the stored type.
    """
    counts = dict.fromkeys(sorted(allowed), 0)
    unexpected: set[Any] = set()
    rounded = 0
    for values, stored in file.labels():
        nonzero = int(np.count_nonzero(values))
        found = {v: int(np.count_nonzero(values == v)) if nonzero else 0 for v in counts if v}
        found[0] = values.size - nonzero
        if sum(found.values()) != values.size:
            strange = np.unique(values[~np.isin(values, list(counts))])
            unexpected.update(strange[:5])
        rounded += 0 if stored is values else int(np.count_nonzero(values != stored))
        for value, count in found.items():
            counts[value] += count
    if unexpected:
        shown = some(map(_exactly, sorted(unexpected)), 5)
        raise InputError(f"{file.path}: holds label {shown}; only {', '.join(map(str, counts))} are allowed.")
    return counts, rounded


def _exactly(value: np.number[Any]) -> str:
    """Return a value so that it does not look like another one: 1.004 and 1.00001 are not 1."""
    return f"{value:g}" if float(f"{value:g}") == value else str(value)
