"""Jobs: stock command lines, what each needs, and the files that prove it done."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nnunet_ext.common.environment import EPOCHS, ITERATIONS, SEED, VAL_ITERATIONS

FROM_MATRIX = (EPOCHS, ITERATIONS, VAL_ITERATIONS, SEED)  # variables that come from the matrix or not at all


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command.

    Args:
        id: a file name.
        kind: "prepare", "plan", "train", "predict" or "evaluate".
        command: its words, as a user would type them.
        environment: variables that it is run with, on top of the runner's own.
        needs: ids of jobs whose results it uses; it is skipped if one of them fails.
        after: ids of jobs that must not run at the same time, nor later, but may fail.
        outputs: files that are there when it is done.
        folder: what it writes into and nothing else does; emptied when the job starts anew. "" if there is none.
        resume: words to append where an earlier attempt was interrupted; None: it starts anew.
        gpu: whether it computes on one.
        manifest: file to describe the run in; "" for none.
        facts: for the manifest: dataset, trainer, plans, configuration, fold, seed, ...
        hash: of all that its result depends on.
    """

    id: str
    kind: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    folder: str = ""
    resume: tuple[str, ...] | None = None
    gpu: bool = False
    manifest: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    hash: str = ""

    def line(self) -> str:
        """What to type: variables of this job alone, then the command."""
        return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.environment.items()), shlex.join(self.command)])

    def to_json(self) -> dict[str, Any]:
        """For a worker in another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Job:
        """What `to_json` gave, read from a file."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})


class Jobs:
    """Jobs in an order in which they can be run one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_id: dict[str, Job] = {}

    def __iter__(self) -> Iterator[Job]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._by_id

    def __getitem__(self, job_id: str) -> Job:
        return self._by_id[job_id]

    def add(self, *, data: str = "", **values: Any) -> Job:
        """A job that comes after those it needs; its hash follows from the command, the variables that change results
        (NNUNET_EXT_...) and the hashes of what it needs, wherever the benchmark's folder is.

        Args:
            data: stands for files that it reads and no other job writes.
            values: of `Job`.
        """
        job = Job(**values)
        if job.id in self._by_id:
            raise ValueError(f"two jobs {job.id}")
        deciding = {k: v for k, v in sorted(job.environment.items()) if k.startswith("NNUNET_EXT_")}
        content = [job.command, deciding, [self[n].hash for n in job.needs], data]
        text = json.dumps(content, ensure_ascii=False).replace(str(self.root), "{root}")
        job = Job(**{**values, "hash": hashlib.sha256(text.encode()).hexdigest()[:16]})
        self._by_id[job.id] = job
        return job

    def with_needs(self, job: Job) -> list[Job]:
        """All jobs that a job needs, directly or not, in order, and itself."""
        wanted = {job.id}
        for other in reversed(list(self)):
            if other.id in wanted:
                wanted.update(other.needs)
        return [j for j in self if j.id in wanted]


def script(jobs: Sequence[Job] | Jobs, title: str) -> str:
    """A bash script that does it all, one job after the other; any line works alone after the exports at the top."""
    jobs = list(jobs)
    common = {
        k: v
        for k, v in (jobs[0].environment.items() if jobs else ())
        if k != "nnUNet_results" and all(j.environment.get(k) == v for j in jobs)
    }
    folders = {
        v
        for j in jobs
        for k, v in j.environment.items()
        if k in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    lines = ["#!/usr/bin/env bash", f"# {title}: {len(jobs)} jobs", "set -e", ""]
    lines += [f"unset {' '.join(FROM_MATRIX)}", *(f"export {k}={shlex.quote(v)}" for k, v in common.items())]
    lines += [f"mkdir -p {shlex.join(sorted(folders))}"] if folders else []
    for i, job in enumerate(jobs, 1):
        own = {k: v for k, v in job.environment.items() if k not in common}
        text = " ".join([*(f"{k}={shlex.quote(v)}" for k, v in own.items()), shlex.join(job.command)])
        lines += ["", f"# {i}/{len(jobs)} {job.id}", text]
    return "\n".join(lines) + "\n"
