"""All metrics of one pair of segmentations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nnunet_ext.metrics import LESION_IOU
from nnunet_ext.metrics.definitions import METRICS, Measurement, Units
from nnunet_ext.metrics.lesions import Lesions
from nnunet_ext.metrics.overlap import MaskPair, Overlap, SliceMeans, foreground_box, mask_of
from nnunet_ext.metrics.surface import ROWS_SIZE, SurfaceDistances, hd_rows


class Ruler(NamedTuple):
    """What distances and volumes are measured in, and what is near enough.

    Args:
        spacing: distance between voxels along each of three axes.
        units: what to call the results.
        tolerance: of NSD, in the unit of the spacing.
        lesion_iou: from which two lesions are taken for the same.
    """

    spacing: Sequence[float]
    units: Units
    tolerance: float
    lesion_iou: float = LESION_IOU


def measure(pair: MaskPair, ruler: Ruler, *, rows: float = math.nan) -> dict[str, float]:
    """Return counts and metrics of two masks by their keys; `hd_rows` needs the whole image and comes from outside."""
    overlap = Overlap.of(pair.prediction, pair.reference, pair.voxels)
    p, r, spacing = pair.directions()
    sides = spacing.tolist() if ruler.units.length == "mm" else None
    found = Measurement(
        overlap=overlap,
        slices=SliceMeans.of(pair.prediction, pair.reference),
        distances=SurfaceDistances.between(pair),
        lesions=Lesions.of(p, r, iou=ruler.lesion_iou, spacing=sides),
        tolerance=ruler.tolerance,
        voxel=ruler.units.voxel(ruler.spacing),
        rows=rows,
    )
    return {**vars(overlap), **{metric.key: metric.value(found) for metric in METRICS}}


def measure_segmentations(
    prediction: np.ndarray,
    reference: np.ndarray,
    structures: Mapping[str, Sequence[int]],
    ruler: Ruler,
    *,
    ignore: int | None = None,
) -> dict[str, dict[str, float]]:
    """Return counts and metrics of every structure, by its name and their keys.

    >>> from nnunet_ext.metrics.definitions import PHYSICAL
    >>> prediction, reference = np.zeros((2, 3, 20, 20), np.uint8)
    >>> prediction[1, 5:9, 5:9], reference[1, 5:9, 6:10] = 1, 1
    >>> found = measure_segmentations(prediction, reference, {"tumour": [1]}, Ruler((5, 1, 1), PHYSICAL, 2))
    >>> found["tumour"]["dice"], found["tumour"]["hd95"], found["tumour"]["volume_reference"]
    (0.75, 1.0, 0.08)

    As in nnU-Net, voxels that the reference ignores count nowhere. For distances, lesions and volumes they are
    background in both.

    Args:
        prediction, reference: whole numbers (slices, height, width).
        structures: name -> the labels that make it up.
        ignore: the label of voxels that do not count, if there is one.
    """
    voxels = reference.size
    if ignore is not None:
        counted = reference != ignore
        voxels = int(np.count_nonzero(counted))
        prediction, reference = prediction * counted, reference * counted
    box = foreground_box((prediction | reference) != 0)
    found = {}
    for name, labels in structures.items():
        p, r = mask_of(prediction[box], labels), mask_of(reference[box], labels)
        pair = MaskPair.of(p, r, ruler.spacing, shape=reference.shape, voxels=voxels)
        rows = math.nan
        if reference.shape[0] == 1:
            rows = hd_rows(mask_of(prediction, labels), mask_of(reference, labels), size=ROWS_SIZE)
        found[name] = measure(pair, ruler, rows=rows)
    return found
