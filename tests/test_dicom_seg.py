"""Predictions as DICOM-SEG: read back by other software, checked by dciodvfy, and in the place of the images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from dicom_source import write_ct, write_ultrasound
from PIL import Image
from test_dicom import OBLIQUE, ct

from nnunet_ext.cli import main

LABELS = {"background": 0, "liver": [1, 2], "tumour": 2}
INSTALLED = str(Path(sys.executable).parent)
DCIODVFY, DCMQI = (shutil.which(n) or shutil.which(n, path=INSTALLED) for n in ("dciodvfy", "segimage2itkimage"))


def predictions(folder: Path, ending: str, labels: dict) -> Path:
    folder.mkdir()
    content = {"labels": labels, "file_ending": ending, "channel_names": {"0": "CT"}, "regions_class_order": [1, 2]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def predicted_ct(root: Path, orientation: tuple[float, ...] = OBLIQUE) -> tuple[Path, Path, np.ndarray]:
    """Return the folders of images and predictions, and labels (z, y, x): 1 liver, 2 tumour; two slices empty."""
    write_ct(root / "series", ct(), orientation=orientation)
    assert main(["dicom", "read", "-i", str(root / "series"), "-o", str(root / "images")]) == 0
    labels = np.zeros((5, 8, 10), np.uint8)
    labels[1:4, 2:6, 1:8], labels[2, 3:5, 2:4] = 1, 2
    mask = sitk.GetImageFromArray(labels)
    mask.CopyInformation(sitk.ReadImage(root / "images" / "P-1-2_s3_0000.nii.gz"))
    folder = predictions(root / "pred", ".nii.gz", LABELS)
    sitk.WriteImage(mask, folder / "P-1-2_s3.nii.gz")
    return root / "images", folder, labels


def write(images: Path, pred: Path, *options: str) -> int:
    return main(["dicom", "write", "--images", str(images), "--pred", str(pred), *options])


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE])
def test_volume(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    images, pred, labels = predicted_ct(tmp_path, orientation)
    assert write(images, pred, "--region", "liver", "--model", "RA-U-Net fold 0") == 0
    made = highdicom.seg.segread(pred / "P-1-2_s3.dcm")
    liver, tumour = made.SegmentSequence
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert tumour.AnatomicRegionSequence[0].CodeValue == "10200004"
    assert "AnatomicRegionSequence" not in liver
    assert tumour.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "RA-U-Net fold 0"
    image = sitk.ReadImage(images / "P-1-2_s3_0000.nii.gz")
    volume = made.get_volume(segment_numbers=[2], combine_segments=True)
    for index in np.argwhere(volume.array):
        place = volume.map_indices_to_reference(index[None])[0]
        x, y, z = image.TransformPhysicalPointToIndex(place.tolist())
        assert labels[z, y, x] == 2
    assert np.count_nonzero(volume.array) == 4
    series = pydicom.dcmread(tmp_path / "series" / "IM0001")
    assert made.FrameOfReferenceUID == series.FrameOfReferenceUID
    assert made.PatientID == series.PatientID
    assert write(images, pred) == 0  # its own files are replaced


def predicted_picture(root: Path) -> tuple[Path, Path, np.ndarray]:
    """Return the folders of images and predictions, and the mask of a lesion, (y, x)."""
    write_ultrasound(root / "us", np.zeros((1, 6, 8), np.uint8))
    main(["dicom", "read", "-i", str(root / "us"), "-o", str(root / "images"), "--file-ending", ".png"])
    pred = predictions(root / "pred", ".png", {"background": 0, "lesion": 1})
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:7] = 1
    Image.fromarray(mask).save(pred / "P-1-2_s1.png")
    return root / "images", pred, mask


@pytest.mark.skipif(DCIODVFY is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize("predicted", [predicted_ct, predicted_picture])
def test_dciodvfy_finds_nothing_wrong(tmp_path: Path, predicted: Callable) -> None:
    images, pred, _ = predicted(tmp_path)
    write(images, pred)
    (file,) = pred.glob("*.dcm")
    done = subprocess.run([str(DCIODVFY), str(file)], capture_output=True, text=True, check=False)
    assert "Segmentation" in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []


@pytest.mark.skipif(DCMQI is None, reason="dcmqi is not installed")
def test_dcmqi_reads_the_same_mask(tmp_path: Path) -> None:
    images, pred, labels = predicted_ct(tmp_path)
    write(images, pred)
    options = ["--inputDICOM", pred / "P-1-2_s3.dcm", "--outputDirectory", tmp_path, "--outputType", "nifti"]
    subprocess.run([str(DCMQI), *map(str, options)], check=True, capture_output=True)
    for number, wanted in ((1, labels > 0), (2, labels == 2)):
        image = sitk.ReadImage(tmp_path / f"{number}.nii.gz")
        reference = sitk.GetImageFromArray(wanted.astype(np.uint8))
        reference.CopyInformation(sitk.ReadImage(images / "P-1-2_s3_0000.nii.gz"))
        found = sitk.Resample(image, reference, sitk.Transform(), sitk.sitkNearestNeighbor)
        assert np.array_equal(sitk.GetArrayFromImage(found) > 0, wanted)


def test_picture(tmp_path: Path) -> None:
    images, pred, mask = predicted_picture(tmp_path)
    assert write(images, pred, "--region", "breast") == 0
    made = pydicom.dcmread(pred / "P-1-2_s1.dcm")
    assert np.array_equal(made.pixel_array.reshape(6, 8), mask)
    assert made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"
    assert made.SegmentSequence[0].AnatomicRegionSequence[0].CodeValue == "76752008"


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, pred, _ = predicted_ct(tmp_path)
    (pred / "P-1-2_s3.dcm").write_bytes(b"somebody else's")
    assert write(images, pred) == 2
    assert "not written by nnunet_ext" in capsys.readouterr().err
    (pred / "P-1-2_s3.dcm").unlink()
    moved = sitk.ReadImage(pred / "P-1-2_s3.nii.gz")
    moved.SetOrigin((0, 0, 0))
    sitk.WriteImage(moved, pred / "P-1-2_s3.nii.gz")
    assert write(images, pred) == 2
    assert "does not lie where the DICOM series does" in capsys.readouterr().err
    (tmp_path / "series" / "IM0002").unlink()
    assert write(images, pred) == 2
    assert "IM0002: not there any more" in capsys.readouterr().err
    dataset = json.loads((pred / "dataset.json").read_text())
    dataset["labels"] = {"background": 0, "spleen": 1}
    (pred / "dataset.json").write_text(json.dumps(dataset))
    assert write(images, pred) == 2
    assert "no SNOMED code is known for spleen" in capsys.readouterr().err
    assert not (pred / "P-1-2_s3.dcm").exists()


def test_empty_prediction(tmp_path: Path) -> None:
    images, pred, _ = predicted_ct(tmp_path)
    empty = sitk.ReadImage(pred / "P-1-2_s3.nii.gz") * 0
    sitk.WriteImage(empty, pred / "P-1-2_s3.nii.gz")
    assert write(images, pred) == 0
    made = pydicom.dcmread(pred / "P-1-2_s3.dcm")
    assert not made.pixel_array.any()
    assert len(made.SegmentSequence) == 2


def test_frames_of_one_file_are_left_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ultrasound(tmp_path / "us", np.zeros((2, 6, 8), np.uint8))
    main(["dicom", "read", "-i", str(tmp_path / "us"), "-o", str(tmp_path / "images"), "--file-ending", ".png"])
    pred = predictions(tmp_path / "pred", ".png", {"background": 0, "lesion": 1})
    assert write(tmp_path / "images", pred) == 0
    assert "0 DICOM-SEG objects" in capsys.readouterr().out
    assert "P-1-2_s1_f002 is a frame of a multi-frame file" in caplog.text
