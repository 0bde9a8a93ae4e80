"""Jobs on a real SLURM of one node, which the tests bring up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import benchmark_runner
import pytest
import slurm_cluster

from nnunet_ext.benchmark import progress, slurm_queue
from nnunet_ext.benchmark.executors import slurm
from nnunet_ext.benchmark.executors.local import Outcome
from nnunet_ext.benchmark.executors.slurm import SlurmExecutor, arrays, waves
from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.matrix import Slurm
from nnunet_ext.benchmark.state import Record, Store
from nnunet_ext.common.errors import InputError

pytestmark = pytest.mark.xdist_group("slurm")  # one cluster for all
SMALL = Slurm(cpus=1, minutes={"train": 10, "plan": 5})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_cluster.Cluster]:
    """Up for this file; skipped where there can be none."""
    if reason := slurm_cluster.reason_to_skip():
        pytest.skip(reason)
    cluster = slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
    except RuntimeError as e:
        pytest.skip(str(e))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
        yield cluster
    cluster.stop()


def run(jobs: Jobs, act: Callable[[Outcome], None] = lambda outcome: None, settings: Slurm = SMALL) -> Outcome:
    """To the end, but not for ever."""
    end = time.monotonic() + 600

    def watch(outcome: Outcome) -> None:
        act(outcome)
        assert time.monotonic() < end, outcome.status

    return SlurmExecutor(jobs, Store(root=jobs.root), settings, watch=watch, interval=0.3).run()


def long_training(jobs: Jobs, job_id: str = "train") -> Job:
    """It would take minutes, but for ``--c``."""
    folder = jobs.root / job_id
    text = f'mkdir -p {folder}; [ "$1" = --c ] && touch {folder}/done || exec sleep 300'
    return jobs.add(
        id=job_id,
        kind="train",
        command=("bash", "-c", text, "bash"),
        outputs=(f"{folder}/done",),
        folder=str(folder),
        resume=("--c",),
    )


def once_running(jobs: Jobs, job: Job, *command: str) -> Callable[[Outcome], None]:
    """Run one of SLURM's commands on a job, with its number at the end, as soon as its command is at work."""
    store, acted = Store(root=jobs.root), []

    def act(outcome: Outcome) -> None:
        record = store.record(job)
        if not acted and record.state == "running" and Path(job.folder).exists():
            acted.append(record.slurm)
            subprocess.run([*command, record.slurm], check=True)

    return act


