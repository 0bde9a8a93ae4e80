"""Bad input to ``nnunet_ext convert lits``: named, all together, with a hint, before anything is written."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import shutil
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from lits_source import AFFINE, DATASET, convert, ct, liver, save, three_cases

from nnunet_ext.common.environment import NNUNET_FOLDERS
from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion.nifti import Volumes
from nnunet_ext.dataset_conversion.types import Case


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


def flipped(path: Path) -> Path:
    """Damage a byte in the middle, which leaves the length as it is."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return path


def write_header(path: Path, place: int, kind: str, value: float) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(kind, data, place, value)
    path.write_bytes(data)
    return path


def remove(path: Path) -> None:
    path.unlink()


def case_problem_missing_segmentation(source: Path) -> list[str]:
    remove(source / "segmentation-0.nii")
    return [str(source / "volume-0.nii"), "segmentation is missing; no segmentation-0.nii[.gz] and no labelsTr/"]


def case_problem_orphaned_segmentation(source: Path) -> list[str]:
    remove(source / "volume-0.nii")
    return [str(source / "segmentation-0.nii"), "volume is missing; no volume-0.nii[.gz] and no imagesTr/"]


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


def case_problem_label_that_is_nearly_1(source: Path) -> list[str]:
    """Printed with six digits it would be 1, which is allowed."""
    return [break_label(source, 1.0000001 + 2e-3, np.float64), "label 1.0020001"]


def case_problem_infinite_label(source: Path) -> list[str]:
    return [break_label(source, np.inf, np.float32), "label inf"]


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


def case_problem_flipped_byte_in_floats(source: Path) -> list[str]:
    """They are read for what is not finite, so that the checksum is compared, too."""
    remove(source / "volume-0.nii")
    return [str(flipped(save(source / "volume-0.nii.gz", ct().astype(np.float32)))), "damaged"]


def case_problem_voxels_that_begin_nowhere(source: Path) -> list[str]:
    return [str(write_header(source / "volume-0.nii", 108, "<f", np.inf)), "byte inf"]


def case_problem_voxels_that_begin_in_the_header(source: Path) -> list[str]:
    return [str(write_header(source / "segmentation-0.nii", 108, "<f", 16)), "byte 16"]


def case_problem_more_voxels_than_gzip_can_hold(source: Path) -> list[str]:
    """Whose slices alone would fill the memory."""
    remove(source / "volume-0.nii")
    path = save(source / "volume-0.nii.gz", ct())
    plain = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<3h", plain, 42, 32767, 32767, 4)
    path.write_bytes(gzip.compress(plain))
    return [str(path), "too short for 8,5"]


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


CASE_PROBLEMS = {
    name.removeprefix("case_problem_"): f for name, f in list(globals().items()) if name.startswith("case_problem_")
}


@pytest.fixture
def flat(nnunet_folders: Path) -> Path:
    return three_cases(nnunet_folders / "in")


@pytest.mark.parametrize("name", CASE_PROBLEMS)
def test_bad_case_is_named_and_nothing_written(nnunet_folders: Path, flat: Path, name: str) -> None:
    expected = CASE_PROBLEMS[name](flat)
    with pytest.raises(InputError) as caught:
        convert(flat)
    assert len(caught.value.problems) == 1
    for words in (*expected, "--skip-bad"):
        assert words in str(caught.value)
    assert not os.listdir(nnunet_folders / "nnUNet_raw")
    outcome = convert(flat, skip_bad=True)
    assert len(outcome.skipped) == 1
    assert sorted({file.target[9:17] for file in outcome.layout.files}) == ["lits_001", "lits_002"]
    assert json.loads((outcome.folder / "conversion.json").read_text())["skipped"] == list(outcome.skipped)


@pytest.mark.parametrize("name", ["volume-0", "segmentation-0"])
def test_a_flipped_byte_is_found_with_checksum(nnunet_folders: Path, flat: Path, name: str) -> None:
    """SimpleITK reads wrong voxels from such a file without an error."""
    for path in list(flat.glob("*.nii")):
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    flipped(flat / f"{name}.nii.gz")
    with pytest.raises(InputError, match=rf"{name}\.nii\.gz: is truncated or damaged"):
        convert(flat, checksum=True, target="liver-tumour")
    assert len(convert(flat, checksum=True, target="liver-tumour", skip_bad=True).skipped) == 1


