"""Real CT through convert, plan, preprocess, train and predict."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny
import torch
from lits_source import convert, label_of, real_ct, verify


def test_real_ct(nnunet_folders: Path, shared_data: Path, fork_pools: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    label = real_ct(nnunet_folders / "LiTS", shared_data)
    outcome = convert(nnunet_folders / "LiTS")
    assert outcome.made["written"] == 3
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_001", ".nii.gz"), label == 2)
    verify(outcome.folder)

    plans = tiny.plan_and_preprocess(29)
    folder = nnunet_folders / "nnUNet_preprocessed" / "Dataset029_LiTS" / f"{plans}_2d"
    image, segmentation, *_ = infer_dataset_class(str(folder))(str(folder)).load_case("lits_000")
    assert image.shape == (1, 30, 101, 122)  # native resolution, axial slices
    assert np.array_equal(segmentation[0] > 0, (label == 2).T)
    liver = image[0][label.T == 1]
    assert liver.mean() > image[0].mean()  # a soft tissue window: liver is brighter than what is around the body

    for name in ("EPOCHS", "ITERATIONS", "VAL_ITERATIONS"):
        monkeypatch.setenv(f"NNUNET_EXT_{name}", "1")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    cpu = torch.device("cpu")
    get_trainer_from_args("29", "2d", 0, "nnUNetTrainerRAUNet", plans, device=cpu).run_training()
    predictor = nnUNetPredictor(
        device=cpu, perform_everything_on_device=False, allow_tqdm=False, use_mirroring=False, tile_step_size=1
    )
    model = nnunet_folders / "nnUNet_results" / "Dataset029_LiTS" / f"nnUNetTrainerRAUNet__{plans}__2d"
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    unlabelled = outcome.folder / "imagesTs_unlabelled" / "lits_test_000_0000.nii.gz"
    [predicted] = predictor.predict_from_files_sequential([[str(unlabelled)]], None)
    assert predicted.shape == nib.load(unlabelled).shape[::-1]
