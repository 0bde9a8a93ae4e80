"""The report of a benchmark: the comparison, what papers state, what it cost, what is missing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunet_ext import comparison, registry, report
from nnunet_ext.benchmark.benchmark import Benchmark
from nnunet_ext.benchmark.collect import Results, Run, collect
from nnunet_ext.benchmark.jobs import Job, script
from nnunet_ext.common.files import read_json
from nnunet_ext.common.progress import Track, untracked
from nnunet_ext.common.text import clock
from nnunet_ext.comparison import DEFAULT_METRICS, ModelRuns
from nnunet_ext.comparison.comparer import summarise
from nnunet_ext.metrics.definitions import BY_KEY
from nnunet_ext.report.costs import network_size


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
        yield from _published_lines(benchmark, results)
        yield from _cost_lines(results, extras)
        yield ""
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
    """Return the usual metrics and those that papers state, as far as any model has values of them."""
    wanted = dict.fromkeys((*DEFAULT_METRICS, *(key for p in benchmark.matrix.published for key in p.metrics)))
    runs = [run for own in results.models.values() for run in own]
    return [key for key in wanted if any(run.table[run.units.column(key)].notna().any() for run in runs)]


def _published(benchmark: Benchmark, results: Results) -> list[report.Published]:
    return [report.Published(**dict(figures)) for figures in benchmark.matrix.published_of(results.dataset)]


def _published_lines(benchmark: Benchmark, results: Results) -> Iterator[str]:
    """Yield what papers state, next to what came out here."""
    stated = _published(benchmark, results)
    if not stated:
        return
    width = max(len(p.row) for p in stated)
    yield ""
    yield f"{'published':<{width}}  {'metric':<10} {'paper':>8}  {'here':>8}  "
    for p in stated:
        for key, value in p.metrics.items():
            yield f"{p.row:<{width}}  {BY_KEY[key].label:<10} {value:>8.4g}  {_here(results, p.row, key)}"
    for text in dict.fromkeys(f"{p.row}: {p.source}. {p.note}".rstrip() for p in stated):
        yield f"  {text}"
    yield from (f"  differs: {text}" for text in benchmark.matrix.differences)


def _here(results: Results, row: str, key: str) -> str:
    """Return the mean over cases of a row's first structure."""
    if row not in results.models:
        return "not finished"
    model = ModelRuns(name=row, runs=results.models[row])
    structure, labels = next(iter(model.runs[0].structures.items()))
    s = summarise(model.tables(labels), [key])[key]
    if not s.n:
        return "undefined"
    spread = f", sd over {len(s.repeat_means)} runs {s.repeat_sd:.3g}" if len(s.repeat_means) > 1 else ""
    return f"{s.mean:>8.4g}  ({structure}, mean of {s.n} of {len(model.cases)} cases{spread})"


def _cost_lines(results: Results, extras: report.Extras) -> Iterator[str]:
    """Yield parameters, operations, time and memory of every row, means over its runs."""
    width = max(map(len, results.runs))
    rows = {"cost": ["parameters", "GFLOPs", "training", "s/case", "peak memory", "budget"]}
    for row, runs in results.runs.items():
        cost, facts = extras.costs[row], runs[0].job.facts
        rows[row] = [
            f"{cost.parameters:,}" if cost.parameters else "",
            f"{cost.flops / 1e9:,.1f}" if cost.flops else "",
            clock(cost.training_seconds),
            f"{cost.seconds_per_case:.2f}" if cost.seconds_per_case is not None else "",
            f"{cost.peak_memory_bytes / 2**30:.2f} GiB" if cost.peak_memory_bytes else "",
            ("its own" if facts["budget"] == "own" else "the matrix's")
            + ("" if facts["seeded"] else ", unseeded repeats"),
        ]
    yield ""
    for row, cells in rows.items():
        yield f"{row:<{width}}" + "".join(f"  {cell:>11}" for cell in cells[:-1]) + f"  {cells[-1]}"


def _notes(benchmark: Benchmark, results: Results) -> list[str]:
    """Return what a reader must know."""
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


def _cost(runs: Sequence[Run]) -> report.Cost:
    size = network_size(Path(runs[0].train.folder).parent)
    entry = registry.get("trainer", runs[0].job.facts["trainer"])
    training, predicting = ([s for r in runs if (s := r.seconds(kind)) is not None] for kind in ("train", "predict"))
    cases = len(runs[0].evaluation.cases)
    return report.Cost(
        parameters=size.parameters if size else entry.parameters if entry else None,
        trained=size.trained if size else None,
        flops=size.flops if size else None,
        training_seconds=statistics.fmean(training) if training else None,
        seconds_per_case=statistics.fmean(predicting) / cases if predicting and cases else None,
        peak_memory_bytes=max((peak for run in runs if (peak := run.peak_bytes("train")) is not None), default=None),
        device=_device(runs[0].train),
    )


def _device(train: Job) -> str:
    """Return that of a training; an evaluation, whose manifest a run has, may have had another node without a GPU."""
    machine = read_json(Path(train.manifest))["machine"]
    return machine["gpus"][0] if train.gpu and machine["gpus"] else machine["cpu"]


def _extras(benchmark: Benchmark, results: Results) -> report.Extras:
    done = {job.id for runs in results.runs.values() for run in runs for job in benchmark.jobs.with_needs(run.job)}
    commands = script([job for job in benchmark.jobs if job.id in done], "").splitlines()
    return report.Extras(
        model_folders={row: [Path(run.train.folder) for run in runs] for row, runs in results.runs.items()},
        costs={row: _cost(runs) for row, runs in results.runs.items()},
        commands=[line for line in commands if line and not line.startswith(("#", "set "))],
        manifests={row: [run.manifest for run in runs] for row, runs in results.runs.items()},
        published=[p for p in _published(benchmark, results) if p.row in results.runs],
        differences=benchmark.matrix.differences,
        notes=[*_notes(benchmark, results), *(f"Missing: {text}." for text in results.missing)],
    )
