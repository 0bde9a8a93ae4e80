"""A comparison as LaTeX tables, for papers (booktabs)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from nnunet_ext.comparison.records import Comparison, Pair, Result
from nnunet_ext.comparison.wording import PROMPTS, interval, number, p_value

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # after the end of a row, a bare one would begin an argument
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_ARROWS = {1: r" $\uparrow$", -1: r" $\downarrow$", 0: ""}


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return re.sub(r"[\\~^<>\[&%$#_{}]", lambda match: _ESCAPES[match[0]], text)


def to_latex(comparison: Comparison) -> str:
    """Per structure, a table of means with intervals, best in bold, and one of differences; needs booktabs."""
    tables = [
        table
        for structure in comparison.structures
        if (results := list(comparison.of(structure).values()))
        for table in (_means(comparison, structure, results), _differences(comparison, structure, results))
    ]
    return "\n".join(["% made by nnunet_ext compare; needs \\usepackage{booktabs}", "", *tables])


def _means(comparison: Comparison, structure: str, results: Sequence[Result]) -> str:
    head = " & ".join(["Model", *(escape(r.label) + _ARROWS[r.metric.better] for r in results)])
    body: list[str] = []
    for source, names in comparison.prompts.items():
        if len(comparison.prompts) > 1:
            body += [r"\midrule", rf"\multicolumn{{{len(results) + 1}}}{{l}}{{\emph{{{escape(PROMPTS[source])}}}}} \\"]
        body += [f"{escape(name)} & {' & '.join(_mean(result, name) for result in results)} \\\\" for name in names]
    if len(comparison.prompts) == 1:
        body.insert(0, r"\midrule")
    cases = f"{len(comparison.cases)} cases{_undefined(results)}"
    caption = f"{structure}: mean over cases [95 % bootstrap interval], {cases}."
    if any(result.best for result in results):
        caption += " Bold: best" + (" among the same prompts." if len(comparison.prompts) > 1 else ".")
    return _table(caption, f"means-{structure}", "l" + "r" * len(results), head, body)


def _mean(result: Result, name: str) -> str:
    summary = result.summaries[name]
    mean = number(summary.mean, result.metric)
    mean = rf"\textbf{{{mean}}}" if name in result.best else _maths(mean)
    return mean if not summary.n else f"{mean} {_maths(interval(summary.low, summary.high, result.metric))}"


def _undefined(results: Sequence[Result]) -> str:
    counts = [
        f"{result.metric.label} of {name} in {summary.undefined}"
        for result in results
        for name, summary in result.summaries.items()
        if summary.undefined
    ]
    return f"; undefined and left out: {', '.join(counts)}" if counts else ""


def _differences(comparison: Comparison, structure: str, results: Sequence[Result]) -> str:
    head = r"Metric & Pair & Difference [95 \%] & $p$ & Effect & W/T/L"
    body = [r"\midrule", *(_difference(comparison, result, pair) for result in results for pair in result.pairs)]
    caption = (
        f"{structure}: paired differences. p: Wilcoxon signed-rank test with Holm's correction; effect: rank-biserial "
        f"correlation, positive where the first model is better; W/T/L: cases won, tied and lost by it."
    )
    return _table(caption, f"differences-{structure}", "llrrrr", head, body)


def _difference(comparison: Comparison, result: Result, pair: Pair) -> str:
    metric = result.metric
    cells = [
        escape(result.label),
        f"{escape(pair.a)} -- {escape(pair.b)}",
        f"{_maths(number(pair.difference, metric, sign=True))} {_maths(interval(pair.low, pair.high, metric))}",
        _maths(p_value(pair.p_holm, comparison.alpha).removeprefix("p ").removeprefix("= ")),
        _maths(f"{pair.effect:+.2f}") if math.isfinite(pair.effect) else "n/a",
        f"{pair.wins}/{pair.ties}/{pair.losses}",
    ]
    return " & ".join(cells) + r" \\"


def _maths(text: str) -> str:
    """In maths mode, where a minus is a minus; "n/a" as it is."""
    return text if "n/a" in text else f"${text}$"


def _table(caption: str, label: str, columns: str, head: str, body: Sequence[str]) -> str:
    label = re.sub(r"[^A-Za-z0-9-]+", "-", label)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rf"{head} \\",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
