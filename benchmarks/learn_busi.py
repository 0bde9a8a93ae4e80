"""Does it learn on real data? Four models on BUSI with the same number of samples, tested on held-out images.

    python benchmarks/learn_busi.py --source Dataset_BUSI_with_GT               # 128 x 128, about half an hour on a CPU
    python benchmarks/learn_busi.py --quick                                     # does it run? phantoms, nothing written
    python benchmarks/learn_busi.py --source Dataset_BUSI_with_GT --device cuda --size 256 --passes 400 \\
        --trainers nnUNetTrainerSAMUSHF nnUNetTrainerSAMUS nnUNetTrainerRAUNet nnUNetTrainerMatchedBudget400

The images are converted and preprocessed at one size; `nnunet_ext benchmark` trains, predicts and evaluates. An
interrupted run goes on with the same command. The benchmark's report, with learning curves and patients' images, stays
in --work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from common import convert, machine, options, save, torch_facts

from nnunet_ext.cli import main as nnunet_ext
from nnunet_ext.common.training_log import read_training_log

DATASET_ID, DATASET = 30, "Dataset030_BUSI"
BASELINE = "nnUNetTrainerMatchedBudget400"
TRAINERS = ("nnUNetTrainerRAUNet", "nnUNetTrainerUNet", BASELINE, "nnUNetTrainerSAMUSHFTiny")
SIZE = 128
PHANTOMS = ("--benign", "14", "--malignant", "8", "--normal", "0", "--size", "96")
MATRIX = """\
name = "learn-busi"
title = "Learning on BUSI at {size} x {size}"
device = "{device}"
seeds = [{seed}]
notes = ["So short a training on so few images ranks recipes by how fast they start, not by how good they become."]

[budget]
{budget}

[[datasets]]
id = 30
test = "imagesTs"
preprocess = false

[environment.train]
nnUNet_n_proc_DA = 0 # workers would take time from the network; and the run is reproducible
nnUNet_compile = "f" # minutes of compilation would count as training
"""
ROW = """
[[rows]]
name = "{trainer}"
trainer = "{trainer}"
plans = "{plans}"
configuration = "2d"
"""


def prepare(work: Path, source: Path, size: int) -> str:
    """Convert, plan and preprocess at `size` x `size`, once; return the name of the plans."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    from nnunet_ext.planning import SAMUSPlanner

    class Planner(SAMUSPlanner):
        image_size = size
        default_plans_name = f"{SAMUSPlanner.default_plans_name}_{size}"

    done = work / "prepared"
    if not done.exists():
        convert("busi", source, work / "nnUNet_raw", "--split", "paper", "--dataset-id", str(DATASET_ID))
        api.extract_fingerprint_dataset(DATASET_ID, num_processes=1, show_progress_bar=False)
        api.plan_experiment_dataset(DATASET_ID, Planner)
        api.preprocess_dataset(DATASET_ID, Planner.default_plans_name, ("2d",), (1,), show_progress_bar=False)
        done.touch()
    return Planner.default_plans_name


def matrix(args: argparse.Namespace, plans: str) -> str:
    """Return the benchmark's matrix, a row per trainer."""
    budget = [f"epochs = {args.passes}"] + (["iterations = 1", "val_iterations = 1"] if args.quick else [])
    head = MATRIX.format(size=args.size, device=args.device, seed=args.seed, budget="\n".join(budget))
    return head + "".join(ROW.format(trainer=trainer, plans=plans) for trainer in args.trainers)


