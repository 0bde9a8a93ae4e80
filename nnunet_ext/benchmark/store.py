"""What is known of every job: a record and a lock each, and a manifest with every result."""

from __future__ import annotations

import datetime
import errno
import fcntl
import hashlib
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nnunet_ext.benchmark.jobs import Job
from nnunet_ext.common.files import sha256, write_json
from nnunet_ext.common.nnunet_files import DATASET, SPLITS
from nnunet_ext.common.processes import is_running
from nnunet_ext.common.provenance import commit, machine, versions
from nnunet_ext.common.shapes import Count, Seconds, Shape, read_as


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

    started: Seconds
    seconds: Seconds | None = None
    exit: int | None = None
    continued: bool = False
    cpu_seconds: Seconds | None = None
    peak_bytes: Count | None = None
    gpu_bytes: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """The last that was written down of a job.

    Args:
        hash: of the job that was run.
        host: where it was run.
        slurm: number of the SLURM job, if it was one.
        reason: of a failure, one line.
        built_on: when the last attempts began of the jobs that it needs.
        files: folders that it made -> what was in them at its end.
    """

    hash: str = ""
    state: Literal["waiting", "running", "interrupted", "failed", "done"] = "waiting"
    host: str = ""
    slurm: str = ""
    reason: str = ""
    built_on: dict[str, float] = field(default_factory=dict)
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()

    @property
    def seconds(self) -> float:
        """The time of all attempts of which the length is known."""
        return sum(attempt.seconds or 0.0 for attempt in self.attempts)

    def last(self, **changes: Any) -> Record:
        return replace(self, attempts=(*self.attempts[:-1], replace(self.attempts[-1], **changes)))


class Store:
    """The records, locks and logs in a benchmark's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def record(self, job: Job) -> Record:
        """Read the record of this very job: one of another hash counts as none."""
        record = self.former(job.id)
        return record if record.hash == job.hash else Record()

    def former(self, job_id: str) -> Record:
        """Read whatever was written down under a job's id, also by other versions of this package.

        Raises:
            InputError: the record is broken; what it was about may have taken days.
        """
        file = self.file(job_id, "json")
        if not file.exists():
            return Record()
        return read_as(Record, file, hint="Without this file, the job is run again and its former results set aside.")

    def write(self, job: Job, record: Record) -> None:
        (self.root / "jobs").mkdir(parents=True, exist_ok=True)
        write_json(self.file(job.id, "json"), asdict(record))

    def file(self, job_id: str, kind: Literal["json", "lock", "done"]) -> Path:
        """Return a file of a job: its record, its lock, or what tells Snakemake that it is done."""
        return self.root / "jobs" / f"{job_id}.{kind}"

    def log(self, job: Job) -> Path:
        """Return the log of everything that a job's command says, all attempts."""
        return self.root / "logs" / f"{job.id}.log"

    def is_done(self, job: Job) -> bool:
        """Tell whether a job is recorded as done, on the latest runs of what it needs, and its outputs are there.

        A prediction that was removed counts: the others would be evaluated without it, or not at all.
        """
        record = self.record(job)
        removed = (name for folder, names in record.files.items() for name in names if not Path(folder, name).exists())
        whole = not job.missing and next(removed, None) is None
        return record.state == "done" and record.built_on == self.runs(job) and whole

    def runs(self, job: Job) -> dict[str, float]:
        """Return when each job that it needs was last started: one that ran again makes what was built on it stale."""
        records = {name: self.former(name) for name in job.needs}
        return {name: record.attempts[-1].started for name, record in records.items() if record.attempts}

    def mark(self, job: Job) -> None:
        """Tell Snakemake whether a job is done; since when decides what it thinks is built on what."""
        mark, attempts = self.file(job.id, "done"), self.record(job).attempts
        if not self.is_done(job):
            mark.unlink(missing_ok=True)
            return
        mark.touch()
        end = attempts[-1].started + (attempts[-1].seconds or 0)
        os.utime(mark, (end, end))


