"""What is done, what runs, how far it is and how long it will take: from records and nnU-Net's training logs."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.store import Store, is_held
from nnunet_ext.benchmark.workflow import Queued, queue
from nnunet_ext.common.text import clock
from nnunet_ext.common.training_log import read_training_log

STATES = ("done", "running", "waiting", "interrupted", "failed", "skipped")
QUIET = 60.0  # seconds between two lines about the same training


@dataclass(frozen=True, kw_only=True)
class Line:
    """One job, to print.

    Args:
        status: one of `STATES`.
        seconds: that it has taken, all attempts.
        left: estimate in seconds; None where there is nothing to go by.
    """

    job: Job
    status: str
    seconds: float
    detail: str = ""
    left: float | None = None

    def text(self, width: int = 0) -> str:
        """Return it with the job's name padded to a width."""
        took = f" {'for' if self.status == 'running' else 'in'} {clock(self.seconds)}" if self.seconds >= 0.5 else ""
        left = f"about {clock(self.left)} left" if self.left is not None else ""
        detail = ", ".join(filter(None, (self.detail, left)))
        return f"{self.status:<11} {self.job.id:<{width}}{took}{f': {detail}' if detail else ''}".rstrip()


def lines(jobs: Iterable[Job], store: Store, queue: Mapping[str, Queued], since: float = 0) -> list[Line]:
    """Return all jobs in order.

    Args:
        queue: what SLURM has of them, by number.
        since: what ended badly before this time (seconds since 1970) waits to be run again.
    """
    found: dict[str, Line] = {}
    queued = {entry.job_id: f"SLURM {number} {entry.state.lower()}" for number, entry in queue.items()}
    for job in jobs:
        record = store.record(job)
        last = record.attempts[-1] if record.attempts else None
        status: str = record.state
        if status == "done" and not store.is_done(job):
            status = "waiting"  # its outputs are gone, or made of older ones than there are now
        elif status == "running" and not (record.slurm in queue or is_held(store.file(job.id, "lock"))):
            status = "interrupted"
        if status in ("failed", "interrupted") and last and last.started + (last.seconds or 0) < since:
            status = "waiting"
        if status == "waiting" and any(found[n].status in ("failed", "skipped") for n in job.needs if n in found):
            status = "skipped"
        detail = {"failed": record.reason, "waiting": queued.get(job.id, "")}.get(status, "")
        seconds, left = record.seconds, None
        if status == "running" and last and last.seconds is None:
            seconds += time.time() - last.started
        if job.kind == "train" and status in ("running", "interrupted"):
            log = read_training_log(Path(job.folder))
            if log.epoch is not None:
                detail, left = f"epoch {log.finished}/{log.epochs or '?'}", log.seconds_left
        found[job.id] = Line(job=job, status=status, seconds=seconds, detail=detail, left=left)
    return list(found.values())


def summary(found: Sequence[Line], parallel: int = 1) -> str:
    """Return counts, and how long the rest will take.

    Args:
        parallel: jobs at a time.
    """
    counts = ", ".join(f"{n} {state}" for state in STATES if (n := sum(line.status == state for line in found)))
    left = seconds_left(found)
    return f"{len(found)} jobs: {counts}{f'; about {clock(left / parallel)} left' if left else ''}"


def seconds_left(found: Sequence[Line]) -> float | None:
    """Estimate the time of the rest: jobs take as long as finished ones of their kind and trainer, or of their kind.

    None while a kind of job that waits has never finished.
    """
    known: dict[tuple, list[float]] = defaultdict(list)
    for line in found:
        if line.status == "done" and line.seconds:
            for key in _keys(line.job):
                known[key].append(line.seconds)
    total = 0.0
    for line in found:
        if line.status in ("done", "failed", "skipped"):
            continue
        if line.left is not None:
            total += line.left
            continue
        like = next((known[key] for key in _keys(line.job) if key in known), None)
        if like is None:
            return None
        total += max(0.0, statistics.median(like) - (line.seconds if line.status == "running" else 0))
    return total


def _keys(job: Job) -> tuple[tuple, tuple]:
    return (job.kind, job.facts.get("trainer"), job.facts.get("configuration")), (job.kind,)


class Watch:
    """Prints a line when a job starts or ends, and now and then how far a training is."""

    def __init__(self, jobs: Jobs, store: Store, *, parallel: int = 1, slurm: bool = False) -> None:
        self.jobs, self.store, self.parallel, self.slurm = jobs, store, parallel, slurm
        self.since = time.time()
        self.lines = self._look()
        self.seen = {line.job.id: line.status for line in self.lines}
        self.said: dict[str, float] = {}

    def _look(self) -> list[Line]:
        return lines(self.jobs, self.store, queue(self.store.root) if self.slurm else {}, self.since)

    def __call__(self) -> None:
        self.lines, now = self._look(), time.monotonic()
        changed = False
        for line in self.lines:
            new = line.status != self.seen[line.job.id] and line.status != "waiting"
            changed |= new
            if new or (line.status == "running" and line.detail and now - self.said.get(line.job.id, 0) > QUIET):
                sys.stdout.write(f"{line.text()}\n")
                self.said[line.job.id] = now
            self.seen[line.job.id] = line.status
        if changed:
            sys.stdout.write(f"            {summary(self.lines, self.parallel)}\n")
            sys.stdout.flush()
