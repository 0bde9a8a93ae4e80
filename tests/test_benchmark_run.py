"""Jobs on this machine: order, failures, interruptions, and what is written down."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import benchmark_runner
import pytest

from nnunet_ext.benchmark import gpu, processes
from nnunet_ext.benchmark.executors.local import LocalExecutor, Outcome
from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.state import Attempt, Record, Store

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


def shell(jobs: Jobs, job_id: str, text: str, **values: object) -> Job:
    """A job that runs bash; what follows the text (--c) are its arguments."""
    return jobs.add(**{"id": job_id, "kind": "train", "command": ("bash", "-c", text, "bash"), **values})


def run(jobs: Jobs, **settings: object) -> Outcome:
    """To the end, in this process; the workers are processes of their own."""
    return LocalExecutor(jobs, Store(root=jobs.root), interval=0.02, **settings).run()


def store(jobs: Jobs) -> Store:
    return Store(root=jobs.root)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def wait_for(condition: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_needs_come_first_and_finished_work_is_not_repeated(tmp_path: Path) -> None:
    jobs = benchmark_runner.make(tmp_path, trainings=3, epochs=2)
    outcome = run(jobs, parallel=3)
    assert set(outcome.status.values()) == {"done"}
    assert outcome.failures == []
    for i in range(3):
        assert [li.split()[0] for li in lines(tmp_path / f"training_{i}/epochs")] == ["0", "1"]
        trained, evaluated = (store(jobs).record(jobs[f"{kind}_{i}"]) for kind in ("train", "evaluate"))
        assert evaluated.attempts[0].started >= trained.attempts[0].started + trained.attempts[0].seconds
    before = {f: f.read_text() for f in (tmp_path / "jobs").glob("*.json")}
    assert set(run(benchmark_runner.make(tmp_path, trainings=3, epochs=2)).status.values()) == {"done"}
    assert {f: f.read_text() for f in (tmp_path / "jobs").glob("*.json")} == before
    assert len(lines(tmp_path / "evaluation_0")) == 1


def test_what_is_built_on_a_job_that_ran_again_is_made_again(tmp_path: Path) -> None:
    """Whoever removes a model and trains it once more must not find the old one's figures in the report."""

    def make() -> Jobs:
        jobs = Jobs(tmp_path)
        folder = tmp_path / "model"
        shell(jobs, "train", f"mkdir -p {folder}; date +%N > {folder}/weights; echo $1 >> {tmp_path}/arguments",
              folder=str(folder), outputs=(f"{folder}/weights",), resume=("--c",))  # fmt: skip
        for before, after in (("train", "predict"), ("predict", "evaluate")):
            source = folder / "weights" if before == "train" else tmp_path / before / "result"
            shell(jobs, after, f"mkdir -p {tmp_path}/{after}; cp {source} {tmp_path}/{after}/result", needs=(before,),
                  folder=str(tmp_path / after), outputs=(f"{tmp_path}/{after}/result",), resume=("--c",))  # fmt: skip
        return jobs

    run(make())
    first = (tmp_path / "evaluate/result").read_text()
    shutil.rmtree(tmp_path / "model")
    jobs = make()
    assert store(jobs).is_done(jobs["evaluate"])  # its figures are those of a model that is gone, but all there is
    assert set(run(jobs).status.values()) == {"done"}
    assert (tmp_path / "evaluate/result").read_text() == (tmp_path / "model/weights").read_text() != first
    assert (tmp_path / "previous_1_evaluate/result").read_text() == first
    before = {f: f.read_text() for f in (tmp_path / "jobs").glob("*.json")}
    run(make())
    assert {f: f.read_text() for f in (tmp_path / "jobs").glob("*.json")} == before


