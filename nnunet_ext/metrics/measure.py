"""All metrics of one pair of segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nnunet_ext.evaluation.structures import Structures
from nnunet_ext.metrics.definitions import Units
from nnunet_ext.metrics.distances import ROWS_SIZE, Distances, hd_rows
from nnunet_ext.metrics.lesions import Lesions
from nnunet_ext.metrics.mask_pair import MaskPair, foreground_box
from nnunet_ext.metrics.metrics import Overlap, ratio
from nnunet_ext.metrics.slices import SliceMeans

UNDEFINED = float("nan")


class Scale(NamedTuple):
    """What distances and volumes are measured in, and the tolerance of NSD."""

    spacing: Sequence[float]
    units: Units
    tolerance: float


def measure(pair: MaskPair, scale: Scale) -> dict[str, float]:
    """Counts and metrics of two masks by their keys, except `hd_rows`, which needs the whole image."""
    overlap = Overlap.of(pair.prediction, pair.reference, pair.voxels)
    distances = Distances.between(pair)
    lesions = Lesions.of(pair.prediction, pair.reference)
    slices = SliceMeans.of(pair.prediction, pair.reference)
    predicted, referred = overlap.tp + overlap.fp, overlap.tp + overlap.fn
    voxel = scale.units.voxel(scale.spacing)
    return {
        **{"tp": overlap.tp, "fp": overlap.fp, "fn": overlap.fn, "tn": overlap.tn},
        "dice": overlap.dice,
        "iou": overlap.iou,
        "precision": overlap.precision,
        "recall": overlap.recall,
        "specificity": overlap.specificity,
        "hd95": distances.hd95,
        "hd": distances.hd,
        "assd": distances.assd,
        "nsd": distances.nsd(scale.tolerance),
        "lesion_precision": lesions.precision,
        "lesion_recall": lesions.recall,
        "lesion_f1": lesions.f1,
        "volume_error": (predicted - referred) * voxel,
        "relative_volume_error": ratio(predicted - referred, referred),
        "volume_reference": referred * voxel,
        "volume_prediction": predicted * voxel,
        "lesions_reference": lesions.reference,
        "lesions_prediction": lesions.prediction,
        "dice_slices": slices.dice,
        "precision_slices": slices.precision,
        "recall_slices": slices.recall,
    }


def measure_segmentations(
    prediction: np.ndarray, reference: np.ndarray, structures: Structures, scale: Scale
) -> dict[str, dict[str, float]]:
    """Counts and metrics of every structure, by its name.

    As in nnU-Net, voxels that the reference ignores count nowhere. For distances, lesions and volumes they are
    background in both.

    Shapes: both (slices, height, width), of integers.
    """
    voxels = reference.size
    if structures.ignore is not None:
        counted = reference != structures.ignore
        voxels = int(np.count_nonzero(counted))
        prediction, reference = prediction * counted, reference * counted
    box = foreground_box((prediction | reference) != 0)
    cut = prediction[box], reference[box]
    found = {}
    for name, labels in structures.labels.items():
        masks = [mask_of(segmentation, labels) for segmentation in cut]
        pair = MaskPair.of(*masks, scale.spacing, shape=reference.shape, voxels=voxels)
        rows = UNDEFINED
        if reference.shape[0] == 1:
            rows = hd_rows(*(mask_of(s, labels) for s in (prediction, reference)), size=ROWS_SIZE)
        found[name] = {**measure(pair, scale), "hd_rows": rows}
    return found


def mask_of(segmentation: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Where a segmentation has one of the labels."""
    mask = segmentation == labels[0]
    for label in labels[1:]:
        mask |= segmentation == label
    return mask
