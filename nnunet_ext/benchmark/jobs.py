"""Jobs: stock command lines, what each needs, and the files that prove it done."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_ext.common.environment import EPOCHS, ITERATIONS, MEMORY, NNUNET_FOLDERS, PREFIX, SEED, VAL_ITERATIONS

FULL = "Make room, or name another folder with --out; the same command goes on."
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
        lock: jobs with the same one never run at the same time; empty for none.
        outputs: files that are there when it is done.
        folder: what it writes into and nothing else does; emptied when the job starts anew. Empty if there is none.
        resume: words to append where an earlier attempt was interrupted; None: it starts anew.
        gpu: whether it computes on one.
        manifest: file to describe the run in; empty for none.
        facts: for the manifest: dataset, trainer, plans, configuration, fold, seed, ...
        hash: of all that its result depends on.
    """

    id: str
    kind: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    needs: Sequence[str] = ()
    lock: str = ""
    outputs: Sequence[str] = ()
    folder: str = ""
    resume: Sequence[str] | None = None
    gpu: bool = False
    manifest: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    hash: str = ""

    @property
    def missing(self) -> list[str]:
        return [path for path in self.outputs if not Path(path).exists()]

    @property
    def contents(self) -> dict[str, tuple[str, ...]]:
        """What is in the folders that a prediction made, by their paths; nothing for other jobs."""
        folders = [Path(path) for path in self.outputs if self.kind == "predict" and Path(path).is_dir()]
        return {str(folder): tuple(sorted(entry.name for entry in folder.iterdir())) for folder in folders}

    def line(self, known: Iterable[str] = ()) -> str:
        """Return what to type: variables that are not `known` to be exported already, then the command."""
        own = [f"{k}={shlex.quote(v)}" for k, v in self.environment.items() if k not in known]
        return " ".join([*own, shlex.join(self.command)])


class Jobs:
    """Jobs in an order in which they can be run one after the other."""

    def __init__(self, root: Path, jobs: Iterable[Job] = ()) -> None:
        self.root = root
        self._by_id = {job.id: job for job in jobs}

    def __iter__(self) -> Iterator[Job]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._by_id

    def __getitem__(self, job_id: str) -> Job:
        return self._by_id[job_id]

    def add(self, *, data: str = "", **values: Any) -> Job:
        """Add a job that comes after those it needs.

        Its hash follows from the command, the variables that change results (NNUNET_EXT_..., but those on memory)
        and the hashes of what it needs, wherever the benchmark's folder is.

        Args:
            data: stands for files that it reads and no other job writes.
            values: of `Job`.
        """
        job = Job(**values)
        if job.id in self._by_id:
            raise ValueError(f"two jobs {job.id}")
        deciding = {k: v for k, v in sorted(job.environment.items()) if k.startswith(PREFIX) and k not in MEMORY}
        content = [job.command, deciding, [self[n].hash for n in job.needs], data]
        text = json.dumps(content, ensure_ascii=False).replace(str(self.root), "{root}")
        job = Job(**values, hash=hashlib.sha256(text.encode()).hexdigest()[:16])
        self._by_id[job.id] = job
        return job

    def with_needs(self, job: Job) -> list[Job]:
        """Return all jobs that a job needs, directly or not, in order, and itself."""
        wanted = {job.id}
        for other in reversed(list(self)):
            if other.id in wanted:
                wanted.update(other.needs)
        return [j for j in self if j.id in wanted]


def script(jobs: Iterable[Job], title: str) -> str:
    """Return a bash script of all jobs, one after the other; any line works alone after the exports at the top."""
    jobs = list(jobs)
    shared = [] if not jobs else [
        (k, v)
        for k, v in jobs[0].environment.items()
        if k != "nnUNet_results" and all(j.environment.get(k) == v for j in jobs)
    ]  # fmt: skip
    folders = sorted({v for j in jobs for k, v in j.environment.items() if k in NNUNET_FOLDERS})
    lines = [
        "#!/usr/bin/env bash",
        f"# {' '.join(title.split())}: {len(jobs)} jobs",
        "set -e",
        "",
        f"unset {' '.join(FROM_MATRIX)}",
    ]
    lines += [f"export {k}={shlex.quote(v)}" for k, v in shared]
    lines += [f"mkdir -p {shlex.join(folders)}"] if folders else []
    for i, job in enumerate(jobs, 1):
        lines += ["", f"# {i}/{len(jobs)} {job.id}", job.line(known=dict(shared))]
    return "\n".join(lines) + "\n"
