"""``nnunet_ext convert folders``: names, tables, patients, official splits, pictures and volumes of any format."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from busi_source import image_of, label_of, lesion, mask_image, save, ultrasound
from lits_source import verify
from PIL import Image

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import convert
from nnunet_ext.dataset_conversion.folders import FoldersReader
from nnunet_ext.dataset_conversion.nifti_space import NO_SIZE
from nnunet_ext.dataset_conversion.splits import FOLDS, official_split
from nnunet_ext.dataset_conversion.types import Outcome

PAGE = Path(__file__).resolve().parent.parent / "docs" / "folders.md"


@pytest.fixture
def here(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    root = nnunet_folders / "data"
    root.mkdir()
    monkeypatch.chdir(root)
    return root


def folders(**options) -> Outcome:
    own = {name: options.pop(name) for name in list(options) if name in FoldersReader.__dataclass_fields__}
    return convert(FoldersReader(**own), Path(), **options)


def record_of(folder: Path) -> dict:
    return json.loads((folder / "conversion.json").read_text())


def image(path: str, number: int) -> None:
    save(ultrasound(number).convert("RGB"), Path(path))


def mask(path: str, *, left: int = 20) -> None:
    save(mask_image(lesion(left=left)), Path(path))


def pictures(count: int = 10, ending: str = ".png") -> None:
    for n in range(count):
        image(f"images/p{n // 2}_{n}{ending}", n)
        mask(f"masks/p{n // 2}_{n}_mask.png")


def command(name: str) -> list[str]:
    """Return the words of the command of docs/folders.md that makes this dataset."""
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(rf"^ +nnunet_ext (.*--name {name}\b.*)$", text, re.M)
    return shlex.split(line)


def test_names_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures()
    mask("masks/p0_0_mask_1.png", left=40)
    (here / "images" / "notes.txt").write_text("hello")
    assert main(command("Mine")) == 0
    folder = here.parent / "nnUNet_raw" / "Dataset060_Mine"
    np.testing.assert_array_equal(label_of(folder, "p0_0"), lesion() | lesion(left=40))
    np.testing.assert_array_equal(image_of(folder, "p1_3"), np.asarray(ultrasound(3)))
    content = json.loads((folder / "dataset.json").read_text())
    assert (content["labels"], content["file_ending"]) == ({"background": 0, "lesion": 1}, ".png")
    out = capsys.readouterr().out
    assert "no patients are known, and each image is taken for one" in out
    assert "next: nnUNetv2_plan_and_preprocess -d 60 --verify_dataset_integrity" in out
    assert "1 file in a format that is not read, left alone: images/notes.txt" in out
    verify(folder)


LAYOUTS: dict[str, Callable[[str, int], tuple[str, str]]] = {
    "the same name": lambda n, i: (f"images/{n}.jpg", f"masks/{n}.png"),
    "suffix": lambda n, i: (f"images/{n}.tif", f"masks/{n}_segmentation.bmp"),
    "nnU-Net's": lambda n, i: (f"images/{n}_0000.png", f"masks/{n}.png"),
    "upper case": lambda n, i: (f"images/{n.upper()}.PNG", f"masks/{n}_Mask.Png"),
    "sub-folders": lambda n, i: (f"images/{i % 2}/x{i // 2}.png", f"masks/{i % 2}/x{i // 2}_mask.png"),
    "one for every mask": lambda n, i: (f"images/{n}.png", f"masks/{i}/{n}.png"),
    "one folder": lambda n, i: (f"images/{n}.png", f"images/{n}_mask.png"),
    "masks in images": lambda n, i: (f"images/{n}.png", f"images/masks/{n}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(here: Path, layout: str) -> None:
    for i in range(10):
        picture, drawn = LAYOUTS[layout](f"case_{i}", i)
        image(picture, i)
        mask(drawn, left=10 + i)
    masks = {"one folder": None, "masks in images": Path("images/masks")}.get(layout, Path("masks"))
    outcome = folders(images=Path("images"), masks=masks)
    cases = record_of(outcome.folder)["cases"]
    assert len(cases) == 10
    for id_, case in cases.items():
        number = int(re.findall(r"\d+", case["label"]["sources"][0]["source"])[-1])
        if layout == "sub-folders":
            number = 2 * number + int(Path(case["image"]["source"]).parent.name)
        np.testing.assert_array_equal(label_of(outcome.folder, id_), lesion(left=10 + number))
        assert np.abs(image_of(outcome.folder, id_).astype(int) - np.asarray(ultrasound(number), int)).max() < 13
    assert "near_duplicates" not in record_of(outcome.folder)


def sides(record: dict) -> list[set[str]]:
    split = record["split"]
    return [set(split["test"]), *(set(fold[part]) for fold in split["folds"] for part in ("train", "val"))]


@pytest.mark.parametrize("how", ["column", "pattern"])
def test_patients_stay_together(here: Path, how: str) -> None:
    pictures(20)
    lines = [f"p{n // 2}_{n},{n // 2}" for n in range(20)]
    Path("table.csv").write_text("\n".join(["name,person", *lines]))
    options = {"csv": (Path("table.csv"),), "image_column": "name", "group_column": "Person"}
    if how == "pattern":
        options = {"group_match": r"p(\d+)"}
    for split in ("paper", "cv5"):
        outcome = folders(images=Path("images"), masks=Path("masks"), split=split, dry_run=True, **options)
        record = outcome.layout.documents["conversion.json"]
        assert len(record["kept_together"]) == 10
        for pair in record["kept_together"]:
            assert len(pair) == 2
            assert all(len(side.intersection(pair)) in (0, 2) for side in sides(record))


def busbra(patients: int = 15) -> list[str]:
    """BUS-BRA's layout: two views of a patient, folds by patient, as its authors publish it."""
    data, folds, names = ["ID,Case,Histology,Pathology,BIRADS,Side"], ["ID,Pathology,kFold"], []
    for n in range(1, patients + 1):
        for side in "lr":
            name, pathology = f"bus_{n:04d}-{side}", ("benign", "malignant")[n % 2]
            image(f"BUSBRA/Images/{name}.png", 10 * n + (side == "r"))
            mask(f"BUSBRA/Masks/mask_{n:04d}-{side}.png")
            data.append(f"{name},{n},Fibroadenoma,{pathology},3,{side}")
            folds.append(f"{name},{pathology},{n % 5 + 1}")
            names.append(name[4:])
    Path("BUSBRA/bus_data.csv").write_text("\n".join(data))
    Path("BUSBRA/5-fold-cv.csv").write_text("\n".join(folds))
    return names


