"""Tiny LiTS downloads, made by hand so that every voxel is known, and their conversion in this process."""

from __future__ import annotations

import multiprocessing
import shutil
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.dataset_conversion import engine
from nnunet_ext.dataset_conversion.lits import LitsReader
from nnunet_ext.dataset_conversion.types import Outcome, Settings

DATASET = "Dataset029_LiTS"

SHAPE = (10, 9, 8)
AFFINE = np.array([[-0.7, 0, 0, 12], [0, -0.7, 0, 34], [0, 0, 2.5, -56], [0, 0, 0, 1]], dtype=float)


def ct(number: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.RandomState(number).randint(-1024, 1500, shape).astype(np.int16)


def liver(shape: tuple[int, ...] = SHAPE, dtype: type = np.uint8) -> np.ndarray:
    """Liver 1 in a block, tumour 2 in a smaller one."""
    label = np.zeros(shape, dtype)
    label[1:7, 1:7, 1:6] = 1
    label[2:4, 2:5, 2:4] = 2
    return label


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE, *, codes: tuple[int, int] = (1, 1)) -> Path:
    """`codes` are qform_code and sform_code."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.eye(4))
    image.header.set_qform(affine, codes[0])
    image.header.set_sform(affine, codes[1])
    image.header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), *[1] * (voxels.ndim - 3)])
    nib.save(nib.Nifti1Image(voxels, None, image.header), path)
    return path


def codalab(
    root: Path, cases: int = 3, *, ending: str = ".nii", test_volumes: int = 0, shape: tuple[int, ...] = SHAPE
) -> Path:
    """volume-N and segmentation-N in the two sub-folders of the CodaLab download."""
    for n in range(cases):
        batch = root / f"Training Batch {1 + n % 2}"
        save(batch / f"volume-{n}{ending}", ct(n, shape))
        save(batch / f"segmentation-{n}{ending}", liver(shape))
    for n in range(test_volumes):
        save(root / "Test" / f"test-volume-{n}{ending}", ct(100 + n, shape))
    return root


def three_cases(source: Path) -> Path:
    """Good ones, all in one folder."""
    for n in range(3):
        save(source / f"volume-{n}.nii", ct(n))
        save(source / f"segmentation-{n}.nii", liver())
    return source


def real_ct(source: Path, shared: Path) -> np.ndarray:
    """Three copies of a real CT with a made-up tumour in its liver, and one unlabelled; returns the labels."""
    volume = nib.load(shared / "ct" / "example_ct_sm.nii.gz")
    label = (np.asarray(nib.load(shared / "ct" / "example_ct_sm_liver.nii.gz").dataobj) > 0).astype(np.uint8)
    inside = np.argwhere(label)
    x, y, z = inside[len(inside) // 2]
    label[x : x + 6, y : y + 6, z : z + 2] *= 2
    source.mkdir(parents=True, exist_ok=True)
    for n in range(3):
        shutil.copy(shared / "ct" / "example_ct_sm.nii.gz", source / f"volume-{n}.nii.gz")
        nib.save(nib.Nifti1Image(label, volume.affine), source / f"segmentation-{n}.nii.gz")
    shutil.copy(shared / "ct" / "example_ct.nii.gz", source / "test-volume-0.nii.gz")
    return label


def convert(source: Path, *, target: str = "tumour", **settings) -> Outcome:
    """With the command's defaults, but one process."""
    settings = {"dataset_id": 29, "name": "LiTS", **settings}
    return engine.run(LitsReader(target=target), Settings(source=source, **settings))


def label_of(folder: Path, case: str, ending: str = ".nii") -> np.ndarray:
    """A converted label map as SimpleITK reads it, in the order of `liver`."""
    path = next(folder.glob(f"labelsT?/{case}{ending}"))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T


def verify(folder: Path) -> None:
    """Let nnU-Net check a dataset, in threads: its processes take seconds to start."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Pool=ThreadPool))
        verify_dataset_integrity(str(folder), num_processes=1)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by relative name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
