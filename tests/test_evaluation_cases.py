"""Comparing folders of segmentations, and drawing them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

from nnunet_ext.errors import InputError
from nnunet_ext.evaluation.cases import compare
from nnunet_ext.evaluation.overlay import save_overlay, telling_slice


def write(file: Path, *foreground: tuple[int, int, int], label: int = 1) -> None:
    mask = np.zeros((3, 8, 8), np.uint8)
    for voxel in foreground:
        mask[voxel] = label
    file.parent.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(mask), file)


def test_every_case_and_label(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(tmp_path / "ref" / f"{name}.nii", (0, 0, 0), (1, 1, 1))
    write(tmp_path / "pred" / "a.nii", (0, 0, 0))
    write(tmp_path / "pred" / "b.nii", (0, 0, 0), (1, 1, 1), label=2)
    write(tmp_path / "pred" / "c.nii")
    first, second = compare(tmp_path / "pred", tmp_path / "ref", (1, 2), ".nii")
    assert (first.name, second.name) == ("a", "b")
    assert first.overlaps[1].dice == pytest.approx(2 / 3)
    assert np.isnan(first.overlaps[2].dice)
    assert second.overlaps[1].dice == second.overlaps[2].dice == 0


def test_distances_are_in_millimetres(tmp_path: Path) -> None:
    for folder, slice_ in (("pred", 0), ("ref", 2)):
        write(tmp_path / folder / "a.nii", (slice_, 4, 4))
        file = tmp_path / folder / "a.nii"
        image = sitk.ReadImage(file)
        image.SetSpacing((0.5, 0.5, 5.0))
        sitk.WriteImage(image, file)
    (case,) = compare(tmp_path / "pred", tmp_path / "ref", (1,), ".nii")
    assert case.surface_distances(1).hd95 == pytest.approx(10)
    assert np.isnan(case.surface_distances(2).hd95)


def test_missing_predictions_are_all_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / "ref" / f"{name}.nii")
    write(tmp_path / "pred" / "b.nii")
    with pytest.raises(InputError) as error:
        list(compare(tmp_path / "pred", tmp_path / "ref", (1,), ".nii"))
    assert "a.nii" in str(error.value)
    assert "c.nii" in str(error.value)
    assert "b.nii" not in str(error.value)


def test_no_references(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \*\.nii file"):
        list(compare(tmp_path, tmp_path, (1,), ".nii"))


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
