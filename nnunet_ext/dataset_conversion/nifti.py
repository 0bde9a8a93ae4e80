"""NIfTI volumes as a format: what is wrong with a case's files, what of it is put right, what is written."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.text import some
from nnunet_ext.dataset_conversion.nifti_file import (
    NII_GZ,
    NiftiFile,
    WriteVolume,
    header_bytes,
    label_header,
    read,
)
from nnunet_ext.dataset_conversion.types import Case, Checked, ImageFormat, OutputFile

# what gzip level 1 leaves of an uncompressed file, on the safe side
_GZIPPED_IMAGE, _GZIPPED_LABEL = 0.6, 0.05
# voxel bytes per second on one core, for sharing out work: a plain file, decompression, compression
_PLAIN, _GUNZIP, _GZIP = 1e9, 3e8, 1e8

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its remarks on odd headers would drown ours


class Volumes(ImageFormat):
    """The format of 3-D images with one segmentation each."""

    image_io = "SimpleITKIO"  # for .nii too, which nnU-Net would read with nibabel: one notion of space
    packages = ("nnunetv2", "numpy", "nibabel", "SimpleITK")
    unites = False

    def check(self, case: Case, values: Mapping[int, int]) -> tuple[CheckedVolume | None, list[str]]:
        faults: list[str] = []
        image, label = None, None
        try:
            image = check_image(read(case.image))
        except InputError as e:
            faults += e.problems
        try:
            label = check_label(read(case.masks[0]), image, values) if case.masks else None
        except InputError as e:
            faults += e.problems
        if not image or faults:
            return None, faults
        parts = [image, label] if label else [image]
        checked = CheckedVolume(
            case=case,
            marked=sum(count for value, count in label.counts.items() if value) if label else 0,
            repairs=tuple(f"{part.file.path}: {repair}" for part in parts for repair in part.repairs),
            ending=image.file.ending,
            size=image.file.shape,
            image=image,
            label=label,
        )
        return checked, []


@dataclass(frozen=True, kw_only=True)
class Part:
    """A volume or a segmentation that can be used; `repairs` says what writing it anew puts right.

    Attributes:
        header: what stands in front of a volume's voxels once it is repaired.
        geometry: where a volume then lies; None for a segmentation, which takes the volume's place.
        counts: voxels per value of a segmentation.
    """

    file: NiftiFile
    repairs: tuple[str, ...]
    header: nib.Nifti1Header
    geometry: Geometry | None = None
    counts: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CheckedVolume(Checked):
    """A case that can be converted; its label is None where it has no segmentation."""

    image: Part
    label: Part | None

    def image_file(self, target: str) -> OutputFile:
        image, record = self.image, {"repairs": list(self.image.repairs)}
        if not image.repairs and target.endswith(image.file.ending):
            return OutputFile.unchanged(image.file.path, target, record=record)
        recipe = WriteVolume(source=image.file, header=header_bytes(image.header), compress=target.endswith(NII_GZ))
        return _written(recipe, target, record, image.file.size, _GZIPPED_IMAGE)

    def label_file(self, target: str, values: Mapping[int, int]) -> OutputFile:
        label = self.label
        assert label is not None
        record = {"repairs": list(label.repairs), "source_voxels": {str(v): n for v, n in label.counts.items()}}
        same_values = not label.file.scaled and all(old == new or not label.counts[old] for old, new in values.items())
        if same_values and not label.repairs and target.endswith(label.file.ending):
            return OutputFile.unchanged(label.file.path, target, share=False, record=record)
        header = header_bytes(label_header(self.image.header, label.file.shape))
        recipe = WriteVolume(source=label.file, header=header, compress=target.endswith(NII_GZ), values=values)
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


def check_image(file: NiftiFile) -> Part:
    """Check length, geometry and, of floats, finiteness; InputError where nothing can be put right."""
    file.check_length()
    if file.dtype.kind == "f":
        bad = sum(slab.size - int(np.count_nonzero(np.isfinite(slab))) for slab in file.stored())
        if bad:
            raise InputError(
                f"{file.path}: {bad:,} voxels are NaN or infinite; replace them by a HU value such as -1024."
            )
    repairs, header = file.repairs(), file.header
    found = geometry(header)
    if found is None and (repaired := orthonormalised(header)) is not None:
        header, found = repaired, geometry(repaired)
        repairs.append("direction cosines were not orthonormal: replaced by the nearest that are")
    if found is None:
        raise InputError(f"{file.path}: its header has no usable orientation or spacing; set a valid sform.")
    return Part(file=file, repairs=tuple(repairs), header=header, geometry=found)


def check_label(file: NiftiFile, image: Part | None, allowed: Collection[int]) -> Part:
    """Check every voxel's value, then shape and geometry against the volume (None: that one was bad)."""
    problems: list[str] = []
    counts: dict[int, int] = {}
    if image is not None and image.file.shape != file.shape:
        sizes = [" x ".join(map(str, f.shape)) for f in (image.file, file)]
        problems.append(f"{image.file.path} is {sizes[0]} voxels, but {file.path} is {sizes[1]}; they must agree.")
    try:
        counts = _count_labels(file, allowed)
    except InputError as e:
        problems += e.problems
    if problems:
        raise InputError(*problems)
    repairs = file.repairs()
    if image is not None and image.geometry is not None:
        own = geometry(file.header)
        parts = ["direction"] if own is None else image.geometry.differences(own)
        if parts:
            repairs.append(f"{', '.join(parts)} differed from the volume's: the volume's taken")
    return Part(file=file, repairs=tuple(repairs), header=file.header, counts=counts)


