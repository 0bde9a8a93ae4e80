"""Many models at a glance: their mean ranks, and which of them the tests do not separate.

After the critical difference diagrams of Demšar 2006, with pairwise signed-rank tests and Holm's correction as Benavoli
et al. 2016 recommend, and turned by 90 degrees, so that names have room.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from nnunet_ext.comparison.results import Pair, Ranking, Result
from nnunet_ext.report import svg
from nnunet_ext.report.data import ReportData

ROW, TOP = 20, 46
BARS, RANKS = (178, 238), (254, 404)  # where the bars and the axis lie, from left to right


class Overview(NamedTuple):
    """A figure of mean ranks, and whether the means of the values have the same order."""

    figure: Markup
    same_order: bool


def mean_ranks(result: Result, models: Sequence[str]) -> pd.Series:
    """Return the mean over cases of each model's rank in a case, best first; cases where all models have a value."""
    values = result.values[list(models)].dropna().round(12)
    ranks = values.rank(axis=1, ascending=result.metric.better < 0).mean()
    return ranks.sort_values(kind="stable")


def undecided(order: Sequence[str], pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """Return the longest runs of models, by the places of their first and last, of which no two differ."""
    apart = {frozenset((pair.a, pair.b)) for pair in pairs if pair.differ}
    alike = [
        (i, j)
        for i, j in combinations(range(len(order)), 2)
        if not any(frozenset(two) in apart for two in combinations(order[i : j + 1], 2))
    ]
    return [(i, j) for i, j in alike if (i - 1, j) not in alike and (i, j + 1) not in alike]


def overview(data: ReportData, result: Result, ranking: Ranking) -> Overview | None:
    """Draw mean ranks, best first, and bars that join models not shown to differ; None for fewer than three models.

    None as well where models were compared with a baseline only: nobody has tested the others.
    """
    if len(ranking.ranks) < 3 or (data.comparison and data.comparison.baseline):
        return None
    ranks = mean_ranks(result, list(ranking.ranks))
    order = [str(name) for name in ranks.index]
    scale = svg.Scale((1.0, float(len(order))), RANKS)
    bottom = TOP + ROW * len(order)
    runs = undecided(order, result.pairs)
    step = min(8.0, (BARS[1] - BARS[0]) / max(len(runs), 1))
    bars = [
        svg.tag("path", d=f"M{svg.px(BARS[0] + step * k)} {_middle(i) - 6}V{_middle(j) + 6}", class_="alike")
        for k, (i, j) in enumerate(runs)
    ]
    rows = [
        svg.tag(
            "g",
            [
                svg.text(svg.clipped(f"{data.letter(name)}  {name}", 24), 0, _middle(i) + 4, "t name"),
                svg.tag("circle", cx=scale(rank), cy=_middle(i), r=4.5, class_="meandot"),
            ],
            class_=svg.colour(data.names.index(name)),
        )
        for i, (name, rank) in enumerate(zip(order, ranks, strict=True))
    ]
    groups = "; ".join(", ".join(order[i : j + 1]) for i, j in runs) or "none"
    figure = svg.figure(
        [
            svg.text("Mean ranks; bars join what is not shown to differ", 0, 14, "t title"),
            svg.x_axis(scale, TOP - 12, bottom),
            *bars,
            *rows,
        ],
        bottom + 22,
        f"Mean ranks by {result.metric.label}: "
        + ", ".join(f"{name} {rank:.1f}" for name, rank in zip(order, ranks, strict=True))
        + f". Not shown to differ: {groups}",
    )
    return Overview(figure, order == list(ranking.ranks))


def _middle(row: int) -> float:
    return TOP + ROW * row
