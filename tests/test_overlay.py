"""Drawing segmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

from nnunet_ext.evaluation.overlay import save_overlay, telling_slice


def test_the_slice_that_tells_most() -> None:
    reference, prediction = np.zeros((2, 5, 4, 4), bool)
    assert telling_slice(reference, prediction) == 2
    prediction[4, 0, 0] = True
    assert telling_slice(reference, prediction) == 4
    reference[1, :2, :2] = True
    assert telling_slice(reference, prediction) == 1


def test_overlay_shows_both_contours_upright(tmp_path: Path) -> None:
    """Stored upside down, shown with the front up; contours in the colours of the legend."""
    from matplotlib import pyplot as plt

    image = np.full((1, 64, 64), 60, np.int16)
    reference, prediction = np.zeros((2, 1, 64, 64), np.uint8)
    reference[0, 5:20, 10:30] = 1
    prediction[0, 40:60, 35:55] = 1
    files = []
    for name, array in (("image", image), ("reference", reference), ("prediction", prediction)):
        volume = sitk.GetImageFromArray(array)
        volume.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
        files.append(tmp_path / f"{name}.nii")
        sitk.WriteImage(volume, files[-1])
    save_overlay(tmp_path / "o.png", *files, window=(-20, 140), title="case")
    rgb = plt.imread(tmp_path / "o.png")[..., :3]
    below_title, above_legend = rgb.shape[0] // 10, 8 * rgb.shape[0] // 10
    rgb = rgb[below_title:above_legend]
    green, red = (
        np.abs(rgb - np.array(colour) / 255).max(-1) < 0.1 for colour in ((0x2B, 0xD4, 0x6C), (0xFF, 0x40, 0x40))
    )
    assert green.sum() > 50
    assert red.sum() > 50
    assert np.nonzero(red)[0].mean() < np.nonzero(green)[0].mean()
