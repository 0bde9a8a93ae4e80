"""What a benchmark is made of, as pydantic models of its TOML file: datasets x rows x folds x seeds.

`nnunet_ext benchmark --help` lists every key; `matrix_file` reads the file.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from nnunet_ext import registry
from nnunet_ext.benchmark.jobs import FROM_MATRIX
from nnunet_ext.common.environment import EPOCHS, ITERATIONS, NNUNET_FOLDERS, VAL_ITERATIONS
from nnunet_ext.common.text import meant, some
from nnunet_ext.metrics.definitions import METRICS
from nnunet_ext.metrics.published import Published

KINDS = ("prepare", "plan", "train", "predict", "evaluate")
FINAL, BEST = "checkpoint_final.pth", "checkpoint_best.pth"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
OURS = (*NNUNET_FOLDERS, *FROM_MATRIX)
STOCK_PLANS = {
    "ExperimentPlanner": "nnUNetPlans",
    **{f"nnUNetPlannerResEnc{size}": f"nnUNetResEncUNet{size}Plans" for size in ("M", "L", "XL")},
}


def _faults(problems: Iterable[str]) -> None:
    """Raise all problems of a value at once, one a line."""
    if problems := list(problems):
        raise ValueError("\n".join(problems))


def _words(text: str) -> str:
    try:
        shlex.split(text)
    except ValueError as e:
        _faults([f"is {text!r}, which cannot be read as words: {e}"])
    return text


def _command(text: str) -> str:
    _faults(["is empty"] if not shlex.split(_words(text)) else ())
    return text


def _distinct(values: list[int]) -> list[int]:
    twice = sorted({value for value in values if values.count(value) > 1})
    _faults([f"must differ, but these are there more than once: {some(twice, None)}"] if twice else ())
    return values


def _line(text: str) -> str:
    """Return a text that reports and scripts print on one line: breaks become spaces."""
    text = re.sub(r"\s*[\n\r]\s*", " ", text).strip()
    _faults([f"is {text!r}, which holds control characters"] if _CONTROL.search(text) else ())
    return text


def _row_name(text: str) -> str:
    _faults([f"is {text!r}, which commands would take for an option"] if text.startswith("-") else ())
    return _line(text)


def _part(text: str) -> str:
    """Check a name that becomes part of a folder's and a word of a command; empty for the default."""
    wrong = text and (not re.match(r"\w", text) or _CONTROL.search(text) or re.search(r"[/\\]", text))
    problem = f"is {text!r}, but must begin with a letter or digit and have no slashes or control characters"
    _faults([problem] if wrong else ())
    return text


