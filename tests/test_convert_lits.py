"""``nnunet_ext convert lits`` from download to nnUNet_raw, good input and bad."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from lits_source import AFFINE, codalab, ct, liver, save, tree

from nnunet_ext.cli import main
from nnunet_ext.dataset_conversion import conversion
from nnunet_ext.dataset_conversion.lits_plan import LitsReader
from nnunet_ext.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]
REAL_CT = REPOSITORY.parent / "shared" / "data" / "ct"
DATASET = "Dataset029_LiTS"


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's three folders; returns their parent."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def convert(source: Path, *, target: str = "tumour", **settings) -> conversion.Outcome:
    settings = {"dataset_id": 29, "name": "LiTS", **settings}
    return conversion.run(LitsReader(target=target), conversion.Settings(source=source, **settings))


def label_of(folder: Path, case: str, ending: str = ".nii") -> np.ndarray:
    path = next(folder.glob(f"labelsT?/{case}{ending}"))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T


# ---------------------------------------------------------------------------------------------------------- layouts


def test_codalab_layout(roots: Path) -> None:
    outcome = convert(codalab(roots / "in", 6, test_volumes=2))
    folder = outcome.folder
    assert folder == roots / "nnUNet_raw" / DATASET
    assert len(list(folder.glob("imagesTr/*"))) == len(list(folder.glob("labelsTr/*"))) == 5
    assert len(list(folder.glob("imagesTs/*"))) == len(list(folder.glob("labelsTs/*"))) == 1
    assert sorted(p.name for p in folder.glob("imagesTs_unlabelled/*")) == ["lits_test_000_0000.nii",
                                                                           "lits_test_001_0000.nii"]
    content = json.loads((folder / "dataset.json").read_text())
    assert content["numTraining"] == 5
    assert content["labels"] == {"background": 0, "tumour": 1}
    assert content["file_ending"] == ".nii"
    splits = json.loads((folder / "splits_final.json").read_text())
    assert len(splits) == 5
    trained_on = {p.name.removesuffix("_0000.nii") for p in folder.glob("imagesTr/*")}
    assert all({*fold["train"], *fold["val"]} == trained_on for fold in splits)
    np.testing.assert_array_equal(label_of(folder, "lits_003"), liver() == 2)


def test_decathlon_layout_gives_the_same_ids(roots: Path) -> None:
    task = roots / "in" / "Task03_Liver"
    for n in range(3):
        save(task / "imagesTr" / f"liver_{n}.nii.gz", ct(n))
        save(task / "labelsTr" / f"liver_{n}.nii.gz", liver())
        for folder in ("imagesTr", "labelsTr"):
            (task / folder / f"._liver_{n}.nii.gz").write_bytes(b"AppleDouble")
    save(task / "imagesTs" / "liver_131.nii.gz", ct(131))
    listed = [{"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"} for n in range(4)]
    (task / "dataset.json").write_text(json.dumps({"training": listed}))
    outcome = convert(task.parent, split="cv5")
    assert sorted(p.name for p in outcome.folder.glob("labelsTr/*")) == [f"lits_00{n}.nii.gz" for n in range(3)]
    assert [p.name for p in outcome.folder.glob("imagesTs_unlabelled/*")] == ["lits_test_131_0000.nii.gz"]
    assert any("lits_003" in note for note in outcome.plan.notes)


def test_foreign_files_are_left_alone_and_named(roots: Path) -> None:
    source = codalab(roots / "in", 1)
    save(source / "liver_0.nii", ct())  # the Decathlon's name outside its folders
    (source / "__MACOSX").mkdir()
    save(source / "__MACOSX" / "volume-0.nii", ct())
    outcome = convert(source)
    assert len(outcome.plan.dataset.files) == 2
    assert "liver_0.nii" in " ".join(outcome.plan.notes)


# ---------------------------------------------------------------------------------------------- targets and values


@pytest.mark.parametrize("target", ["liver-tumour", "regions"])
def test_unchanged_labels_are_linked(roots: Path, target: str) -> None:
    source = codalab(roots / "in")
    outcome = convert(source, target=target)
    assert outcome.made["written"] == 0
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_001"), liver())
    content = json.loads((outcome.folder / "dataset.json").read_text())
    regions = {"background": 0, "liver": [1, 2], "tumour": 2}
    assert content["labels"] == (regions if target == "regions" else {"background": 0, "liver": 1, "tumour": 2})
    assert content.get("regions_class_order") == ([1, 2] if target == "regions" else None)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_label_types(roots: Path, dtype: type, ending: str) -> None:
    save(roots / "in" / f"volume-0{ending}", ct())
    path = roots / "in" / f"segmentation-0{ending}"
    path.parent.mkdir(exist_ok=True)
    image = nib.Nifti1Image(liver(dtype=dtype), AFFINE, dtype=dtype)
    nib.save(image, path)
    convert(roots / "in")
    np.testing.assert_array_equal(label_of(roots / "nnUNet_raw" / DATASET, "lits_000", ending), liver() == 2)


@pytest.mark.parametrize(("slope", "inter", "stored"), [(2.0, 0.0, [0, 1, 2]), (1 / 255, 0.0, [0, 255, 510]),
                                                        (1.0, -10.0, [10, 11, 12])])
def test_scaled_labels_count_by_value(roots: Path, slope: float, inter: float, stored: list[int]) -> None:
    save(roots / "in" / "volume-0.nii", ct())
    raw = np.array(stored, np.int16)[liver()]
    image = nib.Nifti1Image(raw // 2 if slope == 2 else raw, AFFINE)
    path = roots / "in" / "segmentation-0.nii"
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([slope, inter], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(data)
    expected = (raw // 2 if slope == 2 else raw) * np.float32(slope) + inter
    convert(roots / "in", target="liver-tumour")
    np.testing.assert_array_equal(label_of(roots / "nnUNet_raw" / DATASET, "lits_000"), np.rint(expected))


def test_big_endian_files(roots: Path) -> None:
    for name, voxels in (("volume-0", ct()), ("segmentation-0", liver(dtype=np.int16))):
        header = nib.Nifti1Header(endianness=">")
        path = roots / "in" / f"{name}.nii"
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, AFFINE, header), path)
    outcome = convert(roots / "in")
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_000"), liver() == 2)
    np.testing.assert_array_equal(nib.load(outcome.folder / "imagesTr/lits_000_0000.nii").get_fdata(), ct())


def test_ending_of_most_image_bytes_wins_and_the_others_are_rewritten(roots: Path) -> None:
    source = codalab(roots / "in", 2)
    save(source / "volume-2.nii.gz", ct(2))
    save(source / "segmentation-2.nii.gz", liver())
    outcome = convert(source)
    assert {p.suffix for p in outcome.folder.glob("*/*")} == {".nii"}
    np.testing.assert_array_equal(nib.load(next(outcome.folder.glob("imagesT*/lits_002_0000.nii"))).get_fdata(), ct(2))
    convert(source, file_ending=".nii.gz", overwrite=True)
    assert {p.suffix for p in outcome.folder.glob("*/*")} == {".gz"}
    for n in range(3):
        image = next(outcome.folder.glob(f"imagesT?/lits_00{n}_0000.nii.gz"))
        np.testing.assert_array_equal(nib.load(image).get_fdata(), ct(n))


def test_content_counts_not_the_name(roots: Path) -> None:
    """A gzipped file that is called .nii is gzipped, and SimpleITK would refuse it under that name."""
    source = codalab(roots / "in", 2)
    for path in source.rglob("*-0.nii"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    outcome = convert(source)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(next(outcome.folder.glob("imagesT?/*000_0000.nii"))))).T,
                          ct(0))


def test_one_time_point_is_3d_and_nifti2_becomes_nifti1(roots: Path) -> None:
    save(roots / "in" / "volume-0.nii", ct()[..., None])
    save(roots / "in" / "segmentation-0.nii", liver())
    nib.save(nib.Nifti2Image(ct(1), AFFINE), roots / "in" / "volume-1.nii")
    nib.save(nib.Nifti2Image(liver(), AFFINE), roots / "in" / "segmentation-1.nii")
    outcome = convert(roots / "in", target="liver-tumour")
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_001"), liver())
    assert sum("NIfTI-2" in repair for repair in outcome.plan.repairs) == 2
    verify(outcome.folder)


# ---------------------------------------------------------------------------------------------------------- geometry


def verify(folder: Path) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(folder), num_processes=1)


def test_geometry_of_the_volume_is_taken_and_told(roots: Path, capfd: pytest.CaptureFixture[str]) -> None:
    moved = AFFINE @ np.diag([-1, 1, 1, 1])
    moved[:3, 3] = 0
    moved[2, 2] = 5
    save(roots / "in" / "volume-0.nii", ct())
    save(roots / "in" / "segmentation-0.nii", liver(), moved)
    save(roots / "in" / "volume-1.nii", ct(1))
    save(roots / "in" / "segmentation-1.nii", liver())
    outcome = convert(roots / "in", target="liver-tumour", split="cv5")
    assert outcome.plan.repairs == (f"{roots / 'in' / 'segmentation-0.nii'}: origin, direction, spacing differed from "
                                    "the volume's: the volume's taken",)
    assert outcome.made["written"] == 1
    image = sitk.ReadImage(str(outcome.folder / "imagesTr/lits_000_0000.nii"))
    label = sitk.ReadImage(str(outcome.folder / "labelsTr/lits_000.nii"))
    for part in ("Spacing", "Origin", "Direction"):
        assert getattr(image, f"Get{part}")() == getattr(label, f"Get{part}")()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label).T, liver())
    verify(outcome.folder)
    assert "mismatch" not in capfd.readouterr().out.lower()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_skewed_directions_are_made_orthonormal(roots: Path, ending: str) -> None:
    skewed = AFFINE.copy()
    skewed[0, 1] += 0.01
    save(roots / "in" / f"volume-0{ending}", ct(), skewed, codes=(0, 1))
    save(roots / "in" / f"segmentation-0{ending}", liver(), skewed, codes=(0, 1))
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(roots / "in" / f"volume-0{ending}"))
    outcome = convert(roots / "in")
    assert any("orthonormal" in repair for repair in outcome.plan.repairs)
    image = sitk.ReadImage(str(outcome.folder / f"imagesTr/lits_000_0000{ending}"))
    np.testing.assert_allclose(image.GetSpacing(), (0.7, 0.7, 2.5), atol=1e-3)
    np.testing.assert_allclose(image.GetDirection(), np.diag([1, 1, 1]).ravel(), atol=0.02)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, ct())
    verify(outcome.folder)


# --------------------------------------------------------------------------------------------------------- bad input


def truncate(path: Path, by: int = 200) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def break_label(source: Path, value: float, dtype: type = np.uint8) -> str:
    label = liver(dtype=dtype)
    label[0, 0, 0] = value
    return str(save(source / "segmentation-0.nii", label))


def break_image(source: Path, value: float) -> str:
    voxels = ct().astype(np.float32)
    voxels[0, 0, 0] = value
    return str(save(source / "volume-0.nii", voxels))


def remove(path: Path) -> None:
    path.unlink()


def case_problem_missing_segmentation(source: Path) -> list[str]:
    remove(source / "segmentation-0.nii")
    return [str(source / "volume-0.nii"), "segmentation is missing"]


def case_problem_orphaned_segmentation(source: Path) -> list[str]:
    remove(source / "volume-0.nii")
    return [str(source / "segmentation-0.nii"), "volume is missing"]


def case_problem_shapes(source: Path) -> list[str]:
    save(source / "segmentation-0.nii", liver((10, 9, 7)))
    return [str(source / "volume-0.nii"), str(source / "segmentation-0.nii"), "10 x 9 x 7"]


def case_problem_label_255(source: Path) -> list[str]:
    return [break_label(source, 255), "label 255"]


def case_problem_label_3(source: Path) -> list[str]:
    return [break_label(source, 3), "label 3"]


def case_problem_negative_label(source: Path) -> list[str]:
    return [break_label(source, -1, np.int16), "label -1"]


def case_problem_fractional_label(source: Path) -> list[str]:
    return [break_label(source, 0.5, np.float32), "label 0.5"]


def case_problem_nan_label(source: Path) -> list[str]:
    return [break_label(source, np.nan, np.float32), "label nan"]


def case_problem_truncated_volume(source: Path) -> list[str]:
    truncate(source / "volume-0.nii")
    return [str(source / "volume-0.nii"), "truncated"]


def case_problem_truncated_segmentation(source: Path) -> list[str]:
    truncate(source / "segmentation-0.nii")
    return [str(source / "segmentation-0.nii"), "truncated"]


def case_problem_truncated_gzip(source: Path) -> list[str]:
    remove(source / "volume-0.nii")
    truncate(save(source / "volume-0.nii.gz", ct()))
    return [str(source / "volume-0.nii.gz"), "truncated"]


def case_problem_truncated_gzip_segmentation(source: Path) -> list[str]:
    remove(source / "segmentation-0.nii")
    truncate(save(source / "segmentation-0.nii.gz", liver()), 20)
    return [str(source / "segmentation-0.nii.gz"), "truncated"]


def case_problem_damaged_gzip_segmentation(source: Path) -> list[str]:
    remove(source / "segmentation-0.nii")
    path = save(source / "segmentation-0.nii.gz", liver())
    data = bytearray(path.read_bytes())
    data[-8] ^= 0xFF  # the checksum
    path.write_bytes(data)
    return [str(path), "damaged"]


def case_problem_no_nifti(source: Path) -> list[str]:
    (source / "volume-0.nii").write_text("<html>404</html>" * 100)
    return [str(source / "volume-0.nii"), "not a NIfTI file"]


def case_problem_empty_file(source: Path) -> list[str]:
    (source / "volume-0.nii").write_bytes(b"")
    return [str(source / "volume-0.nii"), "not a NIfTI file"]


def case_problem_4d(source: Path) -> list[str]:
    save(source / "volume-0.nii", np.stack([ct(), ct()], -1))
    return [str(source / "volume-0.nii"), "4-D"]


def case_problem_complex(source: Path) -> list[str]:
    nib.save(nib.Nifti1Image(ct().astype(np.complex64), AFFINE), source / "volume-0.nii")
    return [str(source / "volume-0.nii"), "complex64"]


def case_problem_nan(source: Path) -> list[str]:
    return [break_image(source, np.nan), "NaN"]


def case_problem_inf(source: Path) -> list[str]:
    return [break_image(source, np.inf), "infinite"]


def case_problem_duplicates(source: Path) -> list[str]:
    return ["lits_000", str(source / "volume-0.nii"), str(save(source / "again" / "volume-00.nii", ct()))]


def case_problem_broken_link(source: Path) -> list[str]:
    remove(source / "volume-0.nii")
    (source / "volume-0.nii").symlink_to(source / "gone")
    return [str(source / "volume-0.nii"), "cannot be read"]


def case_problem_no_orientation(source: Path) -> list[str]:
    path = source / "volume-0.nii"
    data = bytearray(path.read_bytes())
    data[252:256] = np.array([0, 1], "<i2").tobytes()  # sform only ...
    data[280:328] = bytes(48)  # ... and that is all zero
    path.write_bytes(data)
    return [str(path), "orientation"]


CASE_PROBLEMS = {name.removeprefix("case_problem_"): f for name, f in list(globals().items())
                 if name.startswith("case_problem_")}


@pytest.fixture
def flat(roots: Path) -> Path:
    """Three good cases in one folder."""
    source = roots / "in"
    for n in range(3):
        save(source / f"volume-{n}.nii", ct(n))
        save(source / f"segmentation-{n}.nii", liver())
    return source


@pytest.mark.parametrize("name", CASE_PROBLEMS)
def test_bad_case_is_named_and_nothing_written(roots: Path, flat: Path, name: str) -> None:
    expected = CASE_PROBLEMS[name](flat)
    with pytest.raises(InputError) as caught:
        convert(flat)
    assert len(caught.value.problems) == 1
    for words in (*expected, "--skip-bad"):
        assert words in str(caught.value)
    assert not os.listdir(roots / "nnUNet_raw")
    outcome = convert(flat, skip_bad=True)
    assert len(outcome.skipped) == 1
    assert sorted({file.target[9:17] for file in outcome.plan.dataset.files}) == ["lits_001", "lits_002"]
    assert json.loads((outcome.folder / "conversion.json").read_text())["skipped"] == list(outcome.skipped)


def test_all_problems_come_together(roots: Path, flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (flat / "volume-0.nii").write_text("no")
    save(flat / "segmentation-0.nii", liver() + 7)
    truncate(flat / "volume-1.nii")
    save(flat / "segmentation-9.nii", liver())
    (roots / "nnUNet_raw" / "Dataset029_Other").mkdir()
    with pytest.raises(InputError) as caught:
        convert(flat)
    assert len(caught.value.problems) == 5
    assert "lits_000, lits_001, lits_009" in caught.value.way_out
    assert os.listdir(roots / "nnUNet_raw") == ["Dataset029_Other"]


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_dataset_id_taken(roots: Path, flat: Path, variable: str) -> None:
    (roots / variable / "Dataset029_Other").mkdir()
    with pytest.raises(InputError, match=r"id 29 is taken by .*Dataset029_Other"):
        convert(flat)
    convert(flat, dataset_id=30)


def test_nothing_found(roots: Path) -> None:
    (roots / "in").mkdir()
    with pytest.raises(InputError, match="no pair of volume-N.nii"):
        convert(roots / "in")
    with pytest.raises(InputError, match="is not a folder"):
        convert(roots / "elsewhere")


def test_nothing_left(roots: Path, flat: Path) -> None:
    for path in flat.glob("segmentation*"):
        truncate(path)
    with pytest.raises(InputError, match="no usable case is left"):
        convert(flat, skip_bad=True)


def test_raw_unset_or_unwritable(roots: Path, flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(InputError, match="nnUNet_raw is not set"):
        convert(flat)
    (roots / "file").write_text("")
    monkeypatch.setenv("nnUNet_raw", str(roots / "file" / "raw"))
    with pytest.raises(InputError, match="cannot be written"):
        convert(flat)


def test_too_little_space(roots: Path, flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(roots)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match="too little disk space"):
        convert(flat)
    assert not os.listdir(roots / "nnUNet_raw")


@pytest.mark.parametrize(("settings", "words"), [({"dataset_id": 0}, "--dataset-id 0"), ({"dataset_id": 1000}, "1000"),
                                                 ({"name": "a__b"}, "a__b"), ({"name": "a/b"}, "a/b")])
def test_impossible_names(roots: Path, flat: Path, settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        convert(flat, **settings)


# -------------------------------------------------------------------------------------------------- again and again


def test_same_again_is_nothing_and_another_needs_overwrite(roots: Path, flat: Path) -> None:
    folder = convert(flat).folder
    before = tree(folder)
    assert convert(flat).plan is None
    with pytest.raises(InputError, match=r"--target \(tumour then, regions now\).*--overwrite"):
        convert(flat, target="regions")
    os.utime(flat / "volume-0.nii", ns=(0, 0))
    with pytest.raises(InputError, match=r"source files.*--overwrite"):
        convert(flat)
    assert tree(folder) == before
    convert(flat, target="regions", overwrite=True)
    assert json.loads((folder / "dataset.json").read_text())["labels"]["tumour"] == 2
    assert os.listdir(roots / "nnUNet_raw") == [DATASET]


def test_damage_to_a_finished_dataset_is_noticed(roots: Path, flat: Path) -> None:
    folder = convert(flat).folder
    next(folder.glob("labelsTr/*")).unlink()
    with pytest.raises(InputError, match=r"labelsTr/lits_00.*--overwrite"):
        convert(flat)
    convert(flat, overwrite=True)
    assert convert(flat).plan is None


def test_a_dataset_of_unknown_origin_is_not_touched(roots: Path, flat: Path) -> None:
    (roots / "nnUNet_raw" / DATASET).mkdir()
    (roots / "nnUNet_raw" / DATASET / "mine").write_text("mine")
    with pytest.raises(InputError, match=r"not made by this command.*--overwrite"):
        convert(flat)
    assert (roots / "nnUNet_raw" / DATASET / "mine").exists()


def test_checksums_look_at_content_not_at_time(roots: Path, flat: Path) -> None:
    folder = convert(flat, checksum=True, link="copy").folder
    sources = json.loads((folder / "conversion.json").read_text())["request"]["sources"]
    assert all(len(source["sha256"]) == 64 for source in sources.values())
    os.utime(flat / "volume-0.nii", ns=(0, 0))
    assert convert(flat, checksum=True, link="copy").plan is None
    data = bytearray((flat / "volume-0.nii").read_bytes())
    data[-1] ^= 1
    (flat / "volume-0.nii").write_bytes(data)
    with pytest.raises(InputError, match="source files"):
        convert(flat, checksum=True, link="copy")


def test_dry_run_writes_nothing(roots: Path, flat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "lits", "--source", str(flat), "--dry-run", "--num-processes", "1"]) == 0
    assert "would be written" in capsys.readouterr().out
    assert not os.listdir(roots / "nnUNet_raw")


def test_stale_preprocessed_data(roots: Path, flat: Path) -> None:
    convert(flat)
    folder = roots / "nnUNet_preprocessed" / DATASET
    for name in ("gt_segmentations", "nnUNetPlans_2d", "notes"):
        (folder / name).mkdir(parents=True)
    plans = {"plans_name": "nnUNetPlans", "configurations": {}}
    for name in ("dataset_fingerprint.json", "splits_final.json", "dataset.json", "mine.json"):
        (folder / name).write_text("{}")
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert convert(flat).plan is None  # unchanged: nothing is stale
    assert convert(flat, overwrite=True).stale == ()
    with pytest.raises(InputError) as caught:
        convert(flat, target="regions", overwrite=True)
    for name in ("dataset_fingerprint.json", "splits_final.json", "gt_segmentations", "nnUNetPlans_2d",
                 "--overwrite-preprocessed"):
        assert name in str(caught.value)
    assert (folder / "nnUNetPlans_2d").exists()
    convert(flat, target="regions", overwrite=True, overwrite_preprocessed=True)
    assert sorted(os.listdir(folder)) == ["mine.json", "notes"]


def test_stale_data_without_a_raw_dataset(roots: Path, flat: Path) -> None:
    folder = roots / "nnUNet_preprocessed" / DATASET
    folder.mkdir()
    convert(flat)
    shutil.rmtree(roots / "nnUNet_raw" / DATASET)
    (folder / "splits_final.json").write_text("[]")
    with pytest.raises(InputError, match="splits_final.json"):
        convert(flat)


# -------------------------------------------------------------------------------------------------- through the door


@pytest.mark.parametrize("target", ["tumour", "regions"])
def test_nnunet_finds_the_dataset_sound(roots: Path, target: str) -> None:
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    outcome = convert(codalab(roots / "in", 4, ending=".nii.gz"), target=target)
    verify(outcome.folder)
    assert convert_id_to_dataset_name(29) == DATASET


def test_command_line_reports_and_returns(roots: Path, flat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["convert", "lits", "--source", str(flat), "--num-processes", "1"]
    assert main(command) == 0
    assert "nnUNetv2_plan_and_preprocess -d 29" in capsys.readouterr().out
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*command, "--seed", "1"]) == 2
    assert "error: " in capsys.readouterr().err


def test_more_processes_give_the_same_bytes(roots: Path, flat: Path) -> None:
    folder = convert(flat, file_ending=".nii.gz").folder
    one = tree(folder)
    convert(flat, file_ending=".nii.gz", overwrite=True, num_processes=2)
    assert tree(folder) == one


def test_killed_at_random_moments_it_completes_with_the_same_bytes(roots: Path) -> None:
    source = codalab(roots / "in", 8, shape=(64, 64, 40), test_volumes=1)
    command = [sys.executable, "-c", "import sys; from nnunet_ext.cli import main; sys.exit(main())", "convert", "lits",
               "--source", str(source), "--file-ending", ".nii.gz", "--num-processes", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    start = time.monotonic()
    subprocess.run(command, env={**environment, "nnUNet_raw": str(roots / "reference")}, check=True, capture_output=True)
    duration = time.monotonic() - start
    expected = tree(roots / "reference" / DATASET)
    final = roots / "nnUNet_raw" / DATASET
    moments = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.2, 1.0) * duration)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not final.exists() or tree(final) == expected
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert tree(final) == expected
    assert os.listdir(roots / "nnUNet_raw") == [DATASET]


def test_real_ct(roots: Path) -> None:
    if not REAL_CT.is_dir():
        pytest.skip(f"no real CT in {REAL_CT}")
    volume = nib.load(REAL_CT / "example_ct_sm.nii.gz")
    label = (np.asarray(nib.load(REAL_CT / "example_ct_sm_liver.nii.gz").dataobj) > 0).astype(np.uint8)
    inside = np.argwhere(label)
    x, y, z = inside[len(inside) // 2]
    label[x:x + 6, y:y + 6, z:z + 2] *= 2  # a tumour where there is none
    for n in range(3):
        (roots / "in").mkdir(exist_ok=True)
        shutil.copy(REAL_CT / "example_ct_sm.nii.gz", roots / "in" / f"volume-{n}.nii.gz")
        nib.save(nib.Nifti1Image(label, volume.affine), roots / "in" / f"segmentation-{n}.nii.gz")
    shutil.copy(REAL_CT / "example_ct.nii.gz", roots / "in" / "test-volume-0.nii.gz")
    outcome = convert(roots / "in")
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_001", ".nii.gz"), label == 2)
    assert outcome.made["written"] == 3
    verify(outcome.folder)