def test_bus_bra(here: Path) -> None:
    names = busbra()
    assert main(command("BUSBRA")) == 0
    folder = here.parent / "nnUNet_raw" / "Dataset061_BUSBRA"
    record = record_of(folder)
    assert sorted(record["cases"]) == sorted(names)
    assert record["cases"]["0003-l"]["class"] == "malignant"
    assert (record["split"]["kind"], record["split"]["test"]) == ("official", [])
    for number, fold in enumerate(json.loads((folder / "splits_final.json").read_text())):
        assert {int(name[:4]) % 5 for name in fold["val"]} == {number}
        assert {*fold["train"], *fold["val"]} == set(names)
    assert len(record["kept_together"]) == 15
    assert (
        "columns of the tables: image from id, group from case, class from pathology, split from kfold"
        in record["notes"]
    )
    np.testing.assert_array_equal(label_of(folder, "0003-l"), lesion())
    verify(folder)


def test_bus_uclm(here: Path) -> None:
    """Colours of masks say the class: green benign, red malignant, black normal."""
    lines = ["Image;Label;Doppler;Combined"]
    colours = {"Benign": 1, "Malignant": 0, "Normal": None}
    for n in range(24):
        name, label = (
            f"{('ALWI', 'ANAT', 'BETA', 'CUPO', 'DELA', 'FOMA')[n // 4]}_{n % 4:03d}.png",
            list(colours)[n % 3],
        )
        image(f"BUS-UCLM/images/{name}", n)
        drawn = np.zeros((*lesion().shape, 3), np.uint8)
        if colours[label] is not None:
            drawn[..., colours[label]] = lesion() * 255
        save(Image.fromarray(drawn), Path(f"BUS-UCLM/masks/{name}"))
        lines.append(f"{name};{label};No;No")
    Path("BUS-UCLM/INFO.csv").write_text("\n".join(lines))
    assert main(command("BUSUCLM")) == 0
    folder = here.parent / "nnUNet_raw" / "Dataset062_BUSUCLM"
    record = record_of(folder)
    assert len(record["cases"]) == 24
    assert "columns of the tables: class from label, image from image" in record["notes"]
    assert [len(group) for group in record["kept_together"]] == [4] * 6
    marked = {"Benign": 150, "Malignant": 150, "Normal": 0}
    for id_, case in record["cases"].items():
        assert label_of(folder, id_).sum() == marked[case["class"]]
    verify(folder)


