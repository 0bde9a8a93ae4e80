"""Finished results become a comparison; unfair ones are refused; progress and manifests are read right."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nnunet_ext.benchmark import reporting, status, store, workflow
from nnunet_ext.benchmark.benchmark import Benchmark
from nnunet_ext.benchmark.jobs import Job
from nnunet_ext.benchmark.store import Attempt, Record
from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.evaluation.evaluation import Evaluation, columns
from nnunet_ext.metrics.definitions import PHYSICAL

LITS = "Dataset029_LiTS"

MATRIX = """
name = "m"
title = "Two networks and nnU-Net"
device = "cpu"
seeds = [0, 1]
differences = ["another split"]
notes = ["only a test"]
[budget]
epochs = 2
[[datasets]]
id = 29
name = "Dataset029_LiTS"
test = "imagesTs"
[[rows]]
name = "RA-U-Net"
trainer = "nnUNetTrainerRAUNet"
[[rows]]
name = "U-Net"
trainer = "nnUNetTrainerUNet"
[[rows]]
name = "nnU-Net"
trainer = "nnUNetTrainer"
[[published]]
row = "RA-U-Net"
metrics = {dice = 0.773, precision = 0.983}
source = "the paper, table 1"
note = "one run"
[[published]]
row = "nnU-Net"
metrics = {dice = 0.7}
source = "nobody"
"""


@pytest.fixture
def benchmark(nnunet_folders: Path) -> Benchmark:
    """A matrix whose training, so to speak, is finished for all rows but nnU-Net's."""
    return trained(nnunet_folders, MATRIX)


