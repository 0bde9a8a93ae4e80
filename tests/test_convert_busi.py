"""``nnunet_ext convert busi`` from download to nnUNet_raw: layouts, modes, targets, duplicates, the command line."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from busi_source import (
    DATASET,
    SIZE,
    TWINS,
    convert,
    flattened,
    image_of,
    label_of,
    lesion,
    mask_image,
    published,
    save,
    twins,
    ultrasound,
)
from lits_source import tree, verify
from PIL import Image

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import busi, picture_file, picture_format, writer


def record_of(folder: Path) -> dict:
    return json.loads((folder / "conversion.json").read_text())


def test_published_layout(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in" / "Dataset_BUSI_with_GT", benign=12, malignant=8, normal=2)
    (source / "README.txt").write_text("hello")
    save(ultrasound(), source / "benign" / "benign (99).gif")
    (source / "benign" / "._benign (1).png").write_bytes(b"AppleDouble")
    outcome = convert(source.parent)
    assert any("1 picture left alone, in a format that is not read: benign (99).gif" in n for n in outcome.layout.notes)
    folder = outcome.folder
    assert folder == nnunet_folders / "nnUNet_raw" / DATASET
    assert len(list(folder.glob("imagesTr/*"))) == len(list(folder.glob("labelsTr/*"))) == 16
    assert len(list(folder.glob("imagesTs/*"))) == len(list(folder.glob("labelsTs/*"))) == 4
    content = json.loads((folder / "dataset.json").read_text())
    assert content["numTraining"] == 16
    assert content["labels"] == {"background": 0, "lesion": 1}
    assert content["channel_names"] == {"0": "ultrasound"}
    assert content["file_ending"] == ".png"
    np.testing.assert_array_equal(image_of(folder, "benign_0002"), np.asarray(ultrasound(2)))
    np.testing.assert_array_equal(label_of(folder, "malignant_0001"), lesion())
    splits = json.loads((folder / "splits_final.json").read_text())
    trained_on = {p.stem for p in folder.glob("labelsTr/*")}
    assert len(splits) == 5
    assert all({*fold["train"], *fold["val"]} == trained_on for fold in splits)
    validated = [case for fold in splits for case in fold["val"]]
    assert len(validated) == len(set(validated)) == 10
    verify(folder)


def test_every_side_holds_its_share_of_the_classes(nnunet_folders: Path) -> None:
    folder = convert(published(nnunet_folders / "in", benign=20, malignant=10)).folder
    held_out = [p.stem.split("_")[0] for p in folder.glob("labelsTs/*")]
    assert (held_out.count("benign"), held_out.count("malignant")) == (4, 2)
    for fold in json.loads((folder / "splits_final.json").read_text()):
        assert sorted(case.split("_")[0] for case in fold["val"]) == ["benign", "benign", "malignant"]


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_flattened_layout_gives_the_same_dataset(nnunet_folders: Path, suffix: str) -> None:
    source = published(nnunet_folders / "in", normal=1)
    expected = tree(convert(source, classes=busi.CLASSES).folder)
    flat = flattened(source, nnunet_folders / "flat", suffix=suffix)
    assert (flat / "masks" / "1").is_dir()
    assert main(["convert", "busi", "--source", str(flat), "--classes", *busi.CLASSES, "--overwrite"]) == 0
    found = tree(nnunet_folders / "nnUNet_raw" / DATASET)
    assert expected.pop("conversion.json") != found.pop("conversion.json")
    assert found == expected


def test_names_are_safe_and_the_way_back_is_recorded(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in", benign=2)
    save(ultrasound(50), source / "images" / "Benign-17 left.png")
    save(mask_image(lesion()), source / "masks" / "0" / "Benign-17 left.png")
    save(ultrasound(51), source / "malignant" / "x7.PNG")
    save(mask_image(lesion()), source / "malignant" / "x7_MASK.PNG")
    cases = record_of(convert(source).folder)["cases"]
    assert {id_: case["name"] for id_, case in cases.items()} == {
        "benign_0001": "benign (1)",
        "benign_0002": "benign (2)",
        "benign_0017_left": "Benign-17 left",
        "malignant_0001": "malignant (1)",
        "malignant_0002": "malignant (2)",
        "malignant_x_0007": "x7",
    }
    assert cases["benign_0002"]["image"]["source"] == str(source / "benign" / "benign (2).png")


def test_masks_are_united(nnunet_folders: Path) -> None:
    outcome = convert(published(nnunet_folders / "in"))
    both = lesion() | lesion(left=40)
    np.testing.assert_array_equal(label_of(outcome.folder, "benign_0003"), both)
    label = record_of(outcome.folder)["cases"]["benign_0003"]["label"]
    assert [Path(part["source"]).name for part in label["sources"]] == ["benign (3)_mask.png", "benign (3)_mask_1.png"]
    assert label["lesion_pixels"] == both.sum() == 300


def paletted(mask: np.ndarray) -> Image.Image:
    """Number 0 is black, 1 to 3 are colours, which no reader could take otherwise."""
    image = Image.fromarray(np.where(mask, np.random.RandomState(0).randint(1, 4, mask.shape), 0).astype(np.uint8))
    image.putpalette([0, 0, 0] + [200, 0, 0] * 3)
    return image


def opaque(mode: str, mask: np.ndarray) -> Image.Image:
    image = mask_image(mask).convert(mode)
    image.putalpha(200)
    return image


def one_channel(mask: np.ndarray) -> Image.Image:
    zero = np.zeros_like(mask, np.uint8)
    return Image.fromarray(np.stack([zero, zero, mask.astype(np.uint8)], -1))


MASKS = {
    "1": lambda mask: mask_image(mask).convert("1"),
    "L with 255": mask_image,
    "L with 1": lambda mask: Image.fromarray(mask.astype(np.uint8)),
    "I;16 with 1": lambda mask: Image.fromarray(mask.astype(np.uint16)),
    "I;16 with 65535": lambda mask: Image.fromarray(mask.astype(np.uint16) * 65535),
    "LA": lambda mask: opaque("LA", mask),
    "RGB": lambda mask: mask_image(mask).convert("RGB"),
    "RGB with 1 in blue": one_channel,
    "RGBA": lambda mask: opaque("RGBA", mask),
    "palette": paletted,
}


@pytest.mark.parametrize("mode", MASKS)
def test_mask_modes(nnunet_folders: Path, mode: str) -> None:
    source = published(nnunet_folders / "in")
    path = save(MASKS[mode](lesion(left=33)), source / "benign" / "benign (1)_mask.png")
    with Image.open(path) as stored:
        assert stored.mode == mode.split()[0].replace("palette", "P")
    np.testing.assert_array_equal(label_of(convert(source).folder, "benign_0001"), lesion(left=33))


def through_jpeg(mask: np.ndarray) -> Image.Image:
    """What is left of a mask that once was saved as JPEG."""
    content = io.BytesIO()
    mask_image(mask).save(content, "JPEG", quality=75)
    return Image.open(content)


def resized(mask: np.ndarray) -> Image.Image:
    """What an interpolating resize leaves."""
    small = (mask.shape[1] // 2, mask.shape[0] // 2)
    return mask_image(mask).resize(small, Image.Resampling.BICUBIC).resize(mask.shape[::-1], Image.Resampling.BICUBIC)


GREY = {"JPEG": through_jpeg, "resized": resized}


@pytest.mark.parametrize("how", GREY)
def test_grey_rims_are_cut_at_half_of_the_range(nnunet_folders: Path, how: str) -> None:
    source = published(nnunet_folders / "in")
    levels = np.asarray(GREY[how](lesion()))
    assert len(np.unique(levels)) > 10
    path = save(Image.fromarray(levels), source / "benign" / "benign (1)_mask.png")
    outcome = convert(source)
    written = label_of(outcome.folder, "benign_0001")
    np.testing.assert_array_equal(written, levels > 127)
    assert 2 * (written & lesion()).sum() / (written.sum() + lesion().sum()) > 0.98
    (repair,) = outcome.layout.repairs
    assert repair.startswith(
        f"{path}: {len(np.unique(levels))} values from 0 to {levels.max()} were cut at half of 255"
    )
    assert f"{written.sum()} pixels are marked, {np.count_nonzero(levels):,} are above 0" in repair
    label = record_of(outcome.folder)["cases"]["benign_0001"]["label"]
    assert (label["lesion_pixels"], label["cuts"]) == (written.sum(), [repair.split(": ", 1)[1]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_image_modes(nnunet_folders: Path, mode: str) -> None:
    source = published(nnunet_folders / "in")
    image = ultrasound(1).convert(mode)
    save(image, source / "benign" / "benign (1).png")
    expected = np.asarray(ultrasound(1).convert("1"), np.uint8) * 255 if mode == "1" else np.asarray(ultrasound(1))
    np.testing.assert_array_equal(image_of(convert(source).folder, "benign_0001"), expected)


def test_colour_becomes_luma_and_is_reported(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in")
    image = ultrasound(1).convert("RGB")
    image.putpixel((3, 2), (255, 0, 0))
    path = save(image, source / "benign" / "benign (1).png")
    outcome = convert(source)
    assert outcome.layout.repairs == (f"{path}: coloured pixels became grey",)
    assert image_of(outcome.folder, "benign_0001")[2, 3] == round(0.299 * 255)


def test_grey_images_are_linked(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in")
    path = save(ultrasound(1), source / "benign" / "benign (1).png")
    save(ultrasound(2), source / "benign" / "benign (2).png")
    with Image.open(path) as image:
        image.save(source / "benign" / "benign (2).png", transparency=7)  # which some readers make a channel of
    outcome = convert(source, link="hard")
    assert outcome.made == {"hard": 1, "written": 9}
    assert path.samefile(next(outcome.folder.glob("imagesT?/benign_0001_0000.png")))


def test_targets_and_classes(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in", normal=2)
    outcome = convert(source, classes=("normal", "malignant", "benign"), target="class")
    labels = {case: set(np.unique(label_of(outcome.folder, case))) for case in record_of(outcome.folder)["cases"]}
    assert len(labels) == 7
    values = {"benign": {0, 1}, "malignant": {0, 2}, "normal": {0}}
    assert all(found == values[case.split("_")[0]] for case, found in labels.items())
    content = json.loads((outcome.folder / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "benign": 1, "malignant": 2}
    verify(outcome.folder)
    outcome = convert(source, classes=("malignant",), target="class", overwrite=True)
    assert json.loads((outcome.folder / "dataset.json").read_text())["labels"] == {"background": 0, "malignant": 1}
    assert set(record_of(outcome.folder)["cases"]) == {"malignant_0001", "malignant_0002"}
    assert set(np.unique(label_of(outcome.folder, "malignant_0001"))) == {0, 1}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("split", ["paper", "cv5"])
def test_near_duplicates_stay_together(nnunet_folders: Path, split: str, seed: int) -> None:
    outcome = convert(twins(nnunet_folders / "in"), split=split, seed=seed, dry_run=True)
    record = outcome.layout.documents["conversion.json"]
    (group,) = record["near_duplicates"]["groups"]
    assert group["cases"] == TWINS
    assert group["label_conflict"] is True
    assert 0.9 <= group["similarity"] < 1
    assert "1 groups of 3 images" in " ".join(outcome.layout.summary)
    assert any("label conflict: benign_0001, benign_0009, malignant_0009" in note for note in outcome.layout.notes)
    split_ = record["split"]
    for side in (split_["test"], *(fold[part] for fold in split_["folds"] for part in ("train", "val"))):
        assert len(set(TWINS) & set(side)) in (0, 3)


def test_duplicates_dropped(nnunet_folders: Path) -> None:
    outcome = convert(twins(nnunet_folders / "in"), duplicates="drop")
    record = record_of(outcome.folder)
    assert set(TWINS) & set(record["cases"]) == {"benign_0001"}  # as large as malignant_0009, and before it
    assert record["near_duplicates"]["groups"][0]["kept"] == "benign_0001"
    assert any("benign_0001 is kept" in note for note in outcome.layout.notes)
    assert len(list(outcome.folder.glob("imagesT?/*"))) == 16


def test_duplicates_ignored_give_the_split_by_image(nnunet_folders: Path) -> None:
    source = twins(nnunet_folders / "in")
    torn = []
    for seed in range(4):
        layout = convert(source, duplicates="ignore", seed=seed, dry_run=True).layout
        record = layout.documents["conversion.json"]
        assert record["near_duplicates"]["groups"][0]["cases"] == TWINS
        sides = [record["split"]["test"], *(fold["val"] for fold in record["split"]["folds"])]
        torn.append(any(0 < len(set(TWINS) & set(side)) < 3 for side in sides))
        assert any(f"{int(torn[-1])} of 1 groups" in note for note in layout.notes)
    assert any(torn)


def test_same_again_is_nothing_and_another_needs_overwrite(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in")
    folder = convert(source).folder
    before = tree(folder)
    assert convert(source).layout is None
    assert convert(source, classes=("malignant", "benign", "benign")).layout is None
    with pytest.raises(InputError, match=r"--drop-duplicates \(False then, True now\).*--overwrite"):
        convert(source, duplicates="drop")
    assert tree(folder) == before
    convert(source, overwrite=True)
    assert tree(folder) == before


def test_more_processes_give_the_same_bytes(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_SECONDS_PER_WORKER", 1e-9)
    source = published(nnunet_folders / "in")
    folder = convert(source).folder
    one = tree(folder)
    convert(source, overwrite=True, num_processes=2)
    assert tree(folder) == one


def test_images_that_find_no_room_in_memory_are_decoded_again(
    nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = published(nnunet_folders / "in")
    folder = convert(source).folder
    expected = tree(folder)
    for room, kept in ((0, 0), (1, 1)):
        monkeypatch.setattr(busi, "_KEPT_BYTES", room)
        layout = convert(source, overwrite=True).layout
        recipes = [file.recipe for file in layout.files if file.target.startswith("images")]
        assert sum(recipe.content is not None for recipe in recipes) == kept
        assert tree(folder) == expected


def test_every_file_is_read_once(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, seen = published(nnunet_folders / "in", normal=1), []
    monkeypatch.setattr(
        picture_format, "read", lambda path, **kind: (seen.append(path), picture_file.read(path, **kind))[1]
    )
    convert(source, classes=busi.CLASSES)
    assert sorted(seen) == sorted(source.rglob("*.png"))


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".bmp", ".tif", ".tiff"])
def test_images_in_other_formats_become_png(nnunet_folders: Path, ending: str) -> None:
    source = published(nnunet_folders / "in")
    for path in [p for p in source.rglob("*.png") if "_mask" not in p.name]:
        save(Image.open(path), path.with_suffix(ending))
        path.unlink()
    folder = convert(source).folder
    written = image_of(folder, "benign_0001").astype(int)
    assert np.abs(written - np.asarray(ultrasound(1), int)).max() <= (12 if ending.lower().startswith(".jp") else 0)
    assert record_of(folder)["cases"]["benign_0001"]["image"]["source"].endswith(ending)
    verify(folder)


@pytest.mark.parametrize("ending", [".bmp", ".tif"])
def test_masks_in_other_lossless_formats(nnunet_folders: Path, ending: str) -> None:
    source = published(nnunet_folders / "in")
    path = source / "benign" / "benign (1)_mask.png"
    path.unlink()
    save(mask_image(lesion(left=33)), path.with_suffix(ending))
    np.testing.assert_array_equal(label_of(convert(source).folder, "benign_0001"), lesion(left=33))


def test_names_that_differ_in_case_belong_together(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in")
    for name, called in (("benign (1).png", "Benign (1).PNG"), ("benign (2)_mask.png", "BENIGN (2)_Mask.Png")):
        (source / "benign" / name).rename(source / "benign" / called)
    cases = record_of(convert(source).folder)["cases"]
    assert (cases["benign_0001"]["name"], cases["benign_0002"]["name"]) == ("Benign (1)", "benign (2)")
    assert len(cases) == 5


def test_normal_images_need_no_mask(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in", normal=3)
    for n in (1, 2):
        (source / "normal" / f"normal ({n})_mask.png").unlink()
    outcome = convert(source, classes=busi.CLASSES)
    label = label_of(outcome.folder, "normal_0001")
    assert (label.shape, label.any()) == (SIZE[::-1], False)
    assert any("2 normal images without a mask, marked nowhere: normal (1).png" in n for n in outcome.layout.notes)
    verify(outcome.folder)


def test_copies_and_stray_pictures_are_left_alone(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in")
    for place in ("preview.png", "figures/overview.jpg", "benign/montage.png"):
        save(ultrasound(9), source / place)
    for name in ("benign (1)_mask - Copy", "benign (1)_mask - Copy (2)", "benign (1) copy", "benign (2)_mask - Kopie"):
        save(mask_image(lesion(left=45)), source / "benign" / f"{name}.png")
    outcome = convert(source)
    assert len(record_of(outcome.folder)["cases"]) == 5
    np.testing.assert_array_equal(label_of(outcome.folder, "benign_0001"), lesion())
    notes = " ".join(record_of(outcome.folder)["notes"])
    assert "4 pictures left alone, named as a copy: benign (1) copy.png" in notes
    assert (
        "3 pictures left alone, without a mask and without a class in its name: preview.png, montage.png, overview.jpg"
        in notes
    )


@pytest.mark.parametrize("pattern", ["drafts", "drafts/*", "draft*", "drafts/*.png"])
def test_excluded_files(nnunet_folders: Path, pattern: str) -> None:
    source = published(nnunet_folders / "in")
    expected = tree(convert(source).folder)
    save(ultrasound(9), source / "drafts" / "benign (9).png")
    save(ultrasound(9), source / "drafts" / "benign (10).png")
    with pytest.raises(InputError, match=r"drafts: is not a class folder of BUSI.*, but holds 2 pictures"):
        convert(source, overwrite=True)
    outcome = convert(source, overwrite=True, exclude=(pattern,))
    assert any(f"2 files left out by --exclude {pattern}: " in note for note in outcome.layout.notes)
    found = tree(outcome.folder)
    assert found.pop("conversion.json") != expected.pop("conversion.json")
    assert found == expected


def test_a_limit_takes_some_of_each_class(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in", benign=8, malignant=5)
    command = ["convert", "busi", "--source", str(source), "--limit", "6"]
    assert main(command) == 0
    record = record_of(nnunet_folders / "nnUNet_raw" / DATASET)
    assert list(record["cases"]) == [f"{kind}_000{n}" for kind in ("benign", "malignant") for n in (1, 2, 3)]
    assert "--limit 6: 6 of 13 cases taken" in record["notes"]
    with pytest.raises(InputError, match=r"--limit \(6 then, None now\)"):
        convert(source)


def test_command_line_reports_and_returns(nnunet_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = published(nnunet_folders / "in", normal=1)
    command = ["convert", "busi", "--source", str(source), "--num-processes", "1"]
    assert main([*command, "--dry-run"]) == 0
    assert "would be written" in capsys.readouterr().out
    assert not os.listdir(nnunet_folders / "nnUNet_raw")
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "next: nnUNetv2_plan_and_preprocess -d 30 -c 2d -pl SAMUSPlanner --verify_dataset_integrity" in out
    assert "3 benign (published: 437)" in out
    assert "near-duplicates: 0 groups" in out
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*command, "--classes", "benign", "malignant", "normal"]) == 2
    assert "--classes" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--drop-duplicates", "--ignore-duplicates"])


@pytest.fixture(scope="module")
def real_busi(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The download and what becomes of it, all three classes."""
    root = tmp_path_factory.mktemp("real")
    source = shared_data / "busi"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(root / "nnUNet_raw"))
        patch.delenv("nnUNet_preprocessed", raising=False)
        return source / "Dataset_BUSI_with_GT", convert(source, classes=busi.CLASSES).folder


