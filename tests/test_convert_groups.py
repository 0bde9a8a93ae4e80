"""What belongs together by a list: patients of a user's own, the groups of BUSI's audit, the cohorts of others."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
from busi_source import DATASET, convert, lesion, mask_image, published, save, ultrasound

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import busi, convert_busi
from nnunet_ext.dataset_conversion.busi import case_id
from nnunet_ext.dataset_conversion.group_list import read_groups, read_table
from nnunet_ext.dataset_conversion.splits import joined

LISTS = Path(busi.__file__).with_name("curation")


def sides(record: dict) -> list[set[str]]:
    split = record["split"]
    return [set(split["test"]), *(set(fold[part]) for fold in split["folds"] for part in ("train", "val"))]


def torn(record: dict, groups: list[list[str]]) -> list[list[str]]:
    """Groups that a side holds in part."""
    return [g for g in groups if any(0 < len(side.intersection(g)) < len(g) for side in sides(record))]


FORMS = {
    "comma": "image,patient\nbenign (1),a\nbenign (2).png,a\nbenign (3),b\nmalignant (4),b\n",
    "semicolon": "Patient_ID;Filename;age\na;benign/benign (1).png;4\na;benign_0002\nb;BENIGN (3);\nb;malignant (4);\n",
    "tab, order mark": "\ufeffname\tgroup\nbenign (1)\ta\nbenign (3)\tb\nbenign (2)\ta\nmalignant (4)\tb\n",
    "a line per group": "group;images\n1;benign (1)&benign (2)\n2;benign (3) & malignant (4)\n",
    "folders of Windows": "image,group\nbenign\\benign (1).png,a\nbenign (2),a\nbenign (3),b\nmalignant (4),b\n",
}
TOGETHER = [["benign_0001", "benign_0002"], ["benign_0003", "malignant_0004"]]


@pytest.mark.parametrize("form", FORMS)
def test_no_split_parts_a_group_of_the_list(nnunet_folders: Path, form: str) -> None:
    source = published(nnunet_folders / "in", benign=8, malignant=8)
    path = nnunet_folders / "groups.csv"
    path.write_text(FORMS[form], encoding="utf-8")
    parted = []
    for seed in range(4):
        for split in ("paper", "cv5"):
            arguments = {"split": split, "seed": seed, "dry_run": True}
            record = convert(source, groups=path, **arguments).layout.documents["conversion.json"]
            assert sorted(record["kept_together"]) == TOGETHER
            assert torn(record, TOGETHER) == []
            assert any("groups.csv: 12 cases not in it, each for itself" in n for n in record["notes"])
            parted += torn(convert(source, **arguments).layout.documents["conversion.json"], TOGETHER)
    assert parted


def test_groups_add_to_near_duplicates(nnunet_folders: Path) -> None:
    source = published(nnunet_folders / "in", benign=8, malignant=8)
    save(ultrasound(1), source / "malignant" / "malignant (9).png")  # benign 1 again
    save(mask_image(lesion()), source / "malignant" / "malignant (9)_mask.png")
    path = nnunet_folders / "groups.csv"
    path.write_text("image,group\nmalignant (9),a\nbenign (5),a\n")
    for seed in range(4):
        record = convert(source, groups=path, seed=seed, dry_run=True).layout.documents["conversion.json"]
        assert torn(record, [["benign_0001", "benign_0005", "malignant_0009"]]) == []


def test_another_list_is_another_conversion(nnunet_folders: Path) -> None:
    source, path = published(nnunet_folders / "in"), nnunet_folders / "groups.csv"
    path.write_text(FORMS["comma"].replace("malignant (4)", "malignant (1)"))
    command = ["convert", "busi", "--source", str(source), "--groups", str(path)]
    assert main(command) == 0
    assert convert(source, groups=path).layout is None
    path.write_text("image,patient\nbenign (1),a\nmalignant (1),a\n")
    with pytest.raises(InputError, match=r"exists with other source files; use --overwrite"):
        convert(source, groups=path)
    with pytest.raises(InputError, match=r"exists with other --groups"):
        convert(source)


LISTS_THAT_ARE_WRONG = {
    "gone": (None, " cannot be read"),
    "no header": ("benign (1),a\nbenign (2),a\n", "has the columns benign (1), a; needed are one of image"),
    "no group": ("image,age\nbenign (1),40\n", "has the columns image, age; needed are"),
    "nothing": ("", "holds no lines below a header"),
    "a header alone": ("image,group\n", "holds no lines below a header"),
    "two columns of one name": ("image,image,group\na,b,c\n", "holds no lines below a header of different names"),
    "other names": ("image,group\nx.png,a\ny.png,a\n", "none of its images is in the dataset: x.png, y.png"),
}


@pytest.mark.parametrize("fault", LISTS_THAT_ARE_WRONG)
def test_a_list_that_is_wrong(nnunet_folders: Path, fault: str) -> None:
    source, path = published(nnunet_folders / "in"), nnunet_folders / "groups.csv"
    content, message = LISTS_THAT_ARE_WRONG[fault]
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as caught:
        convert(source, groups=path)
    assert f"--groups {path}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(nnunet_folders: Path) -> None:
    os.mkfifo(nnunet_folders / "pipe")
    with pytest.raises(InputError, match=r"--groups .*pipe is not a file"):
        convert(published(nnunet_folders / "in"), groups=nnunet_folders / "pipe")


def test_a_name_of_two_images(nnunet_folders: Path) -> None:
    source, path = published(nnunet_folders / "in"), nnunet_folders / "groups.csv"
    for folder in ("benign", "malignant"):
        save(ultrasound(50), source / folder / "x.png")
        save(mask_image(lesion()), source / folder / "x_mask.png")
    path.write_text("image,group\nx.png,a\nbenign (1).png,a\n")
    with pytest.raises(InputError, match=r"more than one image is called x\.png; write their folders too"):
        convert(source, groups=path)
    path.write_text("image,group\nbenign/x.png,a\nbenign (1).png,a\nelsewhere.png,a\n")
    outcome = convert(source, groups=path)
    assert json.loads((outcome.folder / "conversion.json").read_text())["kept_together"] == [
        ["benign_0001", "benign_x"]
    ]
    assert any("groups.csv: 1 image of it not in the dataset: elsewhere.png" in note for note in outcome.layout.notes)


def test_units_are_joined_however_far_groups_reach() -> None:
    groups = [["c", "b"], ["d", "e"], ["b", "d", "gone"], ["gone"]]
    assert joined("abcdef", groups) == {"a": ["a"], "b": ["b", "c", "d", "e"], "f": ["f"]}


def test_the_lists_are_whole_and_attributed() -> None:
    curated = [line["class"] for line in read_table(LISTS / "curated_busi_v1.csv")]
    assert [curated.count(kind) for kind in busi.CLASSES] == [222, 164, 64]
    audited = read_groups(LISTS / "audit_groups.csv")
    assert (len(audited), len(set(itertools.chain(*audited)))) == (153, 346)
    assert {line["objection"] for line in read_table(LISTS / "audit_objections.csv")} == set(busi.OBJECTIONS)
    readme = (LISTS / "README.md").read_text(encoding="utf-8")
    for words in ("10.5281/zenodo.19047974", "10.17632/k8t3gnx9h6.1", "CC BY 4.0", "Pawłowska", "Aumente-Maestro"):
        assert words in readme


def numbered(root: Path, *names: str) -> Path:
    """Images of BUSI of these names, all unlike."""
    for n, name in enumerate(names):
        path = root / name.split()[0] / f"{name}.png"
        save(ultrasound(n + 1), path)
        save(mask_image(lesion()), path.with_name(f"{name}_mask.png"))
    return root


AUDITED = ["benign (1)", "benign (318)", "benign (42)", "benign (131)", "malignant (51)"]  # two groups
OTHERS = ["benign (20)", "benign (106)", "malignant (69)", *(f"malignant ({n})" for n in range(30, 36))]


@pytest.mark.parametrize("policy", ["group", "drop", "ignore"])
def test_groups_of_the_audit_count_as_near_duplicates(nnunet_folders: Path, policy: str) -> None:
    source = numbered(nnunet_folders / "in", *AUDITED, *OTHERS)
    groups = [["benign_0001", "benign_0318"], ["benign_0042", "benign_0131", "malignant_0051"]]
    parted = []
    for seed in range(4):
        outcome = convert(source, cohort="audited", duplicates=policy, seed=seed, dry_run=True)
        record = outcome.layout.documents["conversion.json"]
        found = record["near_duplicates"]["groups"]
        assert [(group["cases"], group["similarity"]) for group in found] == [(group, None) for group in groups]
        parted += torn(record, groups)
    assert "label conflict: benign_0042, benign_0131, malignant_0051" in " ".join(outcome.layout.notes)
    if policy == "drop":
        assert {group["kept"] for group in found} == {"benign_0001", "benign_0042"}
        assert len(record["cases"]) == len(AUDITED) + len(OTHERS) - 3
    else:
        assert bool(parted) is (policy == "ignore")


def test_curated_images_and_dropped_ones(nnunet_folders: Path) -> None:
    source = numbered(nnunet_folders / "in", *AUDITED, *OTHERS)
    curated = {f"{line['class']} ({line['id']})" for line in read_table(LISTS / "curated_busi_v1.csv")}
    assert {"benign (20)", "malignant (31)"} < curated
    command = ["convert", "busi", "--source", str(source), "--cohort", "curated"]
    assert main(command) == 0
    record = json.loads((nnunet_folders / "nnUNet_raw" / DATASET / "conversion.json").read_text())
    assert {case["name"] for case in record["cases"].values()} == curated & {*AUDITED, *OTHERS}
    assert f"--cohort curated: {14 - len(record['cases'])} images left out" in record["notes"]
    cases = convert_busi(source, drop=("axilla", "needle", "multiclass"), overwrite=True).layout.documents
    names = {case["name"] for case in cases["conversion.json"]["cases"].values()}
    gone = {"benign (106)", "malignant (69)", "benign (42)", "benign (131)", "malignant (51)"}
    assert names == {*AUDITED, *OTHERS} - gone
    assert "--drop axilla: 1 image left out" in cases["conversion.json"]["notes"]


def test_a_fault_outside_of_the_cohort_is_none(nnunet_folders: Path) -> None:
    source = numbered(nnunet_folders / "in", *AUDITED, *OTHERS)
    (source / "benign" / "benign (1)_mask.png").unlink()
    with pytest.raises(InputError, match=r"benign \(1\)\.png: its mask is missing"):
        convert(source)
    assert convert(source, cohort="curated").made["written"]


def test_real_groups_of_the_audit_are_whole(shared_data: Path, nnunet_folders: Path) -> None:
    listed = [[case_id(name, name.split()[0]) for name in group] for group in read_groups(LISTS / "audit_groups.csv")]
    for split in ("paper", "cv5"):
        outcome = convert(shared_data / "busi", classes=busi.CLASSES, cohort="audited", split=split, dry_run=True)
        record = outcome.layout.documents["conversion.json"]
        here = [[id_ for id_ in group if id_ in record["cases"]] for group in listed]
        assert sum(len(group) > 1 for group in here) == 19
        assert torn(record, here) == []
