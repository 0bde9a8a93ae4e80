"""Jobs on a real SLURM of one node, which the tests bring up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import benchmark_runner
import pytest
import slurm_cluster
from benchmark_runner import shell, states, wait_for, worker

from nnunet_ext.benchmark import status, workflow
from nnunet_ext.benchmark.benchmark import RunResult
from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.store import Store
from nnunet_ext.common.errors import InputError

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
SMALL = {"cpus": 1, "minutes": {"train": 10}, "mem_gb": 0.2}
SOON = ["--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "1"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_cluster.Cluster]:
    """Up for this file; skipped where there can be none."""
    pytest.importorskip("snakemake_executor_plugin_slurm")
    if reason := slurm_cluster.reason_to_skip():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        try:
            cluster = stack.enter_context(slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm")).up())
        except RuntimeError as e:
            pytest.skip(str(e))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster


def run(jobs: Jobs, act: Callable[[], None] = lambda: None, **slurm: Any) -> RunResult:
    """To the end; meanwhile `act` is called a few times a second."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.3):
            act()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        return benchmark_runner.benchmark(jobs, slurm={**SMALL, **slurm}).run(executor="slurm", passed=SOON)
    finally:
        ended.set()
        thread.join()


def long_training(jobs: Jobs) -> Job:
    """It would take minutes, but for ``--c``."""
    folder = jobs.root / "train"
    text = f'mkdir -p {folder}; [ "$1" = --c ] && touch {folder}/done || exec sleep 300'
    return shell(jobs, "train", text, outputs=(f"{folder}/done",), folder=str(folder), resume=("--c",))


def once_running(jobs: Jobs, made: Path, *command: str) -> Callable[[], None]:
    """When the training has made a file, run a command of SLURM with its number at the end; without one, be Ctrl-C."""
    acted: list[str] = []

    def act() -> None:
        record = Store(jobs.root).record(jobs["train"])
        if not acted and record.state == "running" and made.exists():
            acted.append(record.slurm)
            subprocess.run([*command, record.slurm], check=True) if command else signal.raise_signal(signal.SIGINT)

    return act


