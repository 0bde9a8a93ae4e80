"""The whole way on synthetic data and on the CPU, in minutes, by nnU-Net's own commands:

phantom LiTS in its download layout -> convert -> plan and preprocess -> train nnUNetTrainerRAUNet and stock nnU-Net
with the same budget on the same plans -> predict the held-out cases -> evaluate -> compare, with a report to look at.

It is a benchmark like any other: OUT/demo.toml is its matrix, and `nnunet_ext benchmark plan OUT/demo.toml --out OUT`
prints every command. An interrupted demo continues with the same command.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import write_text, writing_to

HELP = "phantom data to predictions and a report, on the CPU, in minutes"

NAME = "demo.toml"
# of phantom seeds 0 to 59, 15 has the held-out patients with the largest tumours: minutes of training find no tiny ones
MATRIX = """\
name = "demo"
title = "RA-U-Net and nnU-Net on phantom CT"
device = "cpu"
data = "own"
notes = ["Phantoms and minutes of training: this shows the way, not how good a model is on patients."]

[budget]
epochs = {epochs}
iterations = {iterations}
val_iterations = 10

[[datasets]]
id = 29
name = "Dataset029_LiTS"
test = "imagesTs"
prepare = [
    "nnunet_ext phantom lits --cases {cases} --size {size} --slices {slices} --seed 15 --out {{root}}/LiTS",
    "nnunet_ext convert lits --source {{root}}/LiTS",
]

[[rows]]
name = "RA-U-Net"
trainer = "nnUNetTrainerRAUNet"

[[rows]]
name = "nnU-Net, same budget and plans"
trainer = "nnUNetTrainerMatchedBudget"
plans = "nnUNetRAUNetPlans"

[arguments]
plan = "-npfp 2 -np 2 --verify_dataset_integrity"
predict = "-npp 1 -nps 1"

[environment]
nnUNet_def_n_proc = 2
OMP_WAIT_POLICY = "PASSIVE" # threads that spin while they wait starve each other on a busy machine

[environment.train]
nnUNet_n_proc_DA = 0 # workers would take time from the network on two cores; and the run is reproducible
OMP_NUM_THREADS = 1  # both trainings run at the same time
"""
CONTENT = (
    *("LiTS", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"),
    *("predictions", "evaluations", "report", "jobs", "logs", ".snakemake", "benchmark.json", "matrix.toml"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add size and budget; the defaults learn the tumours within minutes on two cores."""
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to work in (default: demo)")
    parser.add_argument("--cases", type=int, default=30, help="phantom patients, a tenth of them held out (default 30)")
    parser.add_argument("--size", type=int, default=80, help="pixels per side (default 80)")
    parser.add_argument("--slices", type=int, default=16, help="slices per patient (default 16)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each training (default 4)")
    parser.add_argument("--iterations", type=int, default=100, help="iterations per epoch (default 100)")
    parser.add_argument("--overwrite", action="store_true", help="start anew where another demo has been run")


def run(args: argparse.Namespace) -> int:
    start, out = time.monotonic(), args.out.resolve()
    sizes = {key: getattr(args, key) for key in ("cases", "size", "slices", "epochs", "iterations")}
    prepare(out, MATRIX.format(**sizes), args.overwrite)

    from nnunet_ext.cli import main

    matrix = [str(out / NAME), "--out", str(out)]
    for step in (["plan"], ["run", "--jobs", "2"], ["report"]):
        if code := main(["benchmark", *step, *matrix]):
            return code
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes. Look at:")
    print(f"  {out}/report/Dataset029_LiTS/report.html   the comparison, with pictures of every held-out case")
    print(f"  {out}/evaluations, {out}/nnUNet_results    metrics, manifests, models and their training curves")
    print(f"  {out}/logs                                 everything the commands said")
    return 0


def prepare(out: Path, matrix: str, overwrite: bool) -> None:
    """Put the matrix into its folder; replace a demo of other sizes only when asked to, and anything else never."""
    there = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    file = out / NAME
    ours = file.is_file() and there <= {NAME, *CONTENT}
    if ours and not overwrite and file.read_text() == matrix:
        return  # goes on where it was
    if out.is_file() or (there and not (ours and overwrite)):
        raise InputError(
            f"{out} holds {'a demo of other sizes' if ours else 'something else'}.",
            hint="Add --overwrite to start anew." if ours else "Name another folder with --out.",
        )
    with writing_to(out, hint="Name another folder with --out."):
        if there:
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        write_text(file, matrix)
