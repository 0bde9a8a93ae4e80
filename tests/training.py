"""Training and prediction of tiny models by nnU-Net's own functions, in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args, run_training

from nnunet_ext import registry

CPU = torch.device("cpu")
PLANS = "nnUNetRAUNetPlans"


def one_fast(entries: list[registry.Entry], fast: str) -> list:
    """Return trainers as parameters of a test that is slow for all of them but one."""
    return [pytest.param(e, id=e.name, marks=[pytest.mark.slow] if e.name != fast else []) for e in entries]


def make(trainer: str, dataset_id: int = 29, configuration: str = "2d", plans: str = PLANS, fold: int = 0, **kwargs):
    """Return nnU-Net's trainer as ``nnUNetv2_train`` makes it."""
    return get_trainer_from_args(str(dataset_id), configuration, fold, trainer, plans, device=CPU, **kwargs)


def train(trainer: str, dataset_id: int = 29, configuration: str = "2d", plans: str = PLANS, **kwargs) -> None:
    """Train as ``nnUNetv2_train`` does."""
    run_training(str(dataset_id), configuration, kwargs.pop("fold", 0), trainer, plans, device=CPU, **kwargs)


def model_folder(results: Path, trainer: str, plans: str = PLANS, configuration: str = "2d", dataset: int = 29) -> Path:
    """Return where nnU-Net puts a model."""
    return results / f"Dataset{dataset:03d}_Tiny" / f"{trainer}__{plans}__{configuration}"


def untrained(trainer: str, dataset: int, plans: str) -> Path:
    """Leave behind a model as a training begins with it, and return its folder."""
    made = make(trainer, dataset, plans=plans)
    made.initialize()
    for name in ("best", "final"):
        made.save_checkpoint(f"{made.output_folder}/checkpoint_{name}.pth")
    folder = Path(made.output_folder).parent
    shutil.copy(Path(made.preprocessed_dataset_folder_base) / "dataset.json", folder)
    shutil.copy(Path(made.preprocessed_dataset_folder_base) / f"{plans}.json", folder / "plans.json")
    return folder


def checkpoint(folder: Path, name: str = "final", fold: int = 0) -> dict:
    """Read a checkpoint of a fold."""
    return torch.load(folder / f"fold_{fold}" / f"checkpoint_{name}.pth", weights_only=False)


def images(prepared: Path, dataset: int = 29) -> list[list[str]]:
    """Return the training images of a tiny dataset, a list of channels per case."""
    files = sorted((prepared / "nnUNet_raw" / f"Dataset{dataset:03d}_Tiny" / "imagesTr").iterdir())
    channels = len({f.name.split("_")[-1] for f in files})
    return [[str(f) for f in files[i : i + channels]] for i in range(0, len(files), channels)]


def predict(folder: Path, cases: list[list[str]]) -> list[np.ndarray]:
    """Predict cases with fold 0 as ``nnUNetv2_predict`` does."""
    predictor = nnUNetPredictor(device=CPU, perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    return predictor.predict_from_files_sequential(cases, None)


def resumed_equals_whole(
    trainer: str, dataset: int, plans: str, results: Path, again: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict, dict]:
    """Train three epochs, and again with an interruption in the third; the latter's checkpoint_latest and final one."""
    from nnunet_ext.trainers.pass_trainer import PassTrainer

    monkeypatch.setenv("NNUNET_EXT_EPOCHS", "3")
    monkeypatch.setenv("NNUNET_EXT_SEED", "7")
    train(trainer, dataset, plans=plans)
    whole = checkpoint(model_folder(results, trainer, plans, dataset=dataset))

    again.mkdir()
    monkeypatch.setenv("nnUNet_results", str(again))
    step, steps = PassTrainer.train_step, []

    def interrupted(self, batch: dict) -> dict:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(PassTrainer, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(trainer, dataset, plans=plans)
    folder = model_folder(again, trainer, plans, dataset=dataset)
    latest = checkpoint(folder, "latest")
    torch.manual_seed(99)  # whatever state the generators are in
    train(trainer, dataset, plans=plans, continue_training=True)
    resumed = checkpoint(folder)

    assert resumed["network_weights"].keys() == whole["network_weights"].keys()
    for key, tensor in whole["network_weights"].items():
        assert torch.equal(tensor, resumed["network_weights"][key]), key
    for key in ("train_losses", "val_losses", "mean_fg_dice"):
        assert whole["logging"][key] == resumed["logging"][key]
    return latest, resumed


def two_processes(short_runs: Path, dataset: str, trainer: str, plans: str, *, batch_size: int) -> None:
    """Distributed training keeps the ranks' weights equal and sees different data."""
    from ddp_child import run
    from torch import multiprocessing as mp

    mp.spawn(run, args=(str(short_runs / "rendezvous"), str(short_runs), dataset, trainer, plans), nprocs=2)
    first, second = (torch.load(short_runs / f"rank_{r}.pt", weights_only=False) for r in range(2))
    assert first["without_gradient"] == second["without_gradient"] == []
    for key, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][key]), key
    assert first["batch_size"] == second["batch_size"] == batch_size
    assert not torch.equal(first["data"], second["data"])
    assert first["moved"]
