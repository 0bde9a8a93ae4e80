"""Finished results of one dataset, as models for the comparison; a refusal where they cannot be compared fairly."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.benchmark.benchmark import Benchmark
from nnunet_ext.benchmark.jobs import Job
from nnunet_ext.benchmark.matrix import Dataset
from nnunet_ext.benchmark.progress import recorded
from nnunet_ext.common.errors import InputError
from nnunet_ext.evaluation.evaluation import Evaluation

SPLITS, HELD_OUT = "splits_final.json", "labelsTs"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished cell of the matrix.

    Args:
        job: that evaluated it.
        manifest: content of its manifest.json.
    """

    job: Job
    evaluation: Evaluation
    manifest: dict[str, Any]

    @property
    def row(self) -> str:
        """Its name."""
        return self.job.facts["row"]

    def seconds(self, kind: str) -> float | None:
        """Wall time of the training, the prediction or the evaluation."""
        return self._step(kind, "seconds")

    def peak_bytes(self, kind: str) -> int | None:
        """On the GPU where that was seen, else of the largest process."""
        return self._step(kind, "gpu_bytes_seen") or self._step(kind, "peak_bytes_of_largest_process")

    def _step(self, kind: str, key: str) -> Any:
        return next((step[key] for step in self.manifest["steps"].values() if step["kind"] == kind), None)


@dataclass(frozen=True, kw_only=True)
class Results:
    """Whatever is finished of a dataset.

    Args:
        runs: by row, in the matrix's order; rows without any are not there.
        missing: what is not finished, a sentence each.
    """

    dataset: Dataset
    runs: dict[str, list[Run]]
    missing: list[str]

    @property
    def models(self) -> dict[str, list[Evaluation]]:
        """The evaluations by row, for `comparison.compare`."""
        return {row: [r.evaluation for r in runs] for row, runs in self.runs.items()}

    @property
    def manifests(self) -> dict[str, list[dict[str, Any]]]:
        """By row."""
        return {row: [r.manifest for r in runs] for row, runs in self.runs.items()}


def collect(benchmark: Benchmark, dataset: Dataset) -> Results:
    """The finished runs of a dataset.

    Raises:
        InputError: nothing is finished, or runs are not of the same split, cases or budget.
    """
    name = benchmark.folders.dataset_name(dataset)
    finished, missing = [], []
    for job in benchmark.jobs:
        if job.kind != "evaluate" or job.facts["dataset"] != name:
            continue
        if benchmark.store.is_done(job):
            finished.append(_run(job))
        else:
            missing.append(_missing(benchmark, job))
    if not finished:
        raise InputError(
            f"Nothing of {name} is finished.",
            *missing,
            hint="nnunet_ext benchmark run goes on with it; benchmark status says how far it is.",
        )
    if unfair := list(differences(finished)):
        raise InputError(*unfair, hint="Run what differs once more, with one set of data and one matrix.")
    rows = dict.fromkeys(job.facts["row"] for job in benchmark.jobs if job.kind == "evaluate")
    runs = {row: own for row in rows if (own := [r for r in finished if r.row == row])}
    if finished[0].job.facts["test"] == "validation":
        runs, dropped = _whole_folds(runs)
        missing += dropped
    return Results(dataset=dataset, runs=runs, missing=missing)


def differences(runs: Sequence[Run]) -> Iterator[str]:
    """Why runs cannot be compared, a sentence each; nothing if they can."""
    for what, key in (("splits (splits_final.json)", SPLITS), ("held-out cases (labelsTs)", HELD_OUT)):
        yield from _differing(what, runs, [run.manifest["sha256"].get(key) for run in runs])
    bound = [run for run in runs if run.manifest["budget"] != "own"]
    yield from _differing("budgets", bound, [_budget(run.manifest["budget"]) for run in bound])


def _differing(what: str, runs: Sequence[Run], values: Sequence[str | None]) -> Iterator[str]:
    names: dict[str | None, list[str]] = {}
    for run, value in zip(runs, values, strict=True):
        names.setdefault(value, []).append(f"{run.row} (seed {run.job.facts['seed']}, fold {run.job.facts['fold']})")
    if len(names) > 1:
        groups = "; ".join(f"{(value or 'none')[:12]}: {', '.join(own)}" for value, own in names.items())
        yield f"The {what} differ: {groups}."


def _budget(variables: dict[str, str]) -> str:
    return ", ".join(f"{k.removeprefix('NNUNET_EXT_').lower()} {v}" for k, v in variables.items()) or "the recipe's"


def _run(job: Job) -> Run:
    manifest = json.loads(Path(job.manifest).read_text())
    evaluation = Evaluation.load(Path(job.outputs[0]))
    facts = ("dataset", "trainer", "plans", "configuration", "fold", "prompts")
    info = {
        **evaluation.info,
        "name": job.facts["row"],
        **{key: job.facts[key] for key in facts},
        # unseeded repeats are told apart by the folder that they are in
        "seed": job.facts["seed"],
        "versions": manifest["versions"],
    }
    return Run(job=job, evaluation=dataclasses.replace(evaluation, info=info), manifest=manifest)


def _missing(benchmark: Benchmark, job: Job) -> str:
    """What keeps a result from being there: the first job on its way that is not done."""
    first = next(j for j in benchmark.jobs.with_needs(job) if not benchmark.store.is_done(j))
    state = recorded(first, benchmark.store)
    reason = benchmark.store.record(first).reason if state == "failed" else ""
    where = f"{job.facts['row']}, seed {job.facts['seed']}, fold {job.facts['fold']}"
    return f"{where}: {first.id} is {state}{f' ({reason})' if reason else ''}"


def _whole_folds(runs: dict[str, list[Run]]) -> tuple[dict[str, list[Run]], list[str]]:
    """Folds validate on different cases: compare as many as every row has, and of each row the seeds that have all."""
    common = set.intersection(*({r.job.facts["fold"] for r in own} for own in runs.values()))
    choices = (set(folds) for n in range(len(common), 0, -1) for folds in itertools.combinations(sorted(common), n))
    for folds in choices:
        kept = {row: _of_seeds_with_all(own, folds) for row, own in runs.items()}
        if all(kept.values()):
            break
    else:
        raise InputError("No fold is finished for all rows.", hint="nnunet_ext benchmark run goes on with it.")
    dropped = [
        f"{row}, seed {r.job.facts['seed']}, fold {r.job.facts['fold']}: finished, but left out: other rows or folds "
        "of this seed are not"
        for row, own in runs.items()
        for r in own
        if r not in kept[row]
    ]
    return kept, dropped


def _of_seeds_with_all(runs: Sequence[Run], folds: set[int]) -> list[Run]:
    """The runs of these folds, of the seeds that have all of them."""
    of_seed: dict[int, set[int]] = {}
    for run in runs:
        of_seed.setdefault(run.job.facts["seed"], set()).add(run.job.facts["fold"])
    return [r for r in runs if r.job.facts["fold"] in folds <= of_seed[r.job.facts["seed"]]]
