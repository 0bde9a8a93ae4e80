"""Run jobs on this machine, some at a time, one GPU each or on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.processes import GRACE
from nnunet_ext.benchmark.state import Store
from nnunet_ext.benchmark.worker import BUSY
from nnunet_ext.common.processes import cpus

Status = Literal["waiting", "running", "done", "failed", "skipped"]


class Failure(NamedTuple):
    """A job that failed, and where to look."""

    job: Job
    reason: str
    log: Path

    def tail(self, lines: int = 12) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(kw_only=True)
class Outcome:
    """What became of every job, and the failures with their reasons."""

    status: dict[str, Status] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def count(self, status: Status) -> int:
        """How many jobs have it."""
        return sum(s == status for s in self.status.values())


class _Running(NamedTuple):
    process: subprocess.Popen
    device: str | None


class LocalExecutor:
    """Starts every job as soon as what it needs is done and there is room.

    Args:
        parallel: jobs at a time.
        devices: values of CUDA_VISIBLE_DEVICES, one for each job that computes on a GPU; () does not set it.
        watch: called about once a second with the status of all jobs, and after the last.
    """

    def __init__(
        self,
        jobs: Jobs,
        store: Store,
        *,
        parallel: int = 1,
        devices: Sequence[str] = (),
        watch: Callable[[Outcome], None] = lambda outcome: None,
        interval: float = 0.1,
    ) -> None:
        self.jobs, self.store, self.parallel, self.watch, self.interval = jobs, store, parallel, watch, interval
        self.gpus: list[str | None] = list(devices) or [None] * parallel
        self.taken: set[str] = set()  # GPUs of jobs that another run has started
        self.running: dict[str, _Running] = {}
        self.not_before: dict[str, float] = {}
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Until every job is done, has failed, or cannot be run because one that it needs failed.

        Raises:
            KeyboardInterrupt: passed on, after the running jobs were stopped.
        """
        for job in self.jobs:
            self.store.describe(job)
            self.outcome.status[job.id] = "done" if self._is_done(job) else "waiting"
        shown = 0.0
        try:
            while self._step():
                if time.monotonic() - shown > 1:
                    self.watch(self.outcome)
                    shown = time.monotonic()
                time.sleep(self.interval)
        except BaseException:
            self._stop()
            raise
        self.watch(self.outcome)
        return self.outcome

    def _step(self) -> bool:
        """Look at what runs, start what can be; whether anything is left to wait for."""
        self._collect()
        status = self.outcome.status
        elsewhere = []
        for job in self.jobs:
            if job.id in self.running or status[job.id] in ("done", "failed", "skipped"):
                continue
            status[job.id] = self._of_waiting(job)
            if status[job.id] == "running":
                elsewhere.append(job)
        self.taken = {device for job in elsewhere if (device := self.store.former(job).device)}
        for job in self.jobs:
            if len(self.running) + len(elsewhere) >= self.parallel:
                break
            if self._ready(job):
                self._start(job)
        return any(s in ("waiting", "running") for s in status.values())

    def _of_waiting(self, job: Job) -> Status:
        """A job that this run has not started: another may have."""
        if any(self.outcome.status[n] in ("failed", "skipped") for n in job.needs):
            return "skipped"
        if self.store.is_running(job):
            return "running"
        return "done" if self._is_done(job) else "waiting"

    def _is_done(self, job: Job) -> bool:
        """What is built on a job that will be run again will have to be, too."""
        return all(self.outcome.status[n] == "done" for n in job.needs) and self.store.is_done(job)

    def _ready(self, job: Job) -> bool:
        status = self.outcome.status
        return (
            status[job.id] == "waiting"
            and all(status[n] == "done" for n in job.needs)
            and all(status[n] not in ("waiting", "running") for n in job.after)
            and (not job.gpu or self._free_gpu() is not None)
            and time.monotonic() >= self.not_before.get(job.id, 0.0)
        )

    def _free_gpu(self) -> int | None:
        """Its place in the list."""
        return next((i for i, device in enumerate(self.gpus) if device not in self.taken), None)

    def _start(self, job: Job) -> None:
        device = self.gpus.pop(self._free_gpu()) if job.gpu else None
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(self._threads()))}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        log = self.store.log(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "nnunet_ext.benchmark.worker", self.store.root, self.store.describe(job)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C is the runner's to pass on
            )
        self.running[job.id] = _Running(process, device)
        self.outcome.status[job.id] = "running"

    def _threads(self) -> int:
        """Per job, so that jobs at the same time share the cores."""
        return max(1, cpus() // self.parallel)

    def _collect(self) -> None:
        """Whatever has ended since."""
        for job_id, (process, device) in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            job = self.jobs[job_id]
            del self.running[job_id]
            if job.gpu:
                self.gpus.append(device)
            if code == BUSY:
                self.outcome.status[job_id] = "waiting"
                self.not_before[job_id] = time.monotonic() + 1
            elif self.store.is_done(job):
                self.outcome.status[job_id] = "done"
            else:
                self.outcome.status[job_id] = "failed"
                reason = self.store.record(job).reason or f"its worker ended with code {code}"
                self.outcome.failures.append(Failure(job, reason, self.store.log(job)))

    def _stop(self) -> None:
        """Every worker ends its command and writes that down."""
        for process, _ in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process, _ in self.running.values():
            try:
                process.wait(timeout=GRACE + 10)
            except subprocess.TimeoutExpired:
                process.kill()
