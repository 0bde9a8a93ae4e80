"""What runs, how far it is, and how long it will take: read from records and from nnU-Net's training logs."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.benchmark import slurm_queue
from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.state import Store

_EPOCHS = re.compile(r"(?:^|: )(\d+) epochs of \d+ iterations")  # our trainers say so
_IN_NAME = re.compile(r"_(\d+)epochs?\b")
STOCK_EPOCHS = 1000


@dataclass(frozen=True, kw_only=True)
class Training:
    """How far a training is.

    Args:
        epoch: epochs that are finished.
        epochs: in all.
        seconds_per_epoch: median of the last ten; None before the first is finished.
    """

    epoch: int
    epochs: int
    seconds_per_epoch: float | None

    @property
    def seconds_left(self) -> float | None:
        """None while no epoch is finished."""
        if self.seconds_per_epoch is None:
            return None
        return max(0, self.epochs - self.epoch) * self.seconds_per_epoch


def training(folder: Path, trainer: str = "") -> Training | None:
    """From the newest log that has epochs in it; None while there is none.

    Args:
        folder: fold_X.
        trainer: its name may say how many epochs it has.
    """
    epoch, seconds, epochs = -1, [], None
    for log in sorted(folder.glob("training_log_*.txt"), key=lambda f: f.stat().st_mtime):
        for line in log.read_text(errors="replace").splitlines():
            if found := re.search(r"Epoch (\d+)\s*$", line):
                epoch = int(found[1])
            elif found := re.search(r"Epoch time: ([\d.]+) s", line):
                seconds.append(float(found[1]))
                epoch += 1  # finished
            elif found := _EPOCHS.search(line):
                epochs = int(found[1])
    if epoch < 0:
        return None
    return Training(
        epoch=epoch,
        epochs=epochs or _epochs(folder, trainer),
        seconds_per_epoch=statistics.median(seconds[-10:]) if seconds else None,
    )


def _epochs(folder: Path, trainer: str) -> int:
    """Of nnU-Net's own trainers: written to debug.json at the start."""
    try:
        return int(json.loads((folder / "debug.json").read_text())["num_epochs"])
    except (OSError, ValueError, KeyError):
        return int(found[1]) if (found := _IN_NAME.search(trainer)) else STOCK_EPOCHS


@dataclass(frozen=True, kw_only=True)
class Line:
    """One job, to print.

    Args:
        status: "waiting", "running", "done", "failed", "skipped", "interrupted".
        seconds: that it has taken, all attempts.
        left: estimate in seconds; None where there is nothing to go by.
    """

    job: Job
    status: str
    seconds: float
    detail: str = ""
    left: float | None = None


def lines(jobs: Jobs, store: Store, status: dict[str, str] | None = None) -> list[Line]:
    """All jobs in order.

    Args:
        status: of a run that knows more than the records do.
    """
    return [_line(job, store, (status or {}).get(job.id) or recorded(job, store)) for job in jobs]


def recorded(job: Job, store: Store) -> str:
    """The status of a job as far as the files tell."""
    if store.is_done(job):
        return "done"
    if store.is_running(job):
        return "running"
    state = store.record(job).state
    return {"done": "waiting", "running": "interrupted"}.get(state, state)  # outputs are gone; its worker is


def _line(job: Job, store: Store, status: str) -> Line:
    record = store.record(job)
    seconds = record.seconds
    if status == "running" and record.attempts and record.attempts[-1].seconds is None:
        seconds += time.time() - record.attempts[-1].started
    detail, left = "", None
    if job.kind == "train" and status in ("running", "interrupted"):
        if far := training(Path(job.folder), str(job.facts.get("trainer", ""))):
            detail, left = f"epoch {far.epoch}/{far.epochs}", far.seconds_left
    elif status == "failed":
        detail = record.reason
    elif status == "waiting" and (number := store.submitted(job)):
        detail = slurm_queue.described(number)
    return Line(job=job, status=status, seconds=seconds, detail=detail, left=left)


def seconds_left(all_lines: list[Line], parallel: int = 1) -> float | None:
    """Of the whole run: jobs that wait take as long as finished ones of their kind and trainer, or of their kind.

    None while a kind of job that waits has never finished.
    """
    by_trainer: dict[tuple, list[float]] = defaultdict(list)
    for line in all_lines:
        if line.status == "done" and line.seconds:
            for key in _keys(line.job):
                by_trainer[key].append(line.seconds)
    total = 0.0
    for line in all_lines:
        if line.status in ("done", "failed", "skipped"):
            continue
        if line.left is not None:
            total += line.left
            continue
        known = next((by_trainer[key] for key in _keys(line.job) if key in by_trainer), None)
        if known is None:
            return None
        total += max(0.0, statistics.median(known) - (line.seconds if line.status == "running" else 0))
    return total / parallel


def _keys(job: Job) -> tuple[tuple, tuple]:
    return (job.kind, job.facts.get("trainer"), job.facts.get("configuration")), (job.kind,)


def duration(seconds: float | None) -> str:
    """1:02:03, 4:05 or 7 s."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