def test_a_matrix_on_a_cluster(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    """Prediction and evaluation of a row are one job of SLURM; what fails spares the rest; nothing is repeated."""
    jobs = Jobs(tmp_path)
    text = "echo $SLURM_JOB_ID $MODULES $OMP_NUM_THREADS"
    for row, code in (("good", 0), ("bad", 3)):
        shell(jobs, f"train_{row}", f"{text} > {tmp_path}/train_{row}; echo it breaks here; exit {code}")
        for kind, needs in (("predict", "train"), ("evaluate", "predict")):
            shell(jobs, f"{kind}_{row}", f"{text} > {tmp_path}/{kind}_{row}", kind=kind, needs=(f"{needs}_{row}",))
    outcome = run(jobs, cpus=2, setup=["export MODULES=cuda"])
    assert states(outcome) == {
        "train_good": "done", "predict_good": "done", "evaluate_good": "done",
        "train_bad": "failed", "predict_bad": "skipped", "evaluate_bad": "skipped",
    }  # fmt: skip
    (failure,) = outcome.failures
    assert failure.reason == "exit code 3"
    assert "it breaks here" in failure.tail()
    said = {kind: (tmp_path / f"{kind}_good").read_text().split() for kind in ("train", "predict", "evaluate")}
    assert all(words[1:] == ["cuda", "2"] for words in said.values())
    assert said["predict"][0] == said["evaluate"][0] != said["train"][0]
    record = Store(tmp_path).record(jobs["train_good"])
    assert record.slurm == said["train"][0]
    seen = cluster.output("scontrol", "show", "job", record.slurm)
    assert "TimeLimit=00:10:00" in seen
    assert "Requeue=1" in seen
    assert f"JobName={workflow.jobname(tmp_path)}" in seen
    assert len(Store(tmp_path).record(jobs["train_bad"]).attempts) == 1  # retries are for time limits
    before = Store(tmp_path).record(jobs["evaluate_good"])
    run(jobs)
    assert Store(tmp_path).record(jobs["evaluate_good"]) == before


def test_a_job_that_an_administrator_requeues_continues(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = long_training(jobs)
    assert states(run(jobs, once_running(jobs, Path(job.folder), "scontrol", "requeue"))) == {"train": "done"}
    record = Store(tmp_path).record(job)
    assert [attempt.continued for attempt in record.attempts] == [False, True]
    assert "Restarts=1" in cluster.output("scontrol", "show", "job", record.slurm)


def test_a_job_at_its_time_limit_is_requeued_and_continues(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = long_training(jobs)
    assert states(run(jobs, minutes={"train": 5}, signal_delay_s=230)) == {"train": "done"}
    record = Store(tmp_path).record(job)
    assert [attempt.continued for attempt in record.attempts] == [False, True]
    assert "Restarts=1" in cluster.output("scontrol", "show", "job", record.slurm)


def test_a_cancelled_job_takes_what_needs_it_and_goes_on_next_time(
    cluster: slurm_cluster.Cluster, tmp_path: Path
) -> None:
    jobs = Jobs(tmp_path)
    job = long_training(jobs)
    shell(jobs, "needs", f"touch {tmp_path}/needs", kind="evaluate", needs=(job.id,))
    shell(jobs, "other", f"touch {tmp_path}/other", kind="evaluate", outputs=(f"{tmp_path}/other",))
    outcome = run(jobs, once_running(jobs, Path(job.folder), "scancel"))
    assert states(outcome) == {"train": "interrupted", "needs": "waiting", "other": "done"}
    (failure,) = outcome.failures
    assert "cancelled" in failure.reason
    assert not (tmp_path / "needs").exists()
    assert set(states(run(jobs)).values()) == {"done"}
    assert Store(tmp_path).record(job).attempts[-1].continued


def test_ctrl_c_cancels_what_was_submitted(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = long_training(jobs)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in background
    try:
        with pytest.raises(KeyboardInterrupt):
            run(jobs, once_running(jobs, Path(job.folder)))
    finally:
        signal.signal(signal.SIGINT, former)
    wait_for(lambda: not workflow.queue(tmp_path))
    assert Store(tmp_path).record(job).state == "interrupted"


def test_a_killed_runners_jobs_are_seen_and_replaced(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    """They stay in the queue; a second run in the same folder would otherwise train the same model twice."""
    jobs = Jobs(tmp_path)
    job = long_training(jobs)
    store, name = Store(tmp_path), f"{workflow.jobname(tmp_path)}_1"
    line = " ".join([*worker(jobs, "slurm", slurm=SMALL), "train"])
    subprocess.run(["sbatch", f"--job-name={name}", f"--output={tmp_path}/left", f"--wrap={line}"], check=True)
    wait_for(lambda: store.record(job).state == "running" and Path(job.folder).exists())
    left = store.record(job).slurm
    (seen,) = status.lines(jobs, store, workflow.queue(tmp_path))
    assert seen.status == "running"
    assert states(run(jobs)) == {"train": "done"}
    assert left not in workflow.queue(tmp_path)
    assert [attempt.continued for attempt in store.record(job).attempts] == [False, True]


def test_what_slurm_refuses_is_said(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    shell(jobs, "job", "true")
    (failure,) = run(jobs, partition="nowhere").failures
    assert failure.log == tmp_path / "logs" / "snakemake.log"
    assert "partition" in failure.log.read_text()


def test_training_by_nnunet(cluster: slurm_cluster.Cluster, short_runs: Path, tmp_path: Path) -> None:
    """nnU-Net's own command, killed by a requeue after its first checkpoint, goes on with --c."""
    root = tmp_path / "benchmark"
    jobs, store = Jobs(root), Store(root)
    fold = short_runs / "Dataset029_Tiny" / "nnUNetTrainerRAUNet__nnUNetRAUNetPlans__2d" / "fold_0"
    environment = {k: v for k, v in os.environ.items() if k.startswith(("nnUNet_", "NNUNET_EXT_"))}
    job = jobs.add(
        id="train",
        kind="train",
        command=(
            *("nnUNetv2_train", "29", "2d", "0", "-tr", "nnUNetTrainerRAUNet", "-p", "nnUNetRAUNetPlans"),
            *("-device", "cpu"),
        ),
        environment={**environment, "NNUNET_EXT_EPOCHS": "4", "NNUNET_EXT_SEED": "0"},
        outputs=(str(fold / "checkpoint_final.pth"),),
        folder=str(fold),
        resume=("--c",),
        manifest=str(fold / "manifest.json"),
        facts={"dataset": "Dataset029_Tiny", "plans": "nnUNetRAUNetPlans", "seed": 0},
    )
    requeue = once_running(jobs, fold / "checkpoint_latest.pth", "scontrol", "requeue")
    assert states(run(jobs, requeue, mem_gb=1.8)) == {"train": "done"}
    record = store.record(job)
    log = store.log(job).read_text()
    epochs = [line.split()[-1] for line in log.splitlines() if ": Epoch " in line and line.split()[-2] == "Epoch"]
    assert sorted(set(epochs)) == ["0", "1", "2", "3"]
    if len(record.attempts) > 1:  # on a fast machine it may have been finished before
        assert [attempt.continued for attempt in record.attempts] == [False, True]
        assert epochs.count("0") == 1  # it did not begin again
    manifest = json.loads((fold / "manifest.json").read_text())
    assert manifest["steps"]["train"]["slurm"] == record.slurm
    assert manifest["steps"]["train"]["attempts"] == len(record.attempts)


def test_without_a_cluster_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("snakemake_executor_plugin_slurm")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    jobs = Jobs(tmp_path)
    shell(jobs, "job", "true")
    with pytest.raises(InputError, match="SLURM does not answer here"):
        run(jobs)
