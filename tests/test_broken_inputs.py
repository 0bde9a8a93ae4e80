"""Whatever is broken in a record or an input, commands end well or say what is wrong: never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import busi_source
import fuzz
import lits_source
import numpy as np
import pytest
import tiny
from commands import folders
from evaluations import evaluation
from PIL import Image
from training import untrained

from nnunet_ext.benchmark.benchmark import Benchmark
from nnunet_ext.cli import main

OLD = Path(__file__).resolve().parent / "data" / "a5e75ff"
FEW, MANY = 25, 500


def answer(*words: object) -> int:
    """Run a command whose output goes to a terminal that shows UTF-8; return its exit code."""
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")),
        contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO(), "utf-8")),
    ):
        return main([str(word) for word in words])


def survives(
    rounds: int,
    files: Sequence[Path],
    run: Callable[[], int],
    *,
    text: bool = False,
    seed: str = "",
    stops: bool = True,
) -> Counter[int]:
    """Run a command with one broken file after the other, each put right again; return how often it ended how.

    Some of them must stop it, or, where `stops` is false, none.
    """
    codes: Counter[int] = Counter()
    failures = []
    for number in range(rounds):
        rng = random.Random(f"{seed} {number}")
        file = rng.choice(files)
        content = file.read_bytes()
        file.write_bytes(changed := fuzz.broken(content, rng, text=text))
        try:
            codes[run()] += 1
        except Exception:  # noqa: BLE001  (any is a failure)
            failures.append(f"{file.name}, number {number}: {changed[:300]!r}\n{traceback.format_exc()}")
        finally:
            file.write_bytes(content)
    assert not failures, f"{len(failures)} of {rounds}; the first: {failures[0]}"
    assert codes.keys() <= {0, 2}
    assert (codes[2] > 0) == stops  # what is broken is noticed at all
    return codes


def predictions(root: Path) -> Path:
    """Two pictures, references, and all records that predictions may have beside them."""
    rng = np.random.default_rng(0)
    for name in ("pred", "ref"):
        (root / name).mkdir(parents=True)
        for case in ("a", "b"):
            Image.fromarray((rng.random((20, 24)) > 0.6).astype(np.uint8)).save(root / name / f"{case}.png")
    dataset = {
        "channel_names": {"0": "ultrasound"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 2,
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (root / "pred" / "dataset.json").write_text(json.dumps(dataset))
    shutil.copy(OLD / "nnUNetTrainerSAMUSHFTiny" / "plans.json", root / "pred")
    shutil.copy(OLD / "prompts_used.json", root / "pred")
    return root / "pred"


def evaluate(rounds: int, root: Path) -> None:
    pred = predictions(root)
    words = ("evaluate", "--pred", pred, "--ref", root / "ref", "--out", root / "out", "--jobs", 1)

    def run() -> int:
        if (code := answer(*words)) == 0:
            info = json.loads((root / "out" / "metrics.json").read_text())["nnunet_ext"]["info"]
            assert info["prompts"] == json.loads((pred / "prompts_used.json").read_text())["source"]
        return code

    for name in ("dataset.json", "plans.json", "prompts_used.json"):
        survives(rounds, [pred / name], run, seed=name)


def compare(rounds: int, root: Path, *options: object) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        info = {
            "name": name,
            "predictions": str(root / name),
            "references": str(root / "ref"),
            "prediction_files": {"case_00": str(root / name / "x.png")},
            "file_ending": ".png",
            "nsd_tolerance": 2.0,
            "lesion_iou": 0.1,
            "prompts": "none",
            "trainer": "nnUNetTrainerRAUNet",
            "plans": "nnUNetRAUNetPlans",
            "configuration": "2d",
            "fold": 0,
            "seed": 0,
            "dataset": "Dataset030_BUSI",
            "versions": {"numpy": "2"},
        }
        others = {key: rng.random(7) for key in ("hd95", "volume_error", "nsd")}
        evaluation(rng.random(7), others=others, **info).save(root / name)
    summary = root / "c" / "summary.json"
    summary.parent.mkdir()
    content = json.loads((root / "a" / "metrics.json").read_text())
    del content["nnunet_ext"]
    kept = ("Dice", "IoU", "TP", "FP", "FN", "TN")
    for case in content["metric_per_case"]:
        case["prediction_file"] = f"/elsewhere/{case['case']}.png"
        case["metrics"] = {key: {name: m[name] for name in kept} for key, m in case["metrics"].items()}
    summary.write_text(json.dumps(content))
    for broken in (root / "a" / "metrics.json", summary):
        words = ("compare", f"one={broken.parent}", f"b={root / 'b'}", "--out", root / "out", *options)
        survives(rounds, [broken], lambda words=words: answer(*words), seed=broken.name)


def report(rounds: int, root: Path) -> None:
    compare(rounds // 4, root, "--report", root / "report.html")


def benchmark(root: Path) -> tuple[Path, Path]:
    """The folder of a finished benchmark, and its matrix elsewhere."""
    out, matrix = root / "out", root / "demo.toml"
    shutil.copytree(OLD / "benchmark", out)
    shutil.copy(out / "demo.toml", matrix)
    for job in Benchmark.of(matrix, out).jobs:
        for path in map(Path, job.missing):  # too large to be kept for a test
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if job.kind == "predict" else path.touch()
    return out, matrix


def matrix(rounds: int, root: Path) -> None:
    out, file = benchmark(root)

    def run() -> int:
        if (code := answer("benchmark", "plan", file, "--out", out)) == 0:
            written = [path for job in Benchmark.of(file, out).jobs for path in (*job.outputs, job.folder) if path]
            assert all(Path(path).resolve().is_relative_to(out) for path in written)
        return code

    survives(rounds, [file], run, text=True)


def records(rounds: int, root: Path) -> None:
    out, file = benchmark(root)
    survives(rounds, sorted(out.glob("jobs/*.json")), lambda: answer("benchmark", "status", file, "--out", out))


def manifests(rounds: int, root: Path) -> None:
    out, file = benchmark(root)
    survives(rounds // 4, sorted(out.rglob("manifest.json")), lambda: answer("benchmark", "report", file, "--out", out))


def images(rounds: int, root: Path) -> None:
    """Predictions and references of `evaluate`, pictures and volumes."""
    pred = predictions(root / "pictures")
    volumes = root / "volumes"
    dataset = json.loads((pred / "dataset.json").read_text())
    for name in ("pred", "ref"):
        for case in ("a", "b"):
            lits_source.save(volumes / name / f"{case}.nii", lits_source.liver())
    dataset |= {"file_ending": ".nii", "overwrite_image_reader_writer": "SimpleITKIO"}
    (volumes / "pred" / "dataset.json").write_text(json.dumps(dataset))
    for folder, ending in ((root / "pictures", ".png"), (volumes, ".nii")):
        words = ("evaluate", "--pred", folder / "pred", "--ref", folder / "ref", "--out", root / "out", "--jobs", 1)
        files = sorted(folder.glob(f"*/*{ending}"))
        survives(rounds // 2, files, lambda words=words: answer(*words), seed=ending)


def conversions(rounds: int, root: Path) -> None:
    """What `convert` reads: with --skip-bad, one broken file stops nothing."""
    busi, lits = busi_source.published(root / "busi", benign=4, malignant=3), root / "lits"
    lits_source.codalab(lits, 4)
    folders = busi_source.flattened(busi, root / "folders")
    (folders / "table.csv").write_text(
        "image,mask,patient\n" + "".join(f"{p.name},{p.name},{p.stem}\n" for p in sorted(folders.glob("images/*")))
    )
    where: dict[str, tuple[object, ...]] = {
        "busi": ("--source", busi),
        "lits": ("--source", lits, "--link", "copy"),
        "folders": ("--images", folders / "images", "--masks", folders / "masks" / "0", "--name", "Mine"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed"):
            (root / name).mkdir()
            patch.setenv(name, str(root / name))
        for number, (dataset, source) in enumerate(where.items(), 50):
            files = [p for p in sorted((root / dataset).rglob("*")) if p.suffix in (".png", ".nii")]
            words = ("convert", dataset, *source, "--dataset-id", number, "--num-processes", 1, "--overwrite")
            survives(max(8, rounds // 6), files, lambda words=words: answer(*words), seed=dataset)
            words = (*words, "--skip-bad")
            survives(max(8, rounds // 6), files, lambda words=words: answer(*words), seed=dataset, stops=False)
        table = ("convert", "folders", "--csv", folders / "table.csv", "--images", folders / "images")
        table += ("--masks", folders / "masks" / "0", "--name", "Mine", "--dataset-id", 52, "--num-processes", 1)
        survives(max(8, rounds // 6), [folders / "table.csv"], lambda: answer(*table, "--overwrite"), text=True)
        assert answer(*table, "--overwrite") == 0
        of_ours = [p for p in (root / "nnUNet_raw").rglob("*.json") if p.parent.name.startswith("Dataset052")]
        survives(max(8, rounds // 6), of_ours, lambda: answer(*table), seed="conversion")


def predict(rounds: int, root: Path) -> None:
    """All that `predict` reads, once as one would and once from clicks."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in folders(root).items():
            patch.setenv(name, value)
        tiny.make_raw(35, tiny.BINARY, channels=("ultrasound",), png=True, cases=2)
        tiny.plan_and_preprocess(35, "SAMUSPlanner")
        model = untrained("nnUNetTrainerSAMUSHFTiny", 35, "nnUNetSAMUSPlans")
        raw = root / "nnUNet_raw" / "Dataset035_Tiny"
        clicks = root / "clicks.json"
        clicks.write_text(json.dumps({f"case_{i}": [{"point": [20, 18]}, {"point": [1, 2]}] for i in range(2)}))
        words = ("predict", "-m", model, "-i", raw / "imagesTr", "-o", root / "out", "-device", "cpu", "--overwrite")
        reference = ("--from-reference", raw / "labelsTr")
        pictures = sorted(raw.glob("*Tr/*.png"))
        for files, option in (
            ([model / "dataset.json"], reference),
            ([model / "plans.json"], ()),
            ([clicks], ("--prompts", clicks)),
            (pictures, reference),
            ([model / "fold_0" / "checkpoint_best.pth"], ()),
            ([root / "out" / "prompts_used.json"], ()),
        ):
            assert answer(*words, *option) == 0
            survives(max(5, rounds // 40), files, lambda w=(*words, *option): answer(*w), seed=files[0].name)


COMMANDS: dict[str, Callable[[int, Path], Any]] = {
    f.__name__: f for f in (evaluate, compare, report, matrix, records, manifests, images, conversions, predict)
}


def test_a_broken_record_of_a_job_is_not_a_job_that_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Days of training would be set aside without a word."""
    out, file = benchmark(tmp_path)
    record = next(out.glob("jobs/*_train_*.json"))
    record.write_text(record.read_text()[:-20])
    for step in ("status", "run"):
        assert main(["benchmark", step, str(file), "--out", str(out)]) == 2
        assert f"{record} is not valid JSON" in (said := capsys.readouterr().err)
        assert "the job is run again" in said


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"predict"}))
def test_a_broken_file_is_a_message(command: str, tmp_path: Path) -> None:
    COMMANDS[command](FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_many_broken_files_are_messages(command: str, tmp_path: Path) -> None:
    COMMANDS[command](MANY, tmp_path)
