"""Images and segmentations of single cases, for pictures: where they are, and how radiologists look at them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from nnunet_ext.report.data import ReportData


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Slices as radiologists look at them, and height / width of a pixel."""

    slices: np.ndarray
    aspect: float


def image_file(data: ReportData, case: str) -> Path | None:
    """The first channel of a case: in the folder that was named, else where the runs' folders suggest."""
    for folder in _image_folders(data, case):
        found = next(iter(sorted(folder.glob(f"{_plain(case)}_0000.*"))), None)
        if found:
            return found
    return None


def _image_folders(data: ReportData, case: str) -> Iterator[Path]:
    if data.images:
        yield data.images
    for name in data.names:
        info = run.info if (run := data.run_of(name, case)) else {}
        if info.get("images"):
            yield Path(info["images"])
        if info.get("references"):
            references = Path(info["references"])
            yield references.parent / references.name.replace("labels", "images")
        if info.get("dataset") and "nnUNet_raw" in os.environ:
            yield Path(os.environ["nnUNet_raw"]) / info["dataset"] / "imagesTr"
            yield Path(os.environ["nnUNet_raw"]) / info["dataset"] / "imagesTs"


def _plain(case: str) -> str:
    """A name without a meaning of its own in a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in case)


def mask_file(data: ReportData, name: str, case: str, what: Literal["predictions", "references"]) -> Path | None:
    """A model's file of a case, in its folder of predictions or references, or in the validation of its folds."""
    run = data.run_of(name, case)
    if run is None or not run.info.get(what):
        return None
    if (known := run.file(what, case)).is_file():
        return known
    folder, ending = Path(run.info[what]), run.info.get("file_ending", "")
    patterns = (f"{_plain(case)}{ending or '.*'}", f"fold_*/validation/{_plain(case)}{ending or '.*'}")
    return next((f for pattern in patterns for f in sorted(folder.glob(pattern))), None)


def read(file: Path | None) -> Volume | None:
    """None where there is no such file or it cannot be read: a report does without a picture."""
    import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

    if file is None:
        return None
    try:
        image = sitk.ReadImage(file)
        if image.GetDimension() == 3 and image.GetSize()[2] > 1:
            image = sitk.DICOMOrient(image, "LPS")
    except RuntimeError:
        return None
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array.mean(axis=-1)
    width, height = image.GetSpacing()[:2]
    return Volume(slices=array.reshape(-1, *array.shape[-2:]), aspect=height / width)


def telling_slice(reference: np.ndarray, prediction: np.ndarray) -> int:
    """The slice with the largest reference; without a reference, with the largest prediction; else the middle one."""
    for mask in (reference, prediction):
        if mask.any():
            return int(np.argmax(mask.sum(axis=(1, 2))))
    return len(reference) // 2
