"""A comparison as text for the terminal, as tables of rows, JSON and LaTeX, and the folder of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_ext.common import files
from nnunet_ext.common.text import aligned
from nnunet_ext.comparison.results import Comparison, ModelSummary, Pair, Ranking, Result
from nnunet_ext.comparison.wording import (
    digest,
    effect,
    interval,
    method,
    number,
    p_value,
    prompt_words,
    shift_interval,
)
from nnunet_ext.metrics.definitions import BY_KEY

RECORD, MARK = "comparison.json", "nnunet_ext compare"
FILES = (RECORD, "comparison.csv", "comparison_pairs.csv", "comparison_cases.csv", "comparison.tex")
HINT = "Name another folder with --out."
MOST = 10  # pairs that are named one by one in text: those of five models


def to_text(comparison: Comparison) -> str:
    """Return, per structure, a table of means with intervals and a sentence per finding; then the notes."""
    lines: list[str] = []
    for structure in comparison.structures:
        results = list(comparison.of(structure).values())
        lines += [f"{structure}: {len(comparison.cases)} cases; mean [95 % interval]", ""]
        lines += [*aligned(list(_text_rows(comparison, results))), "", *_findings(results, comparison.alpha)]
    return "\n".join([*lines, *(f"Note: {note}" for note in comparison.notes)])


def _text_rows(comparison: Comparison, results: Sequence[Result]) -> Iterator[list[str]]:
    yield ["", *(result.label for result in results)]
    for source, names in comparison.prompts.items():
        if len(comparison.prompts) > 1:
            yield [f"({prompt_words(source)})"]
        for name in names:
            yield [name, *(_text_cell(result, name) for result in results)]


def _text_cell(result: Result, name: str) -> str:
    """Return "0.812 [0.790, 0.834]", with a star for the best and the number of undefined cases."""
    summary = result.summaries[name]
    shown = number(summary.mean, result.metric) + ("*" if name in result.best else "")
    if summary.n:
        shown += f" {interval(summary.low, summary.high, result.metric)}"
    return shown + (f" ({summary.undefined} undefined)" if summary.undefined else "")


def _findings(results: Sequence[Result], alpha: float) -> Iterator[str]:
    for result in results:
        if result.pairs:
            yield f"{result.metric.label} ({'primary' if result.primary else 'exploratory'})"
            yield from (f"  {sentence}" for sentence in _sentences(result, alpha))
            yield ""


def _sentences(result: Result, alpha: float) -> Iterator[str]:
    yield from digest(result.pairs, MOST, alpha)
    for ranking in result.rankings:
        among = f"Among models with {prompt_words(ranking.prompts)}: " if len(result.rankings) > 1 else ""
        if ranking.friedman is not None:
            yield among + ranking.friedman.verdict
        yield among + ranking.verdict
    for name, summary in result.summaries.items():
        if len(summary.repeat_means) > 1:
            spread = number(summary.repeat_sd, result.metric)
            yield f"{name}: its {len(summary.repeat_means)} repeats have means with a standard deviation of {spread}."


def model_rows(comparison: Comparison) -> pd.DataFrame:
    """Return one row per structure, metric and model: `ModelSummary`, and the rank among models of the same prompts."""
    rows = []
    for result in comparison.results.values():
        ranks = {model: rank for ranking in result.rankings for model, rank in ranking.ranks.items()}
        for model in comparison.models:
            head = {**_head(result), "model": model.name, "prompts": model.prompts}
            rows.append({**head, **summary_cells(result.summaries[model.name]), "rank": ranks.get(model.name)})
    names = ["structure", "metric", "unit", "model", "prompts", *(f.name for f in fields(ModelSummary)), "rank"]
    return pd.DataFrame(rows, columns=names).astype({"rank": "Int64"})


def summary_cells(summary: ModelSummary) -> dict[str, Any]:
    """Return a summary as cells of a table, the means of repeats in one of them."""
    return {**asdict(summary), "repeat_means": " ".join(f"{mean:.6g}" for mean in summary.repeat_means)}


def pair_rows(comparison: Comparison) -> pd.DataFrame:
    """Return one row per structure, metric and pair of models: `Pair`."""
    rows = [
        {**_head(result), "primary": result.primary, **asdict(pair)}
        for result in comparison.results.values()
        for pair in result.pairs
    ]
    return pd.DataFrame(rows, columns=["structure", "metric", "unit", "primary", *(f.name for f in fields(Pair))])


def case_rows(comparison: Comparison) -> pd.DataFrame:
    """Return one row per structure, metric, case and model: the value that was compared, the mean over repeats.

    The table is long, as challengeR reads it: metric is its task, model its algorithm.
    """
    tables = [
        result.values.rename_axis("case").reset_index().melt("case", var_name="model").assign(**_head(result))
        for result in comparison.results.values()
    ]
    return pd.concat(tables, ignore_index=True)[["structure", "metric", "unit", "case", "model", "value"]]


def to_csv(rows: pd.DataFrame) -> str:
    """Return rows as comma-separated values; what is undefined is empty."""
    return str(rows.to_csv(index=False, lineterminator="\n"))


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return everything but the values of cases, ready for JSON; what is undefined is None."""
    content: dict[str, Any] = files.without_nan(
        {
            "models": [
                {
                    "name": model.name,
                    "prompts": model.prompts,
                    "folds": len(model.folds),
                    "repeats": model.repeats,
                    "runs": [run.info for run in model.runs],
                }
                for model in comparison.models
            ],
            "cases": comparison.cases,
            "structures": comparison.structures,
            "units": comparison.units._asdict(),
            "nsd_tolerance": comparison.nsd_tolerance,
            "primary": comparison.primary,
            "baseline": comparison.baseline,
            "alpha": comparison.alpha,
            "method": method(comparison),
            "notes": comparison.notes,
            "results": [_json_result(result) for result in comparison.results.values()],
        }
    )
    return content


