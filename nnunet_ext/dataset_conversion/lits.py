"""LiTS, the Liver Tumor Segmentation Benchmark, as people have it on disk.

CodaLab / Kaggle: ``volume-N.nii[.gz]``, ``segmentation-N.nii[.gz]`` and ``test-volume-N.nii`` in any sub-folders.
Medical Segmentation Decathlon: ``Task03_Liver`` with ``liver_N.nii.gz`` in imagesTr, labelsTr and imagesTs, or what
nnU-Net's own conversion made of it, ``liver_N_0000.nii.gz``. One volume is taken as one patient.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.dataset_conversion.conversion import Found, Problem
from nnunet_ext.dataset_conversion.source_files import source_files

DATASET_ID, NAME = 29, "LiTS"
REFERENCE = "Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84 (2023) 102680"
LABELS = (0, 1, 2)  # background, liver, tumour in every distribution

_NAMES = (
    (re.compile(r"volume-(\d+)\.nii(\.gz)?", re.I), None, "image"),
    (re.compile(r"segmentation-(\d+)\.nii(\.gz)?", re.I), None, "label"),
    (re.compile(r"test-volume-(\d+)\.nii(\.gz)?", re.I), None, "unlabelled"),
    (re.compile(r"liver_(\d+)(?:_0000)?\.nii(\.gz)?", re.I), "imagesTr", "image"),
    (re.compile(r"liver_(\d+)\.nii(\.gz)?", re.I), "labelsTr", "label"),
    (re.compile(r"liver_(\d+)(?:_0000)?\.nii(\.gz)?", re.I), "imagesTs", "unlabelled"),
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be learnt: nnU-Net's `labels`, the order of regions where they overlap, and old value -> new value."""

    labels: dict[str, Any]
    mapping: tuple[tuple[int, int], ...]
    regions_class_order: tuple[int, ...] = ()


_UNCHANGED = tuple((value, value) for value in LABELS)
TARGETS = {
    "tumour": Target(labels={"background": 0, "tumour": 1}, mapping=((0, 0), (1, 0), (2, 1))),
    "liver-tumour": Target(labels={"background": 0, "liver": 1, "tumour": 2}, mapping=_UNCHANGED),
    "regions": Target(
        labels={"background": 0, "liver": [1, 2], "tumour": 2}, mapping=_UNCHANGED, regions_class_order=(1, 2)
    ),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One volume; `label` is None for the challenge's unlabelled test volumes."""

    id: str
    image: Path
    label: Path | None


def find(source: Path) -> Found:
    """Pair volumes and segmentations by number. What does not pair up is a problem of that case."""
    if not source.is_dir():
        return Found(files=(), cases=(), problems=(Problem(message=f"--source {source}: is not a folder."),))
    roles: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    ignored, unreadable = [], []
    paths = list(source_files(source, unreadable.append))
    for path in paths:
        case, role = _classify(path)
        if case:
            roles[case][role].append(path)
        elif path.name.lower().endswith((".nii", ".nii.gz")):
            ignored.append(str(path.relative_to(source)))
    problems = [Problem(message=f"{e.filename}: this folder cannot be read ({e.strerror}).") for e in unreadable]
    cases = []
    for case, files in sorted(roles.items()):
        faults = _faults(case, files)
        problems += [Problem(message=fault, case=case) for fault in faults]
        if not faults:
            image = (files["image"] or files["unlabelled"])[0]
            cases.append(Case(id=case, image=image, label=files["label"][0] if files["label"] else None))
    if not any(case.label for case in cases):
        problems.append(
            Problem(
                message=f"{source}: no pair of volume-N.nii and segmentation-N.nii (or imagesTr and "
                "labelsTr of Task03_Liver) was found in it or below."
            )
        )
    files = tuple(sorted(path for by_role in roles.values() for paths in by_role.values() for path in paths))
    return Found(
        files=files,
        cases=tuple(cases),
        problems=tuple(problems),
        notes=(*_ignored_note(ignored), *_missing_notes(paths, roles)),
    )


def _classify(path: Path) -> tuple[str, str]:
    """(case id, role), or empty strings for a file that is none of LiTS's."""
    for pattern, folder, role in _NAMES:
        match = pattern.fullmatch(path.name)
        if match and folder in (None, path.parent.name):
            number = int(match[1])
            return (f"lits_test_{number:03d}" if role == "unlabelled" else f"lits_{number:03d}"), role
    return "", ""


def _faults(case: str, files: dict[str, list[Path]]) -> list[str]:
    faults = [
        f"case {case} is there more than once: {', '.join(map(str, paths))}; keep one."
        for paths in files.values()
        if len(paths) > 1
    ]
    if files["unlabelled"] or faults:
        return faults
    if not files["label"]:
        return [f"{files['image'][0]}: its segmentation is missing; {_sought(case, 'segmentation', 'labelsTr')}"]
    if not files["image"]:
        return [f"{files['label'][0]}: its volume is missing; {_sought(case, 'volume', 'imagesTr')}"]
    return []


def _sought(case: str, role: str, folder: str) -> str:
    number = int(case.removeprefix("lits_"))
    return f"no {role}-{number}.nii[.gz] and no {folder}/liver_{number}.nii[.gz] was found in the source or below."


def _ignored_note(ignored: list[str]) -> list[str]:
    shown = ", ".join(sorted(ignored)[:3]) + (", ..." if len(ignored) > 3 else "")
    return [f"{len(ignored)} NIfTI files are not named as LiTS's are and were left alone: {shown}"] if ignored else []


def _missing_notes(paths: Sequence[Path], roles: dict[str, Any]) -> list[str]:
    """Compare with what the Decathlon's dataset.json says should be there."""
    for path in paths:
        if path.name != "dataset.json":
            continue
        try:
            listed = json.loads(path.read_text())["training"]
            expected = {_classify(path.parent / entry["image"])[0] for entry in listed}
        except (OSError, ValueError, KeyError, TypeError):
            continue
        missing = sorted(expected - set(roles) - {""})
        if missing:
            return [f"{path} lists {len(expected)} training cases; not there: {', '.join(missing)}"]
    return []
