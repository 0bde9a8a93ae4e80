"""Evaluate predictions against references, file by file, on several cores."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import spawned_pool
from nnunet_ext.evaluation.evaluation import Evaluation, table_of
from nnunet_ext.evaluation.headers import Header, header_reader
from nnunet_ext.evaluation.source import Source
from nnunet_ext.evaluation.structures import Structures
from nnunet_ext.metrics.definitions import COUNTS, PHYSICAL, PIXELS, PLANAR, Units
from nnunet_ext.metrics.masks import foreground_box
from nnunet_ext.metrics.measure import Scale, measure_segmentations

TOLERANCE = 2.0
_NO_DEPTH = 999  # nnU-Net's spacing of the axis that a 2D image lacks, or so many times its pixels
_SECONDS_PER_CASE, _SECONDS_PER_VOXEL = 0.005, 6e-8  # roughly, to read and to measure
_SECONDS_PER_WORKER = 2.0  # starting one takes half of that; less work is done sooner without
Track = Callable[..., Iterable]


def evaluate(
    source: Source,
    *,
    tolerance: float = TOLERANCE,
    jobs: int = 1,
    check_geometry: bool = True,
    track: Track = lambda items, **_: items,
) -> Evaluation:
    """All metrics of every case and structure.

    Args:
        tolerance: of NSD, in mm, or pixels where there is no spacing.
        jobs: processes at most; little work is done in this one.
        check_geometry: whether files must lie at one place in space; if not, they are compared voxel by voxel.
        track: draws a progress bar.

    Raises:
        InputError: files that cannot be read, differ in size or position, or hold labels that dataset.json does not
            name; all in one message.
    """
    work = _Work(reader=_reader(source), structures=source.structures, tolerance=tolerance)
    pairs = [_Pair(case, file, source.references[case]) for case, file in source.predictions.items()]
    voxels = _check_headers(pairs, work.reader, check_geometry)
    workers = min(jobs, len(pairs), int(_seconds(len(pairs), voxels) / _SECONDS_PER_WORKER))
    results = {r.case: r for r in track(_each(pairs, work, workers), total=len(pairs), what="evaluate", unit="case")}
    results = [results[pair.case] for pair in pairs]
    if problems := [p for r in results for p in r.problems]:
        raise InputError(*problems, hint="Correct these files; nothing has been written.")
    units = _common_units(results)
    rows = [
        {"case": r.case, "structure": name, **{_column(units, key): value for key, value in metrics.items()}}
        for r in results
        for name, metrics in r.metrics.items()
    ]
    info = {**source.info, "nsd_tolerance": tolerance}
    return Evaluation(table=table_of(rows, units), units=units, structures=source.structures.labels, info=info)


class _Pair(NamedTuple):
    case: str
    prediction: Path
    reference: Path


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is the same for all cases."""

    reader: type[BaseReaderWriter]
    structures: Structures
    tolerance: float


class _Result(NamedTuple):
    """Metrics by structure, or problems."""

    case: str
    units: Units | None = None
    metrics: dict[str, dict[str, float]] | None = None
    problems: Sequence[str] = ()


def _column(units: Units, key: str) -> str:
    return key if key in COUNTS else units.column(key)


def _seconds(cases: int, voxels: int) -> float:
    return cases * _SECONDS_PER_CASE + voxels * _SECONDS_PER_VOXEL


def _reader(source: Source) -> type[BaseReaderWriter]:
    """nnU-Net's choice, which may depend on what can read the first reference."""
    example = next(iter(source.references.values()))
    with _silence():
        for file in (str(example), None):  # a broken example is named later, among all that are broken
            with contextlib.suppress(RuntimeError):
                return determine_reader_writer_from_dataset_json(source.dataset, file, verbose=False)
    raise InputError(
        f"nnU-Net has no reader for {source.dataset['file_ending']} files.",
        hint='Correct "file_ending" or "overwrite_image_reader_writer" in dataset.json.',
    )


def _silence() -> contextlib.ExitStack:
    """nnU-Net's readers print what is said better here."""
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    return stack


def _check_headers(pairs: Sequence[_Pair], reader: type[BaseReaderWriter], check_geometry: bool) -> int:
    """Compare what headers tell, before anything is computed; returns the voxels of all references, 0 if unknown."""
    read = header_reader(reader)
    if read is None:
        return 0
    problems, voxels, apart = [], 0, False
    for pair in pairs:
        headers = [_header(read, file, problems) for file in (pair.prediction, pair.reference)]
        if None in headers:
            continue
        prediction, reference = headers if check_geometry else [Header(h.size) for h in headers]
        voxels += int(np.prod(reference.size))
        if difference := prediction.differences(reference):
            problems.append(f"{pair.case}: {difference} (prediction and reference).")
            apart |= prediction.size == reference.size
    if problems:
        hint = "Nothing has been computed."
        raise InputError(*problems, hint=f"{hint} --ignore-geometry compares by index." if apart else hint)
    return voxels