def trained(nnunet_folders: Path, matrix: str) -> Benchmark:
    """See above."""
    file = nnunet_folders / "m.toml"
    file.write_text(matrix)
    raw, preprocessed = (nnunet_folders / n / LITS for n in ("nnUNet_raw", "nnUNet_preprocessed"))
    for path in (raw / "dataset.json", raw / "labelsTs" / "a.nii", preprocessed / "splits_final.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    made = Benchmark.of(file, nnunet_folders / "out")
    for job in made.jobs:
        if job.kind != "evaluate" and job.facts.get("row") != "nnU-Net":
            finish(made, job)
    return made


def finish(benchmark: Benchmark, job: Job, seconds: float = 30.0) -> None:
    """As if it had been run."""
    for path in job.outputs:
        folder = Path(path).parent if Path(path).suffix else Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        if folder != Path(path) and not Path(path).exists():
            Path(path).touch()
    attempt = Attempt(started=1e9, seconds=seconds, exit=0, peak_bytes=2**30, cpu_seconds=seconds)
    built_on = benchmark.store.runs(job)
    record = Record(hash=job.hash, state="done", host="a_host", built_on=built_on, attempts=(attempt,))
    if job.manifest:
        store.write_manifest(job, record, benchmark.jobs.with_needs(job)[:-1], benchmark.store)
    benchmark.store.write(job, record)


def evaluated(
    benchmark: Benchmark, row: str, dice: float, *, seed: int, cases: int = 8, undefined: tuple[str, ...] = ()
) -> Job:
    """The evaluation of a row and seed, made up; with cases without a Dice."""
    job = next(j for j in benchmark.jobs if j.kind == "evaluate" and (j.facts["row"], j.facts["seed"]) == (row, seed))
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(np.nan, index=range(cases), columns=columns(PHYSICAL), dtype=object)
    table["case"], table["structure"] = [f"case_{i}" for i in range(cases)], "tumour"
    for count, value in {"tp": 50, "fp": 10, "fn": 20, "tn": 1000}.items():
        table[count] = value
    numbers = [c for c in table.columns if c not in ("case", "structure", "tp", "fp", "fn", "tn")]
    table[numbers] = table[numbers].astype(float)
    table["dice"] = dice + rng.uniform(-0.05, 0.05, cases)
    table.loc[table["case"].isin(undefined), "dice"] = np.nan
    table["precision"] = 0.9
    Evaluation(table=table, units=PHYSICAL, structures={"tumour": (1,)}).save(Path(job.outputs[0]).parent)
    finish(benchmark, job)
    return job


def two_models(benchmark: Benchmark) -> None:
    for seed in (0, 1):
        evaluated(benchmark, "RA-U-Net", 0.8, seed=seed)
    evaluated(benchmark, "U-Net", 0.6, seed=0)


def test_the_report_of_whatever_is_finished(benchmark: Benchmark) -> None:
    two_models(benchmark)
    text = "\n".join(reporting.write(benchmark))
    assert re.search(r"RA-U-Net +Dice +0\.773 +0\.[78]\d+ +\(tumour, mean of 8 of 8 cases, sd over 2 runs", text)
    assert re.search(r"nnU-Net +Dice +0\.7 +not finished", text)
    assert "differs: another split" in text
    assert "note: only a test" in text
    assert "note: U-Net: 1 of 2 runs are finished." in text
    assert re.search(r"missing: U-Net, seed 1, fold 0: d029_evaluate_U-Net_fold0_seed1 is waiting", text)
    assert re.search(
        r"missing: nnU-Net, seed 0, fold 0: d029_plan_nnUNetPlans is |missing: nnU-Net, seed 0.*train", text
    )
    assert re.search(r"RA-U-Net +7,294,133 +7,294,133 +30 s +3\.75 s +1\.0 GiB +\S", text)
    folder = benchmark.folders.root / "report" / LITS
    page = (folder / "report.html").read_text()
    for expected in ("Two networks and nnU-Net", "0.773", "another split", "only a test", "nnUNetv2_train 29 2d 0"):
        assert expected in page, expected
    compared = json.loads((folder / "comparison.json").read_text())
    assert "RA-U-Net" in json.dumps(compared)


def test_published_figures_stand_by_the_numbers_of_the_report(benchmark: Benchmark) -> None:
    """The same mean in the terminal and on the page, where a case is undefined in one of the runs."""
    for seed in (0, 1):
        evaluated(benchmark, "RA-U-Net", 0.8, seed=seed, undefined=("case_0",) if seed else ())
    evaluated(benchmark, "U-Net", 0.6, seed=0)
    text = "\n".join(reporting.write(benchmark))
    (result,) = (r for r in _record(benchmark)["results"] if r["metric"] == "dice")
    mean = result["models"]["RA-U-Net"]["mean"]
    assert re.search(rf"RA-U-Net +Dice +0\.773 +{mean:.4g} +\(tumour, mean of 7 of 8 cases", text)


def test_a_model_that_finds_nothing_hides_no_metric(benchmark: Benchmark) -> None:
    everything = tuple(f"case_{i}" for i in range(8))
    evaluated(benchmark, "RA-U-Net", 0.8, seed=0)
    evaluated(benchmark, "U-Net", 0.6, seed=0, undefined=everything)
    list(reporting.write(benchmark))
    results = {r["metric"]: r for r in _record(benchmark)["results"]}
    assert set(results) == {"dice", "precision"}
    assert results["dice"]["models"]["U-Net"]["undefined"] == 8


def _record(benchmark: Benchmark) -> dict[str, Any]:
    return json.loads((benchmark.folders.root / "report" / LITS / "comparison.json").read_text())


def test_costs_are_of_the_device_of_the_training(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "machine", lambda: {"cpu": "a CPU", "gpus": ["a GPU", "another"]})
    on_gpu = trained(nnunet_folders, MATRIX.replace('device = "cpu"', 'device = "cuda"'))
    monkeypatch.setattr(store, "machine", lambda: {"cpu": "a node without", "gpus": []})
    evaluated(on_gpu, "RA-U-Net", 0.8, seed=0)
    list(reporting.write(on_gpu))
    page = (on_gpu.folders.root / "report" / LITS / "report.html").read_text()
    assert "<td>a GPU</td>" in page


def test_runs_know_where_they_come_from(benchmark: Benchmark) -> None:
    two_models(benchmark)
    results = reporting.collect(benchmark, benchmark.matrix.datasets[0])
    assert [(name, len(runs)) for name, runs in results.models.items()] == [("RA-U-Net", 2), ("U-Net", 1)]
    info = results.runs["RA-U-Net"][1].evaluation.info
    assert (info["name"], info["seed"], info["trainer"], info["prompts"]) == (
        "RA-U-Net", 1, "nnUNetTrainerRAUNet", "none",
    )  # fmt: skip


def test_one_model_alone_is_reported_without_a_comparison(benchmark: Benchmark) -> None:
    evaluated(benchmark, "RA-U-Net", 0.8, seed=0)
    text = "\n".join(reporting.write(benchmark))
    assert "Only RA-U-Net is finished" in text
    assert (benchmark.folders.root / "report" / LITS / "report.html").is_file()


def test_nothing_finished(benchmark: Benchmark, capsys: pytest.CaptureFixture) -> None:
    root = benchmark.folders.root
    assert main(["benchmark", "report", str(root.parent / "m.toml"), "--out", str(root)]) == 2
    said = capsys.readouterr().err
    assert "Nothing of Dataset029_LiTS is finished" in said
    assert "RA-U-Net, seed 0, fold 0: d029_evaluate_RA-U-Net_fold0_seed0 is waiting" in said


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("sha256", "splits_final.json"), "The splits (splits_final.json) differ"),
        (("sha256", "labelsTs"), "The held-out cases (labelsTs) differ"),
        (("budget",), "The budgets differ"),
    ],
)
def test_unfair_comparisons_are_refused(benchmark: Benchmark, key: tuple[str, ...], expected: str) -> None:
    two_models(benchmark)
    job = next(j for j in benchmark.jobs if j.kind == "evaluate" and j.facts["row"] == "U-Net")
    content: dict[str, Any] = json.loads(Path(job.manifest).read_text())
    inner = content if len(key) == 1 else content[key[0]]
    inner[key[-1]] = {"NNUNET_EXT_EPOCHS": "9"} if key == ("budget",) else "0" * 64
    Path(job.manifest).write_text(json.dumps(content))
    with pytest.raises(InputError) as e:
        reporting.collect(benchmark, benchmark.matrix.datasets[0])
    (problem,) = e.value.problems
    assert problem.startswith(expected)
    assert "U-Net (seed 0, fold 0)" in problem


