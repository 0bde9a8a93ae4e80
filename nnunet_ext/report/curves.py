"""Training curves and times, read from nnU-Net's training logs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from nnunet_ext.common.training_log import TrainingLog, read_training_log
from nnunet_ext.report import svg
from nnunet_ext.report.data import ReportData


def training_curves(data: ReportData) -> list[Markup] | None:
    """Losses per model, and the pseudo Dice of all models."""
    trainings = {name: own for name in data.names if (own := trainings_of(data, name))}
    if not trainings:
        return None
    figures = [_losses(data, name, own) for name, own in trainings.items()]
    if any(t.dice for own in trainings.values() for t in own):
        figures.insert(0, _dice(data, trainings))
    return figures


def trainings_of(data: ReportData, name: str) -> list[TrainingLog]:
    """Of every fold and repeat that has a log."""
    return [t for f in data.fold_folders(name) if (t := read_training_log(f)).train]


def _losses(data: ReportData, name: str, trainings: Sequence[TrainingLog]) -> Markup:
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
            svg.text(f"{data.letter(name)}  {name}: loss", 0, 14, "t title"),
            svg.tag("path", d="M238 30h22", class_=f"train {svg.colour(data.names.index(name))}"),
            svg.text("training", 266, 34, "t label"),
            svg.tag("path", d="M322 30h22", class_=f"val {svg.colour(data.names.index(name))}"),
            svg.text("validation", 350, 34, "t label"),
            svg.x_axis(x, 40, 206, "epoch"),
            svg.y_axis(y, 48, 404),
            svg.tag("g", paths, class_=f"curves {svg.colour(data.names.index(name))}"),
        ],
        244,
        f"Training and validation loss of {name}, {len(trainings)} trainings, {last + 1} epochs",
    )


def _dice(data: ReportData, trainings: dict[str, list[TrainingLog]]) -> Markup:
    last = max(max(t.train) for own in trainings.values() for t in own)
    x, y = svg.Scale((0, float(last)), (40, 404)), svg.Scale((0.0, 1.0), (206, 40))
    curves, heads = [], []
    for i, (name, own) in enumerate(trainings.items()):
        number = data.names.index(name)
        paths = [
            svg.tag("path", d=svg.line((x(e), y(v) if math.isfinite(v) else v) for e, v in sorted(t.dice.items())),
                    class_=f"running r{number % 4}")
            for t in own
        ]  # fmt: skip
        head = svg.text(data.letter(name), 404 - 18 * (len(trainings) - 1 - i), 14, "t name", "end")
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
