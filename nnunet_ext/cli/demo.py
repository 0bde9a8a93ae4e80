"""The whole way on synthetic data and on the CPU, in minutes, by nnU-Net's own commands:

phantom LiTS in its download layout -> convert -> plan and preprocess -> train nnUNetTrainerRAUNet -> predict the
held-out cases -> Dice, precision and recall per case, and pictures. Every command is printed as it can be repeated.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nnunet_ext.errors import InputError

HELP = "phantom data to predictions and pictures, on the CPU, in minutes"

DATASET, PLANS, TRAINER = "Dataset029_LiTS", "nnUNetRAUNetPlans", "nnUNetTrainerRAUNet"
WINDOW = (-20.0, 140.0)  # HU, the paper's
MARKER = ".nnunet_ext_demo"
CONTENT = (
    *("LiTS", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"),
    *("logs", "predictions", "pictures", "metrics.csv"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size and budget; the defaults learn the tumours within five minutes on two cores."""
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to work in (default: demo)")
    parser.add_argument("--cases", type=int, default=30, help="phantom patients, a tenth of them held out (default 30)")
    parser.add_argument("--size", type=int, default=80, help="pixels per side (default 80)")
    parser.add_argument("--slices", type=int, default=16, help="slices per patient (default 16)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of the training (default 4)")
    parser.add_argument("--iterations", type=int, default=100, help="iterations per epoch (default 100)")
    parser.add_argument("--overwrite", action="store_true", help="start anew where a demo has been run")


def run(args: argparse.Namespace) -> int:
    """All steps, then where to look."""
    start, out = time.monotonic(), args.out.resolve()
    prepare(out, args.overwrite)
    demo = Demo(out, {
        "nnUNet_raw": str(out / "nnUNet_raw"),
        "nnUNet_preprocessed": str(out / "nnUNet_preprocessed"),
        "nnUNet_results": str(out / "nnUNet_results"),
        "NNUNET_EXT_EPOCHS": str(args.epochs),
        "NNUNET_EXT_ITERATIONS": str(args.iterations),
        "NNUNET_EXT_VAL_ITERATIONS": "10",
        "NNUNET_EXT_SEED": "0",
        "nnUNet_def_n_proc": "2",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve each other on a busy machine
    })  # fmt: skip
    raw = out / "nnUNet_raw" / DATASET
    # of seeds 0 to 59 the one whose held-out patients have the largest tumours: minutes of training find no tiny ones
    size = f"--size {args.size} --slices {args.slices}"
    demo.step(f"nnunet_ext phantom lits --cases {args.cases} {size} --seed 15 --out {out}/LiTS")
    demo.step(f"nnunet_ext convert lits --source {out}/LiTS")
    demo.step("nnUNetv2_plan_and_preprocess -d 29 -c 2d -pl RAUNetPlanner -npfp 2 -np 2 --verify_dataset_integrity")
    # no augmentation workers: on two cores they would take time from the network, and the run is reproducible
    demo.step(
        f"nnUNetv2_train 29 2d 0 -tr {TRAINER} -p {PLANS} -device cpu",
        show=training_progress(args.epochs),
        nnUNet_n_proc_DA="0",
    )
    demo.step(
        f"nnUNetv2_predict -i {raw}/imagesTs -o {out}/predictions -d 29 -c 2d -f 0 -tr {TRAINER} -p {PLANS} "
        "-device cpu -npp 1 -nps 1"
    )
    report(out, raw)
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes. Look at:")
    print(f"  {out}/pictures/*.png                   reference and prediction over the image")
    print(f"  {out}/metrics.csv                      Dice, precision and recall per held-out case")
    print(f"  {out}/nnUNet_results/{DATASET}/{TRAINER}__{PLANS}__2d/fold_0/progress.png   the training curves")
    print(f"  {out}/logs                             everything the commands said")
    return 0


