"""``nnunet_ext convert lits`` from download to nnUNet_raw: layouts, targets, geometry, the command line."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from lits_source import AFFINE, DATASET, codalab, convert, ct, label_of, liver, save, three_cases, tree, verify

from nnunet_ext.cli import main


def test_codalab_layout(nnunet_folders: Path) -> None:
    outcome = convert(codalab(nnunet_folders / "in", 6, test_volumes=2))
    folder = outcome.folder
    assert folder == nnunet_folders / "nnUNet_raw" / DATASET
    assert len(list(folder.glob("imagesTr/*"))) == len(list(folder.glob("labelsTr/*"))) == 5
    assert len(list(folder.glob("imagesTs/*"))) == len(list(folder.glob("labelsTs/*"))) == 1
    assert sorted(p.name for p in folder.glob("imagesTs_unlabelled/*")) == [
        "lits_test_000_0000.nii",
        "lits_test_001_0000.nii",
    ]
    content = json.loads((folder / "dataset.json").read_text())
    assert content["numTraining"] == 5
    assert content["labels"] == {"background": 0, "tumour": 1}
    assert content["file_ending"] == ".nii"
    splits = json.loads((folder / "splits_final.json").read_text())
    assert len(splits) == 5
    trained_on = {p.name.removesuffix("_0000.nii") for p in folder.glob("imagesTr/*")}
    assert all({*fold["train"], *fold["val"]} == trained_on for fold in splits)
    np.testing.assert_array_equal(label_of(folder, "lits_003"), liver() == 2)


def test_decathlon_layout_gives_the_same_ids(nnunet_folders: Path) -> None:
    task = nnunet_folders / "in" / "Task03_Liver"
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
    assert any("lits_003" in note for note in outcome.layout.notes)


def test_decathlon_as_nnunet_converts_it(nnunet_folders: Path) -> None:
    source = nnunet_folders / "nnUNet_raw" / "Dataset003_Liver"
    for n in range(3):
        save(source / "imagesTr" / f"liver_{n}_0000.nii.gz", ct(n))
        save(source / "labelsTr" / f"liver_{n}.nii.gz", liver())
    save(source / "imagesTs" / "liver_131_0000.nii.gz", ct(131))
    (source / "dataset.json").write_text(json.dumps({"numTraining": 3}))
    outcome = convert(source, split="cv5")
    assert sorted(p.name for p in outcome.folder.glob("labelsTr/*")) == [f"lits_00{n}.nii.gz" for n in range(3)]
    assert [p.name for p in outcome.folder.glob("imagesTs_unlabelled/*")] == ["lits_test_131_0000.nii.gz"]


def test_foreign_files_are_left_alone_and_named(nnunet_folders: Path) -> None:
    source = codalab(nnunet_folders / "in", 1)
    save(source / "liver_0.nii", ct())  # the Decathlon's name outside its folders
    (source / "__MACOSX").mkdir()
    save(source / "__MACOSX" / "volume-0.nii", ct())
    outcome = convert(source)
    assert len(outcome.layout.files) == 2
    assert "liver_0.nii" in " ".join(outcome.layout.notes)


@pytest.mark.parametrize("target", ["liver-tumour", "regions"])
def test_unchanged_labels_are_not_rewritten(nnunet_folders: Path, target: str) -> None:
    source = codalab(nnunet_folders / "in")
    outcome = convert(source, target=target)
    assert outcome.made["written"] == 0
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_001"), liver())
    content = json.loads((outcome.folder / "dataset.json").read_text())
    regions = {"background": 0, "liver": [1, 2], "tumour": 2}
    assert content["labels"] == (regions if target == "regions" else {"background": 0, "liver": 1, "tumour": 2})
    assert content.get("regions_class_order") == ([1, 2] if target == "regions" else None)


def test_editing_a_label_leaves_the_download_as_it_is(nnunet_folders: Path) -> None:
    source = three_cases(nnunet_folders / "in")
    before = tree(source)
    for path in convert(source, target="liver-tumour").folder.glob("labelsT?/*"):
        assert not path.is_symlink()
        path.write_bytes(b"edited")
    assert tree(source) == before


@pytest.mark.parametrize("mode", ["hard", "symlink"])
def test_labels_share_bytes_when_asked_to_and_that_is_said(
    nnunet_folders: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    source = three_cases(nnunet_folders / "in")
    command = ["convert", "lits", "--source", str(source), "--target", "liver-tumour", "--num-processes", "1"]
    assert main([*command, "--link", mode]) == 0
    out = capsys.readouterr().out
    assert "6 " in out
    assert "share their bytes with the download" in out
    assert ("has to stay" in out) == (mode == "symlink")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_label_types(nnunet_folders: Path, dtype: type, ending: str) -> None:
    save(nnunet_folders / "in" / f"volume-0{ending}", ct())
    path = nnunet_folders / "in" / f"segmentation-0{ending}"
    path.parent.mkdir(exist_ok=True)
    image = nib.Nifti1Image(liver(dtype=dtype), AFFINE, dtype=dtype)
    nib.save(image, path)
    convert(nnunet_folders / "in")
    np.testing.assert_array_equal(label_of(nnunet_folders / "nnUNet_raw" / DATASET, "lits_000", ending), liver() == 2)


@pytest.mark.parametrize(
    ("slope", "inter", "stored"), [(2.0, 0.0, [0, 1, 2]), (1 / 255, 0.0, [0, 255, 510]), (1.0, -10.0, [10, 11, 12])]
)
def test_scaled_labels_count_by_value(nnunet_folders: Path, slope: float, inter: float, stored: list[int]) -> None:
    save(nnunet_folders / "in" / "volume-0.nii", ct())
    raw = np.array(stored, np.int16)[liver()]
    image = nib.Nifti1Image(raw // 2 if slope == 2 else raw, AFFINE)
    path = nnunet_folders / "in" / "segmentation-0.nii"
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([slope, inter], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(data)
    expected = (raw // 2 if slope == 2 else raw) * np.float32(slope) + inter
    convert(nnunet_folders / "in", target="liver-tumour")
    np.testing.assert_array_equal(label_of(nnunet_folders / "nnUNet_raw" / DATASET, "lits_000"), np.rint(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_that_are_nearly_whole_are_rounded(nnunet_folders: Path, dtype: type) -> None:
    """As resampling leaves them."""
    source = three_cases(nnunet_folders / "in")
    label = liver(dtype=dtype)
    label[label == 1] = 1.0000001 if dtype is np.float64 else 0.9995
    save(source / "segmentation-0.nii", label)
    outcome = convert(source, target="liver-tumour")
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_000"), liver())
    (repair,) = outcome.layout.repairs
    assert repair.endswith(
        f"segmentation-0.nii: {int((liver() == 1).sum())} voxels were not quite whole numbers: rounded"
    )


@pytest.mark.parametrize(
    ("more", "dirty"),
    [
        (b"garbage", True),
        (b"x", True),
        (gzip.compress(b""), False),
        (gzip.compress(b"x") + b"y", True),
        (bytes(9), False),
    ],
    ids=["garbage", "a byte", "a member", "a member and a byte", "zeros"],
)
def test_bytes_after_the_end_of_gzip(nnunet_folders: Path, more: bytes, dirty: bool) -> None:
    """ITK reads such files; Python's gzip takes all but zeros and further members for damage."""
    source = codalab(nnunet_folders / "in", ending=".nii.gz")
    for path in source.rglob("*-0.nii.gz"):
        path.write_bytes(path.read_bytes() + more)
    outcome = convert(source, target="liver-tumour", checksum=True)
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_000", ".nii.gz"), liver())
    image = next(outcome.folder.glob("imagesT?/lits_000_0000.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(image))).T, ct(0))
    for path in outcome.folder.glob("*/*.nii.gz"):
        gzip.decompress(path.read_bytes())
    assert sum("left out" in repair for repair in outcome.layout.repairs) == 2 * dirty


def test_big_endian_files(nnunet_folders: Path) -> None:
    for name, voxels in (("volume-0", ct()), ("segmentation-0", liver(dtype=np.int16))):
        header = nib.Nifti1Header(endianness=">")
        path = nnunet_folders / "in" / f"{name}.nii"
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, AFFINE, header), path)
    outcome = convert(nnunet_folders / "in")
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_000"), liver() == 2)
    np.testing.assert_array_equal(nib.load(outcome.folder / "imagesTr/lits_000_0000.nii").get_fdata(), ct())