def test_breast(here: Path) -> None:
    """Masks lie next to images; a table names them, several with & between, none for normal cases."""
    root, lines = "BrEaST-Lesions_USG-images_and_masks", []
    lines.append("CaseID,Image_filename,Mask_tumor_filename,Mask_other_filename,Classification,Age")
    for n in range(1, 13):
        kind = "normal" if n == 12 else ("benign", "malignant")[n % 2]
        image(f"{root}/case{n:03d}.png", n)
        names = [f"case{n:03d}_tumor.png"] if n < 12 else []
        if n == 2:
            names = ["case002_tumor1.png", "case002_tumor2.png"]
        for i, name in enumerate(names):
            mask(f"{root}/{name}", left=20 + 20 * i)
        mask(f"{root}/case{n:03d}_other1.png", left=0)
        lines.append(f"{n},case{n:03d}.png,{'&'.join(names)},case{n:03d}_other1.png,{kind},50")
    Path("BrEaST-Lesions-USG-clinical-data.csv").write_text("\n".join(lines))
    assert main(command("BrEaST")) == 0
    folder = here.parent / "nnUNet_raw" / "Dataset063_BrEaST"
    record = record_of(folder)
    assert len(record["cases"]) == 12
    assert not label_of(folder, "case012").any()
    np.testing.assert_array_equal(label_of(folder, "case002"), lesion() | lesion(left=40))
    assert any("12 files that no line of the table names, left alone" in note for note in record["notes"])
    verify(folder)


def test_a_class_can_be_the_label(here: Path) -> None:
    pictures(12)
    lines = [f"p{n // 2}_{n}.png,{('Benign', 'malignant', 'normal')[n % 3]}" for n in range(12)]
    Path("t.csv").write_text("\n".join(["file,class", *lines]))
    options = {"images": Path("images"), "masks": Path("masks"), "csv": (Path("t.csv"),), "target": "class"}
    with pytest.raises(InputError, match=r"p1_2\.png: is normal, but --labels are benign, malignant") as caught:
        folders(structures=("benign", "malignant"), **options)
    assert len(caught.value.problems) == 4
    outcome = folders(structures=("benign", "malignant", "normal"), **options)
    assert json.loads((outcome.folder / "dataset.json").read_text())["labels"]["malignant"] == 2
    assert set(np.unique(label_of(outcome.folder, "p0_1"))) == {0, 2}


@pytest.mark.parametrize("palette", [False, True])
def test_masks_of_numbers(here: Path, palette: bool) -> None:
    pictures(6)
    for path in Path("masks").iterdir():
        numbers = Image.fromarray((lesion() * 3 + lesion(left=40) * 7).astype(np.uint8))
        if palette:
            numbers.putpalette([9, 9, 9] + [1, 2, 3] * 9)
        save(numbers, path)
    options = {"images": Path("images"), "masks": Path("masks")}
    with pytest.raises(InputError, match=r"holds 7 \(150 pixels\), where 0, 3 are known; say with --labels"):
        folders(structures=("liver=3",), **options)
    outcome = folders(structures=("tumour=7", "liver=3"), **options)
    expected = lesion() * 2 + lesion(left=40)
    np.testing.assert_array_equal(label_of(outcome.folder, "p0_0"), expected)
    verify(outcome.folder)


def test_an_inverted_looking_mask_is_a_doubt(here: Path) -> None:
    pictures(6)
    save(mask_image(~lesion()), Path("masks/p0_0_mask.png"))
    outcome = folders(images=Path("images"), masks=Path("masks"))
    assert any("marks 95 % of the image, as inverted masks do" in note for note in outcome.layout.notes)
    assert "marks 95 %" in record_of(outcome.folder)["cases"]["p0_0"]["doubts"][0]


def test_near_duplicates_are_optional(here: Path) -> None:
    pictures(12)
    image("images/p5_11.png", 0)  # p0_0 again
    options = {"images": Path("images"), "masks": Path("masks")}
    outcome = folders(duplicates="group", dry_run=True, **options)
    (group,) = outcome.layout.documents["conversion.json"]["near_duplicates"]["groups"]
    assert group["cases"] == ["p0_0", "p5_11"]
    lines = [f"p{n // 2}_{n}.png,{'test' if n > 8 else 'val' if n > 6 else 'train'}" for n in range(12)]
    Path("t.csv").write_text("\n".join(["image,split", *lines]))
    outcome = folders(duplicates="group", csv=(Path("t.csv"),), dry_run=True, **options)
    leak = "p0_0, p5_11 show the same, but the official split puts them into test and train: expect scores too good"
    assert leak in outcome.layout.notes


