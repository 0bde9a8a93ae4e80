"""Where NIfTI volumes lie in space: what is put right in a header, and what a volume and its segmentation agree on.

Of two contradicting facts the one that can be proven is taken. Where none can, the doubt is said: `Place.doubts` and
`Agreement.doubts` are sentences that stand for every case of which they are true.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from nibabel.spatialimages import HeaderDataError

from nnunet_ext.common.grids import Reordering, agree, greatest_shift, reordering
from nnunet_ext.dataset_conversion.nifti_file import header_bytes

NO_SIZE = (
    "no header knows the voxel size (an identity affine, or a size of 0): 1 mm was taken, so that all mm and ml are "
    "invented and 3D plans are wrong."
)
TWO_SIZES = "pixdim and sform say different voxel sizes; pixdim's was taken, which is what nnU-Net's reader does."
TWO_PLACES = "qform and sform say different places in space; what nnU-Net's reader takes was taken."
OVERLAY = (
    "volume and segmentation say different places in space, and nothing proves which is right: the volume's was taken "
    "and the voxels left in the order of the file. Look whether they overlay."
)
BORROWED = (
    "the volume had an identity affine: voxel size and place are the segmentation's, and the voxels of both were taken "
    "to be in the same order. Look whether they overlay."
)
FRAMES = (
    "the segmentation was put into the volume's order of voxels, as the headers say. The volume lies so much in the "
    "middle that a header with LPS in place of RAS would say the same: look whether they overlay."
)
_TO_OTHER_FRAME = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS, which ITK has, to RAS, which NIfTI has, and back

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its remarks on odd headers would drown ours


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Spacing in mm, origin in mm and direction cosines (row by row), in ITK's LPS frame."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """Take what ITK says of a 3D volume."""
        return cls(spacing=image.GetSpacing(), origin=image.GetOrigin(), direction=image.GetDirection())

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), from an index to a place."""
        return nib.affines.from_matvec(np.reshape(self.direction, (3, 3)) * self.spacing, self.origin)

    @property
    def is_identity(self) -> bool:
        """Whether this is what programs write that know nothing; signs differ between ITK's frame and NIfTI's."""
        plain = np.abs(np.reshape(self.direction, (3, 3)))
        return np.allclose(self.spacing, 1) and np.allclose(self.origin, 0) and np.allclose(plain, np.eye(3))

    def differences(self, other: Geometry) -> list[str]:
        """Return which parts differ by more than nnU-Net's integrity check allows."""
        parts = ("origin", "direction", "spacing")
        return [part for part in parts if not np.allclose(getattr(self, part), getattr(other, part))]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a file says about its place in space.

    Attributes:
        header: the file's, with what could be put right.
        known: whether anybody has ever said it: an identity affine is what programs write that do not know.
        repairs: what was put right.
    """

    header: nib.Nifti1Header
    shape: tuple[int, ...]
    geometry: Geometry
    known: bool
    repairs: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def all_doubts(self) -> tuple[str, ...]:
        """Those on what the file says, and that it says nothing."""
        return self.doubts if self.known else (*self.doubts, NO_SIZE)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a volume and its segmentation agree on.

    Attributes:
        header: the volume's, for both.
        reordering: brings the segmentation's voxels into the volume's order; None where they are.
    """

    header: nib.Nifti1Header
    reordering: Reordering | None = None
    image_repairs: tuple[str, ...] = ()
    label_repairs: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@np.errstate(all="ignore")  # of numbers that are none
def locate(header: nib.Nifti1Header, shape: tuple[int, ...]) -> Place | None:
    """Return where a volume lies, after repairs of its header; None where it does not say so in any usable way."""
    header, repairs, doubts = _with_one_size(header)
    found = geometry(header)
    if found is None and (repaired := orthonormalised(header)) is not None:
        by = greatest_shift(header.get_best_affine(), repaired.get_best_affine(), shape)
        header, found = repaired, geometry(repaired)
        repairs.append(
            f"direction cosines were not orthonormal: replaced by the nearest, voxels move {by:.2g} mm or less"
        )
    if found is None:
        return None
    return Place(
        header=header,
        shape=shape,
        geometry=found,
        known=_sizes(header) is not None and not found.is_identity,
        repairs=tuple(repairs),
        doubts=(*doubts, *_two_places(header, shape)),
    )


