"""BUSI through the real command line, from a download's layout to predictions with and without clicks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

BIN = Path(sys.executable).parent
TRAINER, PLANS = "nnUNetTrainerSAMUSHFTiny", "nnUNetSAMUSPlans"


def test_busi_pipeline(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        **{n: str(tmp_path / n) for n in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")},
        **{f"NNUNET_EXT_{n}": "1" for n in ("EPOCHS", "ITERATIONS", "VAL_ITERATIONS")},
    }

    def command(line: str, **more: str) -> str:
        name, *arguments = line.split()
        done = subprocess.run(
            [BIN / name, *arguments], env={**environment, **more}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    source, raw = tmp_path / "Dataset_BUSI_with_GT", tmp_path / "nnUNet_raw" / "Dataset030_BUSI"
    command(f"nnunet_ext phantom busi --benign 8 --malignant 6 --normal 2 --size 96 --out {source}")
    printed = command(f"nnunet_ext convert busi --source {source}")
    following = next(line for line in printed.splitlines() if line.startswith("next: ")).removeprefix("next: ")
    assert "-pl SAMUSPlanner" in following
    command(f"{following} -npfp 1 -np 1")
    assert {f.name for f in (tmp_path / "nnUNet_preprocessed" / raw.name).iterdir()} >= {
        "splits_final.json", f"{PLANS}.json", "gt_segmentations",
    }  # fmt: skip
    command(f"nnUNetv2_train 30 2d 0 -tr {TRAINER} -p {PLANS} -device cpu", nnUNet_n_proc_DA="0")
    images = raw / "imagesTs"
    command(
        f"nnUNetv2_predict -i {images} -o {tmp_path / 'automatic'} -d 30 -c 2d -f 0 -tr {TRAINER} -p {PLANS} "
        "-chk checkpoint_best.pth -device cpu -npp 1 -nps 1"
    )
    model = tmp_path / "nnUNet_results" / raw.name / f"{TRAINER}__{PLANS}__2d"
    command(
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
