"""A matrix, its folders, its jobs and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nnunet_ext import weights
from nnunet_ext.benchmark import workflow
from nnunet_ext.benchmark.commands import Folders, build
from nnunet_ext.benchmark.jobs import Jobs
from nnunet_ext.benchmark.matrix import Matrix
from nnunet_ext.benchmark.matrix_file import file_of, load
from nnunet_ext.benchmark.status import Line, Watch
from nnunet_ext.benchmark.store import Store
from nnunet_ext.common.environment import SAM_CHECKPOINT
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import check_replaceable, read_json_if_any, write_json, write_text
from nnunet_ext.common.nnunet_files import DATASET, SPLITS, read_splits
from nnunet_ext.common.text import some

if TYPE_CHECKING:
    from typing import Self

MARK = "benchmark.json"
NNUNETS_FOLDS = 5  # where no split is stored


class Failure(NamedTuple):
    """A job that failed, why, and where to look."""

    job_id: str
    reason: str
    log: Path

    def tail(self, lines: int = 12) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []


class RunResult(NamedTuple):
    """All jobs after a run, the failures, and what Snakemake said where the user asked it for something else."""

    lines: Sequence[Line]
    failures: Sequence[Failure] = ()
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What the steps of ``nnunet_ext benchmark`` share.

    Args:
        file: of the matrix.
    """

    file: Path
    matrix: Matrix
    folders: Folders
    jobs: Jobs
    store: Store

    @classmethod
    def of(cls, what: str | Path, out: Path | None = None) -> Self:
        """Return the benchmark of a TOML file or a preset, in the folder `out` (default: ``benchmark_NAME``).

        Raises:
            InputError: anything is wrong with the matrix or the folders.
        """
        matrix = load(what)
        folders = Folders.of(matrix, out or Path(f"benchmark_{matrix.name}"))
        store = Store(folders.root)
        return cls(file=file_of(what), matrix=matrix, folders=folders, jobs=build(matrix, folders), store=store)

    def claim_folder(self) -> None:
        """Write down whose folder it is, and keep a copy of the matrix there.

        Raises:
            InputError: nothing can be written there, or it is that of a benchmark of another name, whose results would
                be set aside.
        """
        mark, copy = self.folders.root / MARK, self.folders.root / "matrix.toml"
        text, name = self.file.read_text(encoding="utf-8"), read_json_if_any(mark).get("name")
        hint = "Name another folder with --out."

        def ours(path: Path) -> bool:
            return name is not None or (path == copy and path.read_bytes() == text.encode())

        check_replaceable([mark, copy], ours, "nnunet_ext benchmark", hint)
        if name not in (None, self.matrix.name):
            raise InputError(
                f"{self.folders.root} holds the benchmark {name!r}, not {self.matrix.name!r}.",
                hint=hint,
            )
        mark.parent.mkdir(parents=True, exist_ok=True)
        write_json(mark, {"name": self.matrix.name})
        write_text(copy, text)

    def check_folds(self) -> None:
        """Check that every fold is one of the stored split, as far as the data are there already.

        Raises:
            InputError: nnU-Net would draw a random split for some, which knows neither patients nor near-duplicates.
        """
        problems = []
        for dataset in self.matrix.datasets:
            name = self.folders.dataset_name(dataset)
            stored = (
                self.folders.preprocessed / name,
                self.folders.raw / name,
            )  # the latter is copied, unless one is there
            file, number = next(((f / SPLITS, len(s)) for f in stored if (s := read_splits(f))), (None, NNUNETS_FOLDS))
            lacking = [fold for fold in self.matrix.folds if fold >= number]
            if lacking and not (dataset.prepare and file is None):
                what = f"{file} has" if file else f"{name} has no {SPLITS}, and nnU-Net makes one of"
                problems.append(f"{what} the folds 0 to {number - 1}, and not {some(lacking, None)}.")
        if problems:
            raise InputError(*problems, hint="nnU-Net would draw a random split for them: correct folds = [...].")

    def check_data(self) -> None:
        """Check that everything is there that jobs read and no job makes.

        Raises:
            InputError: something is missing; all of it is named.
        """
        self.check_folds()
        problems, hints = [], []
        for dataset in self.matrix.datasets:
            name = self.folders.dataset_name(dataset)
            needed = [] if dataset.prepare else [self.folders.raw / name / DATASET]
            if not dataset.preprocess:
                plans = {row.plans for row in self.matrix.rows_of(dataset)}
                needed += [self.folders.preprocessed / name / f"{p}.json" for p in sorted(plans)]
                needed += [splits := self.folders.preprocessed / name / SPLITS]
                if not splits.exists():
                    hints.append(
                        "Put a splits_final.json there: nnU-Net would make one in the first training, and then all "
                        "that is done would count as of another split."
                    )
            if dataset.test == "imagesTs" and not dataset.prepare:
                needed += [self.folders.raw / name / sub for sub in ("imagesTs", "labelsTs")]
            problems += [f"There is no {path}." for path in needed if not path.exists()]
        if problems:
            hints.insert(0, "Convert the dataset first (nnunet_ext convert --help); --split paper holds cases out.")
        for checkpoint, path in self._missing_sam_weights().items():
            problems.append(f"Some trainers begin with SAM's weights, and there is no {path}.")
            hints.append(weights.hint(path, checkpoint))
        if problems:
            raise InputError(*problems, hint=" ".join(hints))

    def _missing_sam_weights(self) -> dict[weights.Checkpoint, Path]:
        """Return where files should be with which a training begins that is still to be done."""
        pretrained = {row.trainer: row.entry.pretrained for row in self.matrix.rows if row.entry.pretrained}
        begin = [job for job in self.jobs if job.kind == "train" and job.facts["trainer"] in pretrained]
        todo = [job for job in begin if SAM_CHECKPOINT not in job.environment and not self.store.is_done(job)]
        wanted = {weights.CHECKPOINTS[pretrained[job.facts["trainer"]]] for job in todo}
        paths = {checkpoint: weights.location(checkpoint) for checkpoint in wanted}
        return {checkpoint: path for checkpoint, path in paths.items() if path is not None and not path.exists()}

    def run(
        self, *, executor: str = workflow.LOCAL, parallel: int | None = None, passed: Sequence[str] = ()
    ) -> RunResult:
        """Run whatever is not done, and say so line by line.

        Args:
            executor, parallel, passed: see `workflow.run`.
        """
        parallel = parallel or workflow.default_parallel(self.matrix, executor)
        for job in self.jobs:
            self.store.mark(job)
        watch = Watch(self.jobs, self.store, parallel=parallel or 1, slurm=executor == "slurm")
        if not passed and all(line.status == "done" for line in watch.lines):
            return RunResult(watch.lines)
        code = workflow.run(self.jobs, self.matrix, executor=executor, parallel=parallel, passed=passed, watch=watch)
        if code == 0:
            done = all(line.status == "done" for line in watch.lines)
            return RunResult(watch.lines, said="" if done else self._snakemake_log.read_text(errors="replace"))
        failures = (self._failure(line, watch.lines) for line in watch.lines)
        return RunResult(watch.lines, [failure for failure in failures if failure is not None])

    @property
    def _snakemake_log(self) -> Path:
        return self.folders.root / "logs" / "snakemake.log"

    def _failure(self, line: Line, lines: Sequence[Line]) -> Failure | None:
        """Return why a job is not done; None if it is, or waits for one that is not."""
        done = {other.job.id for other in lines if other.status == "done"}
        log = self.store.log(line.job)
        if line.status == "failed":
            return Failure(line.job.id, line.detail, log)
        if line.status in ("interrupted", "running"):
            return Failure(line.job.id, "it was ended from outside: cancelled, or out of time", log)
        if line.status == "waiting" and done.issuperset(line.job.needs):
            return Failure(line.job.id, "Snakemake did not get it started", self._snakemake_log)
        return None