def _head(result: Result) -> dict[str, str]:
    return {"structure": result.structure, "metric": result.metric.key, "unit": result.unit}


def _json_result(result: Result) -> dict[str, Any]:
    return {
        **_head(result),
        "label": result.metric.label,
        "definition": result.metric.definition,
        "better": result.metric.better,
        "ranked": result.metric.ranked,
        "primary": result.primary,
        "models": {name: asdict(summary) for name, summary in result.summaries.items()},
        "best": [name for name in result.summaries if name in result.best],
        "pairs": [asdict(pair) for pair in result.pairs],
        "rankings": [_json_ranking(ranking) for ranking in result.rankings],
    }


def _json_ranking(ranking: Ranking) -> dict[str, Any]:
    return {**asdict(ranking), "shares": {model: list(map(float, row)) for model, row in ranking.shares.iterrows()}}


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
    return re.sub(r"[\\~^<>\[&%$#_{}]", lambda match: _ESCAPES[match[0]], text)


def to_latex(comparison: Comparison) -> str:
    """Return, per structure, a table of means with intervals, the best in bold, and one of differences (booktabs)."""
    tables = [
        table
        for structure in comparison.structures
        if (results := list(comparison.of(structure).values()))
        for table in (_latex_means(comparison, structure, results), _latex_pairs(comparison, structure, results))
    ]
    return "\n".join(["% made by nnunet_ext compare; needs \\usepackage{booktabs}", "", *tables])


