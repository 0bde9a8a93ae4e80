"""The report of a benchmark: the comparison, what papers state, what it cost, what is missing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nnunet_ext import comparison, registry, report
from nnunet_ext.benchmark.benchmark import Benchmark
from nnunet_ext.benchmark.collect import Results, Run, collect
from nnunet_ext.benchmark.jobs import Job, script
from nnunet_ext.benchmark.progress import duration
from nnunet_ext.comparison import DEFAULT_METRICS, ModelRuns
from nnunet_ext.comparison.comparer import summarise
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.metrics.definitions import BY_KEY
from nnunet_ext.report.costs import network_size

Track = Callable[..., Iterable]


def write(benchmark: Benchmark, *, track: Track = lambda items, **_: items) -> Iterator[str]:
    """Make the report of every dataset in ``report/DATASET`` of the benchmark's folder; yields lines to print.

    Raises:
        InputError: nothing is finished, or what is finished cannot be compared fairly.
    """
    datasets = {benchmark.folders.dataset_name(dataset): dataset for dataset in benchmark.matrix.datasets}
    names = list(datasets)
    finished = {j.facts["dataset"] for j in benchmark.jobs if j.kind == "evaluate" and benchmark.store.is_done(j)}
    for name in [n for n in names if n in finished] or names[:1]:
        results = collect(benchmark, datasets[name])
        models = results.models
        compared = comparison.compare(models, metrics=_metrics(benchmark, models)) if len(models) > 1 else None
        folder = benchmark.folders.root / "report" / name
        yield f"{benchmark.matrix.title or benchmark.matrix.name}: {name}"
        yield ""
        if compared is not None:
            yield comparison.to_text(compared)
            comparison.save(compared, folder)
        else:
            yield f"Only {next(iter(models))} is finished: there is nothing to compare it with yet."
        yield from published_lines(benchmark, results)
        yield from cost_lines(benchmark, results)
        yield from note_lines(benchmark, results)
        images = benchmark.folders.raw / name / ("imagesTs" if _held_out(results) else "imagesTr")
        report.build_report(
            models,
            folder / "report.html",
            comparison=compared,
            images=images if images.is_dir() else None,
            extras=_extras(benchmark, results),
            title=benchmark.matrix.title or benchmark.matrix.name,
            track=track,
        )
        yield f"{folder / 'report.html'}"
    yield from (f"missing: nothing of {name} is finished" for name in names if name not in finished)


def _metrics(benchmark: Benchmark, models: Mapping[str, Sequence[Evaluation]]) -> list[str]:
    """The usual ones and those that papers state, as far as any model has values of them."""
    wanted = dict.fromkeys((*DEFAULT_METRICS, *(key for p in benchmark.matrix.published for key in p.metrics)))
    runs = [run for own in models.values() for run in own]
    return [key for key in wanted if any(run.table[run.units.column(key)].notna().any() for run in runs)]


def published_lines(benchmark: Benchmark, results: Results) -> Iterator[str]:
    """What papers state, next to what came out here."""
    stated = benchmark.matrix.published_of(results.dataset)
    if not stated:
        return
    models = {name: ModelRuns(name=name, runs=runs) for name, runs in results.models.items()}
    width = max(len(p.row) for p in stated)
    yield ""
    yield f"{'published':<{width}}  {'metric':<10} {'paper':>8}  {'here':>8}  "
    for p in stated:
        for key, value in p.metrics.items():
            here = _here(models[p.row], key) if p.row in models else "not finished"
            yield f"{p.row:<{width}}  {BY_KEY[key].label:<10} {value:>8.4g}  {here}"
    for text in dict.fromkeys(f"{p.row}: {p.source}. {p.note}".rstrip() for p in stated):
        yield f"  {text}"
    yield from (f"  differs: {text}" for text in benchmark.matrix.differences)


def _here(model: ModelRuns, key: str) -> str:
    """Mean over cases, of the first structure."""
    structure, labels = next(iter(model.runs[0].structures.items()))
    s = summarise(model.tables(labels), [key])[key]
    if not s.n:
        return "undefined"
    spread = f", sd over {len(s.repeat_means)} runs {s.repeat_sd:.3g}" if len(s.repeat_means) > 1 else ""
    return f"{s.mean:>8.4g}  ({structure}, mean of {s.n} of {len(model.cases)} cases{spread})"


def cost_lines(benchmark: Benchmark, results: Results) -> Iterator[str]:
    """Parameters, operations, time and memory of every row, means over its runs."""
    width = max(map(len, results.runs))

    def line(row: str, *cells: str) -> str:
        return f"{row:<{width}}" + "".join(f"  {cell:>11}" for cell in cells[:-1]) + f"  {cells[-1]}"

    yield ""
    yield line("cost", "parameters", "GFLOPs", "training", "s/case", "peak memory", "budget")
    for row, runs in results.runs.items():
        cost, facts = _cost(benchmark, runs), runs[0].job.facts
        yield line(
            row,
            f"{cost.parameters:,}" if cost.parameters else "",
            f"{cost.flops / 1e9:,.1f}" if cost.flops else "",
            duration(cost.training_seconds),
            f"{cost.seconds_per_case:.2f}" if cost.seconds_per_case is not None else "",
            f"{cost.peak_memory_bytes / 2**30:.2f} GiB" if cost.peak_memory_bytes else "",
            ("its own" if facts["budget"] == "own" else "the matrix's")
            + ("" if facts["seeded"] else ", unseeded repeats"),
        )


def note_lines(benchmark: Benchmark, results: Results) -> Iterator[str]:
    """What a reader must know, and what is not there."""
    yield ""
    yield from (f"note: {text}" for text in _notes(benchmark, results))
    yield from (f"missing: {text}" for text in results.missing)


def _notes(benchmark: Benchmark, results: Results) -> list[str]:
    own = [row for row, runs in results.runs.items() if runs[0].job.facts["budget"] == "own"]
    notes = list(benchmark.matrix.notes)
    if own:
        notes.append(
            f"{', '.join(own)}: nnU-Net's own trainers have their own budget and take no seed; their runs are unseeded "
            "repeats."
        )
    if _held_out(results) and len(benchmark.matrix.folds) > 1:
        notes.append("Every fold predicted the same held-out cases: folds count as repeats, like seeds.")
    for row, runs in results.runs.items():
        cells = len(benchmark.matrix.seeds) * len(benchmark.matrix.folds)
        if len(runs) < cells:
            notes.append(f"{row}: {len(runs)} of {cells} runs are finished.")
    return notes


def _cost(benchmark: Benchmark, runs: Sequence[Run]) -> report.Cost:
    train = _training(benchmark, runs[0])
    size = network_size(Path(train.folder).parent)
    entry = registry.get("trainer", runs[0].job.facts["trainer"])
    training, predicting = ([s for r in runs if (s := r.seconds(kind)) is not None] for kind in ("train", "predict"))
    cases = len(runs[0].evaluation.cases)
    peaks = [p for r in runs if (p := r.peak_bytes("train")) is not None]
    return report.Cost(
        parameters=size.parameters if size else entry.parameters if entry else None,
        trained=size.trained if size else None,
        flops=size.flops if size else None,
        training_seconds=statistics.fmean(training) if training else None,
        seconds_per_case=statistics.fmean(predicting) / cases if predicting and cases else None,
        peak_memory_bytes=max(peaks, default=None),
        device=_device(train),
    )


def _training(benchmark: Benchmark, run: Run) -> Job:
    return next(job for job in benchmark.jobs.with_needs(run.job) if job.kind == "train")


def _device(train: Job) -> str:
    """Of a training; the evaluation, whose manifest a run has, uses no GPU and may have had another node."""
    machine = json.loads(Path(train.manifest).read_text())["machine"]
    return machine["gpus"][0] if train.gpu and machine["gpus"] else machine["cpu"]


def _extras(benchmark: Benchmark, results: Results) -> report.Extras:
    done = {job.id for row in results.runs.values() for run in row for job in benchmark.jobs.with_needs(run.job)}
    lines = script([job for job in benchmark.jobs if job.id in done], "").splitlines()
    trains = {
        row: [Path(j.folder) for r in runs for j in benchmark.jobs.with_needs(r.job) if j.kind == "train"]
        for row, runs in results.runs.items()
    }
    return report.Extras(
        model_folders=trains,
        costs={row: _cost(benchmark, runs) for row, runs in results.runs.items()},
        commands=[line for line in lines if line and not line.startswith(("#", "set "))],
        manifests=results.manifests,
        published=[p for p in benchmark.matrix.published_of(results.dataset) if p.row in results.runs],
        differences=benchmark.matrix.differences,
        notes=[*_notes(benchmark, results), *(f"Missing: {text}." for text in results.missing)],
    )


def _held_out(results: Results) -> bool:
    return next(iter(results.runs.values()))[0].job.facts["test"] == "imagesTs"
