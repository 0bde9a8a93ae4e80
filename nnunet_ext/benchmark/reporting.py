"""The report of a benchmark: what is finished and can be compared fairly, what papers state, costs, what is missing."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_ext import comparison, report
from nnunet_ext.benchmark.benchmark import Benchmark
from nnunet_ext.benchmark.jobs import Job, script
from nnunet_ext.benchmark.matrix import Dataset
from nnunet_ext.benchmark.status import lines
from nnunet_ext.benchmark.store import Manifest
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import SPLITS
from nnunet_ext.common.processes import Track, untracked
from nnunet_ext.common.shapes import read_as
from nnunet_ext.common.text import aligned
from nnunet_ext.comparison import DEFAULT_METRICS, ModelRuns
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.report.costs import costs
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.tables import published


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One finished cell of the matrix.

    Args:
        job: that evaluated it.
        train: that trained it.
        manifest: content of the evaluation's manifest.json.
    """

    job: Job
    train: Job
    evaluation: Evaluation
    manifest: Manifest

    @property
    def row(self) -> str:
        return self.job.facts["row"]

    @property
    def cell(self) -> tuple[int, int]:
        """Seed and fold."""
        return self.job.facts["seed"], self.job.facts["fold"]


@dataclass(frozen=True, kw_only=True)
class Results:
    """Whatever is finished of a dataset.

    Args:
        runs: by row, in the matrix's order; rows without any are not there.
        missing: what is not finished, a sentence each.
    """

    dataset: Dataset
    runs: dict[str, list[FinishedRun]]
    missing: list[str]

    @property
    def models(self) -> dict[str, list[Evaluation]]:
        """The evaluations by row, for `comparison.compare`."""
        return {row: [run.evaluation for run in runs] for row, runs in self.runs.items()}

    @property
    def held_out(self) -> bool:
        """Whether the cases are those of imagesTs."""
        return next(iter(self.runs.values()))[0].job.facts["test"] == "imagesTs"


def collect(benchmark: Benchmark, dataset: Dataset) -> Results:
    """Return the finished runs of a dataset.

    Raises:
        InputError: nothing is finished, or runs are not of the same split, cases or budget.
    """
    name = benchmark.folders.dataset_name(dataset)
    jobs = [job for job in benchmark.jobs if job.kind == "evaluate" and job.facts["dataset"] == name]
    finished = [_run(benchmark, job) for job in jobs if benchmark.store.is_done(job)]
    missing = [_missing(benchmark, job) for job in jobs if not benchmark.store.is_done(job)]
    if not finished:
        raise InputError(
            f"Nothing of {name} is finished.",
            *missing,
            hint="nnunet_ext benchmark run goes on with it; benchmark status says how far it is.",
        )
    if unfair := list(differences(finished)):
        raise InputError(*unfair, hint="FinishedRun what differs once more, with one set of data and one matrix.")
    rows = dict.fromkeys(job.facts["row"] for job in jobs)
    runs = {row: own for row in rows if (own := [run for run in finished if run.row == row])}
    if finished[0].job.facts["test"] == "validation":
        runs, dropped = whole_folds(runs)
        missing += dropped
    return Results(dataset=dataset, runs=runs, missing=missing)


def differences(runs: Sequence[FinishedRun]) -> Iterator[str]:
    """Yield why runs cannot be compared, a sentence each; nothing if they can."""
    for what, key in (("splits (splits_final.json)", SPLITS), ("held-out cases (labelsTs)", "labelsTs")):
        yield from _differing(what, runs, [run.manifest.sha256.get(key) for run in runs])
    budgets = [(run, _budget(budget)) for run in runs if isinstance(budget := run.manifest.budget, dict)]  # not "own"
    yield from _differing("budgets", [run for run, _ in budgets], [text for _, text in budgets])


def _differing(what: str, runs: Sequence[FinishedRun], values: Sequence[str | None]) -> Iterator[str]:
    names: dict[str | None, list[str]] = defaultdict(list)
    for run, value in zip(runs, values, strict=True):
        names[value].append("{} (seed {}, fold {})".format(run.row, *run.cell))
    if len(names) > 1:
        groups = "; ".join(f"{(value or 'none')[:12]}: {', '.join(own)}" for value, own in names.items())
        yield f"The {what} differ: {groups}."


