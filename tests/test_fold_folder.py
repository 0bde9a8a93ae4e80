"""A fold's folder: no fold that the split lacks, one training at a time, and nothing of an earlier one lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from training import checkpoint, make, model_folder, train

from nnunet_ext.common import files
from nnunet_ext.common.errors import InputError
from nnunet_ext.trainers.fold_folder import LOCK, FolderLock, check_fold, set_aside
from nnunet_ext.trainers.pass_trainer import RUNS, PassTrainer

RAUNET = "nnUNetTrainerRAUNet"


def fold_folder(results: Path, trainer: str = RAUNET) -> Path:
    return model_folder(results, trainer) / "fold_0"


@pytest.mark.parametrize("trainer", [RAUNET, "nnUNetTrainerMatchedBudget"])
@pytest.mark.parametrize("fold", [2, 5, -1])
def test_fold_that_the_split_lacks_is_refused(trainer: str, fold: int, datasets: Path) -> None:
    """nnU-Net would draw a random 80:20 split of all cases for 2 and 5, and take the last fold for -1."""
    with pytest.raises(InputError, match=rf"no fold {fold}: .*splits_final\.json has 0, 1\."):
        make(trainer, fold=fold)
    assert not list(datasets.iterdir())


def test_folds_without_a_split(tmp_path: Path) -> None:
    for fold in (*range(5), "all"):
        check_fold(fold, tmp_path)
    with pytest.raises(InputError, match="nnU-Net makes 0, 1, 2, 3, 4"):
        check_fold(5, tmp_path)


HOLD = """
import sys, pathlib
from nnunet_ext.trainers.fold_folder import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]))
"""


def test_second_training_in_a_folder_is_refused(datasets: Path) -> None:
    trainer = make(RAUNET)
    folder = Path(trainer.output_folder)
    hold = "lock.take()\nprint('taken', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD + hold, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"taken\n"
        with pytest.raises(InputError, match=rf"is being trained by process {other.pid} on "):
            trainer.on_train_start()
        other.kill()
    trainer.on_train_start()  # a killed one gives the lock back
    assert (folder / LOCK).exists()
    trainer.on_train_end()
    assert not (folder / LOCK).exists()


def test_lock_of_this_process_stops_another(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.take()
    other = subprocess.run([sys.executable, "-c", HOLD + "lock.take()", tmp_path], capture_output=True, text=True)
    assert "is being trained by process" in other.stderr
    lock.release()
    subprocess.run([sys.executable, "-c", HOLD + "lock.take()", tmp_path], check=True)


def test_training_that_fails_to_start_takes_nothing_away(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(RAUNET).run_training()
    folder = fold_folder(datasets)
    before = {file.name: file.read_bytes() for file in folder.glob("checkpoint_*")}
    assert set(before) == {"checkpoint_best.pth", "checkpoint_final.pth"}

    def no_data(self: PassTrainer) -> None:
        raise FileNotFoundError("the preprocessed data are gone")

    with monkeypatch.context() as patch:
        patch.setattr(PassTrainer, "get_dataloaders", no_data)
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                make(RAUNET).run_training()
    assert {file.name: file.read_bytes() for file in folder.glob("checkpoint_*")} == before


def test_an_earlier_training_is_set_aside_at_the_first_checkpoint_of_the_next(datasets: Path) -> None:
    for number in range(3):
        trainer = make(RAUNET)
        folder = Path(trainer.output_folder)
        (folder / "validation").mkdir(exist_ok=True)
        (folder / "validation" / "summary.json").write_text(str(number))
        (folder / "checkpoint_frozen.pth").write_text(str(number))
        trainer.on_train_start()
        (folder / "checkpoint_final.pth").write_text(str(number))
        assert not (folder / f"previous_{number + 1}").exists()
        trainer.save_checkpoint(str(folder / "checkpoint_best.pth"))
        assert not (folder / "checkpoint_final.pth").exists()
        trainer.save_checkpoint(str(folder / "checkpoint_latest.pth"))
        place = folder / f"previous_{number + 1}"
        for name in ("checkpoint_final.pth", "validation/summary.json", "checkpoint_frozen.pth"):
            assert (place / name).read_text() == str(number)
        assert (folder / "checkpoint_best.pth").is_file()
        assert Path(trainer.log_file).is_file()
    assert not (folder / "previous_4").exists()


def test_continued_training_sets_nothing_aside(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNET_EXT_EPOCHS", "3")
    first = make(RAUNET)
    first.on_train_start()
    latest = Path(first.output_folder) / "checkpoint_latest.pth"
    for key, value in (("train_losses", 0.0), ("val_losses", 0.0), ("mean_fg_dice", 0.5)):
        first.logger.log(key, value, 0)
    first.save_checkpoint(str(latest))
    again = make(RAUNET, continue_training=True)
    maybe_load_checkpoint(again, True, False)
    again.on_train_start()
    again.save_checkpoint(str(latest))
    assert not list(latest.parent.glob("previous_*"))


def test_nothing_to_set_aside(tmp_path: Path) -> None:
    (tmp_path / "training_log_1.txt").write_text("a start that was killed")
    assert set_aside(tmp_path, tmp_path / "training_log_2.txt") is None
    assert (tmp_path / "training_log_1.txt").exists()


def test_checkpoints_are_on_disk_before_they_get_their_name(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(RAUNET)
    trainer.initialize()
    synced: list[str] = []
    monkeypatch.setattr(files, "sync_file", lambda path: synced.append(path.name))
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert [name.split(".")[1] for name in synced] == ["checkpoint_latest"]


def scripted(monkeypatch: pytest.MonkeyPatch, trainer: str, dice: list[float], stop: tuple[int, str] | None) -> None:
    """Train with given pseudo Dice by epoch; interrupted after some file of an epoch was saved, if that is given."""
    original, save = PassTrainer.on_validation_epoch_end, PassTrainer.save_checkpoint

    def replaced(self: PassTrainer, outputs: list) -> None:
        value = dice[self.current_epoch]
        counts = {"tp_hard": value, "fp_hard": 1 - value, "fn_hard": 1 - value, "loss": 1 - value}
        original(self, [{**o, **{k: np.full_like(o[k], v, dtype=float) for k, v in counts.items()}} for o in outputs])

    def interrupted(self: PassTrainer, filename: str) -> None:
        save(self, filename)
        if (self.current_epoch, Path(filename).stem.removeprefix("checkpoint_")) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(PassTrainer, "on_validation_epoch_end", replaced)
    with monkeypatch.context() as patch:
        if stop is not None:
            patch.setattr(PassTrainer, "save_checkpoint", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train(trainer)
    if stop is not None:
        monkeypatch.setattr(PassTrainer, "save_checkpoint", save)
    train(trainer, continue_training=stop is not None)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [(0, "latest"), (1, "latest"), (1, "best")])
def test_interrupted_training_has_the_same_best_checkpoint(
    stop: tuple[int, str], datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch is the best; nnU-Net saves checkpoint_latest before it says so."""
    monkeypatch.setenv("NNUNET_EXT_EPOCHS", "4")
    monkeypatch.setenv("NNUNET_EXT_SEED", "7")
    dice = [0.1, 0.9, 0.15, 0.12]  # moving average .1, .18, .177, .171
    scripted(monkeypatch, RAUNET, dice, None)
    whole = checkpoint(model_folder(datasets, RAUNET), "best")
    again = tmp_path / "again"
    again.mkdir()
    monkeypatch.setenv("nnUNet_results", str(again))
    scripted(monkeypatch, RAUNET, dice, stop)
    resumed = checkpoint(model_folder(again, RAUNET), "best")
    assert (resumed["current_epoch"], resumed["_best_ema"]) == (whole["current_epoch"], whole["_best_ema"])
    assert whole["current_epoch"] == 2
    for key, tensor in whole["network_weights"].items():
        assert torch.equal(tensor, resumed["network_weights"][key]), key