def test_any_header_is_converted_or_named(nnunet_folders: Path, flat: Path) -> None:
    random = np.random.RandomState(0)
    files = [flat / "volume-0.nii", flat / "segmentation-0.nii"]
    whole = [path.read_bytes() for path in files]
    case = Case(id="lits_000", image=files[0], masks=(files[1],))
    named = 0
    for _ in range(300):
        for path, content in zip(files, whole, strict=True):
            data = bytearray(content)
            for place in random.randint(0, 352, random.randint(1, 6)):
                data[place] = random.choice([0, 1, 127, 128, 255, random.randint(256)])
            path.write_bytes(data)
        checked, faults = Volumes().check(case, {0: 0, 1: 1, 2: 2})
        assert (checked is None) == bool(faults)
        named += any(str(path) in fault for fault in faults for path in files)
        if checked:
            checked.image_file("a.nii.gz")
            checked.label_file("b.nii.gz", {0: 0, 1: 1, 2: 2})
    assert 50 < named < 300


def test_all_problems_come_together(nnunet_folders: Path, flat: Path) -> None:
    (flat / "volume-0.nii").write_text("no")
    save(flat / "segmentation-0.nii", liver() + 7)
    truncate(flat / "volume-1.nii")
    save(flat / "segmentation-9.nii", liver())
    with pytest.raises(InputError) as caught:
        convert(flat)
    assert len(caught.value.problems) == 4
    assert "lits_000, lits_001, lits_009" in caught.value.hint
    assert not os.listdir(nnunet_folders / "nnUNet_raw")


def test_what_blocks_is_said_before_any_voxel_is_read(
    nnunet_folders: Path, flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Volumes, "check", lambda *_: pytest.fail("read"))
    (nnunet_folders / "nnUNet_raw" / "Dataset029_Other").mkdir()
    (nnunet_folders / "nnUNet_raw" / DATASET).mkdir()
    (nnunet_folders / "nnUNet_preprocessed" / DATASET / "gt_segmentations").mkdir(parents=True)
    save(flat / "segmentation-9.nii", liver())
    with pytest.raises(InputError) as caught:
        convert(flat)
    for words in ("id 29 is taken", "not made by this command", "gt_segmentations", "segmentation-9.nii"):
        assert words in str(caught.value)
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(InputError, match="nnUNet_raw is not set"):
        convert(flat)


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_in_place_of_the_dataset_is_refused(nnunet_folders: Path, flat: Path, dangling: bool) -> None:
    elsewhere = nnunet_folders / "elsewhere"
    if not dangling:
        elsewhere.mkdir()
    (nnunet_folders / "nnUNet_raw" / DATASET).symlink_to(elsewhere)
    with pytest.raises(InputError, match=f"{DATASET} is a symbolic link"):
        convert(flat, overwrite=True)
    assert os.listdir(nnunet_folders / "nnUNet_raw") == [DATASET]


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_dataset_id_taken(nnunet_folders: Path, flat: Path, variable: str) -> None:
    (nnunet_folders / variable / "Dataset029_Other").mkdir()
    with pytest.raises(InputError, match=r"id 29 is taken by .*Dataset029_Other"):
        convert(flat)
    convert(flat, dataset_id=30)


def test_nothing_found(nnunet_folders: Path) -> None:
    (nnunet_folders / "in").mkdir()
    with pytest.raises(InputError, match=r"no pair of volume-N\.nii"):
        convert(nnunet_folders / "in")
    with pytest.raises(InputError, match="is not a directory"):
        convert(nnunet_folders / "elsewhere")