def _budget(variables: dict[str, str]) -> str:
    return ", ".join(f"{k.removeprefix('NNUNET_EXT_').lower()} {v}" for k, v in variables.items()) or "the recipe's"


def _run(benchmark: Benchmark, job: Job) -> FinishedRun:
    manifest, evaluation = read_as(Manifest, Path(job.manifest)), Evaluation.load(Path(job.outputs[0]))
    # unseeded repeats are distinguished by the seed of the folder that they are in
    facts = ("dataset", "trainer", "plans", "configuration", "fold", "prompts", "seed")
    info = {key: job.facts[key] for key in facts} | {"name": job.facts["row"], "versions": manifest.versions}
    train = next(other for other in benchmark.jobs.with_needs(job) if other.kind == "train")
    evaluation = replace(evaluation, info={**evaluation.info, **info})
    return FinishedRun(job=job, train=train, evaluation=evaluation, manifest=manifest)


def _missing(benchmark: Benchmark, job: Job) -> str:
    """Return what keeps a result from being there: the first job on its way that is not done."""
    way = lines(benchmark.jobs.with_needs(job), benchmark.store, {})
    first = next(line for line in way if line.status != "done")
    reason = f" ({first.detail})" if first.status == "failed" else ""
    where = f"{job.facts['row']}, seed {job.facts['seed']}, fold {job.facts['fold']}"
    return f"{where}: {first.job.id} is {first.status}{reason}"


def whole_folds(runs: dict[str, list[FinishedRun]]) -> tuple[dict[str, list[FinishedRun]], list[str]]:
    """Return as many folds as every row has, of each row the seeds that have all of them, and what is left out.

    Folds validate on different cases, so that rows with other folds cannot be compared.
    """
    common = set.intersection(*({run.cell[1] for run in own} for own in runs.values()))
    choices = (set(folds) for n in range(len(common), 0, -1) for folds in itertools.combinations(sorted(common), n))
    for folds in choices:
        kept = {row: _of_seeds_with_all(own, folds) for row, own in runs.items()}
        if all(kept.values()):
            break
    else:
        raise InputError("No fold is finished for all rows.", hint="nnunet_ext benchmark run goes on with it.")
    text = "{}, seed {}, fold {}: finished, but left out: other rows or folds of this seed are not"
    return kept, [text.format(row, *run.cell) for row, own in runs.items() for run in own if run not in kept[row]]


def _of_seeds_with_all(runs: Sequence[FinishedRun], folds: set[int]) -> list[FinishedRun]:
    of_seed: dict[int, set[int]] = defaultdict(set)
    for seed, fold in (run.cell for run in runs):
        of_seed[seed].add(fold)
    return [run for run in runs if run.cell[1] in folds <= of_seed[run.cell[0]]]


def write(benchmark: Benchmark, *, track: Track = untracked) -> Iterator[str]:
    """Make the report of every dataset in ``report/DATASET`` of the benchmark's folder; yields lines to print.

    Raises:
        InputError: nothing is finished, or what is finished cannot be compared fairly.
    """
    datasets = {benchmark.folders.dataset_name(dataset): dataset for dataset in benchmark.matrix.datasets}
    names, title = list(datasets), benchmark.matrix.title or benchmark.matrix.name
    finished = {j.facts["dataset"] for j in benchmark.jobs if j.kind == "evaluate" and benchmark.store.is_done(j)}
    for name in [n for n in names if n in finished] or names[:1]:
        results, folder = collect(benchmark, datasets[name]), benchmark.folders.root / "report" / name
        extras = _extras(benchmark, results)
        compared = None
        yield f"{title}: {name}\n"
        if len(results.models) > 1:
            compared = comparison.compare(
                results.models, metrics=_metrics(benchmark, results), primary=benchmark.matrix.primary
            )
            yield comparison.to_text(compared)
            comparison.save(compared, folder)
        else:
            yield f"Only {next(iter(results.models))} is finished: there is nothing to compare it with yet."
        pooled = [ModelRuns(name=row, runs=runs) for row, runs in results.models.items()]
        yield from _tables(ReportData(models=pooled, comparison=compared, extras=extras))
        yield from (f"note: {text}" for text in _notes(benchmark, results))
        yield from (f"missing: {text}" for text in results.missing)
        images = benchmark.folders.raw / name / ("imagesTs" if results.held_out else "imagesTr")
        report.build_report(
            results.models,
            folder / "report.html",
            comparison=compared,
            images=images if images.is_dir() else None,
            extras=extras,
            title=title,
            track=track,
        )
        yield f"{folder / 'report.html'}"
    yield from (f"missing: nothing of {name} is finished" for name in names if name not in finished)


