"""A matrix as jobs in nnU-Net's own commands, and the folders that they work in."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_ext import weights
from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.matrix import BEST, Dataset, Matrix, Row, default_plans, slug
from nnunet_ext.common.environment import SAM_CHECKPOINT, SEED
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import sha256
from nnunet_ext.common.nnunet_files import DATASET, SPLITS

LONGEST = 200  # bytes of a job's id, which begins the names of files


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The folders of one benchmark.

    Args:
        root: everything that it makes, but for preprocessed data where `data` is "environment".
        raw, preprocessed: nnU-Net's.
    """

    root: Path
    raw: Path
    preprocessed: Path

    @classmethod
    def of(cls, matrix: Matrix, root: Path) -> Folders:
        """Return the user's own raw and preprocessed data, or the benchmark's.

        Raises:
            InputError: nnU-Net's variables are not set, or the root is a file.
        """
        root = root.resolve()
        if root.exists() and not root.is_dir():
            raise InputError(f"{root} is a file.", hint="Name a folder with --out.")
        if matrix.data == "own":
            return cls(root=root, raw=root / "nnUNet_raw", preprocessed=root / "nnUNet_preprocessed")
        values = {name: os.environ.get(name, "") for name in ("nnUNet_raw", "nnUNet_preprocessed")}
        if missing := [name for name, value in values.items() if not value]:
            raise InputError(
                *(f"{name} is not set." for name in missing),
                hint=f"export {' '.join(f'{name}=/path/to/{name}' for name in missing)}",
            )
        raw, preprocessed = (Path(value).resolve() for value in values.values())
        return cls(root=root, raw=raw, preprocessed=preprocessed)

    def results(self, seed: int) -> Path:
        """Return the nnUNet_results of a seed: nnU-Net's folders carry no seed."""
        return self.root / "nnUNet_results" / f"seed_{seed}"

    def dataset_name(self, dataset: Dataset) -> str:
        """Return a dataset's folder: as the matrix has it, or the one of that number in nnUNet_raw or _preprocessed.

        Raises:
            InputError: there is none, or more than one.
        """
        if dataset.name:
            return dataset.name
        pattern = f"Dataset{dataset.id:03d}_*"
        found = sorted({p.name for folder in (self.raw, self.preprocessed) for p in folder.glob(pattern) if p.is_dir()})
        if len(found) != 1:
            raise InputError(
                f"Dataset {dataset.id} is {'not' if not found else 'more than once'} in {self.raw}"
                f"{': ' + ', '.join(found) if found else ''}.",
                hint="Convert it (nnunet_ext convert --help), or say which with name = ... in [[datasets]].",
            )
        return found[0]


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One cell of the matrix; `test` is "imagesTs" or "validation"."""

    dataset: Dataset
    name: str
    row: Row
    seed: int
    fold: int
    test: str

    def job_id(self, kind: str, of: str) -> str:
        return f"d{self.dataset.id:03d}_{kind}_{of}_fold{self.fold}_seed{self.seed}"


def build(matrix: Matrix, folders: Folders) -> Jobs:
    """Return all jobs of a matrix.

    Raises:
        InputError: a dataset is not there, or a row cannot be predicted as it asks; everything is named.
    """
    return _Builder(matrix, folders).build()


class _Builder:
    def __init__(self, matrix: Matrix, folders: Folders) -> None:
        self.matrix, self.folders = matrix, folders
        self.jobs = Jobs(folders.root)
        self.device = () if matrix.device == "cuda" else ("-device", matrix.device)
        self.problems: list[str] = []

    def build(self) -> Jobs:
        for dataset in self.matrix.datasets:
            try:
                self._dataset(dataset, self.folders.dataset_name(dataset))
            except InputError as e:
                self.problems.extend(f"{problem} {e.hint}" for problem in e.problems)
        if self.problems:
            raise InputError(*dict.fromkeys(self.problems))
        return self.jobs

    def _dataset(self, dataset: Dataset, name: str) -> None:
        labels = self.folders.raw / name / "labelsTs"
        held_out = labels.is_dir() and any(labels.iterdir())
        test = dataset.test if dataset.test != "auto" else "imagesTs" if held_out else "validation"
        prepared = self._prepare(dataset, name)
        plans = self._plan(dataset, name, prepared)
        for seed in self.matrix.seeds:
            for fold in self.matrix.folds:
                for row in self.matrix.rows_of(dataset):
                    cell = _Cell(dataset=dataset, name=name, row=row, seed=seed, fold=fold, test=test)
                    data, folder = "", self.folders.preprocessed / name
                    if row.plans not in plans:  # no job makes the split and the plans
                        data = _checksums(folder / SPLITS, folder / f"{row.plans}.json")
                    train = self._train(cell, (plans[row.plans],) if row.plans in plans else prepared, data)
                    self._evaluate(cell, train, self._predict(cell, train) if test == "imagesTs" else None)

    def _prepare(self, dataset: Dataset, name: str) -> tuple[str, ...]:
        """Add a job per command; returns the id of the last."""
        last: tuple[str, ...] = ()
        for i, command in enumerate(dataset.prepare, 1):
            made = (str(self.folders.raw / name / DATASET),) if i == len(dataset.prepare) else ()
            words = tuple(word.replace("{root}", str(self.folders.root)) for word in shlex.split(command))
            job = self._add(
                "prepare", words, id=f"d{dataset.id:03d}_prepare_{i}", needs=last, outputs=made, resume=(),
                facts={"dataset": name},
            )  # fmt: skip
            last = (job.id,)
        return last

    def _plan(self, dataset: Dataset, name: str, needs: tuple[str, ...]) -> dict[str, str]:
        """Add a job for each plans' name, which preprocesses as well; returns plans -> job."""
        if not dataset.preprocess:
            return {}
        raw = self.folders.raw / name
        data = "" if needs else _checksums(raw / DATASET, raw / SPLITS)
        made: dict[str, str] = {}
        for row in self.matrix.rows_of(dataset):
            if row.plans in made:
                continue
            configurations = [r.configuration for r in self.matrix.rows_of(dataset) if r.plans == row.plans]
            own = () if default_plans(row.planner) == row.plans else ("-overwrite_plans_name", row.plans)
            words = ("nnUNetv2_plan_and_preprocess", "-d", str(dataset.id))
            job = self._add(
                "plan",
                (*words, "-c", *dict.fromkeys(configurations), "-pl", row.planner, *own),
                data=data,
                id=f"d{dataset.id:03d}_plan_{row.plans}",
                needs=needs,
                lock=f"d{dataset.id:03d}_plan",  # plans of one dataset share a fingerprint
                outputs=(str(self.folders.preprocessed / name / f"{row.plans}.json"),),
                resume=("--clean",),
                facts={"dataset": name, "planner": row.planner, "plans": row.plans},
            )
            made[row.plans] = job.id
        return made

    def _train(self, cell: _Cell, needs: tuple[str, ...], data: str) -> Job:
        """Add a training; rows that differ in prediction only share it."""
        row, best = cell.row, cell.test == "validation" and cell.row.checkpoint == BEST
        job_id = cell.job_id("train", f"{row.model}{'_valbest' if best else ''}")
        if job_id in self.jobs:
            return self.jobs[job_id]
        fold = self._model(cell) / f"fold_{cell.fold}"
        if any(j.folder == str(fold) for j in self.jobs):
            self.problems.append(
                f"{row.trainer}: without imagesTs, all rows of one training must have the same checkpoint, because "
                "nnU-Net validates into one folder."
            )
        own = {SEED: str(cell.seed), **self.matrix.budget.environment} if row.entry.follows_environment else {}
        if row.entry.pretrained and os.environ.get(SAM_CHECKPOINT) == weights.RANDOM:
            own[SAM_CHECKPOINT] = weights.RANDOM  # decides the result, unlike where the file is
        made = [*dict.fromkeys(("checkpoint_final.pth", row.checkpoint))]
        made += ["validation/summary.json"] if cell.test == "validation" else []  # the last that a training writes
        words = ("nnUNetv2_train", str(cell.dataset.id), row.configuration, str(cell.fold), "-tr", row.trainer)
        return self._add(
            "train",
            (*words, "-p", row.plans, *self.device, *(("--val_best",) if best else ())),
            cell,
            variables=own,
            data=data,
            id=job_id,
            needs=needs,
            outputs=tuple(str(fold / name) for name in made),
            folder=str(fold),
            resume=("--c",),
        )

    def _predict(self, cell: _Cell, train: Job) -> Job:
        """Add the prediction of the held-out cases of imagesTs."""
        row, raw, out = cell.row, self.folders.raw / cell.name, self._out("predictions", cell)
        clicks = row.prompts == "reference"
        where = ("-i", str(raw / "imagesTs"), "-o", str(out), "-f", str(cell.fold), "-chk", row.checkpoint)
        which = ("-d", str(cell.dataset.id), "-c", row.configuration, "-tr", row.trainer, "-p", row.plans)
        words: tuple[str, ...] = ("nnUNetv2_predict", *where, *which)
        if clicks:
            words = ("nnunet_ext", "predict", "-m", str(self._model(cell)), *where, "--from-reference")
            words += (str(raw / "labelsTs"),)
        return self._add(
            "predict",
            (*words, *self.device),
            cell,
            arguments="" if clicks else self.matrix.arguments.predict,
            id=cell.job_id("predict", slug(row.name)),
            needs=(train.id,),
            outputs=(str(out),),
            folder=str(out),
            resume=() if clicks else None,  # nnU-Net's writing is not atomic: a file may be there and broken
        )

    def _evaluate(self, cell: _Cell, train: Job, predict: Job | None) -> Job:
        row, raw, out = cell.row, self.folders.raw / cell.name, self._out("evaluations", cell)
        if predict is None and row.prompts == "reference" and row.entry.prompts != "click":
            self.problems.append(f'{row.name}: prompts = "reference" needs held-out cases in {raw / "imagesTs"}.')
        where: tuple[str, ...] = ("-m", str(self._model(cell)), "-f", str(cell.fold))  # nnU-Net's own validation
        if predict is not None:
            where = ("--pred", predict.folder, "--ref", str(raw / "labelsTs"))
            where += ("--dataset-json", str(raw / DATASET))
        return self._add(
            "evaluate",
            ("nnunet_ext", "evaluate", *where, "--out", str(out), "--name", row.name),
            cell,
            id=cell.job_id("evaluate", slug(row.name)),
            needs=((predict or train).id,),
            outputs=(str(out / "metrics.json"),),
            folder=str(out),
        )

    def _add(
        self,
        kind: str,
        words: tuple[str, ...],
        cell: _Cell | None = None,
        *,
        variables: dict[str, str] | None = None,
        arguments: str | None = None,
        **values: Any,
    ) -> Job:
        """Add a job with the arguments and variables of its kind; that of a cell has facts and a manifest."""
        if len(values["id"].encode()) > LONGEST:
            self.problems.append(f"{values['id'][:LONGEST]}...: too long for the name of a file; shorten its parts.")
        more = getattr(self.matrix.arguments, kind) if arguments is None else arguments
        environment = {
            "nnUNet_raw": str(self.folders.raw),
            "nnUNet_preprocessed": str(self.folders.preprocessed),
            "nnUNet_results": str(self.folders.results(cell.seed if cell else self.matrix.seeds[0])),
            **(variables or {}),
            **self.matrix.environment[kind],
        }
        if cell is not None:
            values |= {"facts": self._facts(cell), "manifest": str(Path(values["folder"]) / "manifest.json")}
            values["gpu"] = kind != "evaluate" and self.matrix.device == "cuda"
        return self.jobs.add(kind=kind, command=(*words, *shlex.split(more)), environment=environment, **values)

    def _model(self, cell: _Cell) -> Path:
        return self.folders.results(cell.seed) / cell.name / cell.row.model

    def _out(self, what: str, cell: _Cell) -> Path:
        return self.folders.root / what / cell.name / slug(cell.row.name) / f"seed_{cell.seed}" / f"fold_{cell.fold}"

    def _facts(self, cell: _Cell) -> dict[str, Any]:
        ours = cell.row.entry.follows_environment
        row = {key: value for key, value in asdict(cell.row).items() if key not in ("name", "datasets")}
        facts = {"row": cell.row.name, "dataset": cell.name, **row, "fold": cell.fold, "seed": cell.seed}
        budget = self.matrix.budget.environment if ours else "own"
        return {**facts, "seeded": ours, "budget": budget, "test": cell.test, "device": self.matrix.device}


def _checksums(*files: Path) -> str:
    """Return what changes when one of the files does, or is there where it was not."""
    return "".join(sha256(file) for file in files if file.is_file())
