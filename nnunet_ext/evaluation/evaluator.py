"""Evaluate predictions against references, file by file, on several cores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import Structures
from nnunet_ext.common.processes import Track, finished, untracked
from nnunet_ext.common.provenance import versions
from nnunet_ext.common.text import some
from nnunet_ext.evaluation.evaluation import Evaluation, table_of
from nnunet_ext.evaluation.labels import Side
from nnunet_ext.evaluation.reading import CaseReader
from nnunet_ext.evaluation.source import CaseFiles, Source, from_folders
from nnunet_ext.metrics import LESION_IOU
from nnunet_ext.metrics.definitions import COUNTS, PIXELS, PLANAR, TOLERANCE, Units
from nnunet_ext.metrics.measure import Ruler, measure_segmentations

_SECONDS_PER_CASE, _SECONDS_PER_VOXEL = 0.002, 1.5e-8  # roughly, to read and to measure
_SECONDS_PER_WORKER = 2.0  # starting one takes half of that; less work is done sooner without


def evaluate(
    predictions: str | PathLike[str],
    references: str | PathLike[str],
    *,
    dataset_json: str | PathLike[str] | None = None,
    labels_from: Side | None = None,
    name: str = "",
    tolerance: float = TOLERANCE,
    lesion_iou: float = LESION_IOU,
    jobs: int = 1,
    check_geometry: bool = True,
    track: Track = untracked,
) -> Evaluation:
    """Measure all segmentations in a folder against references of the same names.

    Labels, regions and the file ending come from nnU-Net's dataset.json. Nothing is written; `Evaluation.save` does.

    >>> import json, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> temporary = tempfile.TemporaryDirectory()
    >>> folder = Path(temporary.name)
    >>> for kind, left in (("predictions", 20), ("labelsTs", 24)):
    ...     mask = np.zeros((64, 64), np.uint8)
    ...     mask[20:40, left : left + 20] = 1
    ...     (folder / kind).mkdir()
    ...     Image.fromarray(mask).save(folder / kind / "case_1.png")
    >>> dataset = {"labels": {"background": 0, "tumour": 1}, "file_ending": ".png"}
    >>> (folder / "dataset.json").write_text(json.dumps(dataset)) > 0
    True
    >>> evaluation = evaluate(folder / "predictions", folder / "labelsTs")
    >>> evaluation.of("tumour").loc["case_1", ["dice", "hd95"]].to_dict()
    {'dice': 0.8, 'hd95': 4.0}
    >>> evaluation.summaries["tumour"].metrics["dice"].mean
    0.8
    >>> evaluation.save(folder / "predictions")
    >>> temporary.cleanup()

    Args:
        predictions: folder of segmentations.
        references: folder of segmentations, of the same names.
        dataset_json: by default the one next to the predictions, else next to the references or in the folder above.
        labels_from: which of these says what labels mean, "predictions" or "references", where they contradict each
            other.
        name: of the model, for tables; by default its trainer where that is known, else the folder of predictions.
        tolerance: of NSD, in mm, or in pixels where there is no spacing.
        lesion_iou: from which a predicted and a reference lesion are taken for the same.
        jobs: greatest number of processes; little work is done in this one.
        check_geometry: whether the files of a case must lie at the same place in space; if not, they are compared
            voxel by voxel.
        track: draws a progress bar.

    Raises:
        InputError: cases that are missing, files that cannot be read, that differ in size or position, or that hold
            labels that dataset.json does not name; as many as are known at one time, in one message.
    """
    dataset = Path(dataset_json) if dataset_json else None
    source = from_folders(Path(predictions), Path(references), dataset, labels_from)
    if name:
        source.info["name"] = name
    return evaluate_source(
        source, tolerance=tolerance, lesion_iou=lesion_iou, jobs=jobs, check_geometry=check_geometry, track=track
    )


def evaluate_source(
    source: Source,
    *,
    tolerance: float = TOLERANCE,
    lesion_iou: float = LESION_IOU,
    jobs: int = 1,
    check_geometry: bool = True,
    track: Track = untracked,
) -> Evaluation:
    """Measure every case and structure of a source; see `evaluate`."""
    cases = source.cases
    reader = CaseReader.of(source).with_headers(cases, geometry=check_geometry)
    seconds = len(cases) * _SECONDS_PER_CASE + reader.voxels * _SECONDS_PER_VOXEL
    workers = min(jobs, len(cases), int(seconds / _SECONDS_PER_WORKER))
    work = partial(_measure, reader=reader, structures=source.structures, tolerance=tolerance, lesion_iou=lesion_iou)
    measured = track(finished(work, cases, workers), total=len(cases), what="evaluate", unit="case")
    by_case = {result.case: result for result in measured}
    results = [by_case[files.case] for files in cases]
    if problems := [problem for result in results for problem in result.problems]:
        raise InputError(*problems, hint="Correct these files; nothing has been written.")
    units = _common_units(results)
    rows = [
        {"case": r.case, "structure": name, **{k if k in COUNTS else units.column(k): v for k, v in metrics.items()}}
        for r in results
        for name, metrics in r.metrics.items()
    ]
    info = {**source.info, "nsd_tolerance": tolerance, "lesion_iou": lesion_iou, "versions": versions()}
    table = table_of(rows, units)
    notes = source.notes + reader.notes
    if table[["fp", "fn"]].eq(0).all(axis=None) and table["tp"].any():
        notes += ("Every prediction equals its reference, voxel by voxel: are these copies?",)
    return Evaluation(table=table, units=units, structures=source.structures.labels, info=info, notes=notes)


class _Result(NamedTuple):
    """Metrics of a case by structure, or problems."""

    case: str
    units: Units
    metrics: dict[str, dict[str, float]]
    problems: Sequence[str] = ()


def _measure(files: CaseFiles, *, reader: CaseReader, structures: Structures, **near: float) -> _Result:
    """Measure one case, in whatever process."""
    try:
        prediction, reference, spacing, units = reader.read(files)
    except InputError as e:
        return _Result(files.case, PIXELS, {}, e.problems)
    scale = Ruler(spacing, units, **near)
    metrics = measure_segmentations(prediction, reference, structures.labels, scale, ignore=structures.ignore)
    return _Result(files.case, units, metrics)


def _common_units(results: Sequence[_Result]) -> Units:
    kinds: dict[Units, list[str]] = {}
    for result in results:
        kinds.setdefault(result.units, []).append(result.case)
    if set(kinds) == {PIXELS, PLANAR}:
        return PLANAR  # of sides of 1: the same numbers
    if len(kinds) > 1:
        raise InputError(
            *(f"{some(cases, 1)}: measured in {' and '.join(units)}." for units, cases in kinds.items()),
            hint="2D images, volumes and files without spacing cannot share a table: evaluate them apart.",
        )
    return next(iter(kinds))
