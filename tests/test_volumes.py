"""Cases as the report shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

from nnunet_ext.evaluation.report.volumes import read, telling_slice


def test_the_slice_that_tells_most() -> None:
    reference, prediction = np.zeros((2, 5, 4, 4), bool)
    assert telling_slice(reference, prediction) == 2
    prediction[4, 0, 0] = True
    assert telling_slice(reference, prediction) == 4
    reference[1, :2, :2] = True
    assert telling_slice(reference, prediction) == 1


def test_volumes_are_read_upright(tmp_path: Path) -> None:
    """Stored upside down and in thick rows, shown with the front up and in proportion."""
    array = np.zeros((2, 6, 8), np.int16)
    array[:, 0] = 7
    volume = sitk.GetImageFromArray(array)
    volume.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    volume.SetSpacing((0.5, 1.5, 5.0))
    sitk.WriteImage(volume, tmp_path / "v.nii")
    read_back = read(tmp_path / "v.nii")
    assert (read_back.slices[:, -1] == 7).all()
    assert (read_back.slices[:, :-1] == 0).all()
    assert read_back.aspect == 3
    assert read(tmp_path / "none.nii") is None