def test_official_train_val_and_test(here: Path) -> None:
    pictures(20)
    lines = [f"p{n // 2}_{n}.png,{n // 2},{'Test' if n > 15 else 'valid' if n > 11 else 'train'}" for n in range(20)]
    Path("t.csv").write_text("\n".join(["image,patient,set", *lines]))
    options = {"images": Path("images"), "masks": Path("masks"), "csv": (Path("t.csv"),)}
    outcome = folders(**options)
    assert {p.stem for p in outcome.folder.glob("labelsTs/*")} == {f"p{n // 2}_{n}" for n in range(16, 20)}
    first, *others = json.loads((outcome.folder / "splits_final.json").read_text())
    assert first["val"] == [f"p{n // 2}_{n}" for n in (12, 13, 14, 15)]
    assert len(others) == FOLDS - 1
    for fold in others:
        assert {*fold["train"], *fold["val"]} == {*first["train"], *first["val"]}
        assert {name[:2] for name in fold["train"]}.isdisjoint(name[:2] for name in fold["val"])
    Path("t.csv").write_text(Path("t.csv").read_text().replace("p8_16.png,8,Test", "p8_16.png,8,train"))
    with pytest.raises(
        InputError, match="p8_16, p8_17 belong together, but the official split puts them into Test and"
    ):
        folders(overwrite=True, **options)


@pytest.mark.parametrize(
    ("official", "message"),
    [
        (["train", "train", ""], "puts 1 case nowhere: c2"),
        (["train", "val", "3"], "says 3, which is not train, val or test"),
        (["val", "val", "test"], "has no training cases"),
        (["1", "1", "1"], "has one fold only, 1"),
    ],
)
def test_impossible_official_splits(official: list[str], message: str) -> None:
    sides = {f"c{i}": side for i, side in enumerate(official)}
    with pytest.raises(InputError, match=message):
        official_split(sides, {case: [case] for case in sides}, seed=0, strata={})


def test_official_folds_of_any_number() -> None:
    for folds in (2, 3, 5, 10):
        sides = {f"c{n:02d}": str(n % folds + 1) for n in range(20)}
        split = official_split(sides, {case: [case] for case in sides}, seed=0, strata={})
        assert len(split.folds) == max(folds, FOLDS)
        assert [{sides[c] for c in val} for _, val in split.folds[:folds]] == [{str(n + 1)} for n in range(folds)]
        assert bool([note for note in split.notes if "repeat earlier ones" in note]) is (folds < FOLDS)


def break_table(text: str) -> Callable[[], dict]:
    def make() -> dict:
        Path("t.csv").write_text(text)
        return {"csv": (Path("t.csv"),)}

    return make


def alone(path: str) -> Callable[[], dict]:
    return lambda: image(path, 3) or {}


FAULTS: dict[str, tuple[Callable[[], dict], list[str]]] = {
    "no images": (lambda: {"images": None}, ["Neither images nor a table are given", "--csv"]),
    "no such folder": (lambda: {"images": Path("pictures")}, ["pictures: is not a directory"]),
    "no mask": (alone("images/x.png"), ["images/x.png: its mask is missing", "--empty"]),
    "no image": (lambda: mask("masks/x_mask.png") or {}, ["masks/x_mask.png: its image is missing"]),
    "no regular expression": (lambda: {"match": "(x"}, ["'(x': is not a regular expression"]),
    "no such table": (lambda: {"csv": (Path("t.csv"),)}, ["t.csv cannot be read"]),
    "no image column": (break_table("a,b\np0_0,benign\n"), ["no column of a, b is called image; use --image-column"]),
    "an image that is not there": (break_table("image\np0_0\nx7\n"), ["x7: no image in images is called so"]),
    "a name of two images": (
        lambda: image("images/a/p0_0.png", 3) or break_table("image\np0_0.png\n")(),
        ["p0_0.png: is the name of images/p0_0.png, images/a/p0_0.png"],
    ),
    "a mask that is not there": (break_table("image,mask\np0_0,x.png\n"), ["its mask x.png was found 0 times"]),
    "a class in two ways": (
        break_table("image,class\np0_0,benign\np0_0,malignant\n"),
        ["the class of p0_0 is 'malignant', but 'benign' in another line"],
    ),
    "no patient in the name": (lambda: {"group_match": r"q(\d+)"}, ["--group-match finds no patient in its name"]),
    "something in an empty class": (
        lambda: {**break_table("image,class\np0_0,normal\np0_1,benign\n")(), "empty": ("normal",)},
        ["p0_0_mask.png: marks something, but nothing is to be marked in normal images"],
    ),
}