def prepare(out: Path, overwrite: bool) -> None:
    """A folder to work in; a demo that has been run is only replaced when asked for, anything else never."""
    there = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    ours = MARKER in there and there <= {MARKER, *CONTENT}
    if out.is_file() or (there and not (ours and overwrite)):
        raise InputError(
            f"{out} is not empty.",
            way_out="Add --overwrite to start anew." if ours else "Name another folder with --out.",
        )
    if there:
        shutil.rmtree(out)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs", "pictures"):
        (out / name).mkdir(parents=True)
    (out / MARKER).touch()


class Demo:
    """Runs commands one after the other, each with its log; a failure ends the demo and shows the log's end."""

    def __init__(self, out: Path, environment: dict[str, str]) -> None:
        self.logs, self.environment, self.steps = out / "logs", environment, 0
        for name, value in environment.items():
            print(f"export {name}={shlex.quote(value)}")

    def step(self, command: str, show: Callable[[str], str | None] = lambda line: None, **environment: str) -> None:
        """Run a console script of this environment.

        Args:
            command: what a user would type.
            show: turns a line of output into one to print, or None.
            environment: of this command alone.

        Raises:
            InputError: the command failed.
        """
        self.steps += 1
        print(f"\n[{self.steps}/5] {' '.join(f'{k}={v}' for k, v in environment.items())} {command}", flush=True)
        name, *arguments = shlex.split(command)
        script = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if script is None:
            raise InputError(f"The command {name} is not installed.", way_out="pip install nnunet-ext nnunetv2")
        log, start = self.logs / f"{self.steps}_{name}.log", time.monotonic()
        with log.open("w") as f:
            process = subprocess.Popen(
                [script, *arguments],
                env={**os.environ, **self.environment, **environment, "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for line in process.stdout:
                f.write(line)
                if text := show(line):
                    print(f"      {text}", flush=True)
        if process.wait():
            tail = "".join(log.read_text().splitlines(keepends=True)[-15:])
            raise InputError(f"{name} failed:\n{tail}", way_out=f"The whole output is in {log}.")
        print(f"      done in {time.monotonic() - start:.0f} s", flush=True)


def training_progress(epochs: int) -> Callable[[str], str | None]:
    """Sum up nnU-Net's training output: one line per epoch."""
    seen: dict[str, str] = {}

    def show(line: str) -> str | None:
        for key, pattern in {
            "epoch": r"Epoch (\d+)",
            "loss": r"train_loss (\S+)",
            "dice": r"Pseudo dice \[.*?([\d.]+|nan)\)?\]",
            "time": r"Epoch time: (\S+)",
        }.items():
            if found := re.search(pattern, line):
                seen[key] = found[1]
                if key == "time":
                    number = int(seen["epoch"]) + 1
                    return f"epoch {number}/{epochs}: loss {seen['loss']}, pseudo Dice {seen['dice']}, {seen['time']} s"
        return None

    return show


def report(out: Path, raw: Path) -> None:
    """Print and write the metrics of the held-out cases; draw each."""
    from nnunet_ext.evaluation.folder import evaluate
    from nnunet_ext.evaluation.overlay import save_overlay
    from nnunet_ext.evaluation.source import from_folders

    names = ["dice", "precision", "recall"]
    print(f"\nheld-out case   {'  '.join(f'{n:>9}' for n in names)}")
    evaluation = evaluate(from_folders(out / "predictions", raw / "labelsTs"))
    (structure,) = evaluation.structures
    scores = evaluation.of(structure)[names]
    for case, values in scores.iterrows():
        print(f"{case:<14}  {'  '.join(f'{v:9.3f}' for v in values)}")
        save_overlay(
            out / "pictures" / f"{case}.png",
            raw / "imagesTs" / f"{case}_0000.nii",
            raw / "labelsTs" / f"{case}.nii",
            out / "predictions" / f"{case}.nii",
            window=WINDOW,
            title=f"{case}: tumour Dice {values['dice']:.3f}",
        )
    print(f"{'mean':<14}  {'  '.join(f'{v:9.3f}' for v in scores.mean())}   (of the cases where it is defined)")
    scores.to_csv(out / "metrics.csv")
