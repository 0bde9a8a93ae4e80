"""nnunet_ext predict: images and references that are not as the model needs them, and files that are not ours."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from dicom_source import write_ct, write_ultrasound
from PIL import Image
from test_predict import model, predict, raw, read, record, trained

from nnunet_ext.cli import main
from nnunet_ext.inference.model_folder import PromptedModelFolder

__all__ = ["trained"]  # the fixture


def copy(folder: Path, to: Path) -> Path:
    """Copy a folder's images, without what else is in it."""
    to.mkdir()
    for file in folder.iterdir():
        shutil.copy(file, to)
    return to


def run(trained: Path, images: Path, out: Path, *options: object, dataset: int = 35) -> int:
    where = ("-m", model(trained, dataset=dataset), "-i", images, "-o", out)
    return main([*map(str, ("predict", *where, "-device", "cpu", *options))])


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_reference_of_0_and_255_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its 255 is no label of the dataset: clicks would be on the background."""
    labels = copy(raw(trained, "labelsTr"), tmp_path / "labels")
    Image.fromarray(read(labels / "case_2.png") * 255).save(labels / "case_2.png")
    assert predict(trained, tmp_path / "out", "--from-reference", labels) == 2
    error = capsys.readouterr().err
    assert "case_2.png holds 255, and dataset.json knows the labels 0, 1" in error
    assert "case_1" not in error
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_with_inputs_is_said_before_the_first_case(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    images = copy(raw(trained, "imagesTr"), tmp_path / "images")
    labels = copy(raw(trained, "labelsTr"), tmp_path / "labels")
    whole = (images / "case_1_0000.png").read_bytes()
    (images / "case_1_0000.png").write_bytes(whole[: len(whole) // 2])
    (images / "case_2_0000.png").write_bytes(b"no picture")
    Image.new("L", (50, 40)).save(labels / "case_3.png")
    assert run(trained, images, tmp_path / "out", "--from-reference", labels) == 2
    error = capsys.readouterr().err
    assert "3 problems" in error
    for part in (
        "case_1_0000.png cannot be read",
        "case_2_0000.png cannot be read",
        "case_3.png: the reference has 50x40",
    ):
        assert part in error
    assert not (tmp_path / "out").exists()


def test_pipes_are_not_waited_for(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    images = copy(raw(trained, "imagesTr"), tmp_path / "images")
    (images / "case_1_0000.png").unlink()
    os.mkfifo(images / "case_1_0000.png")
    assert run(trained, images, tmp_path / "out") == 2
    assert "case_1_0000.png is not a file, but a pipe" in capsys.readouterr().err


def test_grey_picture_stored_in_colours_is_as_the_grey_one(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = copy(raw(trained, "imagesTr"), tmp_path / "images")
    for name, mode in (("case_0", "RGB"), ("case_1", "RGBA")):
        picture = Image.open(images / f"{name}_0000.png").convert(mode)
        picture.save(images / f"{name}_0000.png")
    coloured = np.asarray(Image.open(images / "case_2_0000.png").convert("RGB")).copy()
    coloured[0, 0] = 255, 0, 0
    Image.fromarray(coloured).save(images / "case_2_0000.png")
    with caplog.at_level(logging.WARNING):
        assert run(trained, images, tmp_path / "out") == 0
    assert "case_2_0000.png: coloured pixels became grey" in caplog.text
    assert "case_1_0000.png" not in caplog.text
    predict(trained, tmp_path / "grey")
    for name in ("case_0", "case_1"):
        assert np.array_equal(read(tmp_path / "out" / f"{name}.png"), read(tmp_path / "grey" / f"{name}.png"))


def test_brackets_in_names(trained: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(raw(trained, "imagesTr") / "case_0_0000.png", images / "pat [1]_0000.png")
    assert run(trained, images, tmp_path / "out") == 0
    assert read(tmp_path / "out" / "pat [1].png").shape == (40, 36)


def test_reference_in_another_order_of_voxels_is_brought_into_the_images(trained: Path, tmp_path: Path) -> None:
    labels = copy(raw(trained, "labelsTr", 36), tmp_path / "labels")
    for file in labels.iterdir():
        image = sitk.Flip(sitk.PermuteAxes(sitk.ReadImage(file), [1, 0, 2]), [True, False, False])
        sitk.WriteImage(image, file)  # the same voxels in the same places
    for name, reference in (("turned", labels), ("plain", raw(trained, "labelsTr", 36))):
        assert predict(trained, tmp_path / name, "--from-reference", reference, dataset=36) == 0
    assert record(tmp_path / "turned")["cases"] == record(tmp_path / "plain")["cases"]


def test_reference_elsewhere_in_space_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    labels = copy(raw(trained, "labelsTr", 36), tmp_path / "labels")
    image = sitk.ReadImage(labels / "case_1.nii.gz")
    image.SetOrigin((50, 0, 0))
    sitk.WriteImage(image, labels / "case_1.nii.gz")
    assert predict(trained, tmp_path / "out", "--from-reference", labels, dataset=36) == 2
    assert "case_1.nii.gz: reference and image lie in different places" in capsys.readouterr().err


def test_click_outside_is_found_before_anything_is_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({f"case_{i}": [{"point": [36 if i > 1 else 18, 20]}] for i in range(4)}))
    assert predict(trained, tmp_path / "out", "--prompts", file) == 2
    error = capsys.readouterr().err
    assert "2 problems" in error
    assert "case_3: the click at [36, 20] is outside" in error
    file.write_text('{"case_0": [{"box": [5, 5, 70, 9]}]}')
    assert predict(trained, tmp_path / "out", "--prompts", file) == 2
    assert "case_0: the box at [5, 5, 70, 9] is outside of the image of (36, 40, 1)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_among_the_input_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    labels, images = copy(raw(trained, "labelsTr"), tmp_path / "labels"), copy(raw(trained, "imagesTr"), tmp_path / "i")
    link = tmp_path / "link"
    link.symlink_to(labels)
    before = contents(labels)
    for out, what in (
        (labels, "the references"),
        (link, "the references"),
        (images / "below", "the images"),
        (model(trained) / "fold_0" / "validation", "the model"),
    ):
        assert run(trained, images, out, "--from-reference", labels, "--overwrite") == 2
        assert f"is the folder of {what}, or inside it" in capsys.readouterr().err
    assert contents(labels) == before
    assert not (images / "below").exists()


def test_files_of_others_are_replaced_only_on_demand(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = copy(raw(trained, "labelsTr"), tmp_path / "drawn")
    (out / "dataset.json").write_text("{}")
    before = contents(out)
    assert predict(trained, out) == 2
    error = capsys.readouterr().err
    assert "case_0.png" in error
    assert "not written by nnunet_ext predict" in error
    for file in out.glob("*.png"):
        file.unlink()
    assert predict(trained, out) == 2
    assert "dataset.json: not written by" in capsys.readouterr().err
    assert (out / "dataset.json").read_bytes() == before["dataset.json"]
    assert predict(trained, out, "--overwrite") == 0
    (out / "case_9.png").write_bytes(before["case_0.png"])  # no image of that name: of no concern
    assert predict(trained, out) == 0


def test_interrupted_between_two_files_it_continues(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "out", Path.replace

    def interrupt(file: Path, target: Path) -> Path:
        if Path(target).name == "case_1.png":
            raise KeyboardInterrupt
        return replace(file, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)
        assert predict(trained, out, "--npz") == 130
    assert {f.name for f in out.glob("*.png")} == {"case_0.png"}
    left = out / ".predict.99999999.partial"  # of a killed one
    left.mkdir()
    assert predict(trained, out, "--npz") == 0
    assert {f.name for f in out.glob("*.png")} == {f"case_{i}.png" for i in range(4)}
    assert not list(out.glob(".*"))


def test_overwriting_leaves_no_prediction_of_another_request_behind(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    images = copy(raw(trained, "imagesTr"), tmp_path / "images")
    assert run(trained, images, tmp_path / "out") == 0
    (images / "case_3_0000.png").unlink()
    options = ("-chk", "checkpoint_final.pth", "--overwrite")
    assert run(trained, images, tmp_path / "out", *options) == 2
    assert "holds case_3 of another request" in capsys.readouterr().err
    (tmp_path / "out" / "case_3.png").unlink()
    assert run(trained, images, tmp_path / "out", *options) == 0


def test_place_that_cannot_be_written(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert predict(trained, tmp_path / "file") == 2
    assert "file is not a directory" in capsys.readouterr().err
    assert predict(trained, tmp_path / "file" / "out") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_full_disk_is_a_message(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PromptedModelFolder, "export", full)
    assert predict(trained, tmp_path / "out") == 2
    assert "cannot be written: No space left on device" in capsys.readouterr().err


def test_dicom_is_predicted_like_the_same_image(trained: Path, tmp_path: Path) -> None:
    """Pictures are frames of ultrasound, a volume a series; nothing but the segmentations is left of them."""
    pixels = read(raw(trained, "imagesTr") / "case_0_0000.png")
    (tmp_path / "us").mkdir()
    write_ultrasound(tmp_path / "us" / "a.dcm", pixels[None])
    assert run(trained, tmp_path / "us", tmp_path / "pictures") == 0
    predict(trained, tmp_path / "png")
    assert np.array_equal(read(tmp_path / "pictures" / "P-1-2_s1.png"), read(tmp_path / "png" / "case_0.png"))
    assert run(trained, tmp_path / "us", tmp_path / "us" / "out") == 2
    volume = np.random.default_rng(0).integers(-500, 500, (2, 40, 36)).astype(np.int16)
    write_ct(tmp_path / "ct" / "series", volume)
    assert run(trained, tmp_path / "ct", tmp_path / "volumes", dataset=36) == 0
    found = sitk.ReadImage(tmp_path / "volumes" / "P-1-2_s3.nii.gz")
    assert found.GetSize() == (36, 40, 2)
    assert np.allclose(found.GetOrigin(), (-10, -20, 30))


def test_dicom_seg_lies_next_to_the_prediction(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ultrasound(tmp_path / "us", read(raw(trained, "imagesTr") / "case_0_0000.png")[None])
    labels = json.loads((model(trained) / "dataset.json").read_text())["labels"]
    assert run(trained, raw(trained, "imagesTr"), tmp_path / "out", "--dicom-seg") == 2
    assert "does not say which DICOM" in capsys.readouterr().err
    assert run(trained, tmp_path / "us", tmp_path / "out", "--dicom-seg", "breast") == 0
    made = pydicom.dcmread(tmp_path / "out" / "P-1-2_s1.dcm")
    assert [segment.SegmentLabel for segment in made.SegmentSequence] == list(labels)[1:]
    assert np.array_equal(made.pixel_array.reshape(40, 36), read(tmp_path / "out" / "P-1-2_s1.png"))