@pytest.mark.parametrize(
    "labels", [("a=x",), ("a=0",), ("a=-1",), ("a=1.5",), ("a", "a"), ("a=2", "b=2"), ("a=2", "b")]
)
def test_impossible_labels(here: Path, labels: tuple[str, ...]) -> None:
    pictures(2)
    with pytest.raises(InputError, match=f"--labels {' '.join(labels)}: every name and every value is there once"):
        folders(images=Path("images"), masks=Path("masks"), structures=labels)


@pytest.mark.parametrize("written", ["{}", "./images/{}", "/elsewhere/images/{}", "D:\\\\data\\\\images\\\\{}"])
def test_paths_of_another_machine(here: Path, written: str) -> None:
    pictures(4)
    lines = [f"{written.format(f'p{n // 2}_{n}.png')},m{n}.png" for n in range(4)]
    for n in range(4):
        Path(f"masks/p{n // 2}_{n}_mask.png").rename(f"masks/m{n}.png")
    Path("t.csv").write_text("\n".join(["image,mask", *lines]))
    outcome = folders(images=Path("images"), masks=Path("masks"), csv=(Path("t.csv"),))
    assert set(record_of(outcome.folder)["cases"]) == {"p0_0", "p0_1", "p1_2", "p1_3"}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named(here: Path, fault: str) -> None:
    pictures(4)
    make, messages = FAULTS[fault]
    options = {"images": Path("images"), "masks": Path("masks"), **make()}
    with pytest.raises(InputError) as caught:
        folders(**options)
    for message in messages:
        assert message in str(caught.value)
    assert not list((here.parent / "nnUNet_raw").iterdir())


def test_columns_that_no_table_has(here: Path) -> None:
    pictures(4)
    Path("t.csv").write_text("image,class\np0_0,benign\n")
    with pytest.raises(InputError, match="--group-column case, --split-column kfold: no table has it; there are class"):
        folders(images=Path("images"), csv=(Path("t.csv"),), group_column="case", split_column="kfold")


def volume(path: str, array: np.ndarray, *, spacing: tuple[float, ...] = (1, 1, 2), compressed: bool = False) -> None:
    found = sitk.GetImageFromArray(array, isVector=False)
    found.SetSpacing(spacing)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(found, path, useCompression=compressed)


def box(*, left: int = 2, value: int = 1) -> np.ndarray:
    array = np.zeros((5, 10, 12), np.uint8)
    array[1:4, 3:6, left : left + 3] = value
    return array


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd", ".nii"])
@pytest.mark.parametrize("masks", [1, 2])
def test_volumes(here: Path, ending: str, masks: int) -> None:
    for n in range(6):
        volume(f"images/c{n}{ending}", np.random.default_rng(n).normal(0, 100, (5, 10, 12)).astype(np.int16))
        for i in range(masks):
            volume(f"masks/c{n}_mask_{i}{ending}", box(left=2 + 5 * i))
    outcome = folders(images=Path("images"), masks=Path("masks"))
    content = json.loads((outcome.folder / "dataset.json").read_text())
    assert content["file_ending"] == (".nii" if (ending, masks) == (".nii", 1) else ".nii.gz")
    (path,) = outcome.folder.glob(f"images*/c3_0000{content['file_ending']}")
    written, source = sitk.ReadImage(path), sitk.ReadImage(f"images/c3{ending}")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(source))
    assert written.GetSpacing() == pytest.approx(source.GetSpacing())
    (path,) = outcome.folder.glob(f"labels*/c3{content['file_ending']}")
    label = sitk.GetArrayFromImage(sitk.ReadImage(path))
    np.testing.assert_array_equal(label, np.maximum(box(), box(left=7)) if masks == 2 else box())
    verify(outcome.folder)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("masks", [1, 2])
