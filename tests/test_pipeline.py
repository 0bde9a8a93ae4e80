"""From a download to predictions through the real command line, as the README has it."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from commands import ONE_ITERATION, command, folders

SMALL = ("--cases", "10", "--size", "32", "--slices", "8", "--epochs", "1", "--iterations", "2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tiny `nnunet_ext demo`: its folder and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    return out, command(f"nnunet_ext demo --out {out} {' '.join(SMALL)}")


def test_demo(demo: tuple[Path, str]) -> None:
    """Both models predict every held-out case in its own geometry, and the report shows them."""
    out, printed = demo
    assert "nnUNetv2_train 29 2d 0 -tr nnUNetTrainerRAUNet" in printed
    assert "9 done" in printed
    (raw,) = (out / "nnUNet_raw").glob("Dataset*")
    images = sorted((raw / "imagesTs").iterdir())
    assert images
    for model in ("RA-U-Net", "nnU-Net_same_budget_and_plans"):
        folder = out / "predictions" / raw.name / model / "seed_0" / "fold_0"
        for file in images:
            predicted, image = sitk.ReadImage(folder / file.name.replace("_0000", "")), sitk.ReadImage(file)
            assert predicted.GetSize() == image.GetSize()
            assert predicted.GetSpacing() == pytest.approx(image.GetSpacing())
        manifest = json.loads((out / "evaluations" / raw.name / model / "seed_0" / "fold_0/manifest.json").read_text())
        assert manifest["budget"]["NNUNET_EXT_ITERATIONS"] == "2"
    report = (out / "report" / raw.name / "report.html").read_text()
    assert "nnU-Net, same budget and plans" in report
    assert all(file.name.removesuffix("_0000.nii") in report for file in images)


def test_a_finished_demo_does_nothing_again(demo: tuple[Path, str], capsys: pytest.CaptureFixture) -> None:
    from nnunet_ext.cli import main

    before = {f: f.stat().st_mtime_ns for f in demo[0].glob("nnUNet_results/**/*.pth")}
    handler = signal.getsignal(signal.SIGTERM)
    assert main(["demo", "--out", str(demo[0]), *SMALL]) == 0
    assert signal.getsignal(signal.SIGTERM) is handler  # else forked children of this process survive their end
    assert "running" not in capsys.readouterr().out
    assert before == {f: f.stat().st_mtime_ns for f in demo[0].glob("nnUNet_results/**/*.pth")}


def test_a_demo_of_other_sizes_is_kept(demo: tuple[Path, str], capsys: pytest.CaptureFixture) -> None:
    from nnunet_ext.cli import main

    assert main(["demo", "--out", str(demo[0])]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (demo[0] / "report").is_dir()


def test_overwriting_a_demo_removes_nothing_else(tmp_path: Path) -> None:
    from nnunet_ext.cli.demo import prepare
    from nnunet_ext.common.errors import InputError

    (tmp_path / "logs").mkdir()
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="Name another folder"):
            prepare(tmp_path, "one", overwrite)
    assert (tmp_path / "thesis.tex").is_file()

    out = tmp_path / "demo"
    prepare(out, "one", False)
    (out / "report").mkdir()
    prepare(out, "one", False)
    assert (out / "report").exists()
    prepare(out, "two", True)
    assert not (out / "report").exists()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        prepare(out, "three", True)
    assert (out / "notes.txt").is_file()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_demo_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    from nnunet_ext.cli.demo import prepare
    from nnunet_ext.common.errors import InputError

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"demo: .*\nName another folder with --out"):
        prepare(tmp_path / "demo", "one", False)


def test_literal_commands_on_stock_plans(demo: tuple[Path, str], tmp_path: Path) -> None:
    """No -pl, no -p: plan, preprocess, train and predict exactly as for a stock trainer."""
    out = demo[0]
    environment = {**folders(out), "nnUNet_results": str(tmp_path), **ONE_ITERATION}

    def run(line: str, **more: str) -> str:
        return command(line, **environment, **more)

    run("nnUNetv2_plan_experiment -d 29")
    run("nnUNetv2_preprocess -d 29 -c 2d -np 1")
    printed = run("nnUNetv2_train 29 2d 0 -tr nnUNetTrainerRAUNet -device cpu", nnUNet_n_proc_DA="0")
    assert "differs from the paper in batch size" in printed
    images = out / "nnUNet_raw" / "Dataset029_LiTS" / "imagesTs"
    run(
        f"nnUNetv2_predict -i {images} -o {tmp_path / 'predictions'} -d 29 -c 2d -f 0 -tr nnUNetTrainerRAUNet "
        "-device cpu -npp 1 -nps 1"
    )
    assert len(list((tmp_path / "predictions").glob("*.nii"))) == len(list(images.iterdir()))
