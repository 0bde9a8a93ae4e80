"""Runs one job and writes down what became of it: ``python -m nnunet_ext.benchmark.worker WORKFLOW.json ID``.

Snakemake's rules run it, here and on the nodes of a cluster. It ends its command when it is asked to end (SIGINT,
SIGTERM) or when Snakemake is gone; if it is killed itself, the job's next attempt ends what it left behind.
"""

from __future__ import annotations

import datetime
import itertools
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from nnunet_ext.benchmark.jobs import FROM_MATRIX, FULL, Job, Jobs
from nnunet_ext.benchmark.store import Attempt, Lock, Record, Store, write_manifest
from nnunet_ext.common.environment import BENCHMARK_GPUS
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import writing_to
from nnunet_ext.common.provenance import nvidia_smi
from nnunet_ext.common.shapes import read_as

# variables that Snakemake sets in addition to OMP_NUM_THREADS, over which they would win against the matrix's
SNAKEMAKES = [f"{name}_NUM_THREADS" for name in ("GOTO", "OPENBLAS", "MKL", "NUMEXPR")]
GRACE = 20.0  # seconds between asking a command to end and killing it
LATE = 60.0  # seconds after which a network file system shows what another node has written
LOOK = 5.0  # seconds between looks at the memory of GPUs
STOPPED = 128 + signal.SIGTERM
KILLED_IN = 300.0  # seconds after which SLURM has killed a job that it ends


class StoppedError(Exception):
    """The job was asked to end."""


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """What the JSON file next to a Snakefile says; see `Worker` for the key ``slurm``."""

    root: str
    jobs: list[Job]
    slurm: dict[str, Any]


