"""Images per second of whole commands that predict 100 ultrasound images, start of Python included.

    python benchmarks/samus_predict.py [--images 100] [--device cuda]

Phantom BUSI is converted, planned and preprocessed; every trainer trains for one iteration, with random weights, since
the time does not depend on them; then each predicts the same images with the stock command, one after the other, and
SAMUS-HF also with clicks (`nnunet_ext predict`, which loads, predicts and writes in one process).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, options, save

BIN = Path(sys.executable).parent
PLANS = "nnUNetSAMUSPlans"
TRAINERS = ("nnUNetTrainerSAMUSHF", "nnUNetTrainerMatchedBudget400")
DATASET = "Dataset030_BUSI"


def command(line: str, **environment: str) -> float:
    """Run a console script of this environment and return the seconds that it took."""
    name, *arguments = line.split()
    start = time.perf_counter()
    done = subprocess.run(
        [BIN / name, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start


def prepare(folder: Path, images: int, device: str) -> Path:
    """Do everything up to trained models; return the folder of the images to predict."""
    os.environ.update({n: str(folder / n) for n in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")})
    os.environ.update({f"NNUNET_EXT_{n}": "1" for n in ("EPOCHS", "ITERATIONS", "VAL_ITERATIONS")})
    os.environ["NNUNET_EXT_SAM_CHECKPOINT"] = "random"
    malignant = images // 3
    command(
        f"nnunet_ext phantom busi --benign {images - malignant} --malignant {malignant} --normal 0 --out {folder}/b"
    )
    command(f"nnunet_ext convert busi --source {folder}/b --split cv5 --ignore-duplicates")
    command("nnUNetv2_plan_and_preprocess -d 30 -c 2d -pl SAMUSPlanner -npfp 2 -np 2")
    preprocessed = folder / "nnUNet_preprocessed" / DATASET / "splits_final.json"
    names = sorted(f.name.removesuffix("_0000.png") for f in (folder / "nnUNet_raw" / DATASET / "imagesTr").iterdir())
    preprocessed.write_text(f'[{{"train": {names[:-2]}, "val": {names[-2:]}}}]'.replace("'", '"'))
    for trainer in TRAINERS:
        print(f"training {trainer} for one iteration", flush=True)
        command(f"nnUNetv2_train 30 2d 0 -tr {trainer} -p {PLANS} -device {device}", nnUNet_n_proc_DA="0")
    return folder / "nnUNet_raw" / DATASET / "imagesTr"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    where = machine()
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = prepare(folder, args.images, args.device)
        for trainer in TRAINERS:
            print(f"predicting with {trainer}", flush=True)
            seconds[f"nnUNetv2_predict, {trainer}"] = command(
                f"nnUNetv2_predict -i {images} -o {folder}/{trainer} -d 30 -c 2d -f 0 -tr {trainer} -p {PLANS} "
                f"-device {args.device} -npp 1 -nps 1",
                nnUNet_def_n_proc="2",
            )
        model = folder / "nnUNet_results" / DATASET / f"{TRAINERS[0]}__{PLANS}__2d"
        seconds[f"nnunet_ext predict, {TRAINERS[0]}, clicks"] = command(
            f"nnunet_ext predict -m {model} -i {images} -o {folder}/clicked -chk checkpoint_final.pth "
            f"--from-reference {images.parent / 'labelsTr'} -device {args.device}"
        )
        shutil.rmtree(folder / "nnUNet_results")
    stock = seconds[f"nnUNetv2_predict, {TRAINERS[-1]}"]
    save(
        "samus_predict" + ("" if args.device == "cpu" else f"_{args.device}"),
        title=f"Predicting {args.images} ultrasound images",
        command=" ".join(["python benchmarks/samus_predict.py", *sys.argv[1:]]),
        notes=[
            "Whole commands, one run each. Stock nnU-Net mirrors at test time (four passes), SAM's family does not."
        ],
        header=("command", "s", "images per second", "time / stock"),
        rows=[(name, f"{s:.0f}", f"{args.images / s:.2f}", f"{s / stock:.2f}") for name, s in seconds.items()],
        packages=("torch", "nnunetv2"),
        where=where,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