def _environment(table: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the variables by kind of job; those at the top of the table are for all kinds."""
    common = {key: value for key, value in table.items() if key not in KINDS}
    by_kind = {kind: table.get(kind, {}) for kind in KINDS}
    problems = [f"{kind} must be a table" for kind, own in by_kind.items() if not isinstance(own, dict)]
    tables = [own for own in by_kind.values() if isinstance(own, dict)]
    for name, value in [*common.items(), *(item for own in tables for item in own.items())]:
        if not isinstance(value, str | int) or isinstance(value, bool):
            problems.append(f"{name} is {value!r}, but must be a string or an integer")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            problems.append(f"{name!r} is not the name of a variable")
        if name in OURS:
            problems.append(f"{name} is set by the benchmark itself ([budget], seeds, data)")
    _faults(problems)
    return {kind: {key: str(value) for key, value in {**common, **own}.items()} for kind, own in by_kind.items()}


def _primary(key: str) -> str:
    ranked = [metric.key for metric in METRICS if metric.ranked]
    _faults([f"is {key!r}, but must be one of {some(ranked, None)}"] if key not in ranked else ())
    return key


Line = Annotated[str, AfterValidator(_line)]
RowName = Annotated[str, AfterValidator(_row_name)]
Part = Annotated[str, AfterValidator(_part)]
Words = Annotated[str, AfterValidator(_words)]
Command = Annotated[str, AfterValidator(_command)]
Distinct = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(_distinct)]


class Table(BaseModel):
    """Holds one table of the file, of which every key is known and every value has its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class Budget(Table):
    """The budget of every training that follows it; None stands for the trainer's own."""

    epochs: PositiveInt | None = None
    iterations: PositiveInt | None = None
    val_iterations: PositiveInt | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that trainers read."""
        values = {EPOCHS: self.epochs, ITERATIONS: self.iterations, VAL_ITERATIONS: self.val_iterations}
        return {name: str(value) for name, value in values.items() if value is not None}


class Dataset(Table):
    """One of nnU-Net's raw datasets.

    Args:
        id: its number.
        name: the folder's name, DatasetNNN_...; empty where the folder is to be looked up.
        prepare: commands that make it, run once, in order; ``{root}`` is the benchmark's folder.
        test: "imagesTs" (with labelsTs), "validation" (of the fold), or "auto": imagesTs where labelsTs is there.
        preprocess: false uses the plans and the preprocessed data that are there.
    """

    id: Annotated[int, Field(ge=1, le=999)]
    name: str = ""
    prepare: list[Command] = []
    test: Literal["auto", "imagesTs", "validation"] = "auto"
    preprocess: bool = True

    @model_validator(mode="after")
    def _check(self) -> Dataset:
        problems = []
        if self.name and not re.fullmatch(rf"Dataset{self.id:03d}_\w[\w-]*", self.name):
            problems.append(f"name is {self.name!r}, but must be Dataset{self.id:03d}_NAME")
        if self.prepare and not self.name:
            problems.append("with prepare, name must say which folder the commands make")
        if self.prepare and self.test == "auto":
            problems.append(
                'with prepare, test must be "imagesTs" or "validation": there is no folder to look into yet'
            )
        _faults(problems)
        return self


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the comparison: a trainer on plans and a configuration, and how it predicts.

    Args:
        checkpoint: the file that it predicts with.
        prompts: "none", or "reference": clicks from the reference, kept apart from every ranking.
        datasets: ids; an empty list stands for all.
    """

    name: str
    trainer: str
    planner: str
    plans: str
    configuration: str
    checkpoint: str = FINAL
    prompts: str = "none"
    datasets: Sequence[int] = ()

    @property
    def model(self) -> str:
        """The folder that nnU-Net gives it."""
        return f"{self.trainer}__{self.plans}__{self.configuration}"

    @property
    def entry(self) -> registry.Entry:
        return _entry(self.trainer)


class Rows(Table):
    """One [[rows]] table: every trainer of it with every configuration is a row."""

    name: RowName = ""
    trainer: str = ""
    trainers: list[str] = []
    configuration: Part = ""
    configurations: list[Part] = []
    planner: str = ""
    plans: Part = ""
    checkpoint: Literal["checkpoint_final.pth", "checkpoint_best.pth"] | None = None  # no latest: nnU-Net removes it
    prompts: Literal["none", "reference"] = "none"
    datasets: list[int] = []

    @cached_property
    def rows(self) -> list[Row]:
        """All rows, with what the file leaves out."""
        made = []
        for trainer in [self.trainer] if self.trainer else self.trainers:
            entry = _entry(trainer)
            planner = self.planner or (entry.planner if not self.plans else "") or planner_of(self.plans)
            given = [self.configuration] if self.configuration else self.configurations
            for configuration in given or [entry.configuration or "2d"]:
                clicks = " (clicks)" if self.prompts == "reference" else ""
                made.append(
                    Row(
                        name=self.name or f"{trainer} {configuration}{clicks}",
                        trainer=trainer,
                        planner=planner,
                        plans=self.plans or default_plans(planner),
                        configuration=configuration,
                        checkpoint=self.checkpoint or (BEST if entry.best_checkpoint else FINAL),
                        prompts=self.prompts,
                        datasets=self.datasets,
                    )
                )
        return made

    @model_validator(mode="after")
    def _check(self) -> Rows:
        problems = [
            f"give either {key} or {key}s"
            for key in ("trainer", "configuration")
            if getattr(self, key) and getattr(self, f"{key}s")
        ]
        if not self.rows:
            problems.append("trainer is missing")
        if self.name and len(self.rows) > 1:
            problems.append(
                f"name {self.name!r} would stand for {len(self.rows)} rows; leave it out, or give each its own table"
            )
        for row in self.rows:
            problems.extend(_wrong_with(row))
        _faults(dict.fromkeys(problems))
        return self


def _wrong_with(row: Row) -> Iterator[str]:
    for kind, name in (("trainer", row.trainer), ("planner", row.planner)):
        if name not in (known := known_names(kind)):
            yield f"nnU-Net has no {kind} {name!r}{meant(name, known)}; nnunet_ext list has ours"
    if not row.plans:
        yield f"plans must say how {row.planner} calls its plans"
    if row.prompts == "reference" and row.entry.prompts == "none":
        yield f'prompts = "reference" needs a trainer that takes clicks, not {row.trainer}'
    if row.prompts == "none" and row.entry.prompts == "click":
        yield f'{row.trainer} predicts with clicks only: add prompts = "reference"'
    for word in ("trainer", "plans", "configuration"):
        if "__" in getattr(row, word):
            yield f"{word} {getattr(row, word)!r} contains '__', which nnU-Net's folder names cannot have"


class Arguments(Table):
    """Arguments to append to nnU-Net's commands, by kind of job."""

    prepare: Literal[""] = ""
    plan: Words = ""
    train: Words = ""
    predict: Words = ""
    evaluate: Words = ""


class Minutes(Table):
    """Time limits by kind of job."""

    prepare: PositiveInt = 4 * 60
    plan: PositiveInt = 12 * 60
    train: PositiveInt = 48 * 60
    predict: PositiveInt = 4 * 60
    evaluate: PositiveInt = 4 * 60


class Slurm(Table):
    """What a job asks a cluster for; None leaves it to the cluster."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None  # instead of gpus, e.g. "gpu:a100:1"
    gpus: NonNegativeInt = 1  # of jobs that train and predict, where the device is cuda
    cpus: PositiveInt = 8
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    parallel: PositiveInt = 64
    max_timeouts: NonNegativeInt = 10
    signal_delay_s: PositiveInt = 90  # before its time limit a job is stopped and requeued
    setup: list[str] = []
    minutes: Minutes = Minutes()


class Matrix(Table):
    """Everything that a benchmark is made of.

    Args:
        data: "environment": nnUNet_raw and nnUNet_preprocessed are the user's; "own": in the benchmark's folder.
        primary: metric that the comparison's findings are about; Dice, where it is left out.
        environment: variables by kind of job.
        differences: between the published figures' protocol and this one.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=100)]
    title: Line = ""
    device: Literal["cuda", "cpu", "mps"] = "cuda"
    data: Literal["environment", "own"] = "environment"
    folds: Distinct = [0]
    seeds: Distinct = [0]
    primary: Annotated[str, AfterValidator(_primary)] | None = None
    budget: Budget = Budget()
    datasets: Annotated[list[Dataset], Field(min_length=1)]
    tables: Annotated[list[Rows], Field(min_length=1, alias="rows")]
    environment: Annotated[dict[str, Any], AfterValidator(_environment)] = {}
    arguments: Arguments = Arguments()
    slurm: Slurm = Slurm()
    published: list[Published] = []
    differences: list[str] = []
    notes: list[str] = []

    @cached_property
    def rows(self) -> list[Row]:
        """All lines of the table."""
        return [row for table in self.tables for row in table.rows]

    def rows_of(self, dataset: Dataset) -> list[Row]:
        return [row for row in self.rows if not row.datasets or dataset.id in row.datasets]

    def published_of(self, dataset: Dataset) -> list[Published]:
        return [figures for figures in self.published if figures.dataset in (None, dataset.id)]


def _entry(trainer: str) -> registry.Entry:
    """Return what is known about a trainer; one of nnU-Net's own takes no prompts, seed or budget."""
    return registry.get("trainer", trainer) or registry.Entry("trainer", trainer, "", "")


def planner_of(plans: str) -> str:
    """Return the planner that makes plans of this name; nnU-Net's default if that is not known."""
    by_plans = {e.plans: e.name for e in registry.entries("planner")} | {p: name for name, p in STOCK_PLANS.items()}
    return by_plans.get(plans, "ExperimentPlanner")


def default_plans(planner: str) -> str:
    """Return how a planner calls its plans by default; an empty string if that is not known here."""
    ours = registry.get("planner", planner)
    return ours.plans if ours else STOCK_PLANS.get(planner, "")


def slug(text: str) -> str:
    """Return a name for a folder."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


def known_names(kind: str) -> tuple[str, ...]:
    """Return all trainers or planners that nnU-Net finds: the registry's, its own, those of ``nnUNet_extTrainer``."""
    return (*(e.name for e in registry.entries(kind)), *_in_source(kind, os.environ.get("nnUNet_extTrainer", "")))


@cache
def _in_source(kind: str, more: str) -> tuple[str, ...]:
    """Read the names of classes in nnU-Net's source, because importing it takes seconds."""
    below = {"trainer": "training/nnUNetTrainer", "planner": "experiment_planning"}[kind]
    pattern = {"trainer": r"^class\s+(nnUNetTrainer\w*)", "planner": r"^class\s+(\w*Plann\w*|ResEncUNet\w*)"}[kind]
    spec = importlib.util.find_spec("nnunetv2")
    places = [Path(p) / below for p in (spec.submodule_search_locations or ())] if spec else []
    if kind == "trainer":
        places += [Path(p) for p in more.split(os.pathsep) if p]
    files = [file for place in places for file in sorted(place.rglob("*.py"))]
    found = (re.findall(pattern, file.read_text(errors="replace"), re.MULTILINE) for file in files)
    return tuple(dict.fromkeys(name for names in found for name in names))
