"""Compare a folder of predictions with a folder of references, case by case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

from nnunet_ext.errors import InputError
from nnunet_ext.evaluation.distances import SurfaceDistances
from nnunet_ext.evaluation.metrics import Overlap


class Case(NamedTuple):
    """One case: its name, both segmentations as (slices, height, width), and one `Overlap` per label.

    `spacing` is the reference's, in mm, in the order of the axes.
    """

    name: str
    prediction: np.ndarray
    reference: np.ndarray
    overlaps: dict[int, Overlap]
    spacing: tuple[float, ...]

    def surface_distances(self, label: int) -> SurfaceDistances:
        """Of one label against all else, in mm: for HD95, ASSD and NSD."""
        return SurfaceDistances.of(self.prediction == label, self.reference == label, self.spacing)


def compare(predictions: Path, references: Path, labels: tuple[int, ...], file_ending: str) -> Iterator[Case]:
    """Every case of the reference folder, in the order of names.

    Args:
        predictions, references: folders with files of equal names.
        labels: the labels to compare, each against all else.
        file_ending: of both, with the dot.

    Raises:
        InputError: no references, or cases without a prediction, all named.
    """
    files = sorted(references.glob(f"*{file_ending}"))
    if not files:
        raise InputError(f"{references} holds no *{file_ending} file.")
    missing = [f"no prediction {predictions / f.name}" for f in files if not (predictions / f.name).is_file()]
    if missing:
        raise InputError(*missing, way_out="Predict these cases, or take their references away.")
    for file in files:
        images = [sitk.ReadImage(d / file.name) for d in (predictions, references)]
        prediction, reference = map(sitk.GetArrayFromImage, images)
        yield Case(
            name=file.name.removesuffix(file_ending),
            prediction=prediction,
            reference=reference,
            overlaps={label: Overlap.of(prediction == label, reference == label) for label in labels},
            spacing=images[1].GetSpacing()[::-1],
        )
