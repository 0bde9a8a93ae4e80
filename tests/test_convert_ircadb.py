"""3D-IRCADb-01's folders of DICOM slices to nnU-Net's raw format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from dicom_source import write_ct

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import READERS, convert

PLACES = {"ImagePositionPatient": None, "ImageOrientationPatient": None}


def ct(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(-1000, 1000, (4, 8, 8)).astype(np.int16)


def patient(source: Path, n: int, **elements: object) -> np.ndarray:
    """Write patient N; return its labels: 1 liver, 2 tumour. Masks hold 255, and their series run the other way."""
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[1:, 2:7, 1:6] = 1
    labels[1 + n % 2, 3, 2:4], labels[3, 5, 5] = 2, 2
    folder = source / f"3Dircadb1.{n}"
    write_ct(folder / "PATIENT_DICOM", ct(n))
    masks = {"liver": labels > 0, "livertumor01": (labels == 2) & (np.arange(4) < 3)[:, None, None], "bone": labels > 9}
    masks["livertumor2"] = (labels == 2) & ~masks["livertumor01"]
    for name, mask in masks.items():
        voxels = np.where(mask, 255, 0) - 1024
        write_ct(folder / "MASKS_DICOM" / name, voxels.astype(np.int16), RescaleIntercept=0, **elements)
    return labels


@pytest.mark.parametrize("elements", [{}, PLACES])
def test_conversion(nnunet_folders: Path, elements: dict) -> None:
    """Masks lie where their headers say or, where they are silent, by instance number, which is said."""
    source = nnunet_folders / "in"
    labels = {n: patient(source, n, **elements) for n in range(1, 11)}
    outcome = convert(READERS["ircadb"](target="liver-tumour"), source)
    assert outcome.layout is not None
    assert any("matched with the images by instance number" in note for note in outcome.layout.notes) == bool(elements)
    assert any("1 structure left alone: bone" in note for note in outcome.layout.notes + outcome.layout.summary)
    assert any("no external test" in note for note in (*outcome.layout.notes, *outcome.layout.summary))
    for n, wanted in labels.items():
        (image,) = outcome.folder.glob(f"images*/ircadb_{n:02d}_0000.nii.gz")
        (label,) = outcome.folder.glob(f"labels*/ircadb_{n:02d}.nii.gz")
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(image)), ct(n))
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(label)), wanted)
        assert np.allclose(sitk.ReadImage(label).GetOrigin(), (-10, -20, 30))
    assert convert(READERS["ircadb"](target="liver-tumour"), source).layout is None


def test_all_that_is_wrong_is_said(nnunet_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = nnunet_folders / "in"
    for n in (1, 2, 3):
        patient(source, n)
    for file in (source / "3Dircadb1.1" / "MASKS_DICOM" / "liver").iterdir():
        file.unlink()
    (source / "3Dircadb1.2" / "PATIENT_DICOM" / "IM0002").unlink()
    write_ct(source / "3Dircadb1.3" / "MASKS_DICOM" / "liver", np.zeros((4, 8, 8), np.int16), origin=(0, 0, 0))
    assert main(["convert", "ircadb", "--source", str(source)]) == 2
    error = capsys.readouterr().err
    for part in ("3Dircadb1.1 lacks MASKS_DICOM/liver", "slices are missing", "liver does not lie where the image's"):
        assert part in error


def test_archives_that_are_not_unpacked(nnunet_folders: Path) -> None:
    (nnunet_folders / "in" / "3Dircadb1.1").mkdir(parents=True)
    (nnunet_folders / "in" / "3Dircadb1.1" / "PATIENT_DICOM.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack the archives"):
        convert(READERS["ircadb"](), nnunet_folders / "in")
