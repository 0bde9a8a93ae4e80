"""What is wrong with a matrix as a whole, and no part of its file can see alone."""

from __future__ import annotations

import re

from nnunet_ext.benchmark.matrix import Matrix, slug
from nnunet_ext.benchmark.tables import Table, listed, meant


def check_whole(matrix: Matrix, table: Table) -> None:
    """Note it in the table of the whole file."""
    if matrix.name and not re.fullmatch(r"[\w.-]+", matrix.name):
        table.note(f"name is {matrix.name!r}, but may only have letters, digits, '.', '-' and '_'")
    for what, values in {
        "folds": matrix.folds,
        "seeds": matrix.seeds,
        "dataset ids": [d.id for d in matrix.datasets],
        "names of rows": [slug(r.name) for r in matrix.rows],
    }.items():
        if not values:
            table.note(f"there are no {what}")
        if twice := sorted({str(v) for v in values if list(values).count(v) > 1}):
            table.note(f"{what} must differ, but these are there more than once: {listed(twice)}")
        if any(isinstance(v, int) and v < 0 for v in values):
            table.note(f"{what} must not be negative")
        if "" in values:
            table.note(f"{what} need letters or digits, of which their folders are made")
    _check_rows(matrix, table)


def _check_rows(matrix: Matrix, table: Table) -> None:
    """What rows say of datasets, plans and published figures."""
    ids, rows = [d.id for d in matrix.datasets], [r.name for r in matrix.rows]
    for row in matrix.rows:
        if unknown := [i for i in row.datasets if i not in ids]:
            table.note(
                f"row {row.name!r} names datasets that are not there: {listed(unknown)}; there are {listed(ids)}"
            )
    for plans in sorted({r.plans for r in matrix.rows}):
        if len(planners := sorted({r.planner for r in matrix.rows if r.plans == plans})) > 1:
            table.note(
                f"plans {plans!r} would be made by several planners: {listed(planners)}; give each its own plans"
            )
    for published in matrix.published:
        if published.dataset not in ids and (published.dataset is not None or len(ids) > 1):
            table.note(f"[[published]] {published.row!r} must say of which dataset: dataset is one of {listed(ids)}")
        if published.row and published.row not in rows:
            table.note(
                f"[[published]] names a row {published.row!r}{meant(published.row, rows)}; rows are {listed(rows)}"
            )
