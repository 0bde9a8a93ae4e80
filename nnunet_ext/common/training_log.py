"""What nnU-Net's training logs tell: losses, pseudo Dice and times by epoch, and how far a training is."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.common.files import read_json_if_sound

_NUMBER = r"(-?(?:\d+\.?\d*(?:e[+-]?\d+)?|nan|inf))"
_EPOCH = re.compile(r": +Epoch (\d+)\s*$")
_VALUES = {
    "train": re.compile(rf": +train_loss {_NUMBER}"),
    "val": re.compile(rf": +val_loss {_NUMBER}"),
    "seconds": re.compile(rf": +Epoch time: {_NUMBER} s"),
}
_DICE = re.compile(r": +Pseudo dice \[(.*)\]")
_EACH = re.compile(rf"(?:np\.\w+\()?{_NUMBER}\)?(?:,|$|\s)")  # numpy 2 prints np.float32(0.5)
_BUDGET = re.compile(r": +(\d+) epochs of \d+ iterations")  # our trainers print it


@dataclass
class TrainingLog:
    """One training by epoch. A training that was continued repeats epochs; the last entry counts.

    Args:
        train, val: losses.
        dice: nnU-Net's pseudo Dice, the mean over classes; of patches, not of cases.
        seconds: of each finished epoch.
        epoch: the epoch that was begun last; None while there is none.
        epochs: how many the training has in all; None if no file says so.
    """

    train: dict[int, float] = field(default_factory=dict)
    val: dict[int, float] = field(default_factory=dict)
    dice: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    epoch: int | None = None
    epochs: int | None = None

    @property
    def finished(self) -> int:
        """Number of epochs that are finished."""
        if self.epoch is None:
            return 0
        return self.epoch + (self.epoch in self.seconds)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last epoch ends, by the median of the last ten; None where there is nothing to go by."""
        if not self.seconds or self.epochs is None:
            return None
        return max(0, self.epochs - self.finished) * statistics.median(list(self.seconds.values())[-10:])


def read_training_log(folder: Path) -> TrainingLog:
    """Read all ``training_log_*.txt`` of a fold's folder, oldest first; an empty log where there is none.

    The number of epochs is what our trainers print, else what nnU-Net writes to debug.json when a training begins.
    """
    log = TrainingLog()
    for file in sorted(folder.glob("training_log_*.txt"), key=lambda f: [int(n) for n in re.findall(r"\d+", f.name)]):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            _read_line(log, line)
    if log.epochs is None:
        epochs = str(read_json_if_sound(folder / "debug.json").get("num_epochs", ""))
        log.epochs = int(epochs) if epochs.isdigit() else None
    return log


def _read_line(log: TrainingLog, line: str) -> None:
    if found := _EPOCH.search(line):
        log.epoch = int(found[1])
        log.seconds.pop(log.epoch, None)  # begun once more
    elif found := _BUDGET.search(line):
        log.epochs = int(found[1])
    elif log.epoch is not None:
        for name, pattern in _VALUES.items():
            if found := pattern.search(line):
                getattr(log, name)[log.epoch] = float(found[1])
        if found := _DICE.search(line):
            each = [float(value) for value in _EACH.findall(found[1])]
            finite = [value for value in each if math.isfinite(value)]
            log.dice[log.epoch] = sum(finite) / len(finite) if finite else math.nan
