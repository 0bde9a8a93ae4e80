"""Run jobs on a SLURM cluster, through submitit: arrays that wait for each other.

The folder must be one that all nodes see. What becomes of a job is written down by its worker on the node, as on this
machine; SLURM is only asked which jobs it still has. A job that is preempted or at the end of its time is requeued and
goes on with nnU-Net's ``--c``; so does one that an administrator requeues, or that is submitted again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from nnunet_ext.benchmark import slurm_queue
from nnunet_ext.benchmark.executors.local import Failure, Outcome, Status
from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.matrix import Slurm
from nnunet_ext.benchmark.state import Store
from nnunet_ext.benchmark.worker import Worker, load
from nnunet_ext.common.errors import InputError

if TYPE_CHECKING:
    import submitit

GRACE_TIME = 300  # seconds to be killed in
LARGEST_ARRAY = 500  # SLURM's default limit is 1001
LATE = 60  # seconds for which a network file system may keep what another node has written to itself
UNSEEN = 3  # a job counts as gone when it was missed so often: records may reach this machine late


class Task:
    """What submitit runs on the node: one job's worker."""

    def __init__(self, root: Path, file: Path) -> None:
        self.root, self.file = root, file

    def __call__(self) -> int:
        """The command's exit code; the record has the rest."""
        store, job, needed = load(self.root, self.file)
        if not _made(store, job, needed):
            return 1
        if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
            os.environ.setdefault("OMP_NUM_THREADS", cpus)
        code = Worker(store, job, needed, slurm=_own_number()).run()
        if code == -signal.SIGTERM:
            # SLURM tells the command as well as this process to end, and kills after a while. Whoever ends by himself
            # before that counts as finished and is not requeued after a preemption.
            time.sleep(GRACE_TIME)
            raise SystemExit(1)
        return code

    def checkpoint(self, *_: Any) -> submitit.helpers.DelayedSubmission:
        """submitit calls it before it requeues; the worker stops its command on the way out."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _made(store: Store, job: Job, needed: Sequence[Job]) -> bool:
    """Whether what a job needs is there: one that it needs may have failed, or its files show up late on this node."""
    direct = [other for other in needed if other.id in job.needs]
    end = time.monotonic() + LATE
    while not all(map(store.is_done, direct)):
        if any(store.record(other).state in ("failed", "interrupted") for other in needed) or time.monotonic() > end:
            return False
        time.sleep(1)
    return True


class SlurmExecutor:
    """Submits whatever is neither done nor in the queue, and follows it.

    Args:
        settings: what to ask for.
        watch: called every few seconds with the status of all jobs.
    """

    def __init__(
        self,
        jobs: Jobs,
        store: Store,
        settings: Slurm,
        *,
        watch: Callable[[Outcome], None] = lambda outcome: None,
        interval: float = 5.0,
    ) -> None:
        self.jobs, self.store, self.settings, self.watch, self.interval = jobs, store, settings, watch, interval
        self.numbers: dict[str, str] = {}  # job id -> SLURM's number
        self.unseen: dict[str, int] = defaultdict(int)

    def run(self, *, wait: bool = True) -> Outcome:
        """Submit; then until SLURM has none of the jobs any more, unless told not to wait.

        Raises:
            InputError: no SLURM, no submitit, or SLURM refuses what the matrix asks for.
        """
        for job in self.jobs:
            self.store.describe(job)
        self.store.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.store.root / "submit.lock"):
            self._submit_all()
        outcome = self._look()
        while wait and outcome.count("waiting") + outcome.count("running"):
            self.watch(outcome)
            time.sleep(self.interval)
            outcome = self._look()
        self.watch(outcome)
        return outcome

    def _submit_all(self) -> None:
        queue = _queue()
        todo = []
        for job in self.jobs:
            number = self.store.submitted(job)
            if number in queue:
                self.numbers[job.id] = number
            elif not self.store.is_done(job) or any(other.id in job.needs for other in todo):
                todo.append(job)  # also what is built on a job that will be run again
        for group in waves(todo):
            for array, dependency in arrays(group, self.numbers):
                self._submit(array, dependency)

    def _submit(self, array: Sequence[Job], dependency: str) -> None:
        executor = self._executor(array[0], dependency)
        try:
            with executor.batch():
                made = [executor.submit(Task(self.store.root, self.store.describe(job))) for job in array]
        except subprocess.CalledProcessError as e:
            said = (e.stderr or e.output or b"").strip()
            said = said.decode(errors="replace") if isinstance(said, bytes) else said
            raise InputError(f"SLURM refuses {array[0].kind} jobs: {said}", hint="Correct [slurm].") from e
        except RuntimeError as e:  # submitit's FailedSubmissionError and others
            raise InputError(f"SLURM refuses {array[0].kind} jobs: {e}", hint="Correct [slurm].") from e
        for job, submission in zip(array, made, strict=True):
            self.numbers[job.id] = submission.job_id
            self.store.write_submitted(job, submission.job_id)

    def _executor(self, job: Job, dependency: str) -> submitit.SlurmExecutor:
        try:
            import submitit
        except ImportError:
            raise InputError("submitit is not installed.", hint="pip install 'nnunet-ext[slurm]'") from None
        s = self.settings
        executor = submitit.SlurmExecutor(self.store.root / "slurm", max_num_timeout=s.max_timeouts)
        gpu = {"gres": s.gres} if s.gres else {"gpus_per_node": s.gpus}
        asked = {
            "job_name": f"nnunet_ext-{job.kind}",
            "time": s.time_limit(job.kind),
            "cpus_per_task": s.cpus,
            "mem": f"{int(s.mem_gb * 1024)}MB" if s.mem_gb else None,
            **{name: getattr(s, name) for name in ("partition", "account", "qos", "constraint")},
            **(gpu if job.gpu else {}),
            "dependency": dependency or None,
            "setup": list(s.setup) or None,
        }
        executor.update_parameters(
            **{k: v for k, v in asked.items() if v is not None},
            array_parallelism=s.parallel,
            signal_delay_s=s.signal_delay_s,
            stderr_to_stdout=True,
            additional_parameters={"requeue": True, "kill-on-invalid-dep": "yes"},
        )
        return executor

    def _look(self) -> Outcome:
        """The status of every job, from the records and the queue."""
        queue, outcome = _queue(), Outcome()
        for job in self.jobs:
            status = outcome.status[job.id] = self._status(job, queue, outcome.status)
            if status == "failed":
                record = self.store.record(job)
                reason = record.reason if record.state == "failed" else "SLURM has ended it: cancelled, or out of time"
                outcome.failures.append(Failure(job, reason, self._log(job)))
        return outcome

    def _status(self, job: Job, queue: dict[str, str], others: dict[str, Status]) -> Status:
        if self.store.is_done(job) and all(others[n] == "done" for n in job.needs):
            return "done"
        state = queue.get(self.numbers.get(job.id, ""))
        if state is not None:
            self.unseen[job.id] = 0
            return "waiting" if state in ("PENDING", "REQUEUED", "REQUEUE_HOLD") else "running"
        if any(others[n] in ("failed", "skipped") for n in job.needs):
            return "skipped"
        self.unseen[job.id] += 1
        return "failed" if self.unseen[job.id] >= UNSEEN else "waiting"

    def _log(self, job: Job) -> Path:
        """The command's; where it was never started, what SLURM's step said."""
        own = self.store.log(job)
        if own.exists():
            return own
        number = self.numbers.get(job.id, "")
        return self.store.root / "slurm" / f"{number}_0_log.out"


def waves(todo: Sequence[Job]) -> Iterator[list[Job]]:
    """Groups of jobs of one kind that do not depend on each other, each after those that it depends on."""
    level: dict[str, int] = {}
    for job in todo:
        before = [level[n] for n in (*job.needs, *job.after) if n in level]
        level[job.id] = 1 + max(before, default=0)
    groups: dict[tuple[int, str, bool], list[Job]] = defaultdict(list)
    for job in todo:
        groups[level[job.id], job.kind, job.gpu].append(job)
    for key in sorted(groups):
        yield groups[key]


def arrays(group: Sequence[Job], numbers: dict[str, str]) -> Iterator[tuple[list[Job], str]]:
    """A group as arrays, each with its dependency.

    Where the n-th job of an array waits for the n-th job of another array and for nothing else, it starts as soon as
    that one has ended (aftercorr); else the array starts when all that any of it waits for has ended.
    """
    layers: dict[tuple[str, int], list[Job]] = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    for job in sorted(group, key=lambda j: _index(_waits_for(j, numbers))):
        wanted = _waits_for(job, numbers)
        base, _, in_array = wanted[0].partition("_") if len(wanted) == 1 else ("", "", "")
        if in_array:  # jobs that wait for the same one go to different arrays
            layers[base, seen[wanted[0]]].append(job)
            seen[wanted[0]] += 1
        else:
            layers["", 0].append(job)
    for layer in layers.values():
        for start in range(0, len(layer), LARGEST_ARRAY):
            array = layer[start : start + LARGEST_ARRAY]
            yield array, dependency(array, numbers)


def dependency(array: Sequence[Job], numbers: dict[str, str]) -> str:
    """For sbatch --dependency; "" where nothing is to be waited for."""
    wanted = [_waits_for(job, numbers) for job in array]
    flat = list(dict.fromkeys(n for one in wanted for n in one))
    if not flat:
        return ""
    bases = {n.partition("_")[0] for n in flat}
    size = sum(n.partition("_")[0] in bases for n in numbers.values())
    in_step = [n.partition("_")[2] for n in flat] == [str(i) for i in range(len(array))]
    if len(array) > 1 and len(bases) == 1 and size == len(array) and in_step and all(len(w) == 1 for w in wanted):
        return f"aftercorr:{bases.pop()}"
    return "afterany:" + ":".join(flat if len(flat) <= 50 else sorted(bases))


def _waits_for(job: Job, numbers: dict[str, str]) -> list[str]:
    return [numbers[n] for n in (*job.needs, *job.after) if n in numbers]


def _index(wanted: Sequence[str]) -> tuple[int, ...]:
    """For the order of an array: that of the jobs that it waits for."""
    return tuple(int(part) for part in wanted[0].split("_")) if len(wanted) == 1 else ()


def _queue() -> dict[str, str]:
    try:
        return slurm_queue.states(fresh=True)
    except (OSError, subprocess.SubprocessError) as e:
        raise InputError(
            f"SLURM does not answer here: {e}.",
            hint="Run this where sbatch and squeue work, or leave --executor slurm out.",
        ) from None


def _own_number() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
