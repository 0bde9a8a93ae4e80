"""Where a volume lies in space, as SimpleITK (nnU-Net's reader for NIfTI) understands it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.dataset_conversion.nifti import header_bytes

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its remarks on odd headers would drown ours


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Spacing in mm, origin in mm and direction cosines (row by row), in ITK's LPS frame."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def differences(self, other: Geometry) -> list[str]:
        """Which parts differ by more than nnU-Net's integrity check allows."""
        parts = ("origin", "direction", "spacing")
        return [part for part in parts if not np.allclose(getattr(self, part), getattr(other, part))]


def geometry(header: nib.Nifti1Header) -> Geometry | None:
    """Geometry of a header; None where SimpleITK refuses it.

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
    """The header with the nearest orthonormal direction cosines in sform and qform; None where there are none.

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
