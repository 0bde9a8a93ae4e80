"""A matrix, its folders, its jobs and what is known of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext import weights
from nnunet_ext.benchmark import gpu, names
from nnunet_ext.benchmark.commands import build
from nnunet_ext.benchmark.executors.local import LocalExecutor, Outcome
from nnunet_ext.benchmark.folders import Folders
from nnunet_ext.benchmark.jobs import Jobs
from nnunet_ext.benchmark.matrix import Matrix
from nnunet_ext.benchmark.matrix_file import file_of, load
from nnunet_ext.benchmark.state import Store, write_json
from nnunet_ext.common.environment import SAM_CHECKPOINT
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import check_writable, write_text

if TYPE_CHECKING:
    from typing import Self

MARK = "benchmark.json"
Watch = Callable[[Outcome], None]


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
        """Of a TOML file or a preset, in the folder `out` (default: ``benchmark_NAME``).

        Raises:
            InputError: anything wrong with the matrix or the folders.
        """
        matrix = load(what)
        folders = Folders.of(matrix, out or Path(f"benchmark_{matrix.name}"))
        jobs, store = build(matrix, folders), Store(root=folders.root)
        return cls(file=file_of(what), matrix=matrix, folders=folders, jobs=jobs, store=store)

    def claim_folder(self) -> None:
        """Write down whose folder it is, and keep a copy of the matrix there.

        Raises:
            InputError: nothing can be written there, or it is that of a benchmark of another name, whose results would
                be set aside.
        """
        mark = self.folders.root / MARK
        check_writable(mark, "Name another folder with --out.")
        name = json.loads(mark.read_text())["name"] if mark.is_file() else self.matrix.name
        if name != self.matrix.name:
            raise InputError(
                f"{self.folders.root} holds the benchmark {name!r}, not {self.matrix.name!r}.",
                hint="Name another folder with --out.",
            )
        write_json(mark, {"name": self.matrix.name})
        write_text(self.folders.root / "matrix.toml", self.file.read_text(encoding="utf-8"))

    def check_data(self) -> None:
        """Everything that jobs read and no job makes.

        Raises:
            InputError: a dataset is not there; all are named.
        """
        problems, ways_out = [], []
        for dataset in self.matrix.datasets:
            name = self.folders.dataset_name(dataset)
            needed = [] if dataset.prepare else [self.folders.raw / name / "dataset.json"]
            if not dataset.preprocess:
                plans = {r.plans for r in self.matrix.rows_of(dataset)}
                needed += [self.folders.preprocessed / name / f"{p}.json" for p in sorted(plans)]
                needed += [splits := self.folders.preprocessed / name / "splits_final.json"]
                if not splits.exists():
                    ways_out.append(
                        "Put a splits_final.json there: nnU-Net would make one in the first training, and then all "
                        "that is done would count as of another split."
                    )
            if dataset.test == "imagesTs" and not dataset.prepare:
                needed += [self.folders.raw / name / sub for sub in ("imagesTs", "labelsTs")]
            problems += [f"There is no {path}." for path in needed if not path.exists()]
        if problems:
            ways_out.insert(0, "Convert the dataset first (nnunet_ext convert --help); --split paper holds cases out.")
        if path := self._missing_sam_weights():
            problems.append(f"Some trainers begin with SAM's weights, and there is no {path}.")
            ways_out.append(weights.hint(path))
        if problems:
            raise InputError(*problems, hint=" ".join(ways_out))

    def _missing_sam_weights(self) -> Path | None:
        """Where they should be, if a training that is still to be done begins with them and they are not there."""
        begin = [j for j in self.jobs if j.kind == "train" and names.begins_with_sam(j.facts["trainer"])]
        if all(SAM_CHECKPOINT in j.environment or self.store.is_done(j) for j in begin):
            return None
        path = weights.location()
        return path if path is not None and not path.exists() else None

    @property
    def devices(self) -> list[str]:
        """The GPUs of this machine; none where the matrix does not want any."""
        return gpu.visible() if self.matrix.device == "cuda" else []

    def run_here(self, *, parallel: int = 1, watch: Watch = lambda outcome: None) -> Outcome:
        """On this machine, so many jobs at a time, those that compute on a GPU on one each."""
        return LocalExecutor(self.jobs, self.store, parallel=parallel, devices=self.devices, watch=watch).run()

    def run_on_slurm(self, *, watch: Watch = lambda outcome: None, wait: bool = True) -> Outcome:
        """On the cluster that this machine submits to."""
        from nnunet_ext.benchmark.executors.slurm import SlurmExecutor

        return SlurmExecutor(self.jobs, self.store, self.matrix.slurm, watch=watch).run(wait=wait)
