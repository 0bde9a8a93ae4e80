"""A matrix as jobs, in nnU-Net's own commands."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext import weights
from nnunet_ext.benchmark import names
from nnunet_ext.benchmark.folders import Folders
from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.benchmark.manifest import sha256
from nnunet_ext.benchmark.matrix import BEST, Dataset, Matrix, Row, default_plans, slug
from nnunet_ext.common.environment import SAM_CHECKPOINT, SEED
from nnunet_ext.common.errors import InputError


def build(matrix: Matrix, folders: Folders) -> Jobs:
    """All jobs of a matrix.

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
                self._dataset(dataset)
            except InputError as e:
                self.problems.extend(f"{problem} {e.hint}" for problem in e.problems)
        if self.problems:
            raise InputError(*dict.fromkeys(self.problems))
        return self.jobs

    def _dataset(self, dataset: Dataset) -> None:
        name = self.folders.dataset_name(dataset)
        test = self._test(dataset, name)
        prepared = self._prepare(dataset, name)
        plans = self._plan(dataset, name, prepared)
        for seed in self.matrix.seeds:
            for fold in self.matrix.folds:
                for row in self.matrix.rows_of(dataset):
                    run = _Run(dataset=dataset, name=name, row=row, seed=seed, fold=fold, test=test)
                    data = "" if row.plans in plans else self._preprocessed_checksum(name, row)
                    train = self._train(run, (plans[row.plans],) if row.plans in plans else prepared, data)
                    self._evaluate(run, train, self._predict(run, train) if test == "imagesTs" else None)

    def _preprocessed_checksum(self, name: str, row: Row) -> str:
        """Of the splits and the plans that no job makes."""
        folder = self.folders.preprocessed / name
        return _checksums(folder / "splits_final.json", folder / f"{row.plans}.json")

    def _test(self, dataset: Dataset, name: str) -> str:
        """ "imagesTs" or "validation"."""
        if dataset.test != "auto":
            return dataset.test
        labels = self.folders.raw / name / "labelsTs"
        return "imagesTs" if labels.is_dir() and any(labels.iterdir()) else "validation"

    def _prepare(self, dataset: Dataset, name: str) -> tuple[str, ...]:
        """One job per command; the id of the last."""
        last: tuple[str, ...] = ()
        for i, command in enumerate(dataset.prepare, 1):
            is_last = i == len(dataset.prepare)
            job = self.jobs.add(
                id=f"d{dataset.id:03d}_prepare_{i}",
                kind="prepare",
                command=tuple(w.replace("{root}", str(self.folders.root)) for w in shlex.split(command)),
                environment={**self._paths(), **self.matrix.environment["prepare"]},
                needs=last,
                outputs=(str(self.folders.raw / name / "dataset.json"),) if is_last else (),
                resume=(),
                facts={"dataset": name},
            )
            last = (job.id,)
        return last

    def _plan(self, dataset: Dataset, name: str, needs: tuple[str, ...]) -> dict[str, str]:
        """Plans -> the job that makes them and preprocesses; one after the other: they share a fingerprint."""
        if not dataset.preprocess:
            return {}
        raw = self.folders.raw / name
        data = "" if needs else _checksums(raw / "dataset.json", raw / "splits_final.json")
        made: dict[str, str] = {}
        for row in self.matrix.rows_of(dataset):
            if row.plans in made:
                continue
            configurations = [r.configuration for r in self.matrix.rows_of(dataset) if r.plans == row.plans]
            own = () if default_plans(row.planner) == row.plans else ("-overwrite_plans_name", row.plans)
            job = self.jobs.add(
                data=data,
                id=f"d{dataset.id:03d}_plan_{row.plans}",
                kind="plan",
                command=(
                    *("nnUNetv2_plan_and_preprocess", "-d", str(dataset.id)),
                    *("-c", *dict.fromkeys(configurations), "-pl", row.planner, *own),
                    *shlex.split(self.matrix.arguments["plan"]),
                ),
                environment={**self._paths(), **self.matrix.environment["plan"]},
                needs=needs,
                after=tuple(made.values()),
                outputs=(str(self.folders.preprocessed / name / f"{row.plans}.json"),),
                resume=("--clean",),
                facts={"dataset": name, "planner": row.planner, "plans": row.plans},
            )
            made[row.plans] = job.id
        return made

    def _train(self, run: _Run, needs: tuple[str, ...], data: str) -> Job:
        """Rows that differ in prediction only share it."""
        row, best = run.row, run.test == "validation" and run.row.checkpoint == BEST
        job_id = f"{run.prefix}_train_{row.model}{'_valbest' if best else ''}{run.suffix}"
        if job_id in self.jobs:
            return self.jobs[job_id]
        model = self.folders.model(run.name, row, run.seed)
        fold = model / f"fold_{run.fold}"
        if any(j.folder == str(fold) for j in self.jobs):
            self.problems.append(
                f"{row.trainer}: without imagesTs, all rows of one training must have the same checkpoint, because "
                "nnU-Net validates into one folder."
            )
        ours = names.takes_budget_and_seed(row.trainer)
        own = {SEED: str(run.seed), **self.matrix.budget.environment} if ours else {}
        if names.begins_with_sam(row.trainer) and os.environ.get(SAM_CHECKPOINT) == weights.RANDOM:
            own[SAM_CHECKPOINT] = weights.RANDOM  # decides the result, unlike where the file is
        made = [*dict.fromkeys(("checkpoint_final.pth", row.checkpoint))]
        made += ["validation/summary.json"] if run.test == "validation" else []  # the last that a training writes
        return self.jobs.add(
            data=data,
            id=job_id,
            kind="train",
            command=(
                *("nnUNetv2_train", str(run.dataset.id), row.configuration, str(run.fold)),
                *("-tr", row.trainer, "-p", row.plans, *self.device, *(("--val_best",) if best else ())),
                *shlex.split(self.matrix.arguments["train"]),
            ),
            environment={**self._paths(run.seed), **own, **self.matrix.environment["train"]},
            needs=needs,
            outputs=tuple(str(fold / name) for name in made),
            folder=str(fold),
            resume=("--c",),
            gpu=self.matrix.device == "cuda",
            manifest=str(fold / "manifest.json"),
            facts=self._facts(run),
        )

    def _predict(self, run: _Run, train: Job) -> Job:
        """The held-out cases of imagesTs."""
        row, raw = run.row, self.folders.raw / run.name
        out = self.folders.predictions(run.name, row, run.seed, run.fold)
        clicks = row.prompts == "reference"
        where = ("-i", str(raw / "imagesTs"), "-o", str(out), "-f", str(run.fold), "-chk", row.checkpoint)
        if clicks:
            model = self.folders.model(run.name, row, run.seed)
            command = ("nnunet_ext", "predict", "-m", str(model), *where, "--from-reference", str(raw / "labelsTs"))
        else:
            which = ("-d", str(run.dataset.id), "-c", row.configuration, "-tr", row.trainer, "-p", row.plans)
            command = ("nnUNetv2_predict", *where, *which)
        return self.jobs.add(
            id=f"{run.prefix}_predict_{slug(row.name)}{run.suffix}",
            kind="predict",
            command=(*command, *self.device, *(() if clicks else shlex.split(self.matrix.arguments["predict"]))),
            environment={**self._paths(run.seed), **self.matrix.environment["predict"]},
            needs=(train.id,),
            outputs=(str(out),),
            folder=str(out),
            resume=() if clicks else None,  # nnU-Net's writing is not atomic: a file may be there and broken
            gpu=self.matrix.device == "cuda",
            manifest=str(out / "manifest.json"),
            facts=self._facts(run),
        )

    def _evaluate(self, run: _Run, train: Job, predict: Job | None) -> Job:
        row, raw = run.row, self.folders.raw / run.name
        out = self.folders.evaluation(run.name, row, run.seed, run.fold)
        if predict is None and row.prompts == "reference" and not row.trainer.endswith("Click"):
            self.problems.append(f'{row.name}: prompts = "reference" needs held-out cases in {raw / "imagesTs"}.')
        if predict is None:  # nnU-Net's own validation at the end of the training
            where = ("-m", str(self.folders.model(run.name, row, run.seed)), "-f", str(run.fold))
        else:
            where = ("--pred", predict.folder, "--ref", str(raw / "labelsTs"))
            where += ("--dataset-json", str(raw / "dataset.json"))
        return self.jobs.add(
            id=f"{run.prefix}_evaluate_{slug(row.name)}{run.suffix}",
            kind="evaluate",
            command=(
                *("nnunet_ext", "evaluate", *where, "--out", str(out), "--name", row.name),
                *shlex.split(self.matrix.arguments["evaluate"]),
            ),
            environment={**self._paths(run.seed), **self.matrix.environment["evaluate"]},
            needs=((predict or train).id,),
            outputs=(str(out / "metrics.json"),),
            folder=str(out),
            manifest=str(out / "manifest.json"),
            facts=self._facts(run),
        )

    def _paths(self, seed: int | None = None) -> dict[str, str]:
        paths = {"nnUNet_raw": str(self.folders.raw), "nnUNet_preprocessed": str(self.folders.preprocessed)}
        results = self.matrix.seeds[0] if seed is None else seed
        return paths | {"nnUNet_results": str(self.folders.results(results))}

    def _facts(self, run: _Run) -> dict[str, Any]:
        row, ours = run.row, names.takes_budget_and_seed(run.row.trainer)
        return {
            "row": row.name,
            "dataset": run.name,
            "trainer": row.trainer,
            "planner": row.planner,
            "plans": row.plans,
            "configuration": row.configuration,
            "fold": run.fold,
            "seed": run.seed,
            "seeded": ours,
            "budget": self.matrix.budget.environment if ours else "own",
            "checkpoint": row.checkpoint,
            "prompts": row.prompts,
            "test": run.test,
            "device": self.matrix.device,
        }


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One cell of the matrix."""

    dataset: Dataset
    name: str
    row: Row
    seed: int
    fold: int
    test: str

    @property
    def prefix(self) -> str:
        return f"d{self.dataset.id:03d}"

    @property
    def suffix(self) -> str:
        return f"_fold{self.fold}_seed{self.seed}"


def _checksums(*files: Path) -> str:
    """What changes when one of the files does, or is there where it was not."""
    return "".join(sha256(file) or "" for file in files)
