"""A run of quick jobs in a process of its own, for tests to kill: ``python benchmark_runner.py ROOT``.

Every job is this file as well: ``python benchmark_runner.py train FOLDER EPOCHS [--c]`` counts epochs as a training
does, says so in FOLDER/epochs, keeps a checkpoint, and complains in FOLDER/doubled if it is not alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_ext.benchmark import matrix_file, workflow
from nnunet_ext.benchmark.benchmark import Benchmark, RunResult
from nnunet_ext.benchmark.commands import Folders
from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.store import Store
from nnunet_ext.cli.benchmark import _ended_like_interrupted
from nnunet_ext.common.processes import is_running

EPOCH = float(os.environ.get("SECONDS_PER_EPOCH", "0.05"))
MATRIX = {"name": "m", "datasets": [{"id": 29}], "rows": [{"trainer": "nnUNetTrainer"}]}


def benchmark(jobs: Jobs, **matrix: Any) -> Benchmark:
    """Made-up jobs in the place of a matrix's."""
    made, root = matrix_file.parse({**MATRIX, **matrix}), jobs.root
    folders = Folders(root=root, raw=root, preprocessed=root)
    return Benchmark(file=Path(), matrix=made, folders=folders, jobs=jobs, store=Store(root))


def shell(jobs: Jobs, job_id: str, text: str, **values: Any) -> Job:
    """A job that runs bash; what follows the text (--c) are its arguments."""
    return jobs.add(**{"id": job_id, "kind": "train", "command": ("bash", "-c", text, "bash"), **values})


def states(result: RunResult) -> dict[str, str]:
    """Job -> what has become of it."""
    return {line.job.id: line.status for line in result.lines}


def worker(jobs: Jobs, executor: str = "local", module: str = "worker", **matrix: Any) -> list[str]:
    """The command by which a workflow's rules run a job, but for its id; the workflow is written."""
    file = jobs.root / "flow"
    workflow.write(file, jobs, benchmark(jobs, **matrix).matrix, executor)
    return [sys.executable, "-m", f"nnunet_ext.benchmark.{module}", f"{file}.json"]


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Until it holds; whether in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def make(root: Path, trainings: int = 3, epochs: int = 6) -> Jobs:
    """A plan, trainings that need it, and an evaluation of each."""
    jobs = Jobs(root)
    this = (sys.executable, str(Path(__file__).resolve()))
    plan = jobs.add(
        id="plan", kind="plan", command=(*this, "touch", f"{root}/plan"), outputs=(f"{root}/plan",), resume=()
    )
    for i in range(trainings):
        folder = f"{root}/training_{i}"
        train = jobs.add(
            id=f"train_{i}",
            kind="train",
            command=(*this, "train", folder, str(epochs)),
            needs=(plan.id,),
            outputs=(f"{folder}/checkpoint_final.pth",),
            folder=folder,
            resume=("--c",),
        )
        jobs.add(
            id=f"evaluate_{i}",
            kind="evaluate",
            command=(*this, "touch", f"{root}/evaluation_{i}"),
            needs=(train.id,),
            outputs=(f"{root}/evaluation_{i}",),
        )
    return jobs


def train(folder: Path, epochs: int, proceed: bool) -> None:
    """Count."""
    folder.mkdir(parents=True, exist_ok=True)
    _alone(folder)
    checkpoint = folder / "checkpoint_latest.pth"
    done = int(zipfile.ZipFile(checkpoint).read("epoch")) if proceed and checkpoint.exists() else 0
    for epoch in range(done, epochs):
        time.sleep(EPOCH)
        _say(folder / "epochs", str(epoch))
        _save(checkpoint, epoch + 1)
    _save(folder / "checkpoint_final.pth", epochs)
    (folder / "alone").unlink()


def _alone(folder: Path) -> None:
    mark = folder / "alone"
    other = int(mark.read_text() or 0) if mark.exists() else 0
    if other and is_running(other):
        _say(folder / "doubled", f"{os.getpid()} beside {other}")
    mark.write_text(str(os.getpid()))


def _save(file: Path, epoch: int) -> None:
    partial = file.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        archive.writestr("epoch", str(epoch))
    partial.replace(file)


def _say(file: Path, line: str) -> None:
    with file.open("a") as stream:
        stream.write(line + "\n")


def main(what: str, *arguments: str) -> None:
    """See above."""
    if what == "train":
        train(Path(arguments[0]), int(arguments[1]), "--c" in arguments)
    elif what == "touch":
        _say(Path(arguments[0]), str(os.getpid()))
    else:
        root = Path(what)
        with _ended_like_interrupted():
            result = benchmark(make(root)).run(parallel=2)
        (root / "states.json").write_text(json.dumps(states(result)))


if __name__ == "__main__":
    main(*sys.argv[1:])