class Lock:
    """An exclusive lock on a file that ends with the last process that has it open, whoever is killed.

    A command inherits its job's lock and outlives a killed worker with it; `note` says whose it is.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.handle, self.worker = file, -1, os.getpid()

    def take(self, *, note: bool = True) -> bool:
        """Take the lock if nobody has it. A file system without locks gives it to everybody."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                os.close(handle)
                return False
        self.handle = handle
        if note:
            self.note()
        return True

    def release(self) -> None:
        """Give it back; processes that inherited it keep it."""
        if self.handle >= 0:
            os.close(self.handle)
        self.handle = -1

    def note(self, group: int | None = None) -> None:
        """Write this host and process into the file, and the process group of a command that inherits the lock."""
        words = [socket.gethostname(), str(self.worker), *([str(group)] if group else [])]
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, " ".join(words).encode(), 0)

    def holder(self) -> tuple[str, int, int]:
        """Read the host, process and process group (0: none) that hold it, or held it last."""
        with suppress(OSError, ValueError):
            host, pid, group = [*self.file.read_text().split(), "0"][:3]
            return host, int(pid), int(group)
        return "", 0, 0

    def stop_orphan(self) -> None:
        """Kill a command on this host that holds the lock although the worker that started it is gone.

        A lock that is held proves that its process group exists, so that no other can have its number.
        """
        host, pid, group = self.holder()
        if group and host == socket.gethostname() and not is_running(pid):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def is_held(file: Path) -> bool:
    lock = Lock(file)
    held = file.exists() and not lock.take(note=False)
    lock.release()
    return held


class Step(Shape):
    """One command on the way to a result, in its manifest."""

    kind: str
    command: str
    seconds: Seconds | None = None
    peak_bytes_of_largest_process: Count | None = None
    gpu_bytes_seen: Count | None = None


class Machine(Shape):
    """The machine that computed a result, in its manifest."""

    cpu: str
    gpus: list[str]


class Manifest(Shape):
    """What a result came from; `write_manifest` says the rest."""

    budget: dict[str, str] | Literal["own"]
    versions: dict[str, Any]
    machine: Machine
    sha256: dict[str, str | None]
    steps: dict[str, Step]


def write_manifest(job: Job, record: Record, needed: Sequence[Job], store: Store) -> None:
    """Write what a result came from: software, machine, data, seed, and the cost of every step.

    Args:
        needed: all jobs that it needs, directly or not.
    """
    steps = {j.id: _step(j, store.record(j)) for j in needed if j.kind != "prepare"} | {job.id: _step(job, record)}
    raw, preprocessed = (
        Path(job.environment.get(name, "")) / str(job.facts.get("dataset", ""))
        for name in ("nnUNet_raw", "nnUNet_preprocessed")
    )
    read = (SPLITS, f"{job.facts.get('plans')}.json")  # by a training, besides the cases
    trained = [j for j in needed if j.kind == "train" and Path(j.manifest).is_file()]
    written = read_as(Manifest, Path(trained[0].manifest)).sha256 if trained else {}  # others by now
    sums = {name: written[name] if name in written else _sha256(preprocessed / name) for name in read}
    write_json(
        Path(job.manifest),
        {
            "format": 1,
            **job.facts,
            "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": commit(),
            "versions": versions(),
            "machine": machine(),
            "sha256": {**sums, DATASET: _sha256(raw / DATASET), "labelsTs": _names(raw / "labelsTs")},
            "hash": job.hash,
            "steps": steps,
        },
    )


def _step(job: Job, record: Record) -> dict[str, Any]:
    """Return one command of the way to a result, and what it cost."""

    def known(key: str) -> list[Any]:
        return [value for attempt in record.attempts if (value := getattr(attempt, key)) is not None]

    return {
        "kind": job.kind,
        "command": job.line(),
        "seconds": round(record.seconds, 3),
        "cpu_seconds": round(sum(known("cpu_seconds")), 3) if known("cpu_seconds") else None,
        "peak_bytes_of_largest_process": max(known("peak_bytes"), default=None),
        "gpu_bytes_seen": max(known("gpu_bytes"), default=None),
        "host": record.host,
        "attempts": len(record.attempts),
        "slurm": record.slurm or None,
    }


def _sha256(file: Path) -> str | None:
    return sha256(file) if file.is_file() else None


def _names(folder: Path) -> str | None:
    """Return a checksum of file names and sizes: whether two results are of the same held-out cases."""
    if not folder.is_dir():
        return None
    files = sorted((file.name, file.stat().st_size) for file in folder.iterdir() if file.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()