def _latex_means(comparison: Comparison, structure: str, results: Sequence[Result]) -> str:
    head = " & ".join(["Model", *(escape(r.label) + _ARROWS[r.metric.better] for r in results)])
    body: list[str] = []
    for source, names in comparison.prompts.items():
        if len(comparison.prompts) > 1:
            body += [
                r"\midrule",
                rf"\multicolumn{{{len(results) + 1}}}{{l}}{{\emph{{{escape(prompt_words(source))}}}}} \\",
            ]
        body += [f"{escape(name)} & {' & '.join(_latex_mean(r, name) for r in results)} \\\\" for name in names]
    if len(comparison.prompts) == 1:
        body.insert(0, r"\midrule")
    undefined = [
        f"{result.metric.label} of {name} in {summary.undefined}"
        for result in results
        for name, summary in result.summaries.items()
        if summary.undefined
    ]
    left_out = f"; undefined and left out: {', '.join(undefined)}" if undefined else ""
    caption = f"{structure}: mean over cases [95 % t interval], {len(comparison.cases)} cases{left_out}."
    if any(result.best for result in results):
        caption += " Bold: best" + (" among the same prompts." if len(comparison.prompts) > 1 else ".")
    return _latex_table(caption, f"means-{structure}", "l" + "r" * len(results), head, body)


def _latex_mean(result: Result, name: str) -> str:
    summary = result.summaries[name]
    mean = number(summary.mean, result.metric)
    mean = rf"\textbf{{{mean}}}" if name in result.best else _maths(mean)
    return mean if not summary.n else f"{mean} {_maths(interval(summary.low, summary.high, result.metric))}"


def _latex_pairs(comparison: Comparison, structure: str, results: Sequence[Result]) -> str:
    head = r"Metric & Pair & Difference [interval] & Mean & $p$ & Effect & W/T/L"
    body = [r"\midrule", *(_latex_pair(comparison, result, pair) for result in results for pair in result.pairs)]
    caption = (
        f"{structure}: paired differences (Hodges-Lehmann, interval of the corrected test; mean). p: Wilcoxon "
        "signed-rank test with Holm's correction; effect: rank-biserial correlation, positive where the first model is "
        f"better; W/T/L: cases won, tied and lost by it. Primary metric: {BY_KEY[comparison.primary].label}; findings "
        "by others are exploratory."
    )
    return _latex_table(caption, f"differences-{structure}", "llrrrrr", head, body)


def _latex_pair(comparison: Comparison, result: Result, pair: Pair) -> str:
    metric = result.metric
    cells = [
        escape(result.label),
        f"{escape(pair.a)} -- {escape(pair.b)}",
        f"{_maths(number(pair.typical, metric, sign=True))} {_maths(shift_interval(pair, metric))}",
        _maths(number(pair.difference, metric, sign=True)),
        _maths(p_value(pair.p_holm, comparison.alpha).removeprefix("p ").removeprefix("= ")),
        _maths(effect(pair.effect)),
        f"{pair.wins}/{pair.ties}/{pair.losses}",
    ]
    return " & ".join(cells) + r" \\"


def _maths(text: str) -> str:
    """Return text in maths mode, where a minus is a minus; "n/a" as it is."""
    return text if "n/a" in text else f"${text}$"


def _latex_table(caption: str, label: str, columns: str, head: str, body: Iterable[str]) -> str:
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]+', '-', label)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rf"{head} \\",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def save(comparison: Comparison, folder: Path) -> None:
    """Write all `FILES`; those of an earlier comparison are replaced.

    Raises:
        InputError: see `check_folder`.
    """
    check_folder(folder)
    # the record comes first: what is written after it is known to be ours, however far this gets
    record = files.to_json({"made_by": MARK, "files": FILES, **to_json(comparison)})
    texts = [record, *(to_csv(rows(comparison)) for rows in (model_rows, pair_rows, case_rows)), to_latex(comparison)]
    files.write_results({folder / name: text for name, text in zip(FILES, texts, strict=True)}, HINT)


def check_folder(folder: Path) -> None:
    """Check that `save` may write to a folder, before the work that goes into it.

    Raises:
        InputError: the folder is a file, cannot be written to, or holds files of these names that no comparison has
            written.
    """
    record = files.read_json_if_sound(folder / RECORD)
    ours = record.get("files") if record.get("made_by") == MARK else None
    written = ours if isinstance(ours, list) else []
    files.check_replaceable((folder / name for name in FILES), lambda file: file.name in written, MARK, HINT)