def test_ending_of_most_image_bytes_wins_and_the_others_are_rewritten(nnunet_folders: Path) -> None:
    source = codalab(nnunet_folders / "in", 2)
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


def test_content_counts_not_the_name(nnunet_folders: Path) -> None:
    """A gzipped file that is called .nii is gzipped, and SimpleITK would refuse it under that name."""
    source = codalab(nnunet_folders / "in", 2)
    for path in source.rglob("*-0.nii"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    outcome = convert(source)
    image = sitk.ReadImage(str(next(outcome.folder.glob("imagesT?/*000_0000.nii"))))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, ct(0))


def test_one_time_point_is_3d_and_nifti2_becomes_nifti1(nnunet_folders: Path) -> None:
    save(nnunet_folders / "in" / "volume-0.nii", ct()[..., None])
    save(nnunet_folders / "in" / "segmentation-0.nii", liver())
    nib.save(nib.Nifti2Image(ct(1), AFFINE), nnunet_folders / "in" / "volume-1.nii")
    nib.save(nib.Nifti2Image(liver(), AFFINE), nnunet_folders / "in" / "segmentation-1.nii")
    outcome = convert(nnunet_folders / "in", target="liver-tumour")
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_001"), liver())
    assert sum("NIfTI-2" in repair for repair in outcome.layout.repairs) == 2