def test_unreadable_folder(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (flat / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=r"in/locked: this folder cannot be read \(Permission denied\)"):
            convert(flat, skip_bad=skip_bad)


def test_nothing_left(nnunet_folders: Path, flat: Path) -> None:
    for path in flat.glob("segmentation*"):
        truncate(path)
    for skip_bad in (False, True):
        with pytest.raises(InputError, match="no usable case is left") as caught:
            convert(flat, skip_bad=skip_bad)
        assert "--skip-bad" not in str(caught.value)


def test_raw_unset_or_unwritable(nnunet_folders: Path, flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(InputError, match="nnUNet_raw is not set"):
        convert(flat)
    (nnunet_folders / "file").write_text("")
    monkeypatch.setenv("nnUNet_raw", str(nnunet_folders / "file" / "raw"))
    with pytest.raises(InputError, match="cannot be written"):
        convert(flat)


def test_too_little_space(nnunet_folders: Path, flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(nnunet_folders)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"too little disk space, 1 kB free and about 3 kB needed"):
        convert(flat)
    assert not os.listdir(nnunet_folders / "nnUNet_raw")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dataset_id": 0}, "--dataset-id 0"),
        ({"dataset_id": 1000}, "1000"),
        ({"name": "a__b"}, "a__b"),
        ({"name": "a/b"}, "a/b"),
    ],
)
def test_impossible_names(nnunet_folders: Path, flat: Path, settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        convert(flat, **settings)


@pytest.mark.parametrize("names", [*itertools.permutations(NNUNET_FOLDERS, 2)])
@pytest.mark.parametrize("below", [".", "below/it"])
def test_folders_that_are_one_another(
    nnunet_folders: Path, flat: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str], below: str
) -> None:
    """--overwrite would delete the trained models of a dataset that nnUNet_results holds under the same name."""
    (nnunet_folders / "link").symlink_to(nnunet_folders / names[1])
    monkeypatch.setenv(names[0], str(nnunet_folders / "link" / below))
    with pytest.raises(InputError, match=r"give each a folder of its own") as caught:
        convert(flat, overwrite=True)
    assert len(caught.value.problems) == 1
    assert all(f"{name}={nnunet_folders}" in str(caught.value) for name in names)


def test_a_dry_run_checks_before_it_refuses(nnunet_folders: Path, flat: Path) -> None:
    convert(flat)
    truncate(flat / "volume-0.nii")
    save(flat / "segmentation-1.nii", liver() + 7)
    with pytest.raises(InputError) as caught:
        convert(flat, dry_run=True)
    for words in ("exists with other source files", "volume-0.nii: is truncated", "segmentation-1.nii: holds label"):
        assert words in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(nnunet_folders: Path, flat: Path) -> None:
    remove(flat / "volume-0.nii")
    os.mkfifo(flat / "volume-0.nii")
    with pytest.raises(InputError, match=r"segmentation-0\.nii: its volume is missing") as caught:
        convert(flat)
    assert f"note: {flat / 'volume-0.nii'}: neither a file nor a folder" in str(caught.value)


def test_what_was_ignored_is_named_in_errors(nnunet_folders: Path, flat: Path) -> None:
    """It may be what is missing."""
    (flat / "volume-0.nii").rename(flat / "volume_0.nii")
    for name in ("volume-0.nrrd", "volume-0.img", "volume-0.hdr"):
        (flat / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"its volume is missing") as caught:
        convert(flat)
    names = "volume-0.hdr, volume-0.img, volume-0.nrrd and 1 more"
    assert f"note: 4 files of volumes not named as LiTS's NIfTI files are, left alone: {names}" in str(caught.value)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_damage_that_shows_only_in_writing(nnunet_folders: Path, flat: Path, skip_bad: bool) -> None:
    """A linked volume is not read; one that is written is, to the checksum at its end."""
    for number in (0, 1):
        remove(flat / f"volume-{number}.nii")
        flipped(save(flat / f"volume-{number}.nii.gz", ct(number)))
    if skip_bad:
        outcome = convert(flat, file_ending=".nii", skip_bad=True)
        assert [f"volume-{number}.nii.gz: is truncated or damaged" in outcome.skipped[number] for number in (0, 1)]
        assert os.listdir(outcome.folder / "imagesTr") == ["lits_002_0000.nii"]
        assert json.loads((outcome.folder / "conversion.json").read_text())["skipped"] == list(outcome.skipped)
        assert os.listdir(nnunet_folders / "nnUNet_raw") == [DATASET]
        assert convert(flat, file_ending=".nii", skip_bad=True).layout is None
    else:
        with pytest.raises(InputError, match=r"volume-\d\.nii\.gz: is truncated or damaged") as caught:
            convert(flat, file_ending=".nii")
        assert "--skip-bad converts the rest without lits_00" in str(caught.value)
        assert os.listdir(nnunet_folders / "nnUNet_raw") == []