def _count_labels(file: NiftiFile, allowed: Collection[int]) -> dict[int, int]:
    """Return voxels per label; InputError naming values that are not allowed.

    Comparing with each allowed value and counting is several times faster than a histogram: numpy does it without
    widening the stored type.
    """
    counts = dict.fromkeys(sorted(allowed), 0)
    unexpected: set[float] = set()
    for values in file.labels():
        nonzero = int(np.count_nonzero(values))
        found = {v: int(np.count_nonzero(values == v)) if nonzero else 0 for v in counts if v}
        found[0] = values.size - nonzero
        if sum(found.values()) != values.size:
            strange = np.unique(values[~np.isin(values, list(counts))])
            unexpected.update(float(v) for v in strange[:5])
        for value, count in found.items():
            counts[value] += count
    if unexpected:
        shown = some((f"{v:g}" for v in sorted(unexpected)), 5)
        raise InputError(f"{file.path}: holds label {shown}; only {', '.join(map(str, counts))} are allowed.")
    return counts


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Spacing in mm, origin in mm and direction cosines (row by row), in ITK's LPS frame."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def differences(self, other: Geometry) -> list[str]:
        """Return which parts differ by more than nnU-Net's integrity check allows."""
        parts = ("origin", "direction", "spacing")
        return [part for part in parts if not np.allclose(getattr(self, part), getattr(other, part))]


def geometry(header: nib.Nifti1Header) -> Geometry | None:
    """Return where SimpleITK, nnU-Net's reader, sees a volume in space; None where it refuses the header.

    ITK has its own rules on when the sform and when the qform counts, so it is asked itself, with the header alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "header.nii")
        probe.write_bytes(header_bytes(header))
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(probe))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
        found = Geometry(spacing=reader.GetSpacing(), origin=reader.GetOrigin(), direction=reader.GetDirection())
    numbers = [*found.spacing, *found.origin, *found.direction]
    return found if np.isfinite(numbers).all() and min(found.spacing) > 0 else None


def orthonormalised(header: nib.Nifti1Header) -> nib.Nifti1Header | None:
    """Return the header with the nearest orthonormal direction cosines in sform and qform; None where there are none.

    Nearest in the least-squares sense: the orthogonal factor of the polar decomposition. Voxel sizes and origin stay.
    """
    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    except (ValueError, np.linalg.LinAlgError):
        return None
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() <= 0:
        return None
    left, singular_values, right = np.linalg.svd(affine[:3, :3] / spacing)
    if singular_values.min() < 0.1:  # two axes nearly parallel: any choice would be a guess
        return None
    affine[:3, :3] = (left @ right) * spacing
    repaired = header.copy()
    repaired.set_qform(affine, code=1)
    repaired.set_sform(affine, code=1)
    return repaired
