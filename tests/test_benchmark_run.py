"""Jobs on this machine: order, failures, interruptions, and what is written down."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import benchmark_runner
import pytest
from benchmark_runner import shell, states, wait_for

from nnunet_ext.benchmark import worker, workflow
from nnunet_ext.benchmark.benchmark import RunResult
from nnunet_ext.benchmark.jobs import Jobs
from nnunet_ext.benchmark.store import Attempt, Lock, Record, Store, is_held
from nnunet_ext.benchmark.worker import Worker
from nnunet_ext.cli import main
from nnunet_ext.common import environment
from nnunet_ext.common.errors import InputError

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
needs_snakemake = pytest.mark.skipif(
    importlib.util.find_spec("snakemake") is None, reason="Snakemake needs Python 3.11"
)


def run(jobs: Jobs, matrix: dict[str, Any] | None = None, **settings: Any) -> RunResult:
    """To the end, by Snakemake."""
    return benchmark_runner.benchmark(jobs, **(matrix or {})).run(**settings)


def work(jobs: Jobs) -> dict[str, int]:
    """One job after the other, without Snakemake; their exit codes."""
    return {each.id: Worker(each, jobs).run() for each in jobs}


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def epochs(root: Path, training: int) -> list[int]:
    return [int(line) for line in lines(root / f"training_{training}/epochs")]


def begun(root: Path, count: int = 1) -> bool:
    """Whether any training has logged so many epochs and written a checkpoint."""
    return any(len(epochs(root, i)) >= count and (root / f"training_{i}/checkpoint_latest.pth").exists()
               for i in range(3))  # fmt: skip


def records(root: Path) -> dict[Path, str]:
    return {file: file.read_text() for file in (root / "jobs").glob("*.json") if file.stem != "Snakefile"}


@needs_snakemake
@pytest.mark.slow
def test_needs_come_first_and_what_is_built_on_a_job_that_ran_again_is_made_again(tmp_path: Path) -> None:
    """Whoever removes a model and trains it once more must not find the old one's figures in the report."""

    def make() -> Jobs:
        jobs, folder = Jobs(tmp_path), tmp_path / "model"
        shell(jobs, "train", f"mkdir -p {folder}; date +%N > {folder}/weights; echo $1 >> {tmp_path}/arguments",
              folder=str(folder), outputs=(f"{folder}/weights",), resume=("--c",))  # fmt: skip
        for before, after in (("train", "predict"), ("predict", "evaluate")):
            source = folder / "weights" if before == "train" else tmp_path / before / "result"
            shell(jobs, after, f"mkdir -p {tmp_path}/{after}; cp {source} {tmp_path}/{after}/result", needs=(before,),
                  kind=after, folder=str(tmp_path / after), outputs=(f"{tmp_path}/{after}/result",))  # fmt: skip
        return jobs

    assert set(states(run(make())).values()) == {"done"}
    first, before = (tmp_path / "evaluate/result").read_text(), records(tmp_path)
    assert set(states(run(make(), passed=["--quiet"])).values()) == {"done"}
    assert records(tmp_path) == before, "finished work is not repeated, not even where Snakemake is asked"
    shutil.rmtree(tmp_path / "model")
    jobs = make()
    assert Store(tmp_path).is_done(jobs["evaluate"])  # its figures are those of a model that is gone, but all there is
    assert set(states(run(jobs)).values()) == {"done"}
    assert (tmp_path / "evaluate/result").read_text() == (tmp_path / "model/weights").read_text() != first
    assert (tmp_path / "previous_1_evaluate/result").read_text() == first


