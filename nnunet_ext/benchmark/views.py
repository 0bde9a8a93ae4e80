"""What `run` and `status` show: a table that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from nnunet_ext.benchmark import progress
from nnunet_ext.benchmark.executors.local import Outcome
from nnunet_ext.benchmark.jobs import Jobs
from nnunet_ext.benchmark.progress import Line, duration
from nnunet_ext.benchmark.state import Store

QUIET = 60.0  # seconds between two lines about the same training


def table(lines: list[Line], *, only_open: bool = False, parallel: int = 1) -> list[str]:
    """Every job, then the sum.

    Args:
        only_open: leave out what is done and what waits.
        parallel: jobs at a time.
    """
    shown = [li for li in lines if not only_open or li.status not in ("done", "waiting")]
    width = max((len(li.job.id) for li in shown), default=0)
    rows = [
        f"{li.status:<11} {li.job.id:<{width}}  {duration(li.seconds) if li.seconds else '':>8}  {_detail(li)}".rstrip()
        for li in shown
    ]
    return [*rows, summary(lines, parallel)]


def summary(lines: list[Line], parallel: int = 1) -> str:
    """Counts, and how long the rest will take."""
    states = ("done", "running", "waiting", "interrupted", "failed", "skipped")
    counts = ", ".join(f"{n} {s}" for s in states if (n := sum(li.status == s for li in lines)))
    left = progress.seconds_left(lines, parallel)
    rest = f"; about {duration(left)} left" if left else ""
    return f"{len(lines)} jobs: {counts}{rest}"


def _detail(line: Line) -> str:
    left = f"about {duration(line.left)} left" if line.left is not None else ""
    return ", ".join(filter(None, (line.detail, left)))


@contextlib.contextmanager
def view(jobs: Jobs, store: Store, parallel: int = 1) -> Iterator[Callable[[Outcome], None]]:
    """What an executor is to call.

    Args:
        parallel: jobs at a time, for the estimate of what is left.
    """
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            with Live(console=Console(), refresh_per_second=2, transient=True) as live:

                def draw(outcome: Outcome) -> None:
                    lines = progress.lines(jobs, store, outcome.status)
                    live.update(Text("\n".join(table(lines, only_open=True, parallel=parallel))))

                yield draw
            return
    yield Plain(jobs, store, parallel)


class Plain:
    """A line when a job starts or ends, and now and then how far a training is."""

    def __init__(self, jobs: Jobs, store: Store, parallel: int = 1) -> None:
        self.jobs, self.store, self.parallel = jobs, store, parallel
        self.seen: dict[str, str] = {}
        self.told: dict[str, float] = {}

    def __call__(self, outcome: Outcome) -> None:
        changed = [j for j in self.jobs if outcome.status[j.id] != self.seen.get(j.id, "waiting")]
        lines = {li.job.id: li for li in progress.lines(self.jobs, self.store, outcome.status)}
        now = time.monotonic()
        for job in changed:
            self._say(lines[job.id])
        for job_id, line in lines.items():
            if line.status == "running" and line.detail and now - self.told.get(job_id, 0) > QUIET:
                self._say(line)
        self.seen = dict(outcome.status)
        if changed:
            sys.stdout.write(f"            {summary(list(lines.values()), self.parallel)}\n")
            sys.stdout.flush()

    def _say(self, line: Line) -> None:
        self.told[line.job.id] = time.monotonic()
        took = f" in {duration(line.seconds)}" if line.status in ("done", "failed") and line.seconds else ""
        detail = f": {_detail(line)}" if _detail(line) else ""
        sys.stdout.write(f"{line.status:<11} {line.job.id}{took}{detail}\n")
