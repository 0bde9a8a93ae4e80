"""Pictures of what `learning.py` measured: curves of all models, and contours over a few test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from learning import Learned, Workplace

mpl.use("Agg", force=False)
from matplotlib import pyplot as plt

COLOURS = mpl.colormaps["tab10"].colors
REFERENCE, PREDICTION = "#2bd46c", "#ff4040"


def short(trainer: str) -> str:
    """A trainer's name as readers know it."""
    name = trainer.removeprefix("nnUNetTrainer")
    return "nnU-Net" if name.startswith("MatchedBudget") else name


@plt.style.context("default")  # nnU-Net's own pictures leave a style of huge letters behind
def draw_curves(file: Path, models: Sequence[Learned], means: Sequence[tuple[float, float, float]]) -> None:
    """Losses of each model on an axis of its own, for they are not comparable; Dice of all together.

    Args:
        means: of the test Dice of each model, final checkpoint, with the ends of its interval.
    """
    figure = plt.figure(figsize=(4 * max(3, len(models)), 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1)
    for axis, model, colour in zip(top.subplots(1, len(models), squeeze=False)[0], models, COLOURS, strict=False):
        passes = np.arange(1, len(model.minutes) + 1)
        axis.plot(passes, model.curves["train_losses"], color=colour, alpha=0.5, label="training")
        axis.plot(passes, model.curves["val_losses"], color=colour, label="validation")
        axis.set(title=f"{short(model.trainer)}: its loss", xlabel="pass")
        axis.legend()
    per_pass, per_minute, test = bottom.subplots(1, 3)
    for i, (model, colour) in enumerate(zip(models, COLOURS, strict=False)):
        dice, name = model.curves["mean_fg_dice"], short(model.trainer)
        per_pass.plot(np.arange(1, len(dice) + 1), dice, color=colour, label=name)
        per_minute.plot(model.minutes, dice, color=colour, label=name)
        _strip(test, i, list(model.dice["final"].values()), means[i], colour)
    per_pass.set(title="pseudo Dice, validation, same samples", xlabel="pass", ylim=(0, 1))
    per_minute.set(title="the same by time", xlabel="minutes of training", ylim=(0, 1))
    test.set(title="Dice of each test image, mean and 95 % interval", ylim=(-0.02, 1))
    test.set_xticks(range(len(models)), [short(m.trainer) for m in models])
    per_pass.legend()
    figure.savefig(file, dpi=90)
    plt.close(figure)


def _strip(
    axis: plt.Axes, x: int, values: Sequence[float], mean: tuple[float, float, float], colour: Sequence[float]
) -> None:
    """One dot per image, shifted sideways so that equal ones stay visible; the mean in black."""
    sideways = x + 0.15 * np.sin(np.arange(len(values)) * 2.4)
    axis.plot(sideways, values, "o", color=colour, alpha=0.5, markersize=4)
    middle, low, high = mean
    axis.errorbar(x + 0.3, middle, [[middle - low], [high - middle]], fmt="o", color="black", capsize=4)


@plt.style.context("default")
def draw_examples(file: Path, models: Sequence[Learned], place: Workplace) -> None:
    """The test images of the best, the median and the lowest mean Dice over all models, with contours.

    Images of patients: for looking at, not for publishing.
    """
    from PIL import Image

    means = {case: np.mean([m.dice["final"][case] for m in models]) for case in models[0].dice["final"]}
    order = sorted(means, key=means.__getitem__)
    chosen = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    figure, axes = plt.subplots(
        3, 1 + len(models), figsize=(3.2 * (1 + len(models)), 9), layout="constrained", squeeze=False
    )
    for row, (rank, case) in zip(axes, chosen.items(), strict=True):
        image = np.asarray(Image.open(place.raw / "imagesTs" / f"{case}_0000.png"))
        reference = np.asarray(Image.open(place.raw / "labelsTs" / f"{case}.png"))
        row[0].set_title(f"{rank}: {case}, mean Dice {means[case]:.2f}", fontsize=9)
        for axis in row:
            axis.imshow(image, cmap="gray")
            axis.set_axis_off()
        for axis, model in zip(row[1:], models, strict=True):
            prediction = np.asarray(Image.open(place.predictions(model.trainer, "final") / f"{case}.png"))
            for mask, colour in ((reference, REFERENCE), (prediction, PREDICTION)):
                if mask.any():
                    axis.contour(mask != 0, levels=[0.5], colors=colour, linewidths=1.3)
            axis.set_title(f"{short(model.trainer)}, {model.dice['final'][case]:.2f}", fontsize=9)
    figure.suptitle("green: reference, red: prediction")
    figure.savefig(file, dpi=90)
    plt.close(figure)
