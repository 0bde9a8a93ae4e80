"""Hands the jobs to Snakemake, follows them by their records, and stops everything with the runner.

Three things hold a run together. The runner has a lock on the benchmark's folder, which Snakemake inherits. Snakemake
runs in a process group of its own, with the workers of local jobs, and ends the group when the runner is gone. A worker
ends its command when Snakemake is gone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.matrix import KINDS, Matrix, Slurm
from nnunet_ext.benchmark.store import Lock
from nnunet_ext.common.environment import BENCHMARK_GPUS
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import check_replaceable, read_json_if_sound, write_json, write_text
from nnunet_ext.common.processes import cpus, is_running
from nnunet_ext.common.provenance import nvidia_smi

LOCAL = "local"
HEAD = b"# The jobs of a benchmark as a Snakemake workflow"  # of our Snakefile
PATIENCE = 60.0  # seconds for Snakemake and its jobs to end


def check_file(file: Path) -> None:
    """Check that `write` may write a workflow to a file of the user's choice.

    Raises:
        InputError: nothing can be written there, or something would be replaced that is no such workflow.
    """

    def ours(path: Path) -> bool:
        if path != file:
            return {"root", "resources", "jobs"} <= read_json_if_sound(path).keys()
        with path.open("rb") as stream:
            return stream.read(len(HEAD)) == HEAD

    files = [file, file.with_name(f"{file.name}.json")]
    check_replaceable(files, ours, "nnunet_ext benchmark plan", "Name another file with --snakefile.")


def write(file: Path, jobs: Jobs, matrix: Matrix, executor: str) -> None:
    """Write the workflow: a Snakefile and its jobs as JSON next to it."""
    asked = {kind: _resources(matrix.slurm, kind, [j for j in jobs if j.kind == kind], executor) for kind in KINDS}
    slurm = {key: getattr(matrix.slurm, key) for key in ("setup", "signal_delay_s", "max_timeouts")}
    content = {"root": str(jobs.root), "slurm": slurm if executor == "slurm" else {}, "resources": asked}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file.with_name(f"{file.name}.json"), {**content, "jobs": [asdict(job) for job in jobs]})
    write_text(file, (resources.files("nnunet_ext.benchmark") / "Snakefile").read_text())


def _resources(slurm: Slurm, kind: str, jobs: Sequence[Job], executor: str) -> dict[str, Any]:
    """Return what Snakemake shall ask for: here one GPU at most, on a cluster what the matrix says."""
    gpu = any(job.gpu for job in jobs)
    if executor == LOCAL:
        return {"gpu": 1} if gpu else {}
    asked = {
        "runtime": getattr(slurm.minutes, kind),
        "cpus_per_task": slurm.cpus,
        "mem_mb": int(slurm.mem_gb * 1024) if slurm.mem_gb else None,
        "slurm_partition": slurm.partition,
        "slurm_account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        **({} if not gpu else {"gres": slurm.gres} if slurm.gres else {"gpu": slurm.gpus or None}),
    }
    return {name: value for name, value in asked.items() if value is not None}


def gpus(device: str) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES may be set to, one GPU each: its own items if it is set, else all."""
    if device != "cuda":
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    return [index for (index,) in nvidia_smi("index")]


def default_parallel(matrix: Matrix, executor: str) -> int | None:
    """Return how many jobs run at a time: one per GPU here, the matrix's number on a cluster, a profile's own."""
    if executor == LOCAL:
        return max(1, len(gpus(matrix.device)))
    return matrix.slurm.parallel if executor else None


def run(
    jobs: Jobs, matrix: Matrix, *, executor: str, parallel: int | None, passed: Sequence[str], watch: Callable[[], None]
) -> int:
    """Run whatever is not done; returns Snakemake's exit code.

    Args:
        executor: "local", "slurm" or another of Snakemake's; empty where a profile among the arguments says it.
        parallel: jobs at a time; None leaves it to a profile.
        passed: arguments for Snakemake.
        watch: is called about once a second.

    Raises:
        InputError: Snakemake is not there, or something runs in this folder already.
    """
    _check_installed(executor)
    with claimed(jobs.root) as lock:
        command = [sys.executable, "-P", "-m", "nnunet_ext.benchmark.workflow", str(os.getpid())]
        command += _arguments(jobs, matrix, executor, parallel, passed)
        devices = gpus(matrix.device) if executor == LOCAL else []
        log = jobs.root / "logs" / "snakemake.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stream:
            process = subprocess.Popen(
                command,
                env={**os.environ, BENCHMARK_GPUS: ",".join(devices)},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to pass on
                pass_fds=[lock.handle],
            )
            try:
                while process.poll() is None:
                    watch()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(1 if executor == LOCAL else 5)
                watch()
            finally:
                _stop(process)
    return process.returncode