def test_a_matrix_as_arrays_that_wait_for_each_other(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    jobs = benchmark_runner.make(tmp_path, trainings=3, epochs=2)
    most: list[int] = []
    outcome = run(jobs, lambda o: most.append(o.count("running")))
    assert set(outcome.status.values()) == {"done"}
    store = Store(root=tmp_path)
    numbers = {job.id: store.record(job).slurm for job in jobs}
    assert len({numbers[f"train_{i}"].split("_")[0] for i in range(3)}) == 1
    assert [numbers[f"train_{i}"].split("_")[1] for i in range(3)] == ["0", "1", "2"]
    for i in range(3):
        assert [li.split()[0] for li in (tmp_path / f"training_{i}/epochs").read_text().splitlines()] == ["0", "1"]
    array = numbers["evaluate_0"].split("_")[0]
    assert "--dependency=aftercorr:" in (tmp_path / "slurm" / f"{array}_submission.sh").read_text()
    before = (tmp_path / "jobs" / "train_0.json").read_text()
    assert set(run(jobs).status.values()) == {"done"}  # nothing is submitted again
    assert (tmp_path / "jobs" / "train_0.json").read_text() == before


def test_a_preempted_job_is_requeued_and_continues(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    """SIGUSR2 is what SLURM sends before preemption and at the end of the time."""
    jobs = Jobs(tmp_path)
    job = long_training(jobs)
    outcome = run(jobs, once_running(jobs, job, "scancel", "--signal=USR2"))
    assert outcome.status == {"train": "done"}
    first, second = Store(root=tmp_path).record(job).attempts
    assert not first.continued
    assert first.exit is None
    assert second.continued
    assert "Restarts=1" in cluster.output("scontrol", "show", "job", Store(root=tmp_path).record(job).slurm)


def test_a_job_that_an_administrator_requeues_continues(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    """Nothing asks the worker to stop: it is killed."""
    jobs = Jobs(tmp_path)
    job = long_training(jobs)
    outcome = run(jobs, once_running(jobs, job, "scontrol", "requeue"))
    assert outcome.status == {"train": "done"}
    assert [a.continued for a in Store(root=tmp_path).record(job).attempts] == [False, True]


def test_a_cancelled_job_takes_what_needs_it_and_goes_on_next_time(
    cluster: slurm_cluster.Cluster, tmp_path: Path
) -> None:
    jobs = Jobs(tmp_path)
    job = long_training(jobs)
    jobs.add(id="needs", kind="evaluate", command=("touch", f"{tmp_path}/needs"), needs=(job.id,))
    jobs.add(id="other", kind="evaluate", command=("touch", f"{tmp_path}/other"), outputs=(f"{tmp_path}/other",))
    outcome = run(jobs, once_running(jobs, job, "scancel"))
    assert outcome.status == {"train": "failed", "needs": "skipped", "other": "done"}
    assert "cancelled" in outcome.failures[0].reason
    assert not (tmp_path / "needs").exists()
    assert set(run(jobs).status.values()) == {"done"}
    assert Store(root=tmp_path).record(job).attempts[-1].continued


def test_a_failing_job(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    jobs.add(id="bad", kind="train", command=("bash", "-c", "echo it breaks here; exit 3"))
    jobs.add(id="good", kind="train", command=("true",))
    jobs.add(id="needs_bad", kind="predict", command=("touch", f"{tmp_path}/never"), needs=("bad",))
    outcome = run(jobs)
    assert outcome.status == {"bad": "failed", "good": "done", "needs_bad": "skipped"}
    assert outcome.failures[0].reason == "exit code 3"
    assert "it breaks here" in outcome.failures[0].tail()
    assert not (tmp_path / "never").exists()


def test_what_slurm_refuses_is_one_message(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    jobs.add(id="job", kind="train", command=("true",))
    with pytest.raises(InputError, match=r"SLURM refuses train jobs.*partition") as e:
        run(jobs, settings=Slurm(partition="nowhere"))
    assert "[slurm]" in e.value.hint


def test_status_knows_the_queue(cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = long_training(jobs)
    store = Store(root=tmp_path)
    jobs.add(id="later", kind="evaluate", command=("true",), needs=(job.id,))
    seen: list[bool] = []

    def act(outcome: Outcome) -> None:
        if outcome.status["train"] == "running" and store.record(job).state == "running" and not seen:
            slurm_queue.states(fresh=True)
            seen.append(store.is_running(job))
            _, later = progress.lines(jobs, store, outcome.status)
            assert later.detail == f"SLURM {store.submitted(later.job)} pending"
            subprocess.run(["scancel", store.record(job).slurm], check=True)

    run(jobs, act)
    assert seen[0]
    slurm_queue.states(fresh=True)
    assert not store.is_running(job)


def test_training_by_nnunet(cluster: slurm_cluster.Cluster, short_runs: Path, tmp_path: Path) -> None:
    """nnU-Net's own command, killed by a requeue after its first checkpoint, goes on with --c."""
    root = tmp_path / "benchmark"
    root.mkdir()
    jobs = Jobs(root)
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
    acted: list[str] = []

    def act(outcome: Outcome) -> None:
        record = Store(root=root).record(job)
        if not acted and record.state == "running" and (fold / "checkpoint_latest.pth").exists():
            acted.append(record.slurm)
            subprocess.run(["scancel", "--signal=USR2", record.slurm], check=True)

    assert run(jobs, act).status == {"train": "done"}
    record = Store(root=root).record(job)
    log = Store(root=root).log(job).read_text()
    epochs = [line.split()[-1] for line in log.splitlines() if ": Epoch " in line and line.split()[-2] == "Epoch"]
    assert sorted(set(epochs)) == ["0", "1", "2", "3"]
    if acted:  # on a fast machine it may have been finished before
        assert [a.continued for a in record.attempts] == [False, True]
        assert epochs.count("0") == 1  # it did not begin again
    manifest = json.loads((fold / "manifest.json").read_text())
    assert manifest["steps"]["train"]["slurm"] == record.slurm
    assert manifest["steps"]["train"]["attempts"] == len(record.attempts)


def test_waves_and_arrays_without_a_cluster(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    jobs.add(id="plan_a", kind="plan", command=("plan", "a"))
    jobs.add(id="plan_b", kind="plan", command=("plan", "b"), after=("plan_a",))
    for i in range(3):
        jobs.add(id=f"train_{i}", kind="train", command=("train", str(i)), needs=("plan_b",), gpu=True)
    for i in range(3):
        jobs.add(id=f"predict_{i}", kind="predict", command=("predict", str(i)), needs=(f"train_{i}",), gpu=True)
    jobs.add(id="predict_clicks", kind="predict", command=("clicks",), needs=("train_1",), gpu=True)
    groups = list(waves(list(jobs)))
    assert [[j.id for j in g] for g in groups] == [
        ["plan_a"], ["plan_b"], ["train_0", "train_1", "train_2"],
        ["predict_0", "predict_1", "predict_2", "predict_clicks"],
    ]  # fmt: skip
    numbers = {"plan_a": "1", "plan_b": "2"}
    assert [d for _, d in arrays(groups[1], numbers)] == ["afterany:1"]
    assert [d for _, d in arrays(groups[2], numbers)] == ["afterany:2"]
    numbers |= {f"train_{i}": f"3_{i}" for i in range(3)}
    made = [([j.id for j in array], d) for array, d in arrays(groups[3], numbers)]
    assert made == [(["predict_0", "predict_1", "predict_2"], "aftercorr:3"), (["predict_clicks"], "afterany:3_1")]


@pytest.mark.parametrize("state", ["done", "failed"])
def test_what_another_node_has_written_may_show_up_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    jobs, store = Jobs(tmp_path), Store(root=tmp_path)
    needed = jobs.add(id="train", kind="train", command=("true",))
    last = jobs.add(id="predict", kind="predict", command=("touch", f"{tmp_path}/made"), needs=("train",))
    store.describe(needed)
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        store.write(needed, Record(hash=needed.hash, state=state))

    monkeypatch.setattr(slurm.time, "sleep", sleep)
    assert slurm.Task(tmp_path, store.describe(last))() == (state == "failed")
    assert len(waited) == 1
    assert (tmp_path / "made").exists() == (state == "done")


def test_without_a_cluster_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    jobs = Jobs(tmp_path)
    jobs.add(id="job", kind="train", command=("true",))
    with pytest.raises(InputError, match="SLURM does not answer here"):
        SlurmExecutor(jobs, Store(root=tmp_path), SMALL).run()
