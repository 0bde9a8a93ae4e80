"""The report of a benchmark: the comparison, what papers state, what it cost, what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nnunet_ext import comparison, report
from nnunet_ext.benchmark.benchmark import Benchmark
from nnunet_ext.benchmark.collect import Results, collect
from nnunet_ext.benchmark.jobs import Job, script
from nnunet_ext.common.files import read_json
from nnunet_ext.common.processes import Track, untracked
from nnunet_ext.common.text import aligned
from nnunet_ext.comparison import DEFAULT_METRICS, ModelRuns
from nnunet_ext.report.costs import costs
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.tables import published


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
            compared = comparison.compare(results.models, metrics=_metrics(benchmark, results))
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
    machine = read_json(Path(train.manifest))["machine"]
    return machine["gpus"][0] if train.gpu and machine["gpus"] else machine["cpu"]


def _extras(benchmark: Benchmark, results: Results) -> report.Extras:
    done = {job.id for runs in results.runs.values() for run in runs for job in benchmark.jobs.with_needs(run.job)}
    commands = script([job for job in benchmark.jobs if job.id in done], "").splitlines()
    return report.Extras(
        model_folders={row: [Path(run.train.folder) for run in runs] for row, runs in results.runs.items()},
        costs={row: report.Cost(device=_device(runs[0].train)) for row, runs in results.runs.items()},
        commands=[line for line in commands if line and not line.startswith(("#", "set "))],
        manifests={row: [run.manifest for run in runs] for row, runs in results.runs.items()},
        published=benchmark.matrix.published_of(results.dataset),
        differences=benchmark.matrix.differences,
        notes=[*_notes(benchmark, results), *(f"Missing: {text}." for text in results.missing)],
    )
