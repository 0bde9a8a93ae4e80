"""What a click costs after the image is encoded: `nnunet_ext.Session`, SAMUS-HF on ViT-B, on one core.

    python benchmarks/click_session.py [--runs 10]

The model has random weights, since the time does not depend on them. A click is `add_point` and `mask`, from the place
of the point to labels at the image's own size. What an image costs before its first mask, less a click, is encoding.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from common import aim, machine, options, save, torch_facts

SIZE = (576, 768)  # pixels, as BUSI's pictures
TRAINER, PLANS = "nnUNetTrainerSAMUSHF", "nnUNetSAMUSPlans"
FIRST, CLICK, DECODER = "an image and its first mask", "another click", "of it, the decoder"


def model(folder: Path) -> Path:
    """Leave behind a model as a training begins with it; return its folder."""
    os.environ.update({n: str(folder / n) for n in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")})
    os.environ["NNUNET_EXT_SAM_CHECKPOINT"] = "random"
    import numpy as np
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments
    from nnunetv2.run.run_training import get_trainer_from_args
    from PIL import Image

    raw, preprocessed = folder / "nnUNet_raw/Dataset030_BUSI", folder / "nnUNet_preprocessed/Dataset030_BUSI"
    dataset = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "lesion": 1}, "numTraining": 1}
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(raw / name / f"a{'_0000' * (name == 'imagesTr')}.png")
    (preprocessed / f"{PLANS}_2d").mkdir(parents=True)
    (preprocessed / f"{PLANS}_2d" / "a.b2nd").touch()  # nnU-Net looks which kind of files there are
    (folder / "nnUNet_results").mkdir()
    values = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
    fingerprint = {
        "spacings": [[999, 1, 1]],
        "shapes_after_crop": [[1, *SIZE]],
        "foreground_intensity_properties_per_channel": {"0": values},
        "median_relative_size_after_cropping": 1.0,
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    for place in (raw, preprocessed):
        (place / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".png"}))
    plan_experiments([30], "SAMUSPlanner")
    trainer = get_trainer_from_args("30", "2d", 0, TRAINER, PLANS, device=torch.device("cpu"))
    trainer.initialize()
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_best.pth")
    made = Path(trainer.output_folder).parent
    (made / "dataset.json").write_text((raw / "dataset.json").read_text())
    (made / "plans.json").write_text((preprocessed / f"{PLANS}.json").read_text())
    return made


def measure(folder: Path, runs: int) -> dict[str, list[float]]:
    """Return the seconds of every run, the first of which is not counted."""
    import numpy as np

    from nnunet_ext import Session

    session = Session(folder)
    image = np.random.default_rng(0).integers(0, 255, SIZE, np.uint8)
    times: dict[str, list[float]] = {FIRST: [], CLICK: [], DECODER: []}
    for run in range(runs + 1):
        moments = [time.perf_counter()]
        session.set_image(image)
        session.add_point(100, 100)
        session.mask()
        moments.append(time.perf_counter())
        session.add_point(300 + run, 200)
        session.mask()
        moments.append(time.perf_counter())
        session._logits(prompted=True)
        moments.append(time.perf_counter())
        for what, start, end in zip(times, moments[:-1], moments[1:], strict=True):
            times[what] += [end - start] if run else []
    return times


def main() -> None:
    args = options(__doc__, runs=10).parse_args()
    where = machine()
    with tempfile.TemporaryDirectory() as temporary:
        with contextlib.redirect_stdout(None):
            folder = model(Path(temporary))
        import torch

        torch.set_num_threads(1)
        where |= torch_facts("cpu", amp=False)
        times = measure(folder, args.runs)
    first, click, _ = (statistics.median(values) for values in times.values())
    save(
        "click_session",
        title="What a click costs",
        command="python benchmarks/click_session.py",
        notes=[
            f"{TRAINER} (ViT-B, 256 x 256) on a picture of {SIZE[1]} x {SIZE[0]}, on one core. Medians of {args.runs}. "
            "What is not the decoder's is nnU-Net's way from logits to labels at the picture's own size.",
            "",
            aim("another click, as a share of encoding", click / (first - click), 0.02),
            aim("another click, in ms", 1000 * click, 50),
        ],
        header=["what", "ms", "least", "most"],
        rows=[
            (name, *(f"{1000 * value:.0f}" for value in (statistics.median(v), min(v), max(v))))
            for name, v in times.items()
        ],
        packages=["nnunet-ext", "torch"],
        where=where,
        seconds=times,
    )


if __name__ == "__main__":
    main()