def _arguments(jobs: Jobs, matrix: Matrix, executor: str, parallel: int | None, passed: Sequence[str]) -> list[str]:
    """Return Snakemake's arguments, after the workflow is written; those of the user come last and win."""
    file = jobs.root / "jobs" / "Snakefile"
    write(file, jobs, matrix, executor)
    made = [
        "--snakefile",
        str(file),
        "--directory",
        str(jobs.root),
        "--nolock",
        "--keep-going",
        "--rerun-incomplete",
        "--rerun-triggers",
        "mtime",
    ]
    if executor == LOCAL:
        devices, parallel = gpus(matrix.device), parallel or 1
        threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, cpus() // parallel))
        made += ["--cores", str(parallel * threads), "--config", f"threads={threads}", "--scheduler", "greedy"]
        made += ["--resources", f"gpu={len(devices)}"] if devices else []
    else:
        made += ["--latency-wait", "60", "--config", f"threads={matrix.slurm.cpus}"]
        made += ["--executor", executor] if executor else []
        made += ["--jobs", str(parallel)] if parallel else []
    if executor == "slurm":
        made += ["--slurm-requeue", "--slurm-jobname-prefix", jobname(jobs.root)]
        made += [] if _works("sacct", "-X", "-n", "-S", "now") else ["--slurm-status-command", "squeue"]
        if left := list(queue(jobs.root)):
            subprocess.run(["scancel", *left], check=False, timeout=60)  # of a runner that was killed
    return [*made, *passed]


@contextmanager
def claimed(root: Path) -> Iterator[Lock]:
    """Hold the folder for one run.

    Raises:
        InputError: another run holds it.
    """
    lock = Lock(root / "jobs" / "run.lock")
    while not lock.take():
        host, pid, _ = lock.holder()
        if host and (host != socket.gethostname() or is_running(pid)):
            raise InputError(
                f"Process {pid} on {host} is at work in {root}.",
                hint="Wait for it, or stop it with Ctrl-C or kill; benchmark status says how far it is.",
            )
        time.sleep(0.2)  # what a killed runner had started is about to end
    try:
        yield lock
    finally:
        lock.release()


def _stop(process: subprocess.Popen) -> None:
    """End Snakemake and all that it has started, if it has not ended by itself."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)


def _check_installed(executor: str) -> None:
    hint = "pip install 'nnunet-ext[benchmark]'"
    if importlib.util.find_spec("snakemake") is None:
        raise InputError("Snakemake is not installed.", hint=f"{hint} (it needs Python 3.11).")
    if executor == "slurm":
        if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
            raise InputError("Snakemake's plug-in for SLURM is not installed.", hint=hint)
        if not _works("squeue", "--me", "--noheader"):
            raise InputError(
                "SLURM does not answer here.",
                hint="Run this where sbatch and squeue work, or leave --executor slurm out.",
            )


def jobname(root: Path) -> str:
    """Return what the names of a folder's SLURM jobs begin with."""
    return f"nnunet_ext-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"


class Queued(NamedTuple):
    """A job in SLURM's queue; `job_id` is empty for one of several of ours."""

    state: str
    job_id: str


def queue(root: Path) -> dict[str, Queued]:
    """Return the folder's jobs that SLURM has, by number; nothing where there is no SLURM."""
    if shutil.which("squeue") is None:
        return {}
    words = ["squeue", "--me", "--noheader", "--format=%i|%T|%j|%k"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found = [line.split("|", 3) for line in said.splitlines() if line.count("|") >= 3]
    return {
        number: Queued(state, comment.partition("_wildcards_")[2])
        for number, state, name, comment in found
        if name.startswith(jobname(root))
    }


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def main(runner: int, arguments: list[str]) -> None:
    """Be Snakemake, as long as the runner lives."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        while os.getppid() == runner:
            time.sleep(0.5)
        os.killpg(0, signal.SIGINT)  # this process and the workers of local jobs

    threading.Thread(target=watch, daemon=True).start()
    from snakemake.cli import main as snakemake

    snakemake(arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
