"""What nnU-Net's training logs tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import report_data

from nnunet_ext.common.training_log import read_training_log


def test_values(tmp_path: Path) -> None:
    fold = report_data.fold_folder(tmp_path, "nnUNetTrainerX__P__2d", epochs=3)
    training = read_training_log(fold)
    assert list(training.train) == list(training.val) == list(training.dice) == [0, 1, 2]
    log = next(fold.glob("*.txt")).read_text()
    assert training.train[1] == float(re.findall(r"train_loss (\S+)", log)[1])
    assert training.dice[2] == float(re.findall(r"float32\((\S+)\)", log)[2])


def test_a_continued_training(tmp_path: Path) -> None:
    stamp = "2026-01-01 00:00:00.000000:"
    first = [f"{stamp} Epoch 0", f"{stamp} train_loss 1.0", f"{stamp} Epoch 1", f"{stamp} train_loss 0.5"]
    second = [f"{stamp} Epoch 1", f"{stamp} train_loss 0.4", f"{stamp} Pseudo dice [0.5, nan, 0.7]"]
    (tmp_path / "training_log_2026_1_9_0_0_0.txt").write_text("\n".join(first))
    (tmp_path / "training_log_2026_1_10_0_0_0.txt").write_text("\n".join(second))
    training = read_training_log(tmp_path)
    assert training.train == {0: 1.0, 1: 0.4}
    assert training.dice == {1: pytest.approx(0.6)}


def test_nothing_there(tmp_path: Path) -> None:
    assert read_training_log(tmp_path).train == {}