def table(folder: Path, trainers: list[str]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the results: means with the intervals of the comparison, and minutes of training."""
    report = folder / "report" / DATASET
    means = pd.read_csv(report / "comparison.csv").set_index(["metric", "model"])
    pairs = pd.read_csv(report / "comparison_pairs.csv").query("metric == 'dice'").set_index(["a", "b"])
    rows = []
    for trainer in trainers:
        dice, hd95 = (means.loc[metric, trainer] for metric in ("dice", "hd95"))
        difference = ""
        for sign, key in ((1, (trainer, BASELINE)), (-1, (BASELINE, trainer))):
            if key in pairs.index:
                pair = pairs.loc[key]
                low, high = sorted((sign * pair["low"], sign * pair["high"]))
                difference = f"{sign * pair['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
        (fold,) = folder.rglob(f"{trainer}__*/fold_0")
        rows.append(
            [
                trainer,
                f"{sum(read_training_log(fold).seconds.values()) / 60:.1f}",
                f"{dice['mean']:.3f} ({dice['low']:.3f} to {dice['high']:.3f})",
                difference,
                f"{hd95['mean']:.1f} ({hd95['low']:.1f} to {hd95['high']:.1f})",
                f"{hd95['undefined']} of {hd95['n'] + hd95['undefined']}",
            ]
        )
    header = ["trainer", "minutes", "Dice (95 %)", "Dice - nnU-Net's (95 %)", "HD95 px (95 %)", "HD95 undefined"]
    return header, rows


def notes(work: Path, args: argparse.Namespace) -> list[str]:
    """Say what the numbers mean and what they do not."""
    fold = json.loads((work / "nnUNet_preprocessed" / DATASET / "splits_final.json").read_text())[0]
    test = len(list((work / "nnUNet_raw" / DATASET / "labelsTs").iterdir()))
    return [
        f"BUSI's lesion images at hand, split 7:1:2 by group of near-duplicates and stratified by class: "
        f"{len(fold['train'])} to train, {len(fold['val'])} to validate, **{test} to test**. Everything is resized to "
        f"{args.size} x {args.size} by one plan, from which the stock network's topology comes as well; the SAMUS "
        "family resizes that to its own 256 x 256 inside. Nobody is given clicks for a prediction.",
        "",
        f"The comparison is by samples: {args.passes} passes for every model, seed {args.seed}, one run each. Loss, "
        "optimiser, schedule, augmentation and mirroring are each recipe's own, and so is the checkpoint: "
        "that of the lowest validation loss for SAM's family, the final one for the others. Minutes are those of all "
        "epochs with their validation; they are reported, not equalised.",
        "",
        "Test images are predicted at their own size, and HD95 is in pixels of that size (BUSI has no pixel spacing). "
        "It is undefined where nothing is predicted; such images are counted and are in no mean of HD95, while their "
        "Dice is 0 and counts. The intervals leave out what another seed of the training would change.",
        "",
        "So short a training on so few images ranks recipes by how fast they start, not by how good they become. In "
        "particular, a tiny transformer that begins at random says nothing about SAMUS-HF, which is a large one that "
        "begins with SAM's weights.",
    ]


def main() -> None:
    """Prepare, run the benchmark, print, write."""
    parser = options(__doc__, quick="22 phantoms at 64 x 64, two iterations")
    parser.add_argument("--source", type=Path, help="BUSI as published; without it there is nothing to do")
    parser.add_argument("--work", type=Path, help="folder to work in (default: learn_busi_work, or learn_busi_quick)")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels per side of the plan (default %(default)s)")
    parser.add_argument(
        "--trainers", nargs="+", default=list(TRAINERS), metavar="TRAINER", help="default: four of them"
    )
    parser.add_argument("--passes", type=int, default=9, help="over the training images (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    if args.quick:
        args.size, args.passes = 64, 2
    elif args.source is None:
        print("skipped: it needs BUSI, --source Dataset_BUSI_with_GT")
        return
    work = (args.work or Path("learn_busi_quick" if args.quick else "learn_busi_work")).resolve()
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (work / name).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(work / name)
    source = args.source
    if source is None:
        source = work / "phantoms"
        subprocess.run([sys.executable, "-m", "nnunet_ext", "phantom", "busi", *PHANTOMS, "--out", source], check=True)
    where = machine(**torch_facts(args.device, args.device == "cuda"))
    file, folder = work / "matrix.toml", work / "benchmark"
    file.write_text(matrix(args, prepare(work, source, args.size)))
    for step in ("run", "report"):
        if code := nnunet_ext(["benchmark", step, str(file), "--out", str(folder)]):
            sys.exit(code)
    header, rows = table(folder, args.trainers)
    trainers = [] if args.trainers == list(TRAINERS) else ["--trainers", *args.trainers]
    chosen = (f"--{name} {getattr(args, name)}" for name in ("size", "passes", "seed", "device"))
    save(
        "learn_busi" if (args.device, args.size) == ("cpu", SIZE) else f"learn_busi_{args.size}_{args.device}",
        title=f"Learning on BUSI at {args.size} x {args.size}",
        command=" ".join(["python benchmarks/learn_busi.py --source Dataset_BUSI_with_GT", *chosen, *trainers]),
        notes=notes(work, args),
        header=header,
        rows=rows,
        packages=("torch", "nnunetv2", "dynamic-network-architectures", "scipy"),
        where=where,
        write=not args.quick,
        seed=args.seed,
        passes=args.passes,
        models=[dict(zip(header, row, strict=True)) for row in rows],
    )


if __name__ == "__main__":
    main()