def _metrics(benchmark: Benchmark, results: Results) -> list[str]:
    """Return the usual metrics and those that papers state: what all runs have measured, and any has a value of."""
    wanted = dict.fromkeys((*DEFAULT_METRICS, *(key for p in benchmark.matrix.published for key in p.metrics)))
    runs = [run for own in results.models.values() for run in own]
    measured = [key for key in wanted if not any(run.lacks(key) for run in runs)]
    return [key for key in measured if any(run.table[run.units.column(key)].notna().any() for run in runs)]


def _tables(data: ReportData) -> Iterator[str]:
    """Yield, as on the page, what papers state next to what came out here, and what every row cost."""
    if stated := published(data):
        rows = [["published", "metric", "paper", "here"]]
        for row in stated["rows"]:
            here, count = row["ours"], f"of {len(data.cases)} cases"
            said = "not finished" if row["entry"].row not in data.names else "undefined"
            if here and here.n:
                runs = len(here.repeat_means)
                spread = f", sd over {runs} runs {here.repeat_sd:.3g}" if runs > 1 else ""
                said = f"{here.mean:.4g}  ({row['structure']}, mean of {here.n} {count}{spread})"
            rows.append([row["entry"].row, row["label"], f"{row['published']:.4g}", said])
        yield from ("", *aligned(rows))
        for text in dict.fromkeys(f"{p.row}: {p.source}. {p.note}".rstrip() for p in data.extras.published):
            yield f"  {text}"
        yield from (f"  differs: {text}" for text in stated["differences"])
    if cost := costs(data):
        yield from ("", *aligned([["cost", *cost["heads"]], *([name, *cells] for name, cells in cost["rows"])]), "")


def _notes(benchmark: Benchmark, results: Results) -> list[str]:
    notes = list(benchmark.matrix.notes)
    if own := [row for row, runs in results.runs.items() if runs[0].job.facts["budget"] == "own"]:
        notes.append(
            f"{', '.join(own)}: nnU-Net's own trainers have their own budget and take no seed; their runs are unseeded "
            "repeats."
        )
    if results.held_out and len(benchmark.matrix.folds) > 1:
        notes.append("Every fold predicted the same held-out cases: folds count as repeats, like seeds.")
    cells = len(benchmark.matrix.seeds) * len(benchmark.matrix.folds)
    few = {row: len(runs) for row, runs in results.runs.items() if len(runs) < cells}
    return notes + [f"{row}: {count} of {cells} runs are finished." for row, count in few.items()]


def _device(train: Job) -> str:
    """Return that of a training; an evaluation, whose manifest a run has, may have had another node without a GPU."""
    machine = read_as(Manifest, Path(train.manifest)).machine
    return machine.gpus[0] if train.gpu and machine.gpus else machine.cpu


def _extras(benchmark: Benchmark, results: Results) -> report.Extras:
    done = {job.id for runs in results.runs.values() for run in runs for job in benchmark.jobs.with_needs(run.job)}
    commands = script([job for job in benchmark.jobs if job.id in done], "").splitlines()
    return report.Extras(
        model_folders={row: [Path(run.train.folder) for run in runs] for row, runs in results.runs.items()},
        costs={row: report.Cost(device=_device(runs[0].train)) for row, runs in results.runs.items()},
        commands=[line for line in commands if line and not line.startswith(("#", "set "))],
        manifests={row: [run.manifest.model_dump() for run in runs] for row, runs in results.runs.items()},
        published=benchmark.matrix.published_of(results.dataset),
        differences=benchmark.matrix.differences,
        notes=[*_notes(benchmark, results), *(f"Missing: {text}." for text in results.missing)],
    )
