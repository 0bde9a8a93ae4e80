"""DICOM series and pictures to images for nnU-Net, and all that can be wrong with them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from dicom_source import write, write_ct, write_ultrasound
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut
from pydicom.uid import EnhancedCTImageStorage, JPEGLSLossless, generate_uid

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.dicom.images import write_images
from nnunet_ext.dicom.segmentation_object import check
from nnunet_ext.dicom.series import read_header, scan
from nnunet_ext.dicom.stack import decoded

OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def ct(seed: int = 0, slices: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, (slices, 8, 10)).astype(np.int16)


def edit(file: Path, **elements: object) -> None:
    header = pydicom.dcmread(file)
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    header.save_as(file)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE, (1, 0, 0, 0, -1, 0)])
def test_volume_is_where_the_files_say(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    """In HU, ordered by place and not by name, as SimpleITK's own reader of series has it."""
    volume = ct()
    write_ct(tmp_path / "study" / "series", volume, orientation=orientation)
    assert main(["dicom", "read", "-i", str(tmp_path / "study"), "-o", str(tmp_path / "images")]) == 0
    image = sitk.ReadImage(tmp_path / "images" / "P-1-2_s3_0000.nii.gz")
    assert image.GetPixelID() == sitk.sitkInt16
    assert np.array_equal(sitk.GetArrayFromImage(image), volume)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "study" / "series")))
    wanted = reader.Execute()
    for index in ((0, 0, 0), (9, 7, 4), (3, 0, 2)):
        place = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(place, wanted.TransformIndexToPhysicalPoint(index), atol=1e-4)
        assert image[index] == wanted[index]
    files = json.loads((tmp_path / "images" / "dicom.json").read_text())["cases"]["P-1-2_s3"]
    assert [Path(file).name for file in files] == [f"IM{i:04d}" for i in (5, 4, 3, 2, 1)]


def test_each_slice_has_its_own_rescale_and_compression(tmp_path: Path) -> None:
    volume = ct()
    files = write_ct(tmp_path / "in", volume)
    edit(files[0], RescaleSlope=0.5, RescaleIntercept=-512)
    compressed = pydicom.dcmread(files[1])
    compressed.compress(JPEGLSLossless)
    compressed.save_as(files[1])
    write_images(tmp_path / "in", tmp_path, ".nii.gz")
    found = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "P-1-2_s3_0000.nii.gz"))
    assert np.array_equal(found, np.concatenate([volume[:1] / 2, volume[1:]]).astype(np.float32))


def remove(files: list[Path]) -> None:
    files[2].unlink()


def repeat(files: list[Path]) -> None:
    shutil.copy(files[2], files[2].with_name("again"))
    edit(files[2].with_name("again"), SOPInstanceUID=generate_uid())


def other_contents(files: list[Path]) -> None:
    edit(files[2], SOPInstanceUID=pydicom.dcmread(files[1]).SOPInstanceUID)


def cut(files: list[Path]) -> None:
    files[2].write_bytes(files[2].read_bytes()[:-9])


def damage(files: list[Path]) -> None:
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[:200])


def enhance(files: list[Path]) -> None:
    edit(files[2], SOPClassUID=EnhancedCTImageStorage, SharedFunctionalGroupsSequence=[], NumberOfFrames=1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove, "5 mm between IM0004 and IM0002, where 2.5 mm is usual"),
        (repeat, "two slices at one place"),
        (other_contents, "have one SOP instance UID and other contents"),
        (cut, "IM0003: its pixels cannot be decoded"),
        (damage, "IM0003 cannot be read as DICOM"),
        (enhance, "IM0003 is an enhanced"),
        (lambda files: edit(files[2], PhotometricInterpretation="MONOCHROME1"), "this one is MONOCHROME1"),
        (lambda files: edit(files[2], ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "lie in other directions"),
        (lambda files: edit(files[2], PixelSpacing=[1, 1]), "other pixel spacings"),
        (lambda files: [edit(f, ImagePositionPatient=None) for f in files], "does not say where in the patient"),
    ],
)
def test_broken_series(tmp_path: Path, spoil: Callable[[list[Path]], object], message: str) -> None:
    spoil(write_ct(tmp_path / "in", ct()))
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=message):
        write_images(tmp_path / "in", tmp_path / "out", ".nii.gz")
    assert list((tmp_path / "out").iterdir()) == []


def test_gantry_tilt_is_refused(tmp_path: Path) -> None:
    write_ct(tmp_path / "in", ct(), shear=(0, 0.5, 0))
    with pytest.raises(InputError, match=r"shifted against each other by up to 2 mm \(gantry tilt\)"):
        write_images(tmp_path / "in", tmp_path, ".nii.gz")


def test_folder_of_studies(tmp_path: Path) -> None:
    """Two series of one name keep apart; reports, localizers and copies are left aside, and that is said."""
    for name in ("a", "b"):
        files = write_ct(tmp_path / "in" / name, ct())
    shutil.copy(files[0], tmp_path / "in" / "copy.dcm")
    write(tmp_path / "in" / "segmentation", np.zeros((4, 4), np.uint8), Modality="SEG", SeriesInstanceUID="1.2")
    scout = {"Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.3"}
    write(tmp_path / "in" / "scout", np.zeros((4, 4), np.uint8), **scout)
    shutil.copy(str(get_testdata_file("DICOMDIR-nopatient", download=False)), tmp_path / "in" / "index")
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    made = write_images(tmp_path / "in", tmp_path, ".nii.gz")
    assert len(made.cases) == 2
    assert all(name.startswith("P-1-2_s3_") for name in made.cases)
    for part in ("without an image (SEG)", "of localizers", "repeat another one's SOP"):
        assert any(part in note for note in made.notes)


