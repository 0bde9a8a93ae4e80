"""What a benchmark is made of: datasets x rows x folds x seeds. `matrix_file` reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from nnunet_ext import registry
from nnunet_ext.common.environment import EPOCHS, ITERATIONS, VAL_ITERATIONS
from nnunet_ext.report.data import Published

KINDS = ("prepare", "plan", "train", "predict", "evaluate")
STOCK_PLANS = {
    "ExperimentPlanner": "nnUNetPlans",
    **{f"nnUNetPlannerResEnc{size}": f"nnUNetResEncUNet{size}Plans" for size in ("M", "L", "XL")},
}
FINAL, BEST = "checkpoint_final.pth", "checkpoint_best.pth"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Of every training that follows it; None is the trainer's own."""

    epochs: int | None = None
    iterations: int | None = None
    val_iterations: int | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that trainers read."""
        values = {EPOCHS: self.epochs, ITERATIONS: self.iterations, VAL_ITERATIONS: self.val_iterations}
        return {name: str(value) for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One of nnU-Net's raw datasets.

    Args:
        id: its number.
        name: the folder's name, DatasetNNN_...; "" where the folder is to be looked up.
        prepare: commands that make it, run once, in order; ``{root}`` is the benchmark's folder.
        test: "imagesTs" (with labelsTs), "validation" (of the fold), or "auto": imagesTs where labelsTs is there.
        preprocess: false uses the plans and the preprocessed data that are there.
    """

    id: int
    name: str = ""
    prepare: tuple[str, ...] = ()
    test: str = "auto"
    preprocess: bool = True


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a trainer on plans and a configuration, and how it predicts.

    Args:
        checkpoint: that it predicts with.
        prompts: "none", or "reference": clicks from the reference, kept apart from every ranking.
        datasets: ids; () is all.
    """

    name: str
    trainer: str
    planner: str
    plans: str
    configuration: str
    checkpoint: str = FINAL
    prompts: str = "none"
    datasets: tuple[int, ...] = ()

    @property
    def model(self) -> str:
        """The folder that nnU-Net gives it."""
        return f"{self.trainer}__{self.plans}__{self.configuration}"


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What to ask SLURM for; minutes by kind of job."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None  # instead of gpus, e.g. "gpu:a100:1"
    gpus: int = 1  # of jobs that train and predict, where the device is cuda
    cpus: int = 8
    mem_gb: float | None = None
    parallel: int = 64
    max_timeouts: int = 10
    signal_delay_s: int = 90
    setup: tuple[str, ...] = ()
    minutes: dict[str, int] = field(default_factory=dict)

    def time_limit(self, kind: str) -> int:
        """In minutes."""
        return self.minutes.get(kind, {"train": 48 * 60, "plan": 12 * 60}.get(kind, 4 * 60))


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Everything that a benchmark is made of.

    Args:
        data: "environment": nnUNet_raw and nnUNet_preprocessed are the user's; "own": in the benchmark's folder.
        environment, arguments: by kind of job; more variables, and arguments to append to nnU-Net's commands.
        differences: between the published figures' protocol and this one.
    """

    name: str
    title: str
    device: str
    data: str
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    budget: Budget
    datasets: tuple[Dataset, ...]
    rows: tuple[Row, ...]
    environment: dict[str, dict[str, str]]
    arguments: dict[str, str]
    slurm: Slurm
    published: tuple[Published, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    def rows_of(self, dataset: Dataset) -> tuple[Row, ...]:
        """The rows that are made for a dataset."""
        return tuple(r for r in self.rows if not r.datasets or dataset.id in r.datasets)

    def published_of(self, dataset: Dataset) -> tuple[Published, ...]:
        """What papers state on a dataset."""
        return tuple(p for p in self.published if p.dataset in (None, dataset.id))


def planner_of(plans: str) -> str:
    """The planner that makes plans of this name; nnU-Net's default if that is not known."""
    by_plans = {e.plans: e.name for e in registry.entries("planner")} | {p: name for name, p in STOCK_PLANS.items()}
    return by_plans.get(plans, "ExperimentPlanner")


def default_plans(planner: str) -> str:
    """How a planner calls its plans unless told otherwise; "" if that is not known here."""
    ours = registry.get("planner", planner)
    return ours.plans if ours else STOCK_PLANS.get(planner, "")


def slug(text: str) -> str:
    """A name for a folder."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")
