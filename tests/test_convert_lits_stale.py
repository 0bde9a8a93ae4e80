"""Converting over a dataset of which nnUNet_preprocessed holds something already."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from lits_source import DATASET, convert, ct, save, three_cases, tree

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import raw_folder, stale
from nnunet_ext.dataset_conversion.raw_folder import RawFolder

OTHERS = ["features", "mine.json", "nnUNetPlans_figures", "notes"]  # not nnU-Net's


@pytest.fixture
def flat(nnunet_folders: Path) -> Path:
    return three_cases(nnunet_folders / "in")


def touch(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def preprocessed(folder: Path) -> None:
    """What nnU-Net makes, then what others put next to it."""
    configurations = {"2d": {"data_identifier": "elsewhere_2d"}, "2d_small": {"inherits_from": "2d"}}
    touch(folder / "nnUNetPlans.json", json.dumps({"plans_name": "nnUNetPlans", "configurations": configurations}))
    for name in ("dataset_fingerprint.json", "splits_final.json", "dataset.json"):
        touch(folder / name, "{}")
    for name in ("gt_segmentations/a.nii", "elsewhere_2d/a.npz", "orphan/a.pkl", "orphan/a.b2nd"):
        touch(folder / name)
    for name in ("mine.json", "notes/a.txt", "nnUNetPlans_figures/a.png", "features/a.pkl"):
        touch(folder / name)


def test_stale_preprocessed_data(nnunet_folders: Path, flat: Path) -> None:
    convert(flat)
    folder = nnunet_folders / "nnUNet_preprocessed" / DATASET
    preprocessed(folder)
    assert convert(flat).layout is None  # unchanged: nothing is stale
    assert convert(flat, overwrite=True).stale == ()
    with pytest.raises(InputError) as caught:
        convert(flat, target="regions", overwrite=True)
    for name in (
        "dataset_fingerprint.json",
        "splits_final.json",
        "gt_segmentations",
        "elsewhere_2d",
        "orphan",
        "--overwrite-preprocessed",
    ):
        assert name in str(caught.value)
    assert (folder / "elsewhere_2d").exists()
    convert(flat, target="regions", overwrite=True, overwrite_preprocessed=True)
    assert sorted(os.listdir(folder)) == OTHERS


def test_preprocessed_data_outlives_changes_that_leave_the_data_as_it_is(nnunet_folders: Path, flat: Path) -> None:
    convert(flat)
    folder = nnunet_folders / "nnUNet_preprocessed" / DATASET
    folder.mkdir()
    (folder / "splits_final.json").write_text("[]")
    moved = flat.rename(nnunet_folders / "moved")
    for settings in ({}, {"link": "copy"}, {"checksum": True}, {"skip_bad": True}):
        assert convert(moved, overwrite=True, **settings).stale == ()
    convert(moved, overwrite=True, checksum=True)
    os.utime(moved / "volume-0.nii", ns=(0, 0))
    assert convert(moved, overwrite=True, checksum=True, link="copy").stale == ()
    for settings in ({"target": "regions"}, {"seed": 1}, {"split": "cv5"}, {"file_ending": ".nii.gz"}):
        with pytest.raises(InputError, match="--overwrite-preprocessed"):
            convert(moved, overwrite=True, checksum=True, **settings)
    save(moved / "volume-0.nii", ct(9))
    with pytest.raises(InputError, match="--overwrite-preprocessed"):
        convert(moved, overwrite=True, checksum=True)


def test_a_note_where_stale_data_cannot_be_looked_for(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nnUNet_preprocessed" not in " ".join(convert(flat).layout.notes)
    monkeypatch.delenv("nnUNet_preprocessed")
    assert "nnUNet_preprocessed is not set" in " ".join(convert(flat, target="regions", overwrite=True).layout.notes)


def test_stale_data_without_a_raw_dataset(nnunet_folders: Path, flat: Path) -> None:
    folder = nnunet_folders / "nnUNet_preprocessed" / DATASET
    folder.mkdir()
    convert(flat)
    shutil.rmtree(nnunet_folders / "nnUNet_raw" / DATASET)
    (folder / "splits_final.json").write_text("[]")
    with pytest.raises(InputError, match=r"splits_final\.json"):
        convert(flat)


def test_stale_data_comes_back_when_the_swap_fails(
    nnunet_folders: Path, flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(flat)
    folder = nnunet_folders / "nnUNet_preprocessed" / DATASET
    preprocessed(folder)
    before = tree(folder)

    def fail(_self: RawFolder) -> None:
        assert not (folder / "elsewhere_2d").exists()
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(RawFolder, "swap", fail)
    with pytest.raises(InputError, match="Read-only"):
        convert(flat, target="regions", overwrite=True, overwrite_preprocessed=True)
    assert tree(folder) == before


def test_stale_data_does_not_come_back_after_the_swap(
    nnunet_folders: Path, flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new dataset is in place then, and the old one's preprocessed data would be used for it."""
    convert(flat)
    folder = nnunet_folders / "nnUNet_preprocessed" / DATASET
    preprocessed(folder)
    real = raw_folder.sync_folder

    def fail(synced: Path) -> None:
        if synced == nnunet_folders / "nnUNet_raw":
            raise OSError(5, "Input/output error")
        real(synced)

    monkeypatch.setattr(raw_folder, "sync_folder", fail)
    with pytest.raises(InputError, match="Input/output error"):
        convert(flat, target="regions", overwrite=True, overwrite_preprocessed=True)
    assert sorted(os.listdir(folder)) == OTHERS
    assert os.listdir(nnunet_folders / "nnUNet_raw") == [DATASET]
    assert convert(flat, target="regions").layout is None


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def kill_at(patch: pytest.MonkeyPatch, step: int, *, after: bool) -> None:
    """Raise `Killed` at the n-th time that something is renamed, or deleted for good, from the swap on."""
    count = iter(range(10**6))

    def wrap(real):
        def counted(*args, **kwargs):
            now = next(count) == step
            if now and not after:
                raise Killed
            result = real(*args, **kwargs)
            if now:
                raise Killed
            return result

        return counted

    patch.setattr(Path, "rename", wrap(Path.rename))
    for module in (raw_folder, stale):
        patch.setattr(module, "shutil", SimpleNamespace(rmtree=wrap(shutil.rmtree)))


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_the_swap_there_is_the_old_dataset_or_the_new_one(
    nnunet_folders: Path, flat: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """With what was made of it, and whoever looks at it next removes the rest."""
    raw, made = (nnunet_folders / name / DATASET for name in ("nnUNet_raw", "nnUNet_preprocessed"))
    old = new = 0
    for step in range(100):
        convert(flat, overwrite=True, overwrite_preprocessed=True)
        shutil.rmtree(made, ignore_errors=True)
        preprocessed(made)
        before = tree(raw), tree(made)
        with contextlib.suppress(Killed), monkeypatch.context() as patch:
            kill_at(patch, step, after=after)
            convert(flat, target="regions", overwrite=True, overwrite_preprocessed=True)
            break
        with pytest.raises(InputError, match="--overwrite"):
            convert(flat, seed=1)
        if "regions_class_order" in (raw / "dataset.json").read_text():
            new += 1
            assert sorted(os.listdir(made)) == OTHERS
            assert os.listdir(raw.parent) == [DATASET]
        else:
            old += 1
            assert (tree(raw), tree(made)) == before
    assert old > 3
    assert new > 3
