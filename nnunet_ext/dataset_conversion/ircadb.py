"""3D-IRCADb-01: livers and liver tumours in CT, as folders of DICOM slices per patient and structure."""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.common.text import count, some
from nnunet_ext.dataset_conversion.lits import LitsReader
from nnunet_ext.dataset_conversion.types import Case, Found, Problem, Settings

if TYPE_CHECKING:
    from nnunet_ext.dataset_conversion.dicom_volumes import DicomVolumes

_IMAGE, _MASKS = "PATIENT_DICOM", "MASKS_DICOM"
_TUMOUR = re.compile(r"livertumou?rs?[ _]*\d*", re.I)
_LEAK = (
    "LiTS took volumes 28 to 47 from 3D-IRCADb, as papers that remove them say: no external test of a model that was "
    "trained on LiTS"
)
_PATIENT = re.compile(r"3Dircadb\d+\.(\d+)", re.I)


@dataclass(frozen=True, kw_only=True)
class IrcadbReader(LitsReader):
    """3D-IRCADb-01 liver tumours in CT, from its DICOM files; needs the extra [dicom].

    Reads PATIENT_DICOM and MASKS_DICOM/liver, livertumor, livertumor01, livertumors ... of every patient below DIR
    (3Dircadb1.N), with what the archives in them hold unpacked. Other structures, cysts too, are left alone.
    """

    command, dataset_id, dataset_name = "ircadb", 32, "IRCADb"
    reference = "Soler et al., 3D image reconstruction for comparison of algorithm database (3D-IRCADb), IRCAD 2010"
    licence = "CC BY-NC-ND 4.0"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        cls.add_target(parser)

    def format(self, settings: Settings) -> DicomVolumes:  # type: ignore[override]  # other than LiTS's
        from nnunet_ext.dataset_conversion.dicom_volumes import DicomVolumes

        return DicomVolumes(structure)

    def find(self, source: Path, paths: Sequence[Path]) -> Found:
        images: dict[Path, list[Path]] = defaultdict(list)
        masks: dict[Path, list[Path]] = defaultdict(list)
        others: Counter[str] = Counter()
        for path in paths:
            if path.parent.name == _IMAGE:
                images[path.parent.parent].append(path)
            elif path.parent.parent.name == _MASKS:
                if structure(path.parent):
                    masks[path.parent.parent.parent].append(path)
                else:
                    others[path.parent.name] += 1
        ids = {patient: _id(patient) for patient in {*images, *masks}}
        shared = {id_ for id_, n in Counter(ids.values()).items() if n > 1}
        cases, problems = [], []
        for patient, id_ in sorted(ids.items(), key=lambda item: item[1]):
            if id_ in shared:
                problems.append(Problem(message=f"{patient} and another folder would both be case {id_}.", case=id_))
            elif patient not in images:
                problems.append(Problem(message=f"{patient} lacks {_IMAGE}, or it is not unpacked.", case=id_))
            elif not any(structure(path.parent) == 1 for path in masks[patient]):
                problems.append(
                    Problem(message=f"{patient} lacks {_MASKS}/liver, or the archive is not unpacked.", case=id_)
                )
            else:
                cases.append(Case(id=id_, image=images[patient][0], masks=tuple(masks[patient]), name=patient.name))
        if not cases and not problems:
            problems.append(
                Problem(message=f"{source}: no {_IMAGE} and {_MASKS} were found in it or below; unpack the archives.")
            )
        notes = [_LEAK] if cases else []
        notes += [f"{count(len(others), 'structure')} left alone: {some(sorted(others), 8)}"] if others else []
        files = sorted(path for part in (images, masks) for group in part.values() for path in group)
        return Found(files=tuple(files), cases=tuple(cases), problems=tuple(problems), notes=tuple(notes))


def structure(folder: Path) -> int:
    """Return LiTS's value for what a folder of masks marks: 1 liver, 2 tumour, 0 anything else."""
    return 2 if _TUMOUR.fullmatch(folder.name) else int(folder.name.lower() == "liver")


def _id(patient: Path) -> str:
    match = _PATIENT.fullmatch(patient.name)
    return f"ircadb_{int(match[1]):02d}" if match else "ircadb_" + re.sub(r"[^A-Za-z0-9-]+", "-", patient.name)
