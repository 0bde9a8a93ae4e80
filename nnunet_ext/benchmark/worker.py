"""Run one job and write down what became of it: ``python -m nnunet_ext.benchmark.worker ROOT JOB_FILE``.

Every job has a worker process of its own, here and on a cluster. It survives the runner that started it, so that
a runner that is killed loses nothing, and it is the only one that writes the job's record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nnunet_ext.benchmark import gpu, manifest, processes
from nnunet_ext.benchmark.jobs import FROM_MATRIX, Job
from nnunet_ext.benchmark.state import Attempt, Record, Store, missing

BUSY = 75  # exit code: another worker has the job (EX_TEMPFAIL)


class Stopped(BaseException):
    """The worker was told to end."""


class Worker:
    """Runs one job once."""

    def __init__(self, store: Store, job: Job, needed: list[Job], slurm: str = "") -> None:
        self.store, self.job, self.needed, self.slurm = store, job, needed, slurm
        self.command: subprocess.Popen | None = None
        self.record = Record()
        self._told_to_stop = self._may_stop = False

    def run(self) -> int:
        """The command's exit code; 0 as well where the job is done already.

        Raises:
            Stopped: `stop` was called, from a signal handler; the record says "interrupted".
        """
        with self.store.claimed(self.job) as mine:
            if not mine:
                return BUSY
            if self.store.is_done(self.job):
                return 0
            try:
                with self._log() as log:
                    return self._attempt(log)
            except (Stopped, SystemExit, KeyboardInterrupt):  # SystemExit: submitit's, when SLURM preempts
                self._end("interrupted", None, "stopped")
                raise

    def stop(self) -> None:
        """From a signal handler: end the command and its children, then the worker."""
        self._told_to_stop = True
        if self._may_stop:
            raise Stopped

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Where `stop` takes effect: not between the start of a command and knowing its number."""
        self._may_stop = True
        try:
            if self._told_to_stop:
                raise Stopped
            yield
        finally:
            self._may_stop = False

    def _attempt(self, log: IO[str]) -> int:
        former = self.store.former(self.job)
        with self._stoppable():
            self._wait_for_orphan(log)
        built_on = self.store.runs(self.job)
        same = former.hash == self.job.hash and former.built_on == built_on
        continued = same and self.job.resume is not None and bool(former.attempts)
        folder = Path(self.job.folder) if self.job.folder else None  # Path("") would be the working directory
        if folder is not None and folder.exists():
            if continued:
                _set_broken_checkpoints_aside(folder, log)
            else:
                _clear(folder, keep=not same)
        words = (*self.job.command, *((self.job.resume or ()) if continued else ()))
        attempts = _with_end(former.attempts, self.store.log(self.job)) if same else ()
        self.record = Record(
            hash=self.job.hash,
            state="running",
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_started=processes.start_time(os.getpid()),
            device=os.environ.get("CUDA_VISIBLE_DEVICES", "") if self.job.gpu else "",
            slurm=self.slurm,
            built_on=built_on,
            attempts=(*attempts, Attempt(started=time.time(), continued=continued)),
        )
        self.store.write(self.job, self.record)
        print(f"\n### {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(words)}", file=log, flush=True)
        program = find(words[0])
        if program is None:
            return self._end("failed", 127, f"the command {words[0]} is not installed")
        self.command = subprocess.Popen(
            [program, *words[1:]],
            env={**_outside(), **self.job.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: self.store.write_command(self.job),  # this process has one thread
        )
        pid = self.command.pid
        with gpu.Peak(pid, enabled=self.job.gpu) as peak, self._stoppable():
            code = self.command.wait()
        self.record = _last(self.record, gpu_bytes=peak.bytes)
        processes.stop_all(processes.session_members(pid, self.store.command(self.job)[2]))
        if code == -signal.SIGTERM:  # not by this worker: by whoever ends the whole job
            return self._end("interrupted", code, "the command was told to end (SIGTERM)")
        if code:
            return self._end("failed", code, _why(code))
        if lacking := missing(self.job):
            return self._end("failed", 1, f"the command ended well, but did not make {', '.join(lacking)}")
        return self._end("done", 0, "")

    def _end(self, state: str, code: int | None, reason: str) -> int:
        """Write down how it ended; 1 where there is no code."""
        if self.command is not None and self.command.poll() is None:
            processes.stop_group(self.command.pid, gone=lambda: self.command.poll() is not None)
            self.command.wait()
            processes.stop_all(processes.session_members(self.command.pid, self.store.command(self.job)[2]))
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        if self.record.attempts:
            self.record = _last(
                self.record,
                seconds=round(time.time() - self.record.attempts[-1].started, 3),
                exit=code,
                cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
                peak_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            )
            record = dataclasses.replace(self.record, state=state, reason=reason)
            if state == "done" and self.job.manifest:
                manifest.write(self.job, record, self.needed, self.store)
            self.store.write(self.job, record)
        return 1 if code is None else code

    def _wait_for_orphan(self, log: IO[str]) -> None:
        """A command whose worker was killed goes on alone; nothing may run beside it, in the same folder."""
        host, pid, started = self.store.command(self.job)
        if host != socket.gethostname():
            return
        if processes.alive(pid, started):
            print(f"### waiting for process {pid}, which an earlier run left behind", file=log, flush=True)
        while processes.alive(pid, started):
            time.sleep(0.1)
        processes.stop_all(processes.session_members(pid, started))

    def _log(self) -> IO[str]:
        file = self.store.log(self.job)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a")


def _why(code: int) -> str:
    """An exit code in words."""
    if code > 0:
        return f"exit code {code}"
    return f"killed by signal {-code}{', as Linux does when memory runs out' if code == -signal.SIGKILL else ''}"


def _outside() -> dict[str, str]:
    """The runner's own environment, without budget and seed: those come from the matrix or not at all."""
    return {k: v for k, v in os.environ.items() if k not in FROM_MATRIX}


def find(name: str) -> str | None:
    """A console script, first beside this interpreter, then on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return shutil.which(name, path=path)


def _last(record: Record, **changes: object) -> Record:
    """With a changed last attempt."""
    return dataclasses.replace(
        record, attempts=(*record.attempts[:-1], dataclasses.replace(record.attempts[-1], **changes))
    )


def _with_end(attempts: tuple[Attempt, ...], log: Path) -> tuple[Attempt, ...]:
    """An attempt whose end nobody saw lasted until the log's last line."""
    if not attempts or attempts[-1].seconds is not None or not log.exists():
        return attempts
    seconds = max(0.0, log.stat().st_mtime - attempts[-1].started)
    return (*attempts[:-1], dataclasses.replace(attempts[-1], seconds=round(seconds, 3)))


def _clear(folder: Path, keep: bool) -> None:
    """Make room for a job that starts anew.

    Args:
        keep: whatever was made with other parameters, or from other runs, stays beside, under a name of its own (not
            "fold_0...", which nnU-Net would take for a fold); else it is an attempt of this job.
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


def load(root: Path, file: Path) -> tuple[Store, Job, list[Job]]:
    """What a worker needs to know, from the files of a benchmark's folder; last all jobs that it needs, in order."""
    job = Job.from_json(json.loads(file.read_text()))
    needed: dict[str, Job] = {}

    def read(name: str) -> None:
        if name not in needed:
            other = Job.from_json(json.loads((file.parent / f"{name}.job").read_text()))
            for before in other.needs:
                read(before)
            needed[name] = other

    for name in job.needs:
        read(name)
    return Store(root=root), job, list(needed.values())


def main(argv: list[str]) -> int:
    """The worker's process."""
    worker = Worker(*load(Path(argv[0]), Path(argv[1])))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    try:
        return worker.run()
    except Stopped:
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
