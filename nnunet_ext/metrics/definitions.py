"""THE list of metrics: names, units, directions, definitions, and where each number is found.

Measuring, tables, statistics, reports and tests derive from it. Torch-free and numpy-free, so that a command line can
list it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from nnunet_ext.metrics import DIAMETERS, LESION_IOU

if TYPE_CHECKING:
    from nnunet_ext.metrics.lesions import Lesions
    from nnunet_ext.metrics.overlap import Overlap, SliceMeans
    from nnunet_ext.metrics.surface import SurfaceDistances

Quantity = Literal["ratio", "length", "volume", "count"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was found out about one structure of one case, from which every metric is taken.

    Args:
        tolerance: of NSD.
        voxel: the volume of one.
        rows: `surface.hd_rows` of the whole image; NaN in 3D.
    """

    overlap: Overlap
    slices: SliceMeans
    distances: SurfaceDistances
    lesions: Lesions
    tolerance: float
    voxel: float
    rows: float


class Metric(NamedTuple):
    """One number per case and structure.

    Args:
        key: the name in code, and the column's name up to the unit.
        label: the name in tables and pictures.
        quantity: what is measured, which says the unit that is appended to the column's name.
        better: +1 where larger is better, -1 where smaller is, 0 where the number only describes.
        value: takes the number from a measurement.
        definition: one sentence.
        undefined: where it is NaN; empty if nowhere.
        ranked: whether models may be ranked by it: not by what a mask of everything, or of next to nothing, is best at.
        shown: where a reader meets it: "figure" (the report draws every case, and in tables), "table", "volume" (in
            tables on volumes) or "file" (in files of cases alone).
    """

    key: str
    label: str
    quantity: Quantity
    better: Literal[-1, 0, 1]
    value: Callable[[Measurement], float]
    definition: str
    undefined: str = ""
    ranked: bool = True
    shown: Literal["figure", "table", "volume", "file"] = "table"

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value that there can be; infinite where there is none."""
        if not self.better:
            return -math.inf, math.inf
        return 0.0, 1.0 if self.quantity == "ratio" else math.inf


BOTH_EMPTY = "both masks empty"
ONE_EMPTY = "either mask empty"
REFERENCE_EMPTY = "reference empty"
PREDICTION_EMPTY = "prediction empty"

SIZES = {
    "small": f"below {DIAMETERS[0]} mm",
    "medium": f"from {DIAMETERS[0]} mm to below {DIAMETERS[1]} mm",
    "large": f"from {DIAMETERS[1]} mm",
}


def _recall_of(found: Measurement, size: int) -> float:
    return found.lesions.recall_of(size)


def _number_of(found: Measurement, size: int) -> float:
    return found.lesions.number(size)


METRICS = (
    Metric("dice", "Dice", "ratio", 1, lambda m: m.overlap.dice, "2 TP / (2 TP + FP + FN) over the voxels of the case",
           BOTH_EMPTY, shown="figure"),
    Metric("iou", "IoU", "ratio", 1, lambda m: m.overlap.iou, "TP / (TP + FP + FN), Jaccard index", BOTH_EMPTY),
    Metric("precision", "precision", "ratio", 1, lambda m: m.overlap.precision, "TP / (TP + FP)", PREDICTION_EMPTY,
           ranked=False, shown="figure"),
    Metric("recall", "recall", "ratio", 1, lambda m: m.overlap.recall,
           "TP / (TP + FN), sensitivity; 1 for a mask of everything", REFERENCE_EMPTY, ranked=False, shown="figure"),
    Metric("specificity", "specificity", "ratio", 1, lambda m: m.overlap.specificity,
           "TN / (TN + FP); near 1 wherever the background is large", "no background in the reference", ranked=False),
    Metric("hd95", "HD95", "length", -1, lambda m: m.distances.hd95,
           "the greater of the two directed 95th percentiles of distances from surface voxel to nearest surface voxel",
           ONE_EMPTY, shown="figure"),
    Metric("hd", "HD", "length", -1, lambda m: m.distances.hd,
           "Hausdorff distance: the greatest distance from a foreground voxel of one mask to the nearest of the other",
           ONE_EMPTY),
    Metric("assd", "ASSD", "length", -1, lambda m: m.distances.assd,
           "average symmetric surface distance: the mean over the surface voxels of both masks", ONE_EMPTY,
           shown="figure"),
    Metric("nsd", "NSD", "ratio", 1, lambda m: m.distances.nsd(m.tolerance),
           "normalised surface distance: the part of both surfaces, in voxels, within the tolerance of the other; 0 "
           "where one mask is empty", BOTH_EMPTY, shown="figure"),
    Metric("lesion_precision", "lesion precision", "ratio", 1, lambda m: m.lesions.precision,
           "matched / predicted lesions: a lesion is a connected component, and one of the prediction and one of the "
           f"reference are matched, each once at most, where their IoU reaches the threshold ({LESION_IOU} by default)",
           PREDICTION_EMPTY, ranked=False),
    Metric("lesion_recall", "lesion recall", "ratio", 1, lambda m: m.lesions.recall,
           "matched / reference lesions", REFERENCE_EMPTY, ranked=False),
    Metric("lesion_f1", "lesion F1", "ratio", 1, lambda m: m.lesions.f1,
           "harmonic mean of lesion precision and lesion recall; 0 where nothing is found", BOTH_EMPTY, shown="figure"),
    Metric("lesion_false_positives", "false-positive lesions", "count", -1, lambda m: m.lesions.false_positives,
           "predicted lesions without a match; their mean is the number per case", ranked=False),
    *(Metric(f"lesion_recall_{size}", f"recall of {size} lesions", "ratio", 1,
             partial(_recall_of, size=k),
             f"matched / reference lesions with a diameter {which}, that of the ball (in 2D the circle) of their size",
             "no such lesion in the reference, or sizes in pixels", ranked=False)
      for k, (size, which) in enumerate(SIZES.items())),
    Metric("volume_error", "volume error", "volume", 0, lambda m: (m.overlap.predicted - m.overlap.referred) * m.voxel,
           "predicted minus reference volume; an area in 2D images", ranked=False),
    Metric("relative_volume_error", "relative volume error", "ratio", 0, lambda m: m.overlap.relative_error,
           "(predicted - reference volume) / reference volume", REFERENCE_EMPTY, ranked=False, shown="figure"),
    Metric("volume_reference", "reference volume", "volume", 0, lambda m: m.overlap.referred * m.voxel,
           "foreground of the reference; an area in 2D images", ranked=False, shown="file"),
    Metric("volume_prediction", "predicted volume", "volume", 0, lambda m: m.overlap.predicted * m.voxel,
           "foreground of the prediction; an area in 2D images", ranked=False, shown="file"),
    Metric("lesions_reference", "reference lesions", "count", 0, lambda m: m.lesions.reference,
           "connected components of the reference, neighbours by faces, edges and corners", ranked=False, shown="file"),
    Metric("lesions_prediction", "predicted lesions", "count", 0, lambda m: m.lesions.prediction,
           "connected components of the prediction, neighbours by faces, edges and corners",
           ranked=False, shown="file"),
    *(Metric(f"lesions_{size}", f"{size} reference lesions", "count", 0, partial(_number_of, size=k),
             f"reference lesions with a diameter {which}", "sizes in pixels", ranked=False, shown="file")
      for k, (size, which) in enumerate(SIZES.items())),
    Metric("lesion_precision_touch", "lesion precision (touch)", "ratio", 1, lambda m: m.lesions.precision_touch,
           "predicted lesions that share a voxel with a reference lesion / predicted lesions", PREDICTION_EMPTY,
           ranked=False, shown="file"),
    Metric("lesion_recall_touch", "lesion recall (touch)", "ratio", 1, lambda m: m.lesions.recall_touch,
           "reference lesions that share a voxel with a prediction / reference lesions; 1 for a mask of everything",
           REFERENCE_EMPTY, ranked=False, shown="file"),
    Metric("lesion_f1_touch", "lesion F1 (touch)", "ratio", 1, lambda m: m.lesions.f1_touch,
           "harmonic mean of these two, as many papers have it; 1 for a mask of everything", BOTH_EMPTY,
           ranked=False, shown="file"),
    Metric("dice_slices", "Dice, mean of slices", "ratio", 1, lambda m: m.slices.dice,
           "slice-wise: mean of the Dice of the case's slices, over those where it is defined", BOTH_EMPTY,
           ranked=False, shown="volume"),
    Metric("precision_slices", "precision, mean of slices", "ratio", 1, lambda m: m.slices.precision,
           "slice-wise: mean of the slices' precision, over those where it is defined", PREDICTION_EMPTY,
           ranked=False, shown="volume"),
    Metric("recall_slices", "recall, mean of slices", "ratio", 1, lambda m: m.slices.recall,
           "slice-wise: mean of the slices' recall, over those where it is defined", REFERENCE_EMPTY,
           ranked=False, shown="volume"),
    Metric("hd_rows", "hd_rows", "count", -1, lambda m: m.rows,
           "what the SAMUS papers print as HD: Hausdorff distance of the two sets of image rows at 256x256, in "
           "differing pixels; not a distance in the image", "3D images", ranked=False),
)  # fmt: skip
BY_KEY = {m.key: m for m in METRICS}
DEFAULT_METRICS = ("dice", "iou", "hd95", "assd", "nsd", "lesion_f1")  # what models are compared by
PRIMARY = "dice"  # what findings are about, unless another is named
COUNTS = ("tp", "fp", "fn", "tn")  # of voxels, which every row has before the metrics
LESIONS = {  # shares of lesions -> the number of which they are shares
    **{f"lesion_{share}{rule}": f"lesions_{mask}"
       for share, mask in (("precision", "prediction"), ("recall", "reference")) for rule in ("", "_touch")},
    **{f"lesion_recall_{size}": f"lesions_{size}" for size in SIZES},
}  # fmt: skip
TOLERANCE = 2.0  # of NSD by default, in mm or pixels


class Units(NamedTuple):
    """What lengths and volumes are measured in: physical where the spacing is real, pixels for pictures such as PNG."""

    length: str  # "mm" or "px"
    volume: str  # "ml", "mm2" (an area, in 2D images) or "px" (the number of pixels or voxels)

    def unit(self, metric: Metric) -> str:
        """Return the unit of a metric's values; "" for ratios and counts."""
        return {"length": self.length, "volume": self.volume}.get(metric.quantity, "")

    def label(self, metric: Metric) -> str:
        """Return a metric's name with its unit, for the head of a column: "HD95 (mm)"."""
        unit = self.unit(metric)
        return f"{metric.label} ({unit})" if unit else metric.label

    def column(self, key: str) -> str:
        """Return the column of a metric: its key, and its unit if it has one ("hd95_mm", "volume_error_ml", "dice")."""
        unit = self.unit(BY_KEY[key])
        return f"{key}_{unit}" if unit else key

    def voxel(self, spacing: Sequence[float]) -> float:
        """Return the volume of one voxel.

        Args:
            spacing: distance between voxels along each of three axes; in 2D images, that of the first means nothing.
        """
        return {"ml": math.prod(spacing) / 1000, "mm2": math.prod(spacing[1:]), "px": 1.0}[self.volume]


PHYSICAL = Units("mm", "ml")
PLANAR = Units("mm", "mm2")
PIXELS = Units("px", "px")
