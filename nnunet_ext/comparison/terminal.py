"""A comparison as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nnunet_ext.comparison.records import Comparison, Result
from nnunet_ext.comparison.wording import PROMPTS, interval, number


def to_text(comparison: Comparison) -> str:
    """Per structure, a table of means with intervals and a sentence per finding; then what to know about them."""
    lines: list[str] = []
    for structure in comparison.structures:
        results = list(comparison.of(structure).values())
        lines += [f"{structure}: {len(comparison.cases)} cases; mean [95 % interval]", ""]
        lines += [*_aligned(_table(comparison, results)), "", *_findings(results)]
    return "\n".join([*lines, *(f"Note: {note}" for note in comparison.notes)])


def _table(comparison: Comparison, results: Sequence[Result]) -> Iterator[list[str]]:
    yield ["", *(result.label for result in results)]
    for source, names in comparison.prompts.items():
        if len(comparison.prompts) > 1:
            yield [f"({PROMPTS[source]})"]
        for name in names:
            yield [name, *(_cell(result, name) for result in results)]


def _cell(result: Result, name: str) -> str:
    """ "0.812 [0.790, 0.834]", with a star for the best and the number of undefined cases."""
    summary = result.summaries[name]
    shown = number(summary.mean, result.metric) + ("*" if name in result.best else "")
    if summary.n:
        shown += f" {interval(summary.low, summary.high, result.metric)}"
    return shown + (f" ({summary.undefined} undefined)" if summary.undefined else "")


def _findings(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        if result.pairs:
            yield result.metric.label
            yield from (f"  {sentence}" for sentence in _sentences(result))
            yield ""


def _sentences(result: Result) -> Iterator[str]:
    for pair in result.pairs:
        yield pair.verdict
    for ranking in result.rankings:
        among = f"Among models with {PROMPTS[ranking.prompts]}: " if len(result.rankings) > 1 else ""
        if ranking.friedman is not None:
            yield among + ranking.friedman.verdict
        yield among + ranking.verdict
    for name, summary in result.summaries.items():
        if len(summary.repeat_means) > 1:
            spread = number(summary.repeat_sd, result.metric)
            yield f"{name}: its {len(summary.repeat_means)} repeats have means with a standard deviation of {spread}."


def _aligned(rows: Iterator[list[str]]) -> Iterator[str]:
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(max(map(len, rows)))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