def test_skip_bad_reads_what_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        files = write_ct(tmp_path / "in" / name, ct(), SeriesNumber=ord(name))
    files[2].unlink()
    command = ["dicom", "read", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "images")]
    assert main(command) == 2
    assert "--skip-bad" in capsys.readouterr().err
    assert main([*command, "--skip-bad"]) == 0
    assert "left out" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "images").iterdir()) == ["P-1-2_s97_0000.nii.gz", "dicom.json"]


def test_frames_of_ultrasound_become_pictures(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3)).astype(np.uint8)
    frames[1] = frames[1, ..., :1]
    write_ultrasound(tmp_path / "us", frames)
    made = write_images(tmp_path / "us", tmp_path, ".png")
    assert list(made.cases) == ["P-1-2_s1_f001", "P-1-2_s1_f002"]
    assert "coloured pixels became grey" in "\n".join(made.notes)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "P-1-2_s1_f002_0000.png")), frames[1, ..., 0])


def test_monochrome1_is_inverted_in_pictures(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(1, 6, 8)
    write_ultrasound(tmp_path / "us", pixels, PhotometricInterpretation="MONOCHROME1")
    made = write_images(tmp_path / "us", tmp_path, ".png")
    assert "MONOCHROME1 was inverted" in "\n".join(made.notes)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "P-1-2_s1_0000.png")), 255 - pixels[0])


def test_spacing_of_ultrasound(tmp_path: Path) -> None:
    region = pydicom.Dataset()
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.01, 0.02
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    write_ultrasound(tmp_path / "us", np.zeros((1, 6, 8), np.uint8), SequenceOfUltrasoundRegions=[region])
    write_images(tmp_path / "us", tmp_path, ".nii.gz")
    assert np.allclose(sitk.ReadImage(tmp_path / "P-1-2_s1_0000.nii.gz").GetSpacing(), (0.1, 0.2, 1))


def test_volume_for_a_model_of_pictures(tmp_path: Path) -> None:
    write_ct(tmp_path / "in", ct())
    with pytest.raises(InputError, match="is a volume, and the model takes pictures"):
        write_images(tmp_path / "in", tmp_path, ".png")


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_rle_2frame.dcm",
    ],
)
def test_pixels_are_those_of_pydicom(name: str) -> None:
    """Files of real scanners, which come with pydicom, decoded by it instead of GDCM."""
    file = Path(str(get_testdata_file(name, download=False)))
    found, wanted = decoded(file, read_header(file)), pydicom.dcmread(file)
    assert np.array_equal(np.squeeze(found), apply_modality_lut(wanted.pixel_array, wanted))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SC_rgb_rle_16bit.dcm", "or colours of 8 bits, fit"),
        ("rtdose_expb.dcm", "makes wrong values"),
        ("liver_1frame.dcm", "makes wrong values"),
        ("MR_truncated.dcm", "cannot be decoded"),
    ],
)
def test_pixels_that_are_refused(name: str, message: str) -> None:
    file = Path(str(get_testdata_file(name, download=False)))
    with pytest.raises(InputError, match=message):
        decoded(file, read_header(file))


def test_damaged_bytes_are_an_error_of_the_input(tmp_path: Path) -> None:
    """Whatever a header says, and wherever pixels end."""
    write_ct(tmp_path / "ct", ct(slices=2))
    (tmp_path / "us").mkdir()
    write_ultrasound(tmp_path / "us" / "a", np.zeros((2, 6, 8), np.uint8))
    outcomes = set()
    for seed in range(60):
        random = np.random.default_rng(seed)
        folder = tmp_path / ("ct", "us")[seed % 2]
        file = sorted(folder.iterdir())[0]
        whole = file.read_bytes()
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[random.integers(128, len(damaged), 4)] = random.integers(0, 256, 4)
        file.write_bytes(damaged.tobytes())
        try:
            write_images(folder, tmp_path, ".nii.gz")
            outcomes.add("written")
        except InputError:
            outcomes.add("refused")
        file.write_bytes(whole)
    assert outcomes == {"written", "refused"}


def test_a_failed_reading_leaves_nothing(tmp_path: Path) -> None:
    cut(write_ct(tmp_path / "in", ct()))
    assert main(["dicom", "read", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "images")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_output_folder_has_to_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ct(tmp_path / "in", ct())
    assert main(["dicom", "read", "-i", str(tmp_path / "in"), "-o", str(tmp_path)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["pydicom", "highdicom"])
def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    write_ct(tmp_path / "in", ct())
    monkeypatch.setitem(sys.modules, package, None)
    needs = {"pydicom": lambda: scan(tmp_path / "in"), "highdicom": lambda: check(tmp_path, tmp_path / "dataset.json")}
    with pytest.raises(InputError, match=rf"(?s){package}.*nnunet_ext\[dicom\]"):
        needs[package]()
