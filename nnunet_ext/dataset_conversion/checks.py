"""What is wrong with a case's NIfTI files, and what of it can be put right."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion.geometry import Geometry, geometry, orthonormalised
from nnunet_ext.dataset_conversion.nifti import NiftiFile


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """A volume that nnU-Net can read once `header` stands in front of its voxels; `repairs` says what that changes."""

    file: NiftiFile
    header: nib.Nifti1Header
    geometry: Geometry
    repairs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckedLabel:
    """A label map with allowed values only; `counts` is voxels per value, `repairs` what writing it anew puts right."""

    file: NiftiFile
    counts: dict[int, int]
    repairs: tuple[str, ...]


def check_image(file: NiftiFile) -> CheckedImage:
    """Length, geometry and, for float voxels, finiteness. InputError where nothing can be repaired."""
    file.voxels.check_length()
    if file.voxels.dtype.kind == "f":
        _check_finite(file)
    repairs = ["NIfTI-2: rewritten as NIfTI-1"] if file.version == 2 else []
    header, found = file.header, geometry(file.header)
    if found is None:
        header = orthonormalised(file.header)
        found = geometry(header) if header is not None else None
        if header is None or found is None:
            raise InputError(f"{file.path}: its header has no usable orientation or spacing; set a valid sform.")
        repairs.append("direction cosines were not orthonormal: replaced by the nearest that are")
    return CheckedImage(file=file, header=header, geometry=found, repairs=tuple(repairs))


def _check_finite(file: NiftiFile) -> None:
    bad = sum(chunk.size - int(np.count_nonzero(np.isfinite(chunk))) for chunk in file.voxels.chunks())
    if bad:
        raise InputError(f"{file.path}: {bad:,} voxels are NaN or infinite; replace them by a HU value such as -1024.")


def check_label(file: NiftiFile, image: CheckedImage | None, allowed: Collection[int]) -> CheckedLabel:
    """Every voxel's value, then shape and geometry against the volume (None: that one was bad)."""
    problems = []
    if image is not None and image.file.shape != file.shape:
        sizes = [" x ".join(map(str, f.shape)) for f in (image.file, file)]
        problems.append(f"{image.file.path} is {sizes[0]} voxels, but {file.path} is {sizes[1]}; they must agree.")
    try:
        counts = count_labels(file, allowed)
    except InputError as e:
        raise InputError(*problems, *e.problems) from e
    if problems:
        raise InputError(*problems)
    repairs = ["NIfTI-2: rewritten as NIfTI-1"] if file.version == 2 else []
    if image is not None:
        own = geometry(file.header)
        parts = ["direction"] if own is None else image.geometry.differences(own)
        if parts:
            repairs.append(f"{', '.join(parts)} differed from the volume's: the volume's taken")
    return CheckedLabel(file=file, counts=counts, repairs=tuple(repairs))


def count_labels(file: NiftiFile, allowed: Collection[int]) -> dict[int, int]:
    """Voxels per label; InputError naming every value that is not allowed.

    Comparing with each allowed value and counting is several times faster than a histogram: numpy does it without
    widening the stored type.
    """
    counts = dict.fromkeys(sorted(allowed), 0)
    unexpected: set[float] = set()
    for values in file.voxels.labels():
        nonzero = int(np.count_nonzero(values))
        found = {v: int(np.count_nonzero(values == v)) if nonzero else 0 for v in counts if v}
        found[0] = values.size - nonzero
        if sum(found.values()) != values.size:
            strange = np.unique(values[~np.isin(values, list(counts))])
            unexpected.update(float(v) for v in strange[:5])
        for value, count in found.items():
            counts[value] += count
    if unexpected:
        shown = ", ".join(f"{v:g}" for v in sorted(unexpected)[:5]) + (", ..." if len(unexpected) > 5 else "")
        raise InputError(f"{file.path}: holds label {shown}; only {', '.join(map(str, counts))} are allowed.")
    return counts
