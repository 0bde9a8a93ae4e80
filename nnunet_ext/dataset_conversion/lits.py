"""LiTS, the Liver Tumor Segmentation Benchmark, as people have it on disk.

CodaLab / Kaggle: ``volume-N.nii[.gz]``, ``segmentation-N.nii[.gz]`` and ``test-volume-N.nii`` in any sub-folders.
Medical Segmentation Decathlon: ``Task03_Liver`` with ``liver_N.nii.gz`` in imagesTr, labelsTr and imagesTs, or what
nnU-Net's own conversion made of it, ``liver_N_0000.nii.gz``. One volume is taken as one patient.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nnunet_ext.common.files import files_below, read_json_if_any
from nnunet_ext.common.text import some
from nnunet_ext.dataset_conversion.nifti import Volumes
from nnunet_ext.dataset_conversion.types import Case, Found, Problem, Reader, Settings

_NAMES = (
    (re.compile(r"volume-(\d+)\.nii(\.gz)?", re.I), None, "image"),
    (re.compile(r"segmentation-(\d+)\.nii(\.gz)?", re.I), None, "label"),
    (re.compile(r"test-volume-(\d+)\.nii(\.gz)?", re.I), None, "unlabelled"),
    (re.compile(r"liver_(\d+)(?:_0000)?\.nii(\.gz)?", re.I), "imagesTr", "image"),
    (re.compile(r"liver_(\d+)\.nii(\.gz)?", re.I), "labelsTr", "label"),
    (re.compile(r"liver_(\d+)(?:_0000)?\.nii(\.gz)?", re.I), "imagesTs", "unlabelled"),
)
_LABELS: dict[str, dict[str, Any]] = {
    "tumour": {"background": 0, "tumour": 1},
    "liver-tumour": {"background": 0, "liver": 1, "tumour": 2},
    "regions": {"background": 0, "liver": [1, 2], "tumour": 2},
}


@dataclass(frozen=True, kw_only=True)
class LitsReader(Reader):
    """LiTS: background 0, liver 1 and tumour 2 in every distribution; `target` says what of it is to be learnt.

    "tumour" against all else, "liver-tumour" as two classes, or "regions": liver with tumour and tumour, overlapping.
    """

    description: ClassVar[str] = "Liver tumours in contrast-enhanced abdominal CT"
    reference: ClassVar[str] = (
        "Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84 (2023) 102680"
    )
    licence: ClassVar[str] = "CC BY-NC-ND 4.0 (LiTS), CC BY-SA 4.0 (Decathlon)"
    channel: ClassVar[str] = "CT"
    planner: ClassVar[str] = "RAUNetPlanner"

    target: str = "tumour"

    def options(self) -> dict[str, Any]:
        """Return the converter and its target."""
        return {"converter": "lits", "target": self.target}

    def format(self, settings: Settings) -> Volumes:
        """Return NIfTI with the ending asked for."""
        return Volumes(file_ending=settings.file_ending)

    def labels(self) -> dict[str, Any]:
        """Return the labels or regions of the target."""
        return _LABELS[self.target]

    def regions_class_order(self) -> tuple[int, ...]:
        """Return liver before tumour, which lies in it."""
        return (1, 2) if self.target == "regions" else ()

    def values(self, case: Case) -> Mapping[int, int]:
        """Return the values as they are, or 1 for tumour alone."""
        return {0: 0, 1: 0, 2: 1} if self.target == "tumour" else {0: 0, 1: 1, 2: 2}

    def find(self, source: Path) -> Found:
        """Pair volumes and segmentations by number."""
        roles: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        unreadable: list[OSError] = []
        ignored = []
        paths = list(files_below(source, unreadable.append))
        for path in paths:
            id_, role = _classify(path)
            if id_:
                roles[id_][role].append(path)
            elif path.name.lower().endswith((".nii", ".nii.gz")):
                ignored.append(str(path.relative_to(source)))
        problems = [Problem(message=f"{e.filename}: this folder cannot be read ({e.strerror}).") for e in unreadable]
        cases = []
        for id_, files in sorted(roles.items()):
            faults = _faults(id_, files)
            problems += [Problem(message=fault, case=id_) for fault in faults]
            if not faults:
                cases.append(
                    Case(id=id_, image=(files["image"] or files["unlabelled"])[0], masks=tuple(files["label"]))
                )
        if not any(case.masks for case in cases):
            message = (
                f"{source}: no pair of volume-N.nii and segmentation-N.nii (or imagesTr and labelsTr of Task03_Liver) "
                "was found in it or below."
            )
            problems.append(Problem(message=message))
        notes = [f"{len(ignored)} NIfTI files are not named as LiTS's are and were left alone: {some(ignored)}"]
        return Found(
            files=tuple(sorted(path for files in roles.values() for paths in files.values() for path in paths)),
            cases=tuple(cases),
            problems=tuple(problems),
            notes=(*(notes if ignored else []), *_missing_notes(paths, roles)),
        )


def _classify(path: Path) -> tuple[str, str]:
    """Return (case id, role), or empty strings for a file that is none of LiTS's."""
    for pattern, folder, role in _NAMES:
        match = pattern.fullmatch(path.name)
        if match and folder in (None, path.parent.name):
            number = int(match[1])
            return (f"lits_test_{number:03d}" if role == "unlabelled" else f"lits_{number:03d}"), role
    return "", ""


def _faults(id_: str, files: dict[str, list[Path]]) -> list[str]:
    faults = [
        f"case {id_} is there more than once: {', '.join(map(str, paths))}; keep one."
        for paths in files.values()
        if len(paths) > 1
    ]
    if files["unlabelled"] or faults:
        return faults
    if not files["label"]:
        return [f"{files['image'][0]}: its segmentation is missing; {_sought(id_, 'segmentation', 'labelsTr')}"]
    if not files["image"]:
        return [f"{files['label'][0]}: its volume is missing; {_sought(id_, 'volume', 'imagesTr')}"]
    return []


def _sought(id_: str, role: str, folder: str) -> str:
    number = int(id_.removeprefix("lits_"))
    return f"no {role}-{number}.nii[.gz] and no {folder}/liver_{number}.nii[.gz] was found in the source or below."


def _missing_notes(paths: Sequence[Path], roles: Mapping[str, Any]) -> Iterator[str]:
    """Compare with what the Decathlon's dataset.json says should be there."""
    for path in paths:
        if path.name == "dataset.json":
            listed = read_json_if_any(path).get("training", [])
            try:
                expected = {_classify(path.parent / entry["image"])[0] for entry in listed}
            except (KeyError, TypeError):
                continue
            missing = sorted(expected - set(roles) - {""})
            if missing:
                yield f"{path} lists {len(expected)} training cases; not there: {', '.join(missing)}"