def test_splits_are_those_of_the_training(benchmark: Benchmark) -> None:
    """Whatever has become of the file since: else a row that was trained before would look like one trained after."""
    splits = benchmark.folders.preprocessed / LITS / "splits_final.json"
    before = store.sha256(splits)
    splits.write_text("[]")
    evaluated(benchmark, "RA-U-Net", 0.8, seed=0)
    row = next(j for j in benchmark.jobs if j.kind == "train" and (j.facts["row"], j.facts["seed"]) == ("U-Net", 0))
    finish(benchmark, row)  # trained anew
    evaluated(benchmark, "U-Net", 0.8, seed=0)
    with pytest.raises(InputError, match=r"The splits \(splits_final.json\) differ") as e:
        reporting.collect(benchmark, benchmark.matrix.datasets[0])
    assert f"{before[:12]}: RA-U-Net (seed 0, fold 0)" in str(e.value)


def test_other_cases_are_refused(benchmark: Benchmark) -> None:
    evaluated(benchmark, "RA-U-Net", 0.8, seed=0)
    evaluated(benchmark, "U-Net", 0.8, seed=0, cases=7)
    with pytest.raises(InputError, match="U-Net lacks case_7"):
        list(reporting.write(benchmark))


def test_folds_that_validate_are_compared_where_all_rows_have_them(benchmark: Benchmark) -> None:
    def run(seed: int, fold: int) -> reporting.FinishedRun:
        job = Job(id="x", kind="evaluate", command=(), facts={"seed": seed, "fold": fold})
        return reporting.FinishedRun(job=job, train=job, evaluation=None, manifest={})

    runs = {"A": [run(s, f) for s in (0, 1) for f in (0, 1, 2)], "B": [run(0, 0), run(0, 1), run(1, 0)]}
    kept, dropped = reporting.whole_folds(runs)
    cells = {row: [r.cell for r in own] for row, own in kept.items()}
    assert cells == {"A": [(0, 0), (0, 1), (1, 0), (1, 1)], "B": [(0, 0), (0, 1)]}
    assert len(dropped) == 3
    kept, _ = reporting.whole_folds({"A": runs["A"], "B": [run(0, 0), run(1, 2)]})  # no seed of B has both
    assert {row: {r.cell[1] for r in own} for row, own in kept.items()} == {"A": {0}, "B": {0}}
    with pytest.raises(InputError, match="No fold is finished for all rows"):
        reporting.whole_folds({"A": [run(0, 0)], "B": [run(0, 1)]})