class Worker:
    """One attempt at a job.

    Args:
        slurm: how to behave in a SLURM job: lines of bash to run before the command (`setup`), how many seconds before
            the time limit to stop it (`signal_delay_s`) and how often to go on then (`max_timeouts`).
    """

    def __init__(self, job: Job, jobs: Jobs, slurm: dict[str, Any] | None = None) -> None:
        self.job, self.jobs, self.store = job, jobs, Store(jobs.root)
        self.slurm = slurm if slurm and _slurm_number() else {}
        left = _time_left() if self.slurm else math.inf
        self.deadline = time.time() + max(left - self.slurm.get("signal_delay_s", 0), left / 2)
        self.locks: list[Lock] = []
        self.parent, self.ending = os.getppid(), False
        self.record, self.device = Record(), ""

    def stop(self, *_: object) -> None:
        self.ending = True

    def run(self) -> int:
        """Run the job; 0 as well where it is done already."""
        file = self.store.log(self.job)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as log:
            spoke = os.fstat(log.fileno()).st_mtime
            try:
                self._take(log, self.store.file(self.job.id, "lock"))
                code = 0 if self.store.is_done(self.job) else self._attempt(log, spoke)
            except StoppedError:
                code = STOPPED
            finally:
                for lock in self.locks:
                    lock.release()
        self.store.mark(self.job)
        if code == STOPPED and self.slurm:
            self._hand_back()
        return code

    def _hand_back(self) -> None:
        """Have SLURM requeue the job at its time limit, and let SLURM end it.

        Whoever ends by itself after a preemption counts as failed and is not requeued.
        """
        if time.time() >= self.deadline:
            again = len(self.record.attempts) <= self.slurm["max_timeouts"]
            if not again or subprocess.run(["scontrol", "requeue", _slurm_number()], check=False).returncode:
                return
        time.sleep(KILLED_IN)

    def _pause(self, seconds: float = 0.2) -> None:
        if self.ending or os.getppid() != self.parent:
            raise StoppedError
        time.sleep(seconds)

    def _take(self, log: IO[str], *files: Path) -> Path:
        """Wait for one of several locks, end a command without a worker that holds it, and return which it is."""
        locks = [Lock(file) for file in files]
        waits = False
        while True:
            for lock in locks:
                if lock.take():
                    self.locks.append(lock)
                    return lock.file
                lock.stop_orphan()
            if not waits:
                print(f"### waiting for {' or '.join(file.stem for file in files)}", file=log, flush=True)
            waits = True
            self._pause()

    def _attempt(self, log: IO[str], spoke: float) -> int:
        """Make room and run the command.

        Args:
            spoke: when the log was last written to, which is when an attempt ended whose end nobody saw.
        """
        job = self.job
        if not self._needs_are_there():
            print(f"### what {job.id} needs is not there: {', '.join(job.needs)}", file=log, flush=True)
            return 1
        if job.lock:
            self._take(log, self.store.root / "jobs" / "locks" / job.lock)
        if job.gpu and (devices := os.environ.get(BENCHMARK_GPUS)):
            files = {self.store.root / "jobs" / "locks" / f"gpu_{device}": device for device in devices.split(",")}
            self.device = files[self._take(log, *files)]
        former, built_on = self.store.former(job.id), self.store.runs(job)
        if former.attempts and former.attempts[-1].seconds is None:
            former = former.last(seconds=max(0.0, round(spoke - former.attempts[-1].started, 3)))
        same = former.hash == job.hash and former.built_on == built_on
        continued = same and job.resume is not None and bool(former.attempts)
        folder = Path(job.folder) if job.folder else None  # Path("") would be the working directory
        if folder is not None and folder.exists():
            if continued:
                _set_broken_checkpoints_aside(folder, log)
            else:
                _clear(folder, keep=not same)
        self.record = Record(
            hash=job.hash,
            state="running",
            host=socket.gethostname(),
            slurm=_slurm_number(),
            built_on=built_on,
            attempts=(*(former.attempts if same else ()), Attempt(started=time.time(), continued=continued)),
        )
        self.store.write(job, self.record)
        return self._command([*job.command, *((job.resume or ()) if continued else ())], log)

    def _needs_are_there(self) -> bool:
        """Wait for what other nodes have written, which a network file system may show late."""
        needed, end = [self.jobs[name] for name in self.job.needs], time.monotonic() + LATE
        while not all(map(self.store.is_done, needed)):
            failed = any(self.store.record(other).state in ("failed", "interrupted") for other in needed)
            if failed or time.monotonic() > end:
                return False
            self._pause()
        return True

    def _command(self, words: list[str], log: IO[str]) -> int:
        print(f"\n### {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(words)}", file=log, flush=True)
        if (program := find(words[0])) is None:
            return self._end("failed", 127, f"the command {words[0]} is not installed")
        words[0] = program
        if setup := self.slurm.get("setup"):
            words = ["bash", "-c", "\n".join([*setup, 'exec "$@"']), "bash", *words]
        environment = {k: v for k, v in os.environ.items() if k not in (*FROM_MATRIX, *SNAKEMAKES)}
        environment |= {"CUDA_VISIBLE_DEVICES": self.device} if self.device else {}
        command = subprocess.Popen(
            words,
            env={**environment, **self.job.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock.handle for lock in self.locks],
            preexec_fn=self._note_command,  # whose the locks are is known from its first moment
        )
        code = self._wait(command)
        if code in (None, -signal.SIGTERM):  # by this worker, or by whoever ends the whole job
            self._end("interrupted", code, "stopped")
            raise StoppedError
        if code:
            return self._end("failed", code, _why(code))
        if self.job.missing:
            return self._end("failed", 1, f"the command ended well, but did not make {', '.join(self.job.missing)}")
        return self._end("done", 0, "")

    def _note_command(self) -> None:
        """Write down, in the command's process before it becomes the command, that it has the locks."""
        for lock in self.locks:
            lock.note(os.getpid())

    def _wait(self, command: subprocess.Popen) -> int | None:
        """Wait for the command, with an eye on its memory on GPUs; None if it had to be stopped."""
        looked = time.monotonic()
        try:
            while not self.ending and os.getppid() == self.parent and time.time() < self.deadline:
                with suppress(subprocess.TimeoutExpired):
                    return command.wait(0.5)
                if self.job.gpu and time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    peak = max(self.record.attempts[-1].gpu_bytes or 0, _gpu_bytes(command.pid))
                    self.record = self.record.last(gpu_bytes=peak or None)
            _signal(command, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                command.wait(GRACE)
            return None
        finally:
            _signal(command, signal.SIGKILL)  # whatever is left of its process group
            command.wait()

    def _end(self, state: Any, code: int | None, reason: str) -> int:
        """Write down how it ended; returns the code, or 1 where there is none."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.record = self.record.last(
            seconds=round(time.time() - self.record.attempts[-1].started, 3),
            exit=code,
            cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
            peak_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        )
        files = self.job.contents if state == "done" else {}
        record = replace(self.record, state=state, reason=reason, files=files)
        if state == "done" and self.job.manifest:
            try:
                write_manifest(self.job, record, self.jobs.with_needs(self.job)[:-1], self.store)
            except InputError as e:
                code, record = 1, replace(record, state="failed", reason=" ".join(str(e).split()))
        self.store.write(self.job, record)
        return 1 if code is None else code


def find(name: str) -> str | None:
    """Return the path of a console script, which is looked for next to this interpreter, then on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return shutil.which(name, path=path)


def _why(code: int) -> str:
    if code > 0:
        return f"exit code {code}"
    return f"killed by signal {-code}{', as Linux does when memory runs out' if code == -signal.SIGKILL else ''}"


def _slurm_number() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def _time_left() -> float:
    """Return how many seconds SLURM leaves this job; infinity where there is no limit."""
    words = ["squeue", "--noheader", "--format=%e", "--jobs", _slurm_number()]
    with suppress(OSError, ValueError):
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        return datetime.datetime.fromisoformat(said.strip()).timestamp() - time.time()
    return math.inf


def _signal(command: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(command.pid, number)


def _gpu_bytes(session: int) -> int:
    """Return the memory on GPUs of a session's processes; CUDA's own context, a few hundred MB each, included."""
    used = 0
    for pid, mb in nvidia_smi("pid,used_memory", of="compute-apps"):
        with suppress(ValueError, OSError):
            used += int(mb) * 2**20 if os.getsid(int(pid)) == session else 0
    return used


def _clear(folder: Path, keep: bool) -> None:
    """Make room for a job that starts anew.

    Args:
        keep: whatever was made with other parameters, or from other runs, gets a name of its own (not "fold_0...",
            which nnU-Net would take for a fold); without, it is an attempt of this job and goes.
    """
    if not keep:
        shutil.rmtree(folder)
        return
    names = (folder.with_name(f"previous_{n}_{folder.name}") for n in itertools.count(1))
    folder.rename(next(name for name in names if not name.exists()))


def _set_broken_checkpoints_aside(folder: Path, log: IO[str]) -> None:
    """nnU-Net's trainers write checkpoints in place: a kill leaves half a file, at which every attempt would fail."""
    for file in folder.glob("checkpoint_*.pth"):
        if not zipfile.is_zipfile(file):
            file.replace(file.with_name(f"{file.name}.broken"))
            print(f"### {file.name} was not written to its end; set aside", file=log, flush=True)


def main(argv: list[str]) -> int:
    """Run the job that the arguments name: the workflow's file and the job's id."""
    try:
        workflow = read_as(Workflow, Path(argv[0]))
        jobs = Jobs(Path(workflow.root), workflow.jobs)
        worker = Worker(jobs[argv[1]], jobs, workflow.slurm)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, worker.stop)
        with writing_to(jobs.root, FULL):
            return worker.run()
    except InputError as e:
        sys.stderr.write(f"error: {e}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