def test_extensions_of_the_header_are_no_hindrance(nnunet_folders: Path) -> None:
    """As AFNI and others write them: longer than what is read to know a NIfTI file."""
    image, label = nib.Nifti1Image(ct(), AFFINE), nib.Nifti1Image(liver(), AFFINE)
    (nnunet_folders / "in").mkdir()
    for volume, name in ((image, "volume-0"), (label, "segmentation-0")):
        volume.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"x" * 3000))
        nib.save(volume, nnunet_folders / "in" / f"{name}.nii")
    folder = convert(nnunet_folders / "in").folder
    np.testing.assert_array_equal(label_of(folder, "lits_000"), liver() == 2)
    assert (folder / "labelsTr" / "lits_000.nii").stat().st_size == 352 + liver().size


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_volumes_are_never_whole_in_memory(nnunet_folders: Path, ending: str) -> None:
    source = codalab(nnunet_folders / "in", 1, ending=ending, shape=(128, 128, 400))  # 7 and 13 MB
    tracemalloc.start()
    convert(source, file_ending=".nii")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


@pytest.mark.parametrize("target", ["tumour", "regions"])
def test_nnunet_finds_the_dataset_sound(nnunet_folders: Path, target: str) -> None:
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    outcome = convert(codalab(nnunet_folders / "in", 4, ending=".nii.gz"), target=target)
    verify(outcome.folder)
    assert convert_id_to_dataset_name(29) == DATASET


def test_command_line_reports_and_returns(nnunet_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["convert", "lits", "--source", str(three_cases(nnunet_folders / "in")), "--num-processes", "1"]
    assert main(command) == 0
    hint = "nnUNetv2_plan_and_preprocess -d 29 -c 2d -pl RAUNetPlanner --verify_dataset_integrity"
    assert hint in (Path(__file__).parents[1] / "README.md").read_text()
    assert hint in capsys.readouterr().out
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*command, "--seed", "1"]) == 2
    assert "error: " in capsys.readouterr().err
