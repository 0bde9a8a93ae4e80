"""Cases as the report shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from evaluations import evaluation

from nnunet_ext.comparison import ModelRuns
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.pictures import mask_file, read, telling_slice


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


def test_the_prediction_that_was_measured_is_shown(tmp_path: Path) -> None:
    """Of pooled folds, one was evaluated, and another, of an earlier split, holds the same case."""
    files = [tmp_path / f"fold_{fold}" / "validation" / "a.nii.gz" for fold in range(2)]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    info = {"predictions": str(tmp_path), "file_ending": ".nii.gz", "prediction_files": {"a": str(files[1])}}
    model = ModelRuns(name="A", runs=[evaluation([0.5], cases=["a"], **info)])
    data = ReportData(models=[model])
    assert mask_file(data, "A", "a", "predictions") == files[1]
    assert mask_file(data, "A", "a", "references") is None
