"""A benchmark as a TOML file: datasets x rows x folds x seeds.

    name = "mine"
    folds = [0]
    seeds = [0, 1, 2]

    [budget]                      # of every training that follows it (ours do, nnU-Net's own trainers do not)
    epochs = 50

    [[datasets]]
    id = 29

    [[rows]]                      # one line of the table
    name = "RA-U-Net"
    trainer = "nnUNetTrainerRAUNet"

`nnunet_ext benchmark --help` lists every key.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from nnunet_ext import registry
from nnunet_ext.benchmark import names
from nnunet_ext.benchmark.jobs import FROM_MATRIX
from nnunet_ext.benchmark.matrix import (
    BEST,
    FINAL,
    KINDS,
    Budget,
    Dataset,
    Matrix,
    Row,
    Slurm,
    default_plans,
    planner_of,
)
from nnunet_ext.benchmark.matrix_checks import check_whole
from nnunet_ext.benchmark.tables import Table, listed, meant
from nnunet_ext.common.errors import InputError
from nnunet_ext.metrics.definitions import BY_KEY
from nnunet_ext.report.data import Published

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OURS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", *FROM_MATRIX)


def presets() -> dict[str, Path]:
    """Name -> file of the matrices that come with the package."""
    folder = resources.files("nnunet_ext.benchmark") / "presets"
    return {Path(str(f)).stem: Path(str(f)) for f in sorted(folder.iterdir(), key=str) if str(f).endswith(".toml")}


def file_of(what: str | Path) -> Path:
    """The file of a preset's name, or the path itself."""
    return presets().get(str(what), Path(what))


def load(what: str | Path) -> Matrix:
    """Read a TOML file, or a preset by its name.

    Raises:
        InputError: no such file, not TOML, or anything wrong in it; every mistake is named.
    """
    path = file_of(what)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(
            f"{what} cannot be read: {e.strerror if isinstance(e, OSError) else e}.",
            hint=f"Name a TOML file, or a preset: {listed(presets())}.",
        ) from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise InputError(f"{path} is not TOML: {e}.", hint="https://toml.io has the format on one page.") from None
    return parse(content, str(path))


def parse(content: dict[str, Any], where: str = "matrix") -> Matrix:
    """A matrix from what tomllib gives.

    Raises:
        InputError: every mistake at once.
    """
    problems: list[str] = []
    top = Table(content, where, problems)
    matrix = Matrix(
        name=top.take("name", "text", "", required=True),
        title=top.take("title", "text", ""),
        device=top.take("device", "text", "cuda", choices=("cuda", "cpu", "mps")),
        data=top.take("data", "text", "environment", choices=("environment", "own")),
        folds=top.take("folds", "integers", (0,)),
        seeds=top.take("seeds", "integers", (0,)),
        budget=_budget(Table(top.take("budget", "table", {}), "[budget]", problems)),
        datasets=tuple(
            _dataset(Table(d, f"[[datasets]] {i}", problems))
            for i, d in enumerate(top.take("datasets", "tables", (), required=True), 1)
        ),
        rows=tuple(
            itertools.chain.from_iterable(
                _rows(Table(r, f"[[rows]] {i}", problems))
                for i, r in enumerate(top.take("rows", "tables", (), required=True), 1)
            )
        ),
        environment=_environment(Table(top.take("environment", "table", {}), "[environment]", problems)),
        arguments=_arguments(Table(top.take("arguments", "table", {}), "[arguments]", problems)),
        slurm=_slurm(Table(top.take("slurm", "table", {}), "[slurm]", problems)),
        published=tuple(
            _published(Table(p, f"[[published]] {i}", problems))
            for i, p in enumerate(top.take("published", "tables", ()), 1)
        ),
        differences=top.take("differences", "texts", ()),
        notes=top.take("notes", "texts", ()),
    )
    top.finish()
    check_whole(matrix, top)
    if problems:
        raise InputError(*problems, hint="nnunet_ext benchmark --help has the format, nnunet_ext list the trainers.")
    return matrix


def _budget(table: Table) -> Budget:
    values = {f.name: table.take(f.name, "integer") for f in dataclasses.fields(Budget)}
    for key, value in values.items():
        if value is not None and value < 1:
            table.note(f"{key} is {value}, but must be at least 1")
    table.finish()
    return Budget(**values)


def _dataset(table: Table) -> Dataset:
    dataset = Dataset(
        id=table.take("id", "integer", 0, required=True),
        name=table.take("name", "text", ""),
        prepare=table.take("prepare", "texts", ()),
        test=table.take("test", "text", "auto", choices=("auto", "imagesTs", "validation")),
        preprocess=table.take("preprocess", "flag", True),
    )
    if not 0 < dataset.id < 1000:
        table.note(f"id is {dataset.id}, but must be from 1 to 999")
    if dataset.name and not re.fullmatch(rf"Dataset{dataset.id:03d}_\w[\w-]*", dataset.name):
        table.note(f"name is {dataset.name!r}, but must be Dataset{dataset.id:03d}_NAME")
    for command in dataset.prepare:
        table.check_words("prepare", command, required=True)
    if dataset.prepare and not dataset.name:
        table.note("with prepare, name must say which folder the commands make")
    if dataset.prepare and dataset.test == "auto":
        table.note('with prepare, test must be "imagesTs" or "validation": there is no folder to look into yet')
    table.finish()
    return dataset