def _header(read: Callable[[Path], Header], file: Path, problems: list[str]) -> Header | None:
    try:
        return read(file)
    except Exception as e:  # noqa: BLE001  (five libraries, each with its own errors)
        problems.append(_unreadable(file, e))
        return None


def _unreadable(file: Path, error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{file} cannot be read ({said[-1].strip() if said else type(error).__name__})."


def _each(pairs: Sequence[_Pair], work: _Work, workers: int) -> Iterator[_Result]:
    if workers < 2:
        for pair in pairs:
            yield _measure(pair, work)
        return
    with spawned_pool(workers) as pool:
        try:
            for future in as_completed([pool.submit(_measure, pair, work) for pair in pairs]):
                yield future.result()
        except BrokenExecutor as e:
            raise InputError(
                "A worker process was killed, for lack of memory perhaps.", hint="Use a smaller --jobs."
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


def _measure(pair: _Pair, work: _Work) -> _Result:
    """One case, in whatever process."""
    problems: list[str] = []
    reader, segmentations, spacing = work.reader(), [], (1.0, 1.0, 1.0)
    for file in (pair.prediction, pair.reference):
        try:
            _check_whole(file)
            with _silence():
                array, properties = reader.read_seg(str(file))
        except Exception as e:  # noqa: BLE001  (five libraries, each with its own errors)
            problems.append(_unreadable(file, e))
            continue
        spacing = tuple(map(float, properties["spacing"]))
        segmentations.append(_labels(array, work.structures.known, file, problems))
    if not problems and len({s.shape for s in segmentations}) > 1:
        problems.append(
            f"{pair.case}: prediction has shape {segmentations[0].shape}, reference {segmentations[1].shape}."
        )
    if problems:
        return _Result(pair.case, problems=problems)
    units = _units(work.reader, segmentations[1].shape, spacing, pair.reference)
    scale = Scale(spacing, units, work.tolerance)
    return _Result(
        pair.case,
        units,
        measure_segmentations(*segmentations, work.structures.labels, scale, ignore=work.structures.ignore),
    )


def _check_whole(file: Path) -> None:
    """Raise what gzip does for a truncated or damaged file: ITK fills up what is missing without a word."""
    if file.suffix == ".gz":
        with gzip.open(file) as stream:
            while stream.read(1 << 22):
                pass


def _labels(array: np.ndarray, known: frozenset[int], file: Path, problems: list[str]) -> np.ndarray:
    """A segmentation (slices, height, width) of whole numbers from what a reader gives, (1, slices, height, width)."""
    if array.shape[0] != 1:
        problems.append(f"{file} has {array.shape[0]} channels, and a segmentation has one.")
        return array[0]
    with np.errstate(invalid="ignore"):
        labels = array[0].astype(np.min_scalar_type(max(known)))
    if not np.array_equal(labels, array[0]):
        unknown = sorted(set(np.unique(array[0]).tolist()) - known)
    else:
        box = labels[foreground_box(labels)]
        unknown = sorted(set(np.flatnonzero(np.bincount(box.ravel())).tolist()) - known)
    if unknown:
        shown = ", ".join(f"{value:g}" for value in unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        allowed = ", ".join(map(str, sorted(known)))
        problems.append(f"{file} holds {shown}, and dataset.json knows the labels {allowed}.")
    return labels


def _units(reader: type[BaseReaderWriter], shape: Sequence[int], spacing: Sequence[float], file: Path) -> Units:
    """Pixels where there is no spacing: in pictures, and in TIFF files without nnU-Net's JSON file beside them.

    nnU-Net makes 2D images volumes of one slice, with a spacing there that means nothing. With pixels of 1 besides,
    which is what formats say that know none, nothing is known of their size.
    """
    if issubclass(reader, NaturalImage2DIO):
        return PIXELS
    if issubclass(reader, Tiff3DIO):
        return PHYSICAL if file.with_suffix(".json").is_file() else PIXELS
    sides = tuple(spacing[1:])
    if shape[0] == 1 and any(np.isclose(spacing[0], depth) for depth in (_NO_DEPTH, _NO_DEPTH * max(sides))):
        return PIXELS if sides == (1, 1) else PLANAR
    return PHYSICAL


def _common_units(results: Sequence[_Result]) -> Units:
    kinds: dict[Any, list[str]] = {}
    for result in results:
        kinds.setdefault(result.units, []).append(result.case)
    if set(kinds) == {PIXELS, PLANAR}:
        return PLANAR  # of sides of 1: the same numbers
    if len(kinds) > 1:
        raise InputError(
            *(f"{cases[0]} and {len(cases) - 1} more are measured in {' and '.join(u)}." for u, cases in kinds.items()),
            hint="2D images, volumes and files without spacing cannot share a table: evaluate them apart.",
        )
    return next(iter(kinds))
