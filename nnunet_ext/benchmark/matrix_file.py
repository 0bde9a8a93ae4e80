"""Reads a benchmark's TOML file or preset, and names every fault at once with its table and key."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from nnunet_ext.benchmark.matrix import Dataset, Matrix, Row, Rows, slug
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_toml
from nnunet_ext.common.text import meant, some
from nnunet_ext.metrics.published import Published


def presets() -> dict[str, Path]:
    """Return the matrices that come with the package: name -> file."""
    folder = Path(str(resources.files("nnunet_ext.benchmark") / "presets"))
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def file_of(what: str | Path) -> Path:
    """Return the file of a preset's name, or the path itself."""
    return presets().get(str(what), Path(what))


def load(what: str | Path) -> Matrix:
    """Read a TOML file, or a preset by its name.

    Raises:
        InputError: there is no such file, it is not TOML, or anything is wrong in it; every fault is named.
    """
    path = file_of(what)
    hint = f"Name a TOML file (https://toml.io has the format on one page), or a preset: {some(presets(), None)}."
    return parse(read_toml(path, hint=hint), str(path))


def parse(content: dict[str, Any], where: str = "matrix") -> Matrix:
    """Make a matrix of what tomllib gives.

    Raises:
        InputError: all faults at once, each with its table and key.
    """
    problems = [f"{where}: {problem}" for problem in _wrong_together(content)]
    try:
        matrix = Matrix.model_validate(content)
    except ValidationError as e:
        problems = [problem for error in e.errors() for problem in _told(error, where)] + problems
    if problems:
        raise InputError(*problems, hint="nnunet_ext benchmark --help has the format, nnunet_ext list the trainers.")
    return matrix


def _told(error: Any, where: str) -> Iterator[str]:
    """Put a fault that pydantic found into words, with its table and key."""
    table, place, path = _table(list(error["loc"]), where)
    key = ", ".join(f"item {part + 1}" if isinstance(part, int) else part for part in path)
    if error["type"] == "value_error":
        faults = str(error["ctx"]["error"]).splitlines()
        yield from (f"{place}: {key} {fault}" if key else f"{place}: {fault}" for fault in faults)
    elif error["type"] == "missing":
        yield f"{place}: {key} is missing"
    elif error["type"] == "extra_forbidden":
        known = list(_fields(table))
        yield f"{place}: there is no key {key!r}{meant(key, known)}; known are {some(known, None)}"
    else:
        message = re.sub(r"^(Input|String|List) should", "but must", error["msg"])
        yield f"{place}: {key} is {error['input']!r}, {message}"


def _table(path: list[Any], place: str) -> tuple[type[BaseModel], str, list[Any]]:
    """Return the innermost table on the way to a value, what it is called in the file, and the rest of the way."""
    table: type[BaseModel] = Matrix
    names: list[str] = []
    while len(path) > 1 and (kind := _fields(table).get(path[0])) is not None:
        inner = (get_args(kind) or (kind,))[0]  # of a list of tables
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        table, names = inner, [*names, path[0]]
        place = f"[{'.'.join(names)}]" if inner is kind else f"[[{path[0]}]] {path[1] + 1}"
        path = path[1:] if inner is kind else path[2:]
    return table, place, path


def _fields(table: type[BaseModel]) -> dict[str, Any]:
    """Return the types of a table's values by their keys in the file."""
    return {field.alias or name: field.annotation for name, field in table.model_fields.items()}


def _wrong_together(content: dict[str, Any]) -> Iterator[str]:
    """Yield what only shows where tables are seen together; a table with a fault of its own is left out."""
    datasets, tables, published = (
        list(_right(kind, content.get(key)))
        for key, kind in (("datasets", Dataset), ("rows", Rows), ("published", Published))
    )
    ids, rows = [d.id for d in datasets], [row for table in tables for row in table.rows]
    for what, values in (("dataset ids", ids), ("names of rows", [slug(row.name) for row in rows])):
        if twice := sorted({str(value) for value in values if values.count(value) > 1}):
            yield f"{what} must differ, but these are there more than once: {some(twice, None)}"
        if not all(re.search(r"\w", str(value)) for value in values):
            yield f"{what} need letters or digits, of which their folders are made"
    for plans in sorted({row.plans for row in rows}):
        if len(planners := sorted({row.planner for row in rows if row.plans == plans})) > 1:
            yield f"plans {plans!r} would be made by several planners: {some(planners, None)}; give each its own plans"
    if len(datasets) == len(content.get("datasets", ())):
        yield from _unknown_datasets(ids, rows, published)
    if len(tables) == len(content.get("rows", ())):
        names = [row.name for row in rows]
        for row in dict.fromkeys(p.row for p in published if p.row not in names):
            yield f"[[published]] names a row {row!r}{meant(row, names)}; rows are {some(names, None)}"


def _unknown_datasets(ids: list[int], rows: list[Row], published: list[Published]) -> Iterator[str]:
    for row in rows:
        if unknown := some((i for i in row.datasets if i not in ids), None):
            yield f"row {row.name!r} names datasets that are not there: {unknown}; there are {some(ids, None)}"
    for p in published:
        if p.dataset not in ids and (p.dataset is not None or len(ids) > 1):
            yield f"[[published]] {p.row!r} must say of which dataset: dataset is one of {some(ids, None)}"


def _right(kind: type[BaseModel], items: Any) -> Iterator[Any]:
    for item in items if isinstance(items, list) else ():
        with contextlib.suppress(ValidationError):
            yield kind.model_validate(item)