def _rows(table: Table) -> list[Row]:
    """Of one [[rows]] table: every trainer with every configuration."""
    trainers = _one_or_more(table, "trainer")
    configurations = _one_or_more(table, "configuration")
    planner, plans = table.take("planner", "text", ""), table.take("plans", "text", "")
    name = table.take("name", "text", "")
    checkpoint = table.take("checkpoint", "text", "", choices=(FINAL, BEST))  # no latest: nnU-Net removes it
    prompts = table.take("prompts", "text", "none", choices=("none", "reference"))
    datasets = table.take("datasets", "integers", ())
    table.finish()
    if not trainers:
        table.note("trainer is missing")
    rows = [
        _row(table, trainer, configuration, planner, plans, checkpoint, prompts, datasets)
        for trainer in trainers
        for configuration in configurations or (_configuration(trainer),)
    ]
    if name and len(rows) > 1:
        table.note(f"name {name!r} would stand for {len(rows)} rows; leave it out, or give each row a table of its own")
    return [dataclasses.replace(r, name=name) for r in rows] if name else rows


def _one_or_more(table: Table, key: str) -> tuple[str, ...]:
    """``trainer = "A"`` or ``trainers = ["A", "B"]``."""
    one, more = table.take(key, "text"), table.take(f"{key}s", "texts", ())
    if one is not None and more:
        table.note(f"give either {key} or {key}s")
    return (one,) if one is not None else more


def _configuration(trainer: str) -> str:
    entry = registry.get("trainer", trainer)
    return (entry.configuration if entry else "") or "2d"


def _row(
    table: Table,
    trainer: str,
    configuration: str,
    planner: str,
    plans: str,
    checkpoint: str,
    prompts: str,
    datasets: tuple[int, ...],
) -> Row:
    entry = registry.get("trainer", trainer)
    if trainer not in (known := names.known("trainer")):
        table.note(f"nnU-Net has no trainer {trainer!r}{meant(trainer, known)}; nnunet_ext list has ours")
    if not planner:
        planner = (entry.planner if entry and not plans else "") or planner_of(plans)
    if planner not in (known := names.known("planner")):
        table.note(f"nnU-Net has no planner {planner!r}{meant(planner, known)}; known are {listed(known)}")
    plans = plans or default_plans(planner)
    if not plans:
        table.note(f"plans must say how {planner} calls its plans")
    clicks = names.takes_clicks(trainer)
    if prompts == "reference" and not clicks:
        table.note(f'prompts = "reference" needs a trainer of the SAM family, not {trainer}')
    if prompts == "none" and clicks and trainer.endswith("Click"):
        table.note(f'{trainer} predicts with clicks only: add prompts = "reference"')
    for word, value in (("trainer", trainer), ("plans", plans), ("configuration", configuration)):
        if "__" in value:
            table.note(f"{word} {value!r} contains '__', which nnU-Net's folder names cannot have")
    return Row(
        name=" ".join([trainer, configuration, *(["(clicks)"] if prompts == "reference" else [])]),
        trainer=trainer,
        planner=planner,
        plans=plans,
        configuration=configuration,
        checkpoint=checkpoint or (BEST if clicks else FINAL),
        prompts=prompts,
        datasets=datasets,
    )


def _environment(table: Table) -> dict[str, dict[str, str]]:
    """Variables by kind of job; those at the top of the table are for all kinds."""
    by_kind = {kind: table.take(kind, "table", {}) for kind in KINDS}
    common = {k: v for k, v in table.content.items() if k not in KINDS}
    for name, value in [*common.items(), *(item for v in by_kind.values() for item in v.items())]:
        if not isinstance(value, str | int) or isinstance(value, bool):
            table.note(f"{name} is {value!r}, but must be a string or an integer")
        if name in OURS:
            table.note(f"{name} is set by the benchmark itself ([budget], seeds, data)")
    return {kind: {k: str(v) for k, v in {**common, **by_kind[kind]}.items()} for kind in KINDS}


def _arguments(table: Table) -> dict[str, str]:
    arguments = {kind: table.take(kind, "text", "") for kind in KINDS if kind != "prepare"}
    for kind, text in arguments.items():
        table.check_words(kind, text)
    table.finish()
    return arguments


def _slurm(table: Table) -> Slurm:
    kinds = {"gpus": "integer", "cpus": "integer", "mem_gb": "number", "parallel": "integer", "setup": "texts"}
    kinds |= {"max_timeouts": "integer", "signal_delay_s": "integer", "minutes": "table"}
    values = {f.name: table.take(f.name, kinds.get(f.name, "text")) for f in dataclasses.fields(Slurm)}
    if minutes := values["minutes"]:
        inner = Table(minutes, "[slurm.minutes]", table.problems)
        values["minutes"] = {k: v for k in KINDS if (v := inner.take(k, "integer")) is not None}
        inner.finish()
    table.finish()
    return Slurm(**{k: v for k, v in values.items() if v is not None})


def _published(table: Table) -> Published:
    metrics = table.take("metrics", "table", {}, required=True)
    for key, value in metrics.items():
        if key not in BY_KEY:
            table.note(f"there is no metric {key!r}{meant(key, BY_KEY)}; known are {listed(BY_KEY)}")
        elif not isinstance(value, int | float) or isinstance(value, bool):
            table.note(f"metric {key} is {value!r}, but must be a number")
    published = Published(
        row=table.take("row", "text", "", required=True),
        metrics=metrics,
        source=table.take("source", "text", "", required=True),
        note=table.take("note", "text", ""),
        dataset=table.take("dataset", "integer"),
    )
    table.finish()
    return published
