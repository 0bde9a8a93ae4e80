"""A tiny model to click with, trained on phantoms by nnU-Net's own commands, for a first look without a download."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nnunet_ext.common import environment
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json, write_json, writing_to
from nnunet_ext.common.processes import Track, untracked

TRAINER, PLANS, DATASET_ID = "nnUNetTrainerSAMUSHFTiny128", "nnUNetSAMUSPlans", 30
EPOCHS = 11
MARK = "click_demo.json"  # says what of the demo is finished
RECIPE = {"trainer": TRAINER, "epochs": EPOCHS, "phantoms": 1}


def prepare(folder: Path, *, track: Track = untracked) -> tuple[Path, Path]:
    """Train the model in a folder, unless that is done; about a minute and a half on two cores.

    Returns:
        the folder of the model, and that of phantoms that it has not seen.

    Raises:
        InputError: the folder holds something else, or a command failed.
    """
    mark, folder = folder / MARK, folder.resolve()
    model = folder / f"nnUNet_results/Dataset{DATASET_ID:03d}_BUSI/{TRAINER}__{PLANS}__2d"
    images = folder / "images"
    if folder.exists() and not mark.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something else.", hint="Name another folder with -o.")
    there = read_json(mark) if mark.is_file() else {}
    if there == {**RECIPE, "finished": True}:
        return model, images
    with writing_to(folder, hint="Name another folder with -o."):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(mark, RECIPE)
        paths = {name: folder / name for name in environment.NNUNET_FOLDERS}
        for path in paths.values():
            path.mkdir(exist_ok=True)
    variables = {
        **{name: str(path) for name, path in paths.items()},
        environment.EPOCHS: str(EPOCHS),
        environment.VAL_ITERATIONS: "4",
        environment.SEED: "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    phantoms, unseen = folder / "phantoms", folder / "unseen"
    seen = "--benign 40 --malignant 20 --normal 4 --size 160 --seed 3 --out"
    others = "--benign 5 --malignant 3 --normal 0 --seed 4 --out"
    ours, nnunet = ("-m", "nnunet_ext"), ("-m", "nnunet_ext.run")
    plan = f"nnUNetv2_plan_and_preprocess -d {DATASET_ID} -c 2d -pl SAMUSPlanner -np 2 -npfp 2"
    train = f"nnUNetv2_train {DATASET_ID} 2d 0 -tr {TRAINER} -p {PLANS} -device cpu"
    steps: list[tuple[str, list[str | Path]]] = [
        ("drawing phantoms", [*ours, *f"phantom busi {seen}".split(), phantoms]),
        ("drawing others, to click on", [*ours, *f"phantom busi {others}".split(), unseen]),
        ("converting", [*ours, *f"convert busi --dataset-id {DATASET_ID} --split cv5 --source".split(), phantoms]),
        ("planning and preprocessing", [*nnunet, *plan.split()]),
        (f"training {EPOCHS} epochs of {TRAINER} on the CPU", [*nnunet, *train.split()]),
    ]
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        for what, command in track(steps, total=len(steps), what="demo", unit="step"):
            log.write(f"== {what}\n")
            log.flush()
            more = {"nnUNet_n_proc_DA": "0"} if TRAINER in command else {}  # no worker takes time from the network
            done = subprocess.run(
                [sys.executable, *command],
                env=os.environ | variables | more,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if done.returncode:
                raise InputError(f"{what} failed.", hint=f"What it said is in {log.name}.")
    images.mkdir(exist_ok=True)
    for file in sorted(unseen.rglob("*.png")):
        if "_mask" not in file.name:
            file.replace(images / file.name.replace(" ", "_").replace("(", "").replace(")", ""))
    write_json(mark, {**RECIPE, "finished": True})
    return model, images