def log_of(results: Path) -> str:
    return "".join(file.read_text() for file in sorted(fold_folder(results).glob("training_log_*.txt")))


@pytest.mark.slow
def test_budget_seed_and_versions_are_in_log_and_checkpoint(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNET_EXT_SEED", "7")
    train(RAUNET)
    log = log_of(datasets)
    assert "1 of the paper's 50 passes (NNUNET_EXT_EPOCHS=1)" in log
    assert "1 of a pass's 6 iterations (NNUNET_EXT_ITERATIONS=1)" in log
    assert "Seed: 7 (NNUNET_EXT_SEED)" in log
    assert f"torch {torch.__version__}" in log
    [run] = checkpoint(model_folder(datasets, RAUNET))["init_args"][RUNS]
    assert run["budget"] == {"epochs": 1, "iterations": 1, "validation iterations": 1}
    assert run["seed"] == 7
    assert run["versions"]["torch"] == torch.__version__
    monkeypatch.setenv("NNUNET_EXT_EPOCHS", "2")
    monkeypatch.delenv("NNUNET_EXT_SEED")
    train(RAUNET, continue_training=True)
    log = log_of(datasets)
    assert "WARNING: this training goes on with another budget: {'epochs': 2," in log
    assert "WARNING: this training goes on with another seed: None (before: 7)" in log
    assert "another versions" not in log
    runs = checkpoint(model_folder(datasets, RAUNET))["init_args"][RUNS]
    assert [(r["epoch"], r["seed"], r["budget"]["epochs"]) for r in runs] == [(0, 7, 1), (1, None, 2)]


def test_whole_budget_says_nothing_of_a_part(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EPOCHS", "ITERATIONS", "VAL_ITERATIONS"):
        monkeypatch.delenv(f"NNUNET_EXT_{name}")
    make(RAUNET).on_train_start()
    assert "NOT THE WHOLE BUDGET" not in log_of(datasets)


@pytest.mark.slow
def test_pretrained_weights_leave_a_line(datasets: Path) -> None:
    train(RAUNET)
    file = str(fold_folder(datasets) / "checkpoint_final.pth")
    train("nnUNetTrainerRAUNet", fold=1, pretrained_weights=file)
    folder = model_folder(datasets, RAUNET) / "fold_1"
    [log] = folder.glob("training_log_*.txt")
    assert f"Training begins with {file} (-pretrained_weights)" in log.read_text()
    [run] = checkpoint(model_folder(datasets, RAUNET), fold=1)["init_args"][RUNS]
    assert run["begins_with"] == f"{file} (-pretrained_weights)"
    assert json.dumps(run)
    assert "begins with" not in log_of(datasets)