def test_masks_in_another_order_of_voxels(here: Path, ending: str, masks: int) -> None:
    for n in range(3):
        volume(f"images/c{n}{ending}", np.random.default_rng(n).normal(0, 100, (5, 10, 12)).astype(np.int16))
        for i in range(masks):
            volume(f"masks/c{n}_mask_{i}{ending}", box(left=2 + 5 * i))
    mask = sitk.ReadImage(f"masks/c1_mask_0{ending}")
    sitk.WriteImage(sitk.PermuteAxes(sitk.Flip(mask, (True, False, True)), (1, 2, 0)), f"masks/c1_mask_0{ending}")
    outcome = folders(images=Path("images"), masks=Path("masks"))
    (path,) = outcome.folder.glob("labels*/c1.nii.gz")
    label = sitk.GetArrayFromImage(sitk.ReadImage(path))
    np.testing.assert_array_equal(label, np.maximum(box(), box(left=7)) if masks == 2 else box())
    (repair,) = outcome.layout.repairs
    assert f"masks/c1_mask_0{ending}: voxels were stored in another order" in repair


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_voxel_sizes_that_nobody_knows(here: Path, ending: str) -> None:
    for n in range(3):
        volume(f"images/c{n}{ending}", np.zeros((5, 10, 12), np.int16), spacing=(1, 1, 1 + (n != 1)))
        for i in range(2):
            volume(f"masks/c{n}_mask_{i}{ending}", box(left=2 + 5 * i), spacing=(1, 1, 1 + (n != 1)))
    assert f"c1: {NO_SIZE}" in folders(images=Path("images"), masks=Path("masks")).layout.notes


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("cut", [False, True])
def test_damage_that_simpleitk_reads_over(here: Path, ending: str, cut: bool) -> None:
    for n in range(3):
        array = np.random.default_rng(n).normal(0, 100, (5, 10, 12)).astype(np.int16)
        volume(f"images/c{n}{ending}", array, compressed=True)
        for i in range(2):
            volume(f"masks/c{n}_mask_{i}{ending}", box(left=2 + 5 * i), compressed=True)
    path = Path(f"images/c1{ending}")
    data = bytearray(path.read_bytes())
    data[-300] ^= 0x10
    path.write_bytes(data[:-300] if cut else data)
    with pytest.raises(InputError, match=rf"images/c1{ending}: cannot be read or is damaged"):
        folders(images=Path("images"), masks=Path("masks"))


def test_volumes_are_not_compared(here: Path) -> None:
    for n in range(3):
        volume(f"images/c{n}.mha", np.zeros((5, 10, 12), np.int16))
        volume(f"masks/c{n}.mha", box())
    with pytest.raises(InputError, match="--near-duplicates: only pictures can be compared, not volumes"):
        folders(images=Path("images"), masks=Path("masks"), duplicates="group")


VOLUME_FAULTS: dict[str, tuple[Callable[[], None], str]] = {
    "another grid": (lambda: volume("masks/c1.mha", box(), spacing=(1, 1, 3)), "masks/c1.mha: is not on the grid of"),
    "another size": (lambda: volume("masks/c1.mha", box()[1:]), "masks/c1.mha: is not on the grid of"),
    "other values": (lambda: volume("masks/c1.mha", box(value=9)), "masks/c1.mha: holds 9, where 0, 1 are known"),
    "damage": (lambda: Path("masks/c1.mha").write_bytes(b"NDims = 3"), "masks/c1.mha: cannot be read or is damaged"),
    "four dimensions": (
        lambda: volume("images/c1.mha", np.zeros((2, 5, 10, 12), np.int16), spacing=(1,) * 4),
        "is 12 x",
    ),
    "no number": (lambda: volume("images/c1.mha", np.full((5, 10, 12), np.nan, np.float32)), "NaN or infinite"),
}


@pytest.mark.parametrize("fault", VOLUME_FAULTS)
def test_volumes_that_are_wrong(here: Path, fault: str) -> None:
    for n in range(3):
        volume(f"images/c{n}.mha", np.zeros((5, 10, 12), np.int16))
        volume(f"masks/c{n}.mha", box())
    make, message = VOLUME_FAULTS[fault]
    make()
    with pytest.raises(InputError) as caught:
        folders(images=Path("images"), masks=Path("masks"))
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)
    assert set(record_of(folders(images=Path("images"), masks=Path("masks"), skip_bad=True).folder)["cases"]) == {
        "c0",
        "c2",
    }
