"""BUSI through the real command line, from a download's layout to predictions with and without clicks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from commands import ONE_ITERATION, command, folders

TRAINER, PLANS = "nnUNetTrainerSAMUSHFTiny", "nnUNetSAMUSPlans"


@pytest.mark.slow
def test_busi_pipeline(tmp_path: Path) -> None:
    environment = {**folders(tmp_path), **ONE_ITERATION}

    def run(line: str, **more: str) -> str:
        return command(line, **environment, **more)

    source, raw = tmp_path / "Dataset_BUSI_with_GT", tmp_path / "nnUNet_raw" / "Dataset030_BUSI"
    run(f"nnunet_ext phantom busi --benign 8 --malignant 6 --normal 2 --size 96 --out {source}")
    printed = run(f"nnunet_ext convert busi --source {source}")
    following = next(line for line in printed.splitlines() if line.startswith("next: ")).removeprefix("next: ")
    assert "-pl SAMUSPlanner" in following
    run(f"{following} -npfp 1 -np 1")
    assert {f.name for f in (tmp_path / "nnUNet_preprocessed" / raw.name).iterdir()} >= {
        "splits_final.json", f"{PLANS}.json", "gt_segmentations",
    }  # fmt: skip
    run(f"nnUNetv2_train 30 2d 0 -tr {TRAINER} -p {PLANS} -device cpu", nnUNet_n_proc_DA="0")
    images = raw / "imagesTs"
    run(
        f"nnUNetv2_predict -i {images} -o {tmp_path / 'automatic'} -d 30 -c 2d -f 0 -tr {TRAINER} -p {PLANS} "
        "-chk checkpoint_best.pth -device cpu -npp 1 -nps 1"
    )
    model = tmp_path / "nnUNet_results" / raw.name / f"{TRAINER}__{PLANS}__2d"
    run(
        f"nnunet_ext predict -m {model} -i {images} -o {tmp_path / 'clicked'} --from-reference {raw / 'labelsTs'} "
        "-device cpu"
    )
    for out in ("automatic", "clicked"):
        predicted = sorted((tmp_path / out).glob("*.png"))
        assert [f.name for f in predicted] == sorted(f.name for f in (raw / "labelsTs").iterdir())
        for file in predicted:
            segmentation = sitk.GetArrayFromImage(sitk.ReadImage(file))
            reference = sitk.GetArrayFromImage(sitk.ReadImage(raw / "labelsTs" / file.name))
            assert segmentation.shape == reference.shape
            assert set(np.unique(segmentation)) <= {0, 1}
    used = json.loads((tmp_path / "clicked" / "prompts_used.json").read_text())
    assert used["source"] == "reference"
    assert len(used["cases"]) == len(list(images.iterdir()))
