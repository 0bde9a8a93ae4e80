"""What is known of every job: one small file each, replaced as a whole, so that a kill never leaves half of one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from nnunet_ext.benchmark import processes, slurm_queue
from nnunet_ext.benchmark.jobs import Job
from nnunet_ext.common.files import write_text

State = Literal["waiting", "running", "interrupted", "failed", "done"]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One time that a job was run.

    Args:
        started, seconds: when (seconds since 1970), and how long; None while it runs, or where nobody saw its end.
        exit: code of the command; None as above.
        continued: whether it went on where the one before was interrupted.
        cpu_seconds, peak_bytes: of the command and its children; the latter of the largest single process.
        gpu_bytes: largest sum over its processes that was seen on a GPU.
    """

    started: float
    seconds: float | None = None
    exit: int | None = None
    continued: bool = False
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    gpu_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """The last that was written down of a job.

    Args:
        hash: of the job that was run.
        host, pid, pid_started: of the worker that runs it.
        device: CUDA_VISIBLE_DEVICES of a job that computes on a GPU.
        slurm: number of the SLURM job, if it was one.
        reason: of a failure, one line.
        built_on: which runs of the jobs that it needs it was made from, as `Store.runs` has them.
    """

    hash: str = ""
    state: State = "waiting"
    host: str = ""
    pid: int = 0
    pid_started: str = ""
    device: str = ""
    slurm: str = ""
    reason: str = ""
    built_on: dict[str, float] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()

    @property
    def seconds(self) -> float:
        """Of all attempts of which the length is known."""
        return sum(a.seconds or 0.0 for a in self.attempts)


@dataclass(frozen=True, kw_only=True)
class Store:
    """The records, the locks and the logs of a benchmark's folder."""

    root: Path

    def record(self, job: Job) -> Record:
        """Of this very job: one of another hash counts as none."""
        record = self.former(job)
        return record if record.hash == job.hash else Record()

    def former(self, job: Job) -> Record:
        """Whatever was written down under the job's id."""
        return self._read(job.id)

    def _read(self, job_id: str) -> Record:
        try:
            content = json.loads(self._file(job_id, "json").read_text())
        except FileNotFoundError:
            return Record()
        attempts = tuple(Attempt(**_known(Attempt, a)) for a in content.get("attempts", ()))
        return Record(**{**_known(Record, content), "attempts": attempts})

    def write(self, job: Job, record: Record) -> None:
        """Replace the record."""
        write_json(self._file(job.id, "json"), asdict(record))

    def log(self, job: Job) -> Path:
        """Everything that the command says, all attempts."""
        return self.root / "logs" / f"{job.id}.log"

    def command(self, job: Job) -> tuple[str, int, str]:
        """Host, number and start time of the job's latest command."""
        try:
            content = json.loads(self._file(job.id, "command").read_text())
        except FileNotFoundError:
            return "", 0, ""
        return content["host"], content["pid"], content["started"]

    def write_command(self, job: Job) -> None:
        """That this process is about to become the job's command: what it does is known from its first moment."""
        pid = os.getpid()
        content = {"host": socket.gethostname(), "pid": pid, "started": processes.start_time(pid)}
        write_json(self._file(job.id, "command"), content)

    def describe(self, job: Job) -> Path:
        """Write the job down for a worker; the file's path."""
        file = self._file(job.id, "job")
        write_json(file, job.to_json())
        return file

    def is_done(self, job: Job) -> bool:
        """Written down as done with this hash, built on the latest runs of what it needs, and all it made is there."""
        record = self.record(job)
        return record.state == "done" and record.built_on == self.runs(job) and not missing(job)

    def runs(self, job: Job) -> dict[str, float]:
        """When each job that it needs was last started: one that was run again makes what was built on it stale."""
        records = {name: self._read(name) for name in job.needs}
        return {name: record.attempts[-1].started for name, record in records.items() if record.attempts}

    def is_running(self, job: Job) -> bool:
        """Whether some worker, of this or another run, is at work on a job of this id (whatever its hash)."""
        record = self.former(job)
        if record.state != "running":
            return False
        if record.slurm:
            return slurm_queue.is_running(record.slurm)
        return record.host == socket.gethostname() and processes.alive(record.pid, record.pid_started)

    @contextlib.contextmanager
    def claimed(self, job: Job) -> Iterator[bool]:
        """Hold the job's lock, which ends with the process; yields whether it could be had."""
        file = self._file(job.id, "lock")
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def submitted(self, job: Job) -> str:
        """The number that SLURM gave this very job when it was last submitted; "" if it never was."""
        try:
            content = json.loads(self._file(job.id, "slurm").read_text())
        except FileNotFoundError:
            return ""
        return content["number"] if content["hash"] == job.hash else ""

    def write_submitted(self, job: Job, number: str) -> None:
        """Remember it."""
        write_json(self._file(job.id, "slurm"), {"hash": job.hash, "number": number})

    def _file(self, job_id: str, kind: str) -> Path:
        return self.root / "jobs" / f"{job_id}.{kind}"


def _known(kind: type, content: dict[str, Any]) -> dict[str, Any]:
    """Without what another version of this package has written down as well."""
    names = {f.name for f in fields(kind)}
    return {key: value for key, value in content.items() if key in names}


def missing(job: Job) -> list[str]:
    """Outputs that are not there."""
    return [path for path in job.outputs if not Path(path).exists()]


def write_json(file: Path, content: Any) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(content, indent=1))