def test_a_job_does_not_continue_what_was_built_on_another_run(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    shell(jobs, "plan", f"echo x >> {tmp_path}/plans", outputs=(f"{tmp_path}/plans",))
    shell(
        jobs, "train", f"echo with$1 >> {tmp_path}/arguments; test -f {tmp_path}/well", needs=("plan",), resume=("--c",)
    )
    assert run(jobs).count("failed") == 1
    assert run(jobs).count("failed") == 1
    (tmp_path / "plans").unlink()
    (tmp_path / "well").touch()
    assert run(jobs).count("done") == 2
    assert lines(tmp_path / "arguments") == ["with", "with--c", "with"]


def test_no_more_than_n_at_a_time(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    for i in range(5):
        shell(jobs, f"job_{i}", f"echo + >> {tmp_path}/log; sleep 0.2; echo - >> {tmp_path}/log")
    run(jobs, parallel=2)
    running = [0]
    for sign in lines(tmp_path / "log"):
        running.append(running[-1] + (1 if sign == "+" else -1))
    assert max(running) == 2


def test_one_gpu_each_and_jobs_without_one_beside(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    for i in range(4):
        shell(jobs, f"gpu_{i}", f"sleep 0.2; echo $CUDA_VISIBLE_DEVICES > {tmp_path}/gpu_{i}", gpu=True)
    shell(jobs, "cpu", f"echo ${{CUDA_VISIBLE_DEVICES-unset}} > {tmp_path}/cpu")
    run(jobs, parallel=4, devices=("3", "GPU-7"))
    used = [(tmp_path / f"gpu_{i}").read_text().strip() for i in range(4)]
    assert sorted(used) == ["3", "3", "GPU-7", "GPU-7"]
    assert (tmp_path / "cpu").read_text().strip() == os.environ.get("CUDA_VISIBLE_DEVICES", "unset")


@linux
def test_a_gpu_that_another_run_uses_is_left_alone(tmp_path: Path) -> None:
    """A killed runner's jobs go on; their GPUs are theirs until they end."""
    jobs = Jobs(tmp_path)
    other = shell(jobs, "other", "true", gpu=True)
    at_work = subprocess.Popen(["sleep", "60"])
    for i, then in enumerate(("true", f"kill {at_work.pid}")):
        shell(jobs, f"gpu_{i}", f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/gpu_{i}; {then}", gpu=True)
    record = Record(
        hash=other.hash,
        state="running",
        host=socket.gethostname(),
        pid=at_work.pid,
        pid_started=processes.start_time(at_work.pid),
        device="0",
    )
    store(jobs).write(other, record)
    assert set(run(jobs, parallel=3, devices=("0", "1")).status.values()) == {"done"}
    at_work.wait()
    assert [(tmp_path / f"gpu_{i}").read_text().strip() for i in range(2)] == ["1", "1"]


def test_a_failing_job_takes_only_those_that_need_it(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    shell(jobs, "bad", "echo it breaks here >&2; exit 3")
    shell(jobs, "needs_bad", f"touch {tmp_path}/never", needs=("bad",))
    shell(jobs, "needs_that", "true", needs=("needs_bad",))
    shell(jobs, "good", "true", after=("bad",))
    shell(jobs, "lies", "true", outputs=(f"{tmp_path}/promised",))
    jobs.add(id="unknown", kind="train", command=("nnUNetv2_no_such_command",))
    outcome = run(jobs)
    assert outcome.status == {
        "bad": "failed", "needs_bad": "skipped", "needs_that": "skipped", "good": "done", "lies": "failed",
        "unknown": "failed",
    }  # fmt: skip
    assert not (tmp_path / "never").exists()
    reasons = {f.job.id: f.reason for f in outcome.failures}
    assert reasons["bad"] == "exit code 3"
    assert "promised" in reasons["lies"]
    assert "not installed" in reasons["unknown"]
    failure = next(f for f in outcome.failures if f.job.id == "bad")
    assert failure.log == tmp_path / "logs" / "bad.log"
    assert "it breaks here" in failure.tail()

    (tmp_path / "promised").touch()
    assert run(jobs).status["lies"] == "done"  # what failed is tried again


def test_other_parameters_start_anew_beside_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "fold_0"

    def make(text: str, seed: str) -> Jobs:
        jobs = Jobs(tmp_path)
        shell(
            jobs, "train", f"mkdir {folder}; echo {text} $NNUNET_EXT_SEED $1 > {folder}/out", folder=str(folder),
            outputs=(f"{folder}/out",), resume=("--c",), environment={"NNUNET_EXT_SEED": seed},
        )  # fmt: skip
        return jobs

    for text, seed in (("first", "1"), ("first", "2"), ("second", "2")):
        assert run(make(text, seed)).status == {"train": "done"}
        assert (folder / "out").read_text().split() == [text, seed]
    for number, expected in enumerate((["first", "1"], ["first", "2"]), 1):
        assert (tmp_path / f"previous_{number}_fold_0" / "out").read_text().split() == expected
    assert [f.name for f in tmp_path.glob("fold_*")] == ["fold_0"], "nnU-Net takes every fold_* for a fold"


def test_what_cannot_continue_begins_anew_in_an_empty_folder(tmp_path: Path) -> None:
    """nnU-Net's prediction: a file of the attempt before may be there and broken."""
    folder = tmp_path / "predictions"
    jobs = Jobs(tmp_path)
    text = f"mkdir -p {folder}; ls {folder} > {tmp_path}/seen; touch {folder}/$$.nii; test -e {tmp_path}/well"
    shell(jobs, "predict", text, folder=str(folder), outputs=(str(folder),))
    assert run(jobs).status == {"predict": "failed"}
    (tmp_path / "well").touch()
    assert run(jobs).status == {"predict": "done"}
    assert (tmp_path / "seen").read_text() == ""
    assert len(list(folder.iterdir())) == 1


def test_budget_and_seed_come_from_the_matrix_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNET_EXT_EPOCHS", "1")
    monkeypatch.setenv("NNUNET_EXT_SEED", "5")
    jobs = Jobs(tmp_path)
    shell(jobs, "job", f"env > {tmp_path}/env", environment={"NNUNET_EXT_SEED": "7"})
    run(jobs)
    assert [li for li in lines(tmp_path / "env") if li.startswith("NNUNET_EXT_")] == ["NNUNET_EXT_SEED=7"]


def test_a_half_written_checkpoint_is_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "fold_0"
    jobs = Jobs(tmp_path)
    text = f"ls {folder} > {tmp_path}/seen; touch {folder}/out"
    job = shell(jobs, "train", text, folder=str(folder), outputs=(f"{folder}/out",), resume=("--c",))
    folder.mkdir()
    with zipfile.ZipFile(folder / "checkpoint_best.pth", "w") as archive:
        archive.writestr("weights", b"0" * 1000)
    whole = (folder / "checkpoint_best.pth").read_bytes()
    (folder / "checkpoint_latest.pth").write_bytes(whole[:500])
    store(jobs).write(job, Record(hash=job.hash, state="interrupted", attempts=(Attempt(started=time.time()),)))
    assert run(jobs).status == {"train": "done"}
    assert lines(tmp_path / "seen") == ["checkpoint_best.pth", "checkpoint_latest.pth.broken"]
    assert store(jobs).record(job).attempts[-1].continued


def test_a_job_without_a_folder_touches_no_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("checkpoint_of_a_user.pth").write_bytes(b"older than torch's zip files")
    jobs = Jobs(tmp_path)
    job = shell(jobs, "plan", "true", kind="plan", resume=("--clean",))
    store(jobs).write(job, Record(hash=job.hash, state="interrupted", attempts=(Attempt(started=time.time()),)))
    assert run(jobs).status == {"plan": "done"}
    assert os.listdir() == ["checkpoint_of_a_user.pth"]


def test_what_an_attempt_cost_is_written_down(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    work = "import time; x = bytearray(60_000_000); t = time.process_time()\nwhile time.process_time() < t + 0.3: pass"
    job = jobs.add(id="job", kind="train", command=(sys.executable, "-c", work))
    run(jobs)
    (attempt,) = store(jobs).record(job).attempts
    assert attempt.exit == 0
    assert attempt.cpu_seconds >= 0.3
    assert attempt.seconds >= 0.3
    assert 60e6 < attempt.peak_bytes < 600e6


@linux
def test_gpus_as_nvidia_smi_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up nvidia-smi: two GPUs, and 100 MiB for every process there is."""
    fake = tmp_path / "nvidia-smi"
    fake.write_text(
        "#!/bin/bash\ncase $1 in\n--query-gpu=index) echo 0; echo 1;;\n"
        '--query-compute-apps=*) for p in /proc/[0-9]*; do echo "${p#/proc/}, 100"; done;;\nesac\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu.visible() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-7")
    assert gpu.visible() == ["1", "GPU-7"]
    child = subprocess.Popen(["bash", "-c", "sleep 30 & wait"], start_new_session=True)
    with gpu.Peak(child.pid, enabled=True, interval=0.02) as peak:
        wait_for(lambda: peak.bytes == 200 * 2**20)  # bash and sleep, and nobody else
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    with gpu.Peak(child.pid, enabled=False) as peak:
        pass
    assert peak.bytes is None


@linux
def test_ctrl_c_stops_everything_and_the_same_command_continues(tmp_path: Path) -> None:
    runner = start(tmp_path, seconds_per_epoch=0.3)
    wait_for(lambda: len(lines(tmp_path / "training_0/epochs")) >= 2)
    runner.send_signal(signal.SIGINT)
    assert runner.wait(timeout=20) != 0
    assert commands(tmp_path) == []
    states = {f.stem: json.loads(f.read_text())["state"] for f in (tmp_path / "jobs").glob("train_*.json")}
    assert "interrupted" in states.values()
    assert "running" not in states.values()
    finish(tmp_path)
    epochs = [int(li.split()[0]) for li in lines(tmp_path / "training_0/epochs")]
    assert epochs == list(range(6))  # it went on where it was stopped


@linux
def test_a_killed_runner_leaves_its_jobs_at_work(tmp_path: Path) -> None:
    runner = start(tmp_path)
    wait_for(lambda: lines(tmp_path / "training_0/epochs"))
    runner.kill()
    runner.wait()
    finish(tmp_path)
    for i in range(4):
        epochs = lines(tmp_path / f"training_{i}/epochs")
        assert [int(e.split()[0]) for e in epochs] == list(range(6))
        assert len({e.split()[1] for e in epochs}) == 1  # one process did it all
        assert not (tmp_path / f"training_{i}/doubled").exists()


@linux
def test_a_command_whose_worker_was_killed_is_waited_for(tmp_path: Path) -> None:
    """With kill -9 for runner and worker, the command goes on alone; nothing may run beside it."""
    runner = start(tmp_path, seconds_per_epoch=0.5)
    wait_for(lambda: lines(tmp_path / "training_0/epochs"))
    runner.kill()
    runner.wait()
    for pid in processes_with(tmp_path, "nnunet_ext.benchmark.worker"):
        os.kill(pid, signal.SIGKILL)
    assert commands(tmp_path)
    finish(tmp_path)
    for i in range(4):
        assert not (tmp_path / f"training_{i}/doubled").exists()
        assert [int(e.split()[0]) for e in lines(tmp_path / f"training_{i}/epochs")] == list(range(6))
    assert "left behind" in (tmp_path / "logs" / "train_0.log").read_text()


@linux
@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_random_moments(tmp_path: Path, seed: int) -> None:
    """Runner alone, runner and workers, or everything; then the same command until all is done."""
    rng = random.Random(seed)
    for _ in range(4):
        runner = start(tmp_path)
        time.sleep(rng.uniform(0.1, 1.0))
        runner.kill()
        runner.wait()
        how = rng.choice(("runner", "workers", "all"))
        targets = [] if how == "runner" else processes_with(tmp_path, "nnunet_ext.benchmark.worker")
        for pid in [*targets, *(commands(tmp_path) if how == "all" else ())]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    finish(tmp_path)
    jobs = benchmark_runner.make(tmp_path)
    assert all(store(jobs).is_done(job) for job in jobs)
    for i in range(4):
        epochs = [int(e.split()[0]) for e in lines(tmp_path / f"training_{i}/epochs")]
        assert sorted(set(epochs)) == list(range(6))
        # an epoch is done twice only where its process was killed before the checkpoint: never many of them
        assert len(epochs) <= 6 + 4
        assert epochs == sorted(epochs)
        assert not (tmp_path / f"training_{i}/doubled").exists()


@linux
def test_two_runners_at_the_same_time_share_the_work(tmp_path: Path) -> None:
    runners = [start(tmp_path), start(tmp_path)]
    assert [r.wait(timeout=60) for r in runners] == [0, 0]
    for i in range(4):
        assert [int(e.split()[0]) for e in lines(tmp_path / f"training_{i}/epochs")] == list(range(6))
        assert len(lines(tmp_path / f"evaluation_{i}")) == 1


@linux
def test_a_number_that_another_process_has_now_is_not_ours() -> None:
    own = processes.start_time(os.getpid())
    assert processes.alive(os.getpid(), own)
    assert not processes.alive(os.getpid(), str(int(own) - 1))
    child = subprocess.Popen(["true"])
    wait_for(lambda: processes.start_time(child.pid) == "")  # ended, though nobody has asked for its code yet
    child.wait()
    assert not processes.alive(child.pid, "")


def start(root: Path, seconds_per_epoch: float = 0.05) -> subprocess.Popen:
    """A runner in a process of its own."""
    return subprocess.Popen(
        [sys.executable, benchmark_runner.__file__, root],
        env={**os.environ, "SECONDS_PER_EPOCH": str(seconds_per_epoch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run in background
    )


def finish(root: Path) -> None:
    """The same command once more, to the end."""
    assert start(root).wait(timeout=60) == 0
    assert set(json.loads((root / "outcome.json").read_text()).values()) == {"done"}


def processes_with(root: Path, word: str) -> list[int]:
    """Numbers of processes whose command line has the word and the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if word in line and str(root) in line:
            found.append(int(entry.name))
    return found


def commands(root: Path) -> list[int]:
    return processes_with(root, "benchmark_runner.py train") + processes_with(root, "benchmark_runner.py touch")