def test_real_images_keep_size_and_grey_values(real_busi: tuple[Path, Path]) -> None:
    source, folder = real_busi
    cases = record_of(folder)["cases"]
    assert len(cases) == 190
    for id_, case in list(cases.items())[::10]:
        with Image.open(source / case["class"] / f"{case['name']}.png") as image:
            rgb = np.asarray(image.convert("RGB")).astype(int)
        assert label_of(folder, id_).shape == rgb.shape[:2]
        np.testing.assert_allclose(image_of(folder, id_), rgb @ [0.299, 0.587, 0.114], atol=0.51)
        marked = sum(
            np.asarray(Image.open(path).convert("RGB"), int).max(-1)
            for path in (source / case["class"]).glob(f"{case['name'].replace('(', '[(]')}_mask*.png")
        )
        np.testing.assert_array_equal(label_of(folder, id_), np.asarray(marked) > 0)


def test_real_quirks(real_busi: tuple[Path, Path]) -> None:
    _, folder = real_busi
    record = record_of(folder)
    several = [id_ for id_, case in record["cases"].items() if len(case["label"]["sources"]) > 1]
    assert several == ["benign_0004", "benign_0058", "benign_0100", "benign_0195", "malignant_0053"]
    label = label_of(folder, "benign_0004")  # one of its masks is RGBA
    assert 0 < label.sum() < 0.5 * label.size
    assert set(np.unique(label)) == {0, 1}
    groups = {tuple(group["cases"]): group for group in record["near_duplicates"]["groups"]}
    assert groups["benign_0433", "malignant_0145"]["label_conflict"]
    assert groups["benign_0433", "malignant_0145"]["similarity"] == 1
    assert not groups["benign_0233", "benign_0299"]["label_conflict"]
    assert ("malignant_0018", "malignant_0116") in groups
    verify(folder)


def test_real_colours_are_reported(shared_data: Path, nnunet_folders: Path) -> None:
    layout = convert(shared_data / "busi", classes=busi.CLASSES, dry_run=True).layout
    coloured = {Path(repair.split(": ")[0]).stem for repair in layout.repairs}
    assert {"benign (13)", "malignant (65)", "normal (113)"} <= coloured
    assert len(coloured) < 20


def test_size_is_the_native_one(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in")
    save(ultrasound(77, (101, 37)), source / "benign" / "benign (1).png")
    save(mask_image(lesion((101, 37))), source / "benign" / "benign (1)_mask.png")
    folder = convert(source).folder
    assert image_of(folder, "benign_0001").shape == label_of(folder, "benign_0001").shape == (37, 101)
    assert image_of(folder, "benign_0002").shape == SIZE[::-1]
