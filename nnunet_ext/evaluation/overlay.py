"""Pictures of segmentations over the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

REFERENCE_COLOUR, PREDICTION_COLOUR = "#2bd46c", "#ff4040"


def telling_slice(reference: np.ndarray, prediction: np.ndarray) -> int:
    """The slice with the largest reference; without a reference, with the largest prediction; else the middle one."""
    for mask in (reference, prediction):
        if mask.any():
            return int(np.argmax(mask.sum(axis=(1, 2))))
    return len(reference) // 2


def upright(file: Path) -> np.ndarray:
    """A volume as radiologists look at it, whatever orientation it is stored in: front up, the patient's right at left.

    Shapes: (slices, height, width).
    """
    return sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(file), "LPS"))


def save_overlay(
    file: Path,
    image_file: Path,
    reference_file: Path,
    prediction_file: Path,
    *,
    window: tuple[float, float],
    title: str,
) -> None:
    """Write a PNG of one slice: plain, and with the contours of reference and prediction.

    Args:
        file: PNG to write.
        image_file, reference_file, prediction_file: volumes of one case; masks are foreground where non-zero.
        window: intensities shown black and white.
        title: text above.
    """
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    image, reference, prediction = (upright(f) for f in (image_file, reference_file, prediction_file))
    z = telling_slice(reference, prediction)
    figure, axes = plt.subplots(1, 2, figsize=(9, 5), facecolor="black", layout="constrained")
    for axis in axes:
        axis.imshow(image[z], cmap="gray", vmin=window[0], vmax=window[1])
        axis.set_axis_off()
    contours = ((reference, REFERENCE_COLOUR, "reference"), (prediction, PREDICTION_COLOUR, "prediction"))
    for mask, colour, _ in contours:
        if mask[z].any():
            axes[1].contour(mask[z] != 0, levels=[0.5], colors=colour, linewidths=1.5)
    handles = [Line2D([], [], color=colour, label=label) for _, colour, label in contours]
    axes[1].legend(handles=handles, loc="lower right", facecolor="black", labelcolor="white", framealpha=0.6)
    figure.suptitle(f"{title}  (slice {z})", color="white")
    figure.savefig(file, dpi=110, facecolor="black")
    plt.close(figure)