def reconcile(image: Place, label: Place | None, label_shape: Sequence[int]) -> Agreement | None:
    """Return how a segmentation (None: it says no place) goes with its volume; None where their shapes do not."""
    same_shape = tuple(label_shape) == image.shape
    if label and same_shape and label.known and not image.known:
        what = "identity affine: voxel size and place taken from the segmentation"
        header = _at(image.header, label.geometry)
        return Agreement(header=header, image_repairs=(what,), doubts=(*label.doubts, BORROWED))
    doubts = image.all_doubts
    parts, apart = "orientation", ""
    if label:
        one, other = label.geometry.affine, image.geometry.affine
        parts = ", ".join(image.geometry.differences(label.geometry))
        if same_shape and agree(one, other, image.shape):
            repairs = (f"{parts} differed from the volume's by rounding: the volume's taken",) if parts else ()
            return Agreement(header=image.header, label_repairs=repairs, doubts=doubts)
        if order := reordering(one, label.shape, other, image.shape):
            what = f"voxels were stored in another order than the volume's ({order}): put into that"
            frames = (FRAMES,) if same_shape and agree(_TO_OTHER_FRAME @ one, other, image.shape) else ()
            doubts = (*doubts, *label.doubts, *frames)
            return Agreement(header=image.header, reordering=order, label_repairs=(what,), doubts=doubts)
        apart = f" by up to {greatest_shift(one, other, image.shape):.3g} mm" if same_shape else ""
    if not same_shape:
        return None
    what = f"only the header put it elsewhere ({parts} differed{apart}): the volume's taken, voxels left in file order"
    return Agreement(header=image.header, label_repairs=(what,), doubts=(*doubts, OVERLAY))


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
        found = Geometry.of(reader)
    numbers = [*found.spacing, *found.origin, *found.direction]
    return found if np.isfinite(numbers).all() and min(found.spacing) > 0 else None


def orthonormalised(header: nib.Nifti1Header) -> nib.Nifti1Header | None:
    """Return the header with the nearest orthonormal direction cosines in sform and qform; None where there are none.

    Nearest in the least-squares sense: the orthogonal factor of the polar decomposition. Voxel sizes and origin stay.
    """
    affine = _affine(header.get_best_affine)
    if affine is None:
        return None
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, singular_values, right = np.linalg.svd(affine[:3, :3] / spacing)
    if singular_values.min() < 0.1:  # two axes nearly parallel: any choice would be a guess
        return None
    affine[:3, :3] = (left @ right) * spacing
    return _with_affine(header, affine)


def _affine(get: Callable[[], np.ndarray]) -> np.ndarray | None:
    """Return what a header says by one of nibabel's functions; None where it is no place at all."""
    try:
        affine = np.array(get(), dtype=np.float64)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):
        return None
    usable = np.isfinite(affine).all() and np.linalg.norm(affine[:3, :3], axis=0).min() > 0
    return affine if usable else None


def _with_affine(header: nib.Nifti1Header, affine: np.ndarray) -> nib.Nifti1Header:
    header = header.copy()
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    return header


def _at(header: nib.Nifti1Header, place: Geometry) -> nib.Nifti1Header:
    return _with_affine(header, _TO_OTHER_FRAME @ place.affine)


def _with_one_size(header: nib.Nifti1Header) -> tuple[nib.Nifti1Header, list[str], list[str]]:
    """Return a header whose voxel size is the sform's where pixdim has none, with repairs and doubts.

    ITK takes the size from pixdim, whatever the sform says, and 1 mm for 0.
    """
    sform = _affine(header.get_sform) if int(header["sform_code"]) > 0 else None
    if sform is None:
        return header, [], []
    size = np.linalg.norm(sform[:3, :3], axis=0)
    stored = np.array(header["pixdim"][1:4], dtype=np.float64)
    if np.allclose(stored, size, rtol=1e-3):
        return header, [], []
    if _sizes(header) is not None and not (stored == 1).all():
        return header, [], [TWO_SIZES]
    old, new = (" x ".join(f"{n:.4g}" for n in sizes) for sizes in (stored, size))
    header = header.copy()
    header["pixdim"][1:4] = size
    return header, [f"pixdim said {old} mm: the sform's {new} mm taken"], []


def _sizes(header: nib.Nifti1Header) -> np.ndarray | None:
    """Return pixdim's voxel size in mm; None where it is none."""
    stored = np.array(header["pixdim"][1:4], dtype=np.float64)
    return stored if np.isfinite(stored).all() and stored.min() > 0 else None


def _two_places(header: nib.Nifti1Header, shape: Sequence[int]) -> list[str]:
    if not (int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0):
        return []
    qform, sform = _affine(header.get_qform), _affine(header.get_sform)
    return [] if qform is None or sform is None or agree(qform, sform, shape) else [TWO_PLACES]
