"""Training curves and times, read from nnU-Net's training logs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from nnunet_ext.report import svg
from nnunet_ext.report.subject import Subject

_NUMBER = r"(-?(?:\d+\.?\d*(?:e[+-]?\d+)?|nan|inf))"
_EPOCH = re.compile(r": +Epoch (\d+)\s*$")
_VALUES = {
    "train": re.compile(rf": +train_loss {_NUMBER}"),
    "val": re.compile(rf": +val_loss {_NUMBER}"),
    "seconds": re.compile(rf": +Epoch time: {_NUMBER} s"),
}
_DICE = re.compile(r": +Pseudo dice \[(.*)\]")
_EACH = re.compile(rf"(?:np\.\w+\()?{_NUMBER}\)?(?:,|$|\s)")  # numpy 2 prints np.float32(0.5)


@dataclass
class Training:
    """One training: epoch -> value. A training that was continued repeats epochs; the last word counts.

    Args:
        dice: nnU-Net's pseudo Dice, the mean over classes; of patches, not of cases.
        seconds: of an epoch.
    """

    train: dict[int, float] = field(default_factory=dict)
    val: dict[int, float] = field(default_factory=dict)
    dice: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)


def read_logs(folder: Path) -> Training:
    """All ``training_log_*.txt`` of a fold's folder, oldest first; empty where there is none."""
    training = Training()
    for file in sorted(folder.glob("training_log_*.txt"), key=lambda f: [int(n) for n in re.findall(r"\d+", f.name)]):
        epoch = None
        for row in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if found := _EPOCH.search(row):
                epoch = int(found[1])
            elif epoch is not None:
                _take(training, epoch, row)
    return training


def _take(training: Training, epoch: int, row: str) -> None:
    for name, pattern in _VALUES.items():
        if found := pattern.search(row):
            getattr(training, name)[epoch] = float(found[1])
    if found := _DICE.search(row):
        each = [float(v) for v in _EACH.findall(found[1])]
        finite = [v for v in each if math.isfinite(v)]
        training.dice[epoch] = sum(finite) / len(finite) if finite else math.nan


def training_curves(subject: Subject) -> list[Markup] | None:
    """Losses per model, and the pseudo Dice of all models."""
    trainings = {name: own for name in subject.names if (own := trainings_of(subject, name))}
    if not trainings:
        return None
    figures = [_losses(subject, name, own) for name, own in trainings.items()]
    if any(t.dice for own in trainings.values() for t in own):
        figures.insert(0, _dice(subject, trainings))
    return figures


def trainings_of(subject: Subject, name: str) -> list[Training]:
    """Of every fold and repeat that has a log."""
    return [t for f in subject.fold_folders(name) if (t := read_logs(f)).train]


def _losses(subject: Subject, name: str, trainings: Sequence[Training]) -> Markup:
    last = max(max(t.train) for t in trainings)
    values = [v for t in trainings for v in (*t.train.values(), *t.val.values())]
    x, y = svg.Scale((0, float(last)), (48, 404)), svg.Scale(svg.outer(values, zero=False), (206, 40))
    paths = [
        svg.tag(
            "path", d=svg.line((x(e), y(v) if math.isfinite(v) else v) for e, v in sorted(own.items())), class_=kind
        )
        for t in trainings
        for kind, own in (("train", t.train), ("val", t.val))
    ]
    return svg.figure(
        [
            svg.text(f"{subject.letter(name)}  {name}: loss", 0, 14, "t title"),
            svg.tag("path", d="M238 30h22", class_=f"train {svg.colour(subject.names.index(name))}"),
            svg.text("training", 266, 34, "t label"),
            svg.tag("path", d="M322 30h22", class_=f"val {svg.colour(subject.names.index(name))}"),
            svg.text("validation", 350, 34, "t label"),
            svg.x_axis(x, 40, 206, "epoch"),
            svg.y_axis(y, 48, 404),
            svg.tag("g", paths, class_=f"curves {svg.colour(subject.names.index(name))}"),
        ],
        244,
        f"Training and validation loss of {name}, {len(trainings)} trainings, {last + 1} epochs",
    )


def _dice(subject: Subject, trainings: dict[str, list[Training]]) -> Markup:
    last = max(max(t.train) for own in trainings.values() for t in own)
    x, y = svg.Scale((0, float(last)), (40, 404)), svg.Scale((0.0, 1.0), (206, 40))
    curves, heads = [], []
    for i, (name, own) in enumerate(trainings.items()):
        number = subject.names.index(name)
        paths = [
            svg.tag("path", d=svg.line((x(e), y(v) if math.isfinite(v) else v) for e, v in sorted(t.dice.items())),
                    class_=f"running r{number % 4}")
            for t in own
        ]  # fmt: skip
        head = svg.text(subject.letter(name), 404 - 18 * (len(trainings) - 1 - i), 14, "t name", "end")
        heads.append(svg.tag("g", [head], class_=svg.colour(number)))
        curves.append(svg.tag("g", paths, class_=f"curves {svg.colour(number)}"))
    return svg.figure(
        [
            svg.text("Pseudo Dice of validation patches, all models", 0, 14, "t title"),
            *heads,
            svg.x_axis(x, 40, 206, "epoch"),
            svg.y_axis(y, 40, 404),
            *curves,
        ],
        244,
        f"Pseudo Dice during training of {', '.join(trainings)}",
    )