@pytest.mark.slow
@needs_snakemake
def test_a_failing_job_takes_only_those_that_need_it(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    jobs = Jobs(tmp_path)
    shell(jobs, "bad", "echo it breaks here >&2; exit 3")
    shell(jobs, "needs_bad", f"touch {tmp_path}/never", needs=("bad",), kind="predict")
    shell(jobs, "needs_that", "true", needs=("needs_bad",), kind="evaluate")
    shell(jobs, "good", "true")
    shell(jobs, "lies", "true", outputs=(f"{tmp_path}/promised",))
    jobs.add(id="unknown", kind="train", command=("nnUNetv2_no_such_command",))
    outcome = run(jobs, parallel=2)
    assert states(outcome) == {
        "bad": "failed", "needs_bad": "skipped", "needs_that": "skipped", "good": "done", "lies": "failed",
        "unknown": "failed",
    }  # fmt: skip
    assert not (tmp_path / "never").exists()
    reasons = {failure.job_id: failure.reason for failure in outcome.failures}
    assert reasons["bad"] == "exit code 3"
    assert "promised" in reasons["lies"]
    assert "not installed" in reasons["unknown"]
    bad = next(failure for failure in outcome.failures if failure.job_id == "bad")
    assert bad.log == tmp_path / "logs" / "bad.log"
    assert "it breaks here" in bad.tail()
    printed = capfd.readouterr()
    assert "failed      bad: exit code 3" in printed.out
    assert "6 jobs: 1 done, 3 failed, 2 skipped" in printed.out
    assert printed.err == ""

    (tmp_path / "promised").touch()
    assert states(run(jobs))["lies"] == "done"  # what failed is tried again


@needs_snakemake
@pytest.mark.slow
def test_no_more_than_n_at_a_time_on_one_gpu_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7")
    jobs = Jobs(tmp_path)
    two_were_there = f"for i in {{1..600}}; do [ $(grep -c + {tmp_path}/log) -ge 2 ] && break; sleep 0.1; done"
    for i in range(4):
        text = f"echo + >> {tmp_path}/log; {two_were_there}; echo $CUDA_VISIBLE_DEVICES > {tmp_path}/gpu_{i}"
        shell(jobs, f"gpu_{i}", f"{text}; echo - >> {tmp_path}/log", gpu=True)
    shell(jobs, "cpu", f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/cpu", kind="evaluate")
    assert set(states(run(jobs, parallel=3)).values()) == {"done"}
    used = [(tmp_path / f"gpu_{i}").read_text().strip() for i in range(4)]
    assert set(used) == {"3", "GPU-7"}
    assert (tmp_path / "cpu").read_text().strip() == "3,GPU-7"
    running = [0]
    for sign in lines(tmp_path / "log"):
        running.append(running[-1] + (1 if sign == "+" else -1))
    assert max(running) == 2


def test_a_gpu_that_another_process_holds_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.BENCHMARK_GPUS, "0,1")
    jobs = Jobs(tmp_path)
    shell(jobs, "job", f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/gpu", gpu=True)
    assert Lock(tmp_path / "jobs" / "locks" / "gpu_0").take()
    assert work(jobs) == {"job": 0}
    assert (tmp_path / "gpu").read_text().strip() == "1"


@needs_snakemake
@pytest.mark.slow
def test_arguments_are_passed_to_snakemake(tmp_path: Path) -> None:
    outcome = run(benchmark_runner.make(tmp_path, trainings=1), passed=["--dry-run"])
    assert set(states(outcome).values()) == {"waiting"}
    assert not outcome.failures
    assert "rule train" in outcome.said
    outcome = run(benchmark_runner.make(tmp_path, trainings=1), passed=["--no-such-option"])
    assert [failure.job_id for failure in outcome.failures] == ["plan"]
    assert "--no-such-option" in "\n".join(outcome.failures[0].tail())
    retried = Jobs(tmp_path / "retried")
    shell(retried, "job", f"echo x >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) -ge 3")
    assert states(run(retried, passed=["--retries", "3"])) == {"job": "done"}


@needs_snakemake
@pytest.mark.slow
def test_a_written_workflow_is_one_for_snakemake(tmp_path: Path) -> None:
    jobs = benchmark_runner.make(tmp_path / "out", trainings=2, epochs=1)
    file = tmp_path / "flows" / "Snakefile"
    workflow.write(file, jobs, benchmark_runner.benchmark(jobs).matrix, "slurm")
    command = [sys.executable, "-m", "snakemake", "--snakefile", file, "--cores", "2", "--config", "threads=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(Store(jobs.root).is_done(each) for each in jobs)
    assert not run(jobs).failures


@needs_snakemake
def test_a_prediction_that_was_removed_is_made_again(tmp_path: Path) -> None:
    jobs, out = Jobs(tmp_path), tmp_path / "predictions"
    shell(
        jobs, "predict", f"mkdir {out}; for k in 1 2 3; do echo $k > {out}/case_$k.png; done", kind="predict",
        folder=str(out), outputs=(str(out),),
    )  # fmt: skip
    assert states(run(jobs)) == {"predict": "done"}
    (out / "metrics.json").touch()  # more does not matter
    assert Store(tmp_path).is_done(jobs["predict"])
    (out / "case_2.png").unlink()
    assert not Store(tmp_path).is_done(jobs["predict"])
    assert states(run(jobs)) == {"predict": "done"}
    assert (out / "case_2.png").read_text() == "2\n"


def test_a_full_disk_is_a_message(
    nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = nnunet_folders / "m.toml"
    matrix.write_text('name = "m"\ndevice = "cpu"\n[[datasets]]\nid = 29\nname = "Dataset029_X"\n'
                      '[[rows]]\ntrainer = "nnUNetTrainer"\n')  # fmt: skip
    raw = nnunet_folders / "nnUNet_raw" / "Dataset029_X"
    raw.mkdir(parents=True)
    (raw / "dataset.json").write_text("{}")

    def full(file: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["benchmark", "run", str(matrix), "--out", str(nnunet_folders / "out")]) == 2
    said = capsys.readouterr().err
    assert "the disk is full" in said
    assert "the same command goes on" in said


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
        assert work(make(text, seed)) == {"train": 0}
        assert (folder / "out").read_text().split() == [text, seed]
    for number, expected in enumerate((["first", "1"], ["first", "2"]), 1):
        assert (tmp_path / f"previous_{number}_fold_0" / "out").read_text().split() == expected
    assert [f.name for f in tmp_path.glob("fold_*")] == ["fold_0"], "nnU-Net takes every fold_* for a fold"


def test_a_job_does_not_continue_what_was_built_on_another_run(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    shell(jobs, "plan", f"echo x >> {tmp_path}/plans", outputs=(f"{tmp_path}/plans",))
    text = f"echo with$1 >> {tmp_path}/arguments; test -f {tmp_path}/well"
    shell(jobs, "train", text, needs=("plan",), resume=("--c",))
    assert work(jobs) == work(jobs) == {"plan": 0, "train": 1}
    (tmp_path / "plans").unlink()
    (tmp_path / "well").touch()
    assert work(jobs) == {"plan": 0, "train": 0}
    assert lines(tmp_path / "arguments") == ["with", "with--c", "with"]


def test_what_cannot_continue_begins_anew_in_an_empty_folder(tmp_path: Path) -> None:
    """nnU-Net's prediction: a file of the attempt before may be there and broken."""
    folder = tmp_path / "predictions"
    jobs = Jobs(tmp_path)
    text = f"mkdir -p {folder}; ls {folder} > {tmp_path}/seen; touch {folder}/$$.nii; test -e {tmp_path}/well"
    shell(jobs, "predict", text, folder=str(folder), outputs=(str(folder),))
    assert work(jobs) == {"predict": 1}
    (tmp_path / "well").touch()
    assert work(jobs) == {"predict": 0}
    assert (tmp_path / "seen").read_text() == ""
    assert len(list(folder.iterdir())) == 1


def test_variables_come_from_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNET_EXT_EPOCHS", "1")
    monkeypatch.setenv("NNUNET_EXT_SEED", "5")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")  # as Snakemake sets it
    jobs = Jobs(tmp_path)
    shell(jobs, "job", f"env > {tmp_path}/env", environment={"NNUNET_EXT_SEED": "7", "OMP_NUM_THREADS": "4"})
    work(jobs)
    found = [line for line in lines(tmp_path / "env") if line.startswith("NNUNET_EXT_") or "_NUM_THREADS" in line]
    assert sorted(found) == ["NNUNET_EXT_SEED=7", "OMP_NUM_THREADS=4"]


def test_a_half_written_checkpoint_is_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "fold_0"
    jobs = Jobs(tmp_path)
    text = f"ls {folder} > {tmp_path}/seen; touch {folder}/out"
    train = shell(jobs, "train", text, folder=str(folder), outputs=(f"{folder}/out",), resume=("--c",))
    folder.mkdir()
    with zipfile.ZipFile(folder / "checkpoint_best.pth", "w") as archive:
        archive.writestr("weights", b"0" * 1000)
    whole = (folder / "checkpoint_best.pth").read_bytes()
    (folder / "checkpoint_latest.pth").write_bytes(whole[:500])
    store = Store(tmp_path)
    store.write(train, Record(hash=train.hash, state="interrupted", attempts=(Attempt(started=time.time() - 9),)))
    assert work(jobs) == {"train": 0}
    assert lines(tmp_path / "seen") == ["checkpoint_best.pth", "checkpoint_latest.pth.broken"]
    first, second = store.record(train).attempts
    assert second.continued
    assert 8 < first.seconds < 60, "an attempt whose end nobody saw lasted until the log's last line"


def test_a_job_without_a_folder_touches_no_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("checkpoint_of_a_user.pth").write_bytes(b"older than torch's zip files")
    jobs = Jobs(tmp_path)
    shell(jobs, "plan", f"test -e {tmp_path}/well", resume=("--clean",))
    work(jobs)
    (tmp_path / "well").touch()
    assert work(jobs) == {"plan": 0}
    assert os.listdir() == ["checkpoint_of_a_user.pth"]


def test_what_an_attempt_cost_is_written_down(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    text = "import time; x = bytearray(60_000_000); t = time.process_time()\nwhile time.process_time() < t + 0.3: pass"
    each = jobs.add(id="job", kind="train", command=(sys.executable, "-c", text))
    subprocess.run([*benchmark_runner.worker(jobs), "job"], check=True)
    (attempt,) = Store(tmp_path).record(each).attempts
    assert attempt.exit == 0
    assert attempt.cpu_seconds >= 0.3
    assert attempt.seconds >= 0.3
    assert 60e6 < attempt.peak_bytes < 600e6


@pytest.mark.slow
@linux
def test_memory_on_gpus_as_nvidia_smi_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up nvidia-smi: two GPUs, and 100 MiB for every process there is."""
    fake = tmp_path / "nvidia-smi"
    fake.write_text(
        "#!/bin/bash\ncase $1 in\n--query-gpu=index) echo 0; echo 1;;\n"
        '--query-compute-apps=*) for p in /proc/[0-9]*; do echo "${p#/proc/}, 100"; done;;\nesac\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(worker, "LOOK", 0.1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert workflow.gpus("cuda") == ["0", "1"]
    assert workflow.gpus("cpu") == []
    jobs = Jobs(tmp_path)
    each = shell(jobs, "job", "sleep 3 & wait", gpu=True)
    work(jobs)
    assert Store(tmp_path).record(each).attempts[0].gpu_bytes == 200 * 2**20  # bash and sleep, and nobody else


def test_jobs_with_the_same_lock_never_run_together(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    for i in range(3):
        shell(jobs, f"job_{i}", f"mkdir {tmp_path}/alone && sleep 0.2 && rmdir {tmp_path}/alone", lock="plan")
    modules = ("worker", "worker", "job")  # the last as a workflow runs it that an earlier version has written
    commands = [benchmark_runner.worker(jobs, module=module) for module in modules]
    processes = [subprocess.Popen([*command, each.id]) for command, each in zip(commands, jobs, strict=True)]
    assert [process.wait() for process in processes] == [0, 0, 0]


@pytest.mark.parametrize("state", ["done", "failed"])
def test_what_another_node_has_written_may_show_up_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    jobs, store = Jobs(tmp_path), Store(tmp_path)
    needed = shell(jobs, "train", "true")
    last = shell(jobs, "predict", f"touch {tmp_path}/made", needs=("train",))
    waited = []

    def pause(waiting: Worker) -> None:
        waited.append(waiting)
        store.write(needed, Record(hash=needed.hash, state=state))

    monkeypatch.setattr(Worker, "_pause", pause)
    assert Worker(last, jobs).run() == (state == "failed")
    assert len(waited) == 1
    assert (tmp_path / "made").exists() == (state == "done")


@linux
@needs_snakemake
@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "number"),
    [
        *(("runner", n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
        *((who, signal.SIGKILL) for who in ("runner", "snakemake", "workers")),
    ],
)
def test_whoever_ends_takes_what_it_started_along_and_the_same_command_continues(
    tmp_path: Path, who: str, number: signal.Signals
) -> None:
    """Commands of killed workers alone live on, until the same command is given again."""
    runner = start(tmp_path, seconds_per_epoch=1)
    wait_for(lambda: begun(tmp_path))
    module = {"snakemake": "benchmark.workflow", "workers": "benchmark.worker"}.get(who, "")
    kill(processes_of(tmp_path, module) if module else [runner.pid], number)
    assert (runner.wait(timeout=60) != 0) == (who == "runner")
    wait_for(lambda: not processes_of(tmp_path, module if who == "workers" else ""))
    found = {json.loads(text)["state"] for text in records(tmp_path).values()}
    assert number == signal.SIGKILL or ("interrupted" in found and "running" not in found)
    finish(tmp_path, repeated=1)


@linux
@needs_snakemake
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_random_moments(tmp_path: Path, seed: int) -> None:
    """Runner alone, some processes, or everything; then the same command until all is done."""
    rng = random.Random(seed)
    for _ in range(4):
        runner = start(tmp_path)
        time.sleep(rng.uniform(0.5, 5.0))
        all_of_it = processes_of(tmp_path)
        kill(rng.choice(([runner.pid], rng.sample(all_of_it, len(all_of_it) // 2), all_of_it)))
        kill([runner.pid])
        runner.wait()
    finish(tmp_path, repeated=5)


@linux
@needs_snakemake
@pytest.mark.slow
def test_what_runs_already_is_refused(tmp_path: Path) -> None:
    runner = start(tmp_path, seconds_per_epoch=0.5)
    wait_for(lambda: is_held(tmp_path / "jobs" / "run.lock"))
    with pytest.raises(InputError, match=f"Process {runner.pid} on .* is at work in {tmp_path}"):
        run(benchmark_runner.make(tmp_path))
    assert runner.wait(timeout=120) == 0
    assert [epochs(tmp_path, i) for i in range(3)] == [list(range(6))] * 3


def test_without_snakemake_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="Snakemake is not installed") as e:
        run(benchmark_runner.make(tmp_path))
    assert "nnunet-ext[benchmark]" in e.value.hint


def start(root: Path, seconds_per_epoch: float = 0.05) -> subprocess.Popen:
    """A runner in a process of its own."""
    return subprocess.Popen(
        [sys.executable, benchmark_runner.__file__, root],
        env={**os.environ, "SECONDS_PER_EPOCH": str(seconds_per_epoch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run in background
    )


def finish(root: Path, repeated: int) -> None:
    """The same command once more, to the end, which is that of a run without interruptions.

    Args:
        repeated: epochs of a training that may be there twice: those whose process was ended before the checkpoint.
    """
    assert start(root).wait(timeout=300) == 0
    assert set(json.loads((root / "states.json").read_text()).values()) == {"done"}
    for i in range(3):
        seen = epochs(root, i)
        assert sorted(set(seen)) == list(range(6))
        assert seen == sorted(seen)
        assert len(seen) <= 6 + repeated
        assert not (root / f"training_{i}/doubled").exists()


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def processes_of(root: Path, word: str = "") -> list[int]:
    """Numbers of processes whose command line has the folder and the word, but for the runner."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if word in line and str(root) in line and f"benchmark_runner.py {root} " not in line:
            found.append(int(entry.name))
    return found
