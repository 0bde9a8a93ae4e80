"""Does it learn on real data? Four models on BUSI with the same number of samples, tested on held-out images.

    python benchmarks/learn_busi.py --source Dataset_BUSI_with_GT               # 128 x 128, under 30 minutes on a CPU
    python benchmarks/learn_busi.py --source Dataset_BUSI_with_GT --quick       # does it run? nothing written
    python benchmarks/learn_busi.py --source Dataset_BUSI_with_GT --device cuda --size 256 --passes 400 \\
        --trainers nnUNetTrainerSAMUSHF nnUNetTrainerSAMUS nnUNetTrainerRAUNet nnUNetTrainerMatchedBudget400

The comparison is by samples: all models train for the same number of passes over the same preprocessed images, each
with its own recipe (loss, optimiser, augmentation, mirroring in prediction). Their times are given beside it. Without
--passes there are as many as fit into --minutes by a few measured steps of each model.

What is done stays in --work: an interrupted benchmark goes on when the same command is run again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import learning
import numpy as np
from common import RESULTS, machine, save, torch_facts
from learning import Learned, Workplace

from nnunet_ext.common import environment
from nnunet_ext.common.errors import InputError

BASELINE = "nnUNetTrainerMatchedBudget400"
TRAINERS = ("nnUNetTrainerRAUNet", "nnUNetTrainerUNet", BASELINE, "nnUNetTrainerSAMUSHFTiny")
SIZE = 128
RESAMPLES = 9999


class Mean(NamedTuple):
    """A mean and its bootstrap 95 % interval; the ends are the mean itself where there is nothing to resample."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def mean_of(values: Sequence[float]) -> Mean:
    """By resampling test images (BCa)."""
    from scipy.stats import bootstrap

    value = float(np.mean(values)) if len(values) else float("nan")
    if len(set(values)) < 2:
        return Mean(value, value, value)
    result = bootstrap((values,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(0))
    return Mean(value, *map(float, result.confidence_interval))


def table(models: Sequence[Learned]) -> tuple[list[str], list[list[object]]]:
    """A row per model and checkpoint; differences from the baseline are paired by image."""
    baseline = next((m for m in models if m.trainer == BASELINE), None)
    header = [
        *("trainer", "M parameters", "minutes", "s per iteration", "checkpoint"),
        *("Dice mean (95 %)", "median", "Dice - nnU-Net's (95 %)"),
        *("HD95 px mean (95 %)", "median", "HD95 undefined"),
    ]
    rows: list[list[object]] = []
    for checkpoint in learning.CHECKPOINTS:
        for m in models:
            dice, hd95 = m.dice[checkpoint], list(m.hd95[checkpoint].values())
            defined = [d for d in hd95 if d is not None]
            difference = "" if baseline in (None, m) else mean_of([
                dice[case] - baseline.dice[checkpoint][case] for case in dice
            ])  # fmt: skip
            distance = mean_of(defined)
            rows.append([
                *(m.trainer, f"{m.parameters / 1e6:.2f}", f"{m.seconds / 60:.1f}", f"{m.seconds / m.iterations:.2f}"),
                *(checkpoint, mean_of(list(dice.values())), f"{np.median(list(dice.values())):.3f}", difference),
                f"{distance.value:.1f} ({distance.low:.1f} to {distance.high:.1f})" if defined else "",
                f"{np.median(defined):.1f}" if defined else "",
                f"{len(hd95) - len(defined)} of {len(hd95)}",
            ])  # fmt: skip
    return header, rows


def protocol(place: Workplace, passes: int, args: argparse.Namespace) -> list[str]:
    """What the numbers mean and what they do not."""
    sizes, batch = place.sizes(), place.batch_size()
    return [
        f"BUSI's lesion images at hand, split 7:1:2 by group of near-duplicates and stratified by class: "
        f"{sizes['train']} to train, {sizes['val']} to validate, **{sizes['test']} to test**. Everything is resized to "
        f"{args.size} x {args.size} by one plan, from which the stock network's topology comes as well; the SAMUS "
        "family resizes that to its own 256 x 256 inside. Nobody is given clicks for a prediction.",
        "",
        f"The comparison is by samples: {passes} passes of {sizes['train']} images in batches of {batch} for every "
        f"model, seed {args.seed}, one run each. Loss, optimiser, schedule, augmentation and mirroring in prediction "
        "are each recipe's own. Minutes, and seconds per iteration, are those of all epochs with their validation; "
        "they are given beside, not equalised.",
        "",
        "Test images are predicted at their own size, and HD95 is in pixels of that size (BUSI has no pixel spacing). "
        "It is undefined where nothing is predicted; such images are counted and are in no mean of HD95, while their "
        f"Dice is 0 and counts. Intervals: bootstrap over test images (BCa, {RESAMPLES} resamples), which leaves out "
        "what another seed of the training would change. `final` is the last epoch, as nnU-Net predicts by default; "
        "`best` is each trainer's own choice on the validation images, by validation loss for the SAMUS family and by "
        "moving average of the pseudo Dice for the others.",
        "",
        "So short a training on so few images ranks recipes by how fast they start, not by how good they become. In "
        "particular, a tiny transformer that begins at random says nothing about SAMUS-HF, which is a large one that "
        "begins with SAM's weights.",
        "",
        f"Curves: [{result_name(args)}.png]({result_name(args)}.png).",
    ]


def result_name(args: argparse.Namespace) -> str:
    """The CPU's at the default size has the plain name."""
    return "learn_busi" if (args.device, args.size) == ("cpu", SIZE) else f"learn_busi_{args.size}_{args.device}"


def command(args: argparse.Namespace, passes: int) -> str:
    """What repeats this run, passes included; no folder of this machine."""
    options = {"size": args.size, "passes": passes, "seed": args.seed, "device": args.device, "cases": args.cases}
    words = [f"--{name} {value}" for name, value in options.items() if value is not None]
    trainers = [] if tuple(args.trainers) == TRAINERS else ["--trainers", *args.trainers]
    return " ".join(["python benchmarks/learn_busi.py --source Dataset_BUSI_with_GT", *words, *trainers])


def set_environment(work: Path, args: argparse.Namespace) -> None:
    """nnU-Net's folders, the seed, and no budget but ours."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (work / name).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(work / name)
    os.environ[environment.SEED] = str(args.seed)
    for name in (environment.EPOCHS, environment.ITERATIONS, environment.VAL_ITERATIONS):
        os.environ.pop(name, None)
    os.environ.setdefault("nnUNet_compile", "f")  # minutes of compilation would count as training
    if args.quick:
        os.environ |= {environment.ITERATIONS: "1", environment.VAL_ITERATIONS: "1"}


def run(work: Path, args: argparse.Namespace) -> None:
    """All steps; each that is done already is left as it is."""
    set_environment(work, args)
    learning.settled(work / "settings.json", {
        "size": args.size, "cases": args.cases, "seed": args.seed, "device": args.device, "quick": args.quick,
    })  # fmt: skip
    where = machine(**torch_facts(args.device, args.device == "cuda"))
    source = learning.some_of(args.source, args.cases, work / "source") if args.cases else args.source
    log = work / "log.txt"
    with learning.output_in(log):
        place = learning.prepare(work, source, args.size, args.device)
    print(f"{place.sizes()} images; nnU-Net's output is in {log}", flush=True)
    os.environ.setdefault("nnUNet_n_proc_DA", "0")  # only now: planning wants a worker
    passes = number_of_passes(place, args, log)
    os.environ[environment.EPOCHS] = str(passes)
    models = []
    for name in args.trainers:
        print(f"{name} ...", flush=True)
        with learning.output_in(log):
            models.append(learning.learn(name, place))
        print(f"{name}: {models[-1].seconds / 60:.1f} min, {mean_of(list(models[-1].dice['final'].values()))}")
    report(models, place, passes, where, args)


def number_of_passes(place: Workplace, args: argparse.Namespace, log: Path) -> int:
    """As told, as before, or as many as the minutes allow."""
    file = place.root / "passes.txt"
    if not file.exists():
        passes = args.passes
        if passes is None:
            with learning.output_in(log):
                passes, seconds = learning.affordable_passes(args.trainers, place, args.minutes)
            print("seconds per pass:", ", ".join(f"{name} {s:.1f}" for name, s in seconds.items()))
        file.write_text(str(passes))
    passes = int(file.read_text())
    if args.passes not in (None, passes):
        raise InputError(
            f"{place.root} holds models of {passes} passes, not {args.passes}.", hint="Name another --work."
        )
    print(f"{passes} passes each", flush=True)
    return passes


def report(
    models: Sequence[Learned], place: Workplace, passes: int, where: dict[str, object], args: argparse.Namespace
) -> None:
    """Table, numbers and pictures; the picture with patients' images stays in the work folder."""
    from learning_pictures import draw_curves, draw_examples

    header, rows = table(models)
    save(
        result_name(args),
        title=f"Learning on BUSI at {args.size} x {args.size}",
        command=command(args, passes),
        notes=protocol(place, passes, args),
        header=header,
        rows=rows,
        packages=("torch", "nnunetv2", "dynamic-network-architectures", "scipy"),
        where=where,
        write=not args.quick,
        seed=args.seed,
        passes=passes,
        images=place.sizes(),
        models=[asdict(m) for m in models],
    )
    draw_curves(place.root / "curves.png", models, [mean_of(list(m.dice["final"].values())) for m in models])
    draw_examples(place.root / "examples.png", models, place)
    if not args.quick:
        shutil.copy(place.root / "curves.png", RESULTS / f"{result_name(args)}.png")
    print(f"\npictures: {place.root}/curves.png and examples.png (patients' images: not to be published)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="BUSI as published; without it there is nothing to do")
    parser.add_argument("--work", type=Path, help="folder to work in (default: learn_busi_work, or learn_busi_quick)")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels per side of the plan (default %(default)s)")
    parser.add_argument("--trainers", nargs="+", default=TRAINERS, metavar="TRAINER", help="default: four of them")
    parser.add_argument("--cases", type=int, help="take only so many images, of which 7:1:2 train, validate and test")
    parser.add_argument("--passes", type=int, help="over the training images (default: what fits into --minutes)")
    parser.add_argument("--minutes", type=float, default=25, help="of everything, roughly (default 25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="20 images at 64 x 64, two iterations; nothing written")
    args = parser.parse_args()
    if args.source is None:
        print("skipped: it needs BUSI, --source Dataset_BUSI_with_GT")
        return
    if args.quick:
        args.size, args.cases, args.passes = 64, args.cases or 20, 2
    work = args.work or Path("learn_busi_quick" if args.quick else "learn_busi_work")
    try:
        run(work.resolve(), args)
    except InputError as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