def test_a_manifest_says_where_a_result_comes_from(benchmark: Benchmark) -> None:
    job = evaluated(benchmark, "RA-U-Net", 0.8, seed=1)
    content = json.loads(Path(job.manifest).read_text())
    assert content["row"] == "RA-U-Net"
    assert content["seed"] == 1
    assert content["budget"] == {"NNUNET_EXT_EPOCHS": "2"}
    assert content["prompts"] == "none"
    assert set(content["versions"]) >= {"python", "nnunet-ext", "nnunetv2", "torch", "numpy"}
    assert content["machine"]["host"]
    assert len(content["sha256"]["splits_final.json"]) == 64
    assert [s["kind"] for s in content["steps"].values()] == ["plan", "train", "predict", "evaluate"]
    train = content["steps"]["d029_train_nnUNetTrainerRAUNet__nnUNetRAUNetPlans__2d_fold0_seed1"]
    assert (train["seconds"], train["peak_bytes_of_largest_process"]) == (30.0, 2**30)
    assert "nnUNetv2_train 29 2d 0 -tr nnUNetTrainerRAUNet" in train["command"]
    checkout = Path(store.__file__).resolve().parents[2] / ".git"
    assert (content["commit"] is not None) == checkout.exists()


LOG = """
2026-01-01 10:00:00.000000: 5 epochs of 20 iterations; a pass over the training cases is 20 iterations of 2 samples.
2026-01-01 10:00:00.000000: Epoch 0
2026-01-01 10:00:00.000000: Current learning rate: 0.0001
2026-01-01 10:00:10.000000: Epoch time: 10.0 s
2026-01-01 10:00:10.000000: Epoch 1
2026-01-01 10:00:22.000000: Epoch time: 12.0 s
2026-01-01 10:00:22.000000: Epoch 2
"""


def test_status_and_what_is_left(benchmark: Benchmark, capsys: pytest.CaptureFixture) -> None:
    job = next(j for j in benchmark.jobs if j.kind == "train" and j.facts["row"] == "nnU-Net")
    failed = next(j for j in benchmark.jobs if j.kind == "evaluate")
    attempt = Attempt(started=time.time() - 50)
    benchmark.store.write(job, Record(hash=job.hash, state="running", host="a_host", attempts=(attempt,)))
    benchmark.store.write(failed, Record(hash=failed.hash, state="failed", reason="exit code 3", attempts=(attempt,)))
    Path(job.folder).mkdir(parents=True)
    (Path(job.folder) / "training_log_2026_1_1_10_00_00.txt").write_text(LOG)
    root = benchmark.folders.root
    assert main(["benchmark", "status", str(root.parent / "m.toml"), "--out", str(root)]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"interrupted +{job.id} +: epoch 2/5, about 33 s left", printed)  # its worker is not there
    assert re.search(rf"failed +{failed.id} .*exit code 3", printed)
    assert re.search(r"20 jobs: 10 done, 8 waiting, 1 interrupted, 1 failed", printed)

    lines = status.lines(benchmark.jobs, benchmark.store, {})
    assert status.seconds_left(lines) is None  # no evaluation has been finished yet
    evaluated(benchmark, "RA-U-Net", 0.8, seed=0)
    lines = status.lines(benchmark.jobs, benchmark.store, {})
    waiting = sum(li.status == "waiting" for li in lines)
    assert status.seconds_left(lines) == pytest.approx(33 + 30 * waiting)
    assert "about " in status.summary(lines, parallel=2)


def test_a_folder_that_commit_a5e75ff_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Its jobs count as done, wherever it was moved, and are reported on."""
    shutil.copytree(Path(__file__).parent / "data" / "a5e75ff" / "benchmark", out := tmp_path / "moved")
    where = [str(out / "demo.toml"), "--out", str(out)]
    for job in Benchmark.of(where[0], out).jobs:
        for path in map(Path, job.missing):  # too large to be kept for a test
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if job.kind == "predict" else path.touch()
    monkeypatch.setattr(workflow, "run", None)  # there is nothing to run
    assert main(["benchmark", "run", *where]) == 0
    assert "9 jobs, 9 done" in capsys.readouterr().out
    assert main(["benchmark", "report", *where]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"nnU-Net, same budget and plans +\S+ +\S+ .* GiB +\S", printed)
    assert (out / "report" / LITS / "report.html").is_file()
