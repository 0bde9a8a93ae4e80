"""LiTS, the Liver Tumor Segmentation Benchmark, as people have it on disk; one volume is taken as one patient."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.common.files import read_json_if_any
from nnunet_ext.common.text import count, some
from nnunet_ext.dataset_conversion.types import Case, Found, Named, Problem, Reader, Settings, pair

if TYPE_CHECKING:
    from nnunet_ext.dataset_conversion.nifti import Volumes

_NAMES = (
    (re.compile(r"volume-(\d+)\.nii(\.gz)?", re.I), None, "image"),
    (re.compile(r"segmentation-(\d+)\.nii(\.gz)?", re.I), None, "label"),
    (re.compile(r"test-volume-(\d+)\.nii(\.gz)?", re.I), None, "unlabelled"),
    (re.compile(r"liver_(\d+)(?:_0000)?\.nii(\.gz)?", re.I), "imagesTr", "image"),
    (re.compile(r"liver_(\d+)\.nii(\.gz)?", re.I), "labelsTr", "label"),
    (re.compile(r"liver_(\d+)(?:_0000)?\.nii(\.gz)?", re.I), "imagesTs", "unlabelled"),
)
_VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img", ".img.gz", ".dcm")
_UNLABELLED = "lits_test_"  # begins the ids of volumes without segmentation
_LABELS: dict[str, dict[str, Any]] = {
    "tumour": {"background": 0, "tumour": 1},
    "liver-tumour": {"background": 0, "liver": 1, "tumour": 2},
    "regions": {"background": 0, "liver": [1, 2], "tumour": 2},
}


@dataclass(frozen=True, kw_only=True)
class LitsReader(Reader):
    """LiTS liver tumours in CT, from CodaLab, Kaggle or the Medical Segmentation Decathlon.

    Reads volume-N.nii[.gz] with segmentation-N.nii[.gz], and test-volume-N.nii[.gz], in any sub-folders of DIR, or
    Task03_Liver (liver_N.nii.gz in imagesTr, labelsTr and imagesTs) as it is or as nnU-Net converts it. Images keep
    their HU values and are linked, not copied, where their bytes are right already.
    """

    command, dataset_id, dataset_name = "lits", 29, "LiTS"
    description = "Liver tumours in contrast-enhanced abdominal CT"
    reference = "Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84 (2023) 102680"
    licence = "CC BY-NC-ND 4.0 (LiTS), CC BY-SA 4.0 (Decathlon)"
    channel = "CT"
    planning = "-c 2d -pl RAUNetPlanner"

    target: str = "tumour"

    @classmethod
    def add_target(cls, parser: argparse.ArgumentParser) -> None:
        """Add the choice of labels."""
        parser.add_argument(
            "--target",
            choices=tuple(_LABELS),
            default=cls.target,
            help="tumour: tumour against all else (default); liver-tumour: liver 1, tumour 2; "
            "regions: liver with tumour and tumour, overlapping",
        )

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        cls.add_target(parser)
        parser.add_argument(
            "--file-ending", choices=(".nii", ".nii.gz"), help="of all files; default: that of most image bytes"
        )

    def format(self, settings: Settings) -> Volumes:
        from nnunet_ext.dataset_conversion.nifti import Volumes

        return Volumes(verify=settings.checksum)

    def labels(self) -> dict[str, Any]:
        return _LABELS[self.target]

    def values(self, case: Case) -> Mapping[int, int]:
        return {0: 0, 1: 0, 2: 1} if self.target == "tumour" else {0: 0, 1: 1, 2: 2}

    def find(self, source: Path, paths: Sequence[Path]) -> Found:
        files = [file for path in paths if (file := _named(path))]
        found = pair(files, _missing, one_mask=True)
        problems, notes = list(found.problems), list(_missing_notes(paths, {file.id for file in files}))
        if not any(case.masks for case in found.cases):
            message = (
                f"{source}: no pair of volume-N.nii and segmentation-N.nii (or imagesTr and labelsTr of Task03_Liver) "
                "was found in it or below."
            )
            problems.append(Problem(message=message))
        others = [p for p in paths if p.name.lower().endswith(_VOLUMES) and not _named(p)]
        if others:
            shown = some(path.relative_to(source) for path in others)
            what = f"{count(len(others), 'file')} of volumes not named as LiTS's NIfTI files are, left alone: {shown}"
            notes.insert(0, what)
        return replace(found, problems=tuple(problems), notes=tuple(notes))


def _named(path: Path) -> Named | None:
    """Return what a file is, None for one that is none of LiTS's."""
    for pattern, folder, role in _NAMES:
        match = pattern.fullmatch(path.name)
        if match and folder in (None, path.parent.name):
            id_ = f"{_UNLABELLED if role == 'unlabelled' else 'lits_'}{int(match[1]):03d}"
            return Named(path=path, id=id_, is_mask=role == "label")
    return None


def _missing(file: Named) -> str:
    if file.id.startswith(_UNLABELLED):
        return ""
    number = int(file.id.removeprefix("lits_"))
    role, folder = ("volume", "imagesTr") if file.is_mask else ("segmentation", "labelsTr")
    return (
        f"its {role} is missing; no {role}-{number}.nii[.gz] and no {folder}/liver_{number}.nii[.gz] was found in the "
        "source or below."
    )


def _missing_notes(paths: Sequence[Path], ids: Collection[str]) -> Iterator[str]:
    """Compare with what the Decathlon's dataset.json says should be there."""
    for path in paths:
        if path.name == "dataset.json":
            listed = read_json_if_any(path).get("training", [])
            try:
                expected = {file.id for entry in listed if (file := _named(path.parent / entry["image"]))}
            except (KeyError, TypeError):
                continue
            missing = sorted(expected.difference(ids))
            if missing:
                yield f"{path} lists {len(expected)} training cases; not there: {', '.join(missing)}"
