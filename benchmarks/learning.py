"""Learning and testing with nnU-Net in this process: what `learn_busi.py` reports."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_ext.common.errors import InputError

if TYPE_CHECKING:  # worker processes import this file and do without
    from nnunet_ext.trainers.pass_trainer import PassTrainer

DATASET_ID, DATASET = 30, "Dataset030_BUSI"
CHECKPOINTS = ("final", "best")
SHARE_OF_TRAINING = 0.85  # of the time; the rest is for preparing, predicting and writing checkpoints
CURVES = ("train_losses", "val_losses", "mean_fg_dice")


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where nnU-Net's folders are, and on which plans and device everything runs."""

    root: Path
    plans: str
    device: str

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / DATASET

    def model(self, trainer: str) -> Path:
        return self.root / "nnUNet_results" / DATASET / f"{trainer}__{self.plans}__2d"

    def predictions(self, trainer: str, checkpoint: str) -> Path:
        return self.root / "predictions" / trainer / checkpoint

    def test_cases(self) -> list[str]:
        return sorted(f.stem for f in (self.raw / "labelsTs").iterdir())

    def sizes(self) -> dict[str, int]:
        """How many images train, validate and test."""
        fold = json.loads((self.preprocessed / "splits_final.json").read_text())[0]
        return {"train": len(fold["train"]), "val": len(fold["val"]), "test": len(self.test_cases())}

    def batch_size(self) -> int:
        plans = json.loads((self.preprocessed / f"{self.plans}.json").read_text())
        return plans["configurations"]["2d"]["batch_size"]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a model cost, how it learned, and how it segments each test image.

    Args:
        iterations: of training, in all.
        seconds: of all epochs, with their validation and without writing checkpoints.
        minutes: since the start, at the end of each epoch.
        curves: nnU-Net's log of each epoch, a key of `CURVES` each.
        dice, hd95: checkpoint -> case -> value; HD95 in pixels of the image, None where it is undefined.
    """

    trainer: str
    parameters: int
    iterations: int
    seconds: float
    minutes: list[float]
    curves: dict[str, list[float]]
    dice: dict[str, dict[str, float]]
    hd95: dict[str, dict[str, float | None]]


def settled(file: Path, content: dict[str, Any]) -> None:
    """Write down what a folder was made with; refuse to continue it with anything else."""
    if file.exists() and (former := json.loads(file.read_text())) != content:
        differing = [f"{k} {former.get(k)}, now {v}" for k, v in content.items() if former.get(k) != v]
        raise InputError(
            f"{file.parent} was made with other settings: {'; '.join(differing)}.",
            hint="Name another folder with --work, or remove this one.",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def some_of(source: Path, cases: int, folder: Path) -> Path:
    """Links to `cases` images with lesions, evenly spaced in the order of ids, and to their masks."""
    from nnunet_ext.dataset_conversion import busi, engine

    found = engine.find(busi.BusiReader(), source).cases
    for i in np.linspace(0, len(found) - 1, min(cases, len(found))).round().astype(int):
        for path in (found[i].image, *found[i].masks):
            link = folder / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path.resolve())
    return folder


def prepare(root: Path, source: Path, size: int, device: str) -> Workplace:
    """Convert, plan and preprocess at `size` x `size`, once; nnU-Net's folders are environment variables already."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    from nnunet_ext.planning import SAMUSPlanner

    class Planner(SAMUSPlanner):
        image_size = size
        default_plans_name = f"{SAMUSPlanner.default_plans_name}_{size}"

    place, done = Workplace(root=root, plans=Planner.default_plans_name, device=device), root / "prepared"
    if not done.exists():
        convert = ["convert", "busi", "--split", "paper", "--dataset-id", str(DATASET_ID), "--source", str(source)]
        subprocess.run([sys.executable, "-m", "nnunet_ext", *convert], check=True)
        api.extract_fingerprint_dataset(DATASET_ID, num_processes=1, show_progress_bar=False)
        api.plan_experiment_dataset(DATASET_ID, Planner)
        api.preprocess_dataset(DATASET_ID, place.plans, ("2d",), (1,), show_progress_bar=False)
        done.touch()
    return place


def new_trainer(name: str, place: Workplace) -> PassTrainer:
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(str(DATASET_ID), "2d", 0, name, place.plans, device=torch.device(place.device))


def seconds_per_pass(name: str, place: Workplace, steps: int = 4) -> float:
    """Measured in a few steps of training and one of validation, after a warm-up."""
    trainer = new_trainer(name, place)
    trainer.disable_checkpointing = True
    trainer.on_train_start()
    trainer.on_train_epoch_start()

    def seconds(validation: bool) -> float:
        start = time.perf_counter()
        if validation:
            trainer.validation_step(next(trainer.dataloader_val))
        else:
            trainer.train_step(next(trainer.dataloader_train))  # waits for the device: it returns the loss
        return time.perf_counter() - start

    seconds(False)
    step = float(np.median([seconds(False) for _ in range(steps)]))
    return trainer.num_iterations_per_epoch * step + trainer.num_val_iterations_per_epoch * seconds(True)


def affordable_passes(trainers: Sequence[str], place: Workplace, minutes: float) -> tuple[int, dict[str, float]]:
    """Passes with which all models together take so many minutes, and the seconds of one pass of each."""
    seconds = {name: seconds_per_pass(name, place) for name in trainers}
    return max(1, math.floor(SHARE_OF_TRAINING * minutes * 60 / sum(seconds.values()))), seconds


def learn(name: str, place: Workplace) -> Learned:
    """Train (or go on from the last checkpoint), predict the test cases, and compare; once."""
    file = place.root / "learned" / f"{name}.json"
    if not file.exists():
        trainer = train(name, place)
        log = trainer.logger.get_checkpoint()
        ends, starts = (np.array(log[f"epoch_{edge}_timestamps"]) for edge in ("end", "start"))
        elapsed = np.cumsum(ends - starts)
        scores = {checkpoint: test(name, checkpoint, place) for checkpoint in CHECKPOINTS}
        learned = Learned(
            trainer=name,
            parameters=sum(p.numel() for p in trainer.network.parameters()),
            iterations=trainer.num_iterations_per_epoch * len(elapsed),
            seconds=float(elapsed[-1]),
            minutes=(elapsed / 60).tolist(),
            curves={key: [float(value) for value in log[key]] for key in CURVES},
            dice={checkpoint: dice for checkpoint, (dice, _) in scores.items()},
            hd95={checkpoint: hd95 for checkpoint, (_, hd95) in scores.items()},
        )
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(asdict(learned)))
    return Learned(**json.loads(file.read_text()))


def train(name: str, place: Workplace) -> PassTrainer:
    """As ``nnUNetv2_train --c`` does, without its validation at the end."""
    from nnunetv2.run.run_training import maybe_load_checkpoint

    trainer = new_trainer(name, place)
    maybe_load_checkpoint(trainer, continue_training=True, validation_only=False)
    if (Path(trainer.output_folder) / "checkpoint_final.pth").exists():
        trainer.disable_checkpointing = True
        trainer.on_train_start()  # which knows the length of an epoch
    else:
        trainer.run_training()
    return trainer


def test(name: str, checkpoint: str, place: Workplace) -> tuple[dict[str, float], dict[str, float | None]]:
    """Dice and HD95 of every test case, predicted at its own size."""
    from nnunet_ext.evaluation.evaluator import evaluate

    folder = place.predictions(name, checkpoint)
    predict(place.model(name), checkpoint, place, folder)
    evaluation = evaluate(folder, place.raw / "labelsTs", dataset_json=place.raw / "dataset.json")
    (structure,) = evaluation.structures
    scores = evaluation.of(structure)
    return scores["dice"].to_dict(), {case: None if np.isnan(v) else v for case, v in scores["hd95"].items()}


def predict(model: Path, checkpoint: str, place: Workplace, folder: Path) -> None:
    """nnU-Net's prediction, with whatever mirroring the trainer asks for, in this process."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folder.mkdir(parents=True, exist_ok=True)
    predictor = nnUNetPredictor(
        device=torch.device(place.device), perform_everything_on_device=place.device == "cuda", allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(model), (0,), f"checkpoint_{checkpoint}.pth")
    cases = place.test_cases()
    images = [[str(place.raw / "imagesTs" / f"{case}_0000.png")] for case in cases]
    predictor.predict_from_files_sequential(images, [str(folder / case) for case in cases])


@contextmanager
def output_in(file: Path) -> Iterator[None]:
    """All that nnU-Net prints goes to the end of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream, redirect_stdout(stream):
        yield
