"""A comparison as tables of rows and as JSON."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pandas as pd

from nnunet_ext.comparison import statistics
from nnunet_ext.comparison.records import Comparison, Pair, Ranking, Result, Summary
from nnunet_ext.evaluation.files import without_nan
from nnunet_ext.metrics.bootstrap import SAMPLES


def model_rows(comparison: Comparison) -> pd.DataFrame:
    """One row per structure, metric and model: `Summary`, and the rank among the models of the same prompts."""
    rows = []
    for result in comparison.results.values():
        ranks = {model: rank for ranking in result.rankings for model, rank in ranking.ranks.items()}
        for model in comparison.models:
            values = asdict(result.summaries[model.name])
            values["repeat_means"] = " ".join(f"{mean:.6g}" for mean in values["repeat_means"])
            rows.append({**_head(result), "model": model.name, "prompts": model.prompts, **values})
            rows[-1]["rank"] = ranks.get(model.name)
    names = ["structure", "metric", "unit", "model", "prompts", *(f.name for f in fields(Summary)), "rank"]
    return pd.DataFrame(rows, columns=names).astype({"rank": "Int64"})


def pair_rows(comparison: Comparison) -> pd.DataFrame:
    """One row per structure, metric and pair of models: `Pair`."""
    rows = [{**_head(result), **asdict(pair)} for result in comparison.results.values() for pair in result.pairs]
    return pd.DataFrame(rows, columns=["structure", "metric", "unit", *(f.name for f in fields(Pair))])


def case_rows(comparison: Comparison) -> pd.DataFrame:
    """One row per structure, metric, case and model: the value that was compared, the mean over repeats.

    Long, as challengeR reads it: metric is its task, model its algorithm.
    """
    tables = [
        result.values.rename_axis("case").reset_index().melt("case", var_name="model").assign(**_head(result))
        for result in comparison.results.values()
    ]
    return pd.concat(tables, ignore_index=True)[["structure", "metric", "unit", "case", "model", "value"]]


def to_csv(rows: pd.DataFrame) -> str:
    """Comma-separated, one line per row; what is undefined is empty."""
    return rows.to_csv(index=False, lineterminator="\n")


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything but the values of cases; what is undefined is None."""
    return without_nan(
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
            "baseline": comparison.baseline,
            "alpha": comparison.alpha,
            "method": method(comparison),
            "notes": comparison.notes,
            "results": [_result(result) for result in comparison.results.values()],
        }
    )


def method(comparison: Comparison) -> list[str]:
    """How the numbers came about, a sentence each."""
    family = "every model against the baseline" if comparison.baseline else "all pairs of models"
    return [
        "Cases are the unit: folds are pooled by case, repeats averaged by case.",
        "p: two-sided Wilcoxon signed-rank test, cases without a difference left out; exact up to "
        f"{statistics.EXACT_UP_TO} others, beyond by the normal approximation.",
        f"Corrected by Holm for {family} of one structure and metric, not across structures or metrics.",
        f"Intervals: 95 %, percentile bootstrap of cases, {SAMPLES:,} samples; not corrected.",
        "Effect: matched-pairs rank-biserial correlation.",
        "Ranks: by the mean over the cases where all models have a value; their stability by the same bootstrap.",
    ]


def _head(result: Result) -> dict[str, str]:
    return {"structure": result.structure, "metric": result.metric.key, "unit": result.unit}


def _result(result: Result) -> dict[str, Any]:
    return {
        **_head(result),
        "label": result.metric.label,
        "definition": result.metric.definition,
        "better": result.metric.better,
        "ranked": result.metric.ranked,
        "models": {name: asdict(summary) for name, summary in result.summaries.items()},
        "best": [name for name in result.summaries if name in result.best],
        "pairs": [asdict(pair) for pair in result.pairs],
        "rankings": [_ranking(ranking) for ranking in result.rankings],
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    shares = {
        model: [float(share) for share in row]
        for model, row in zip(ranking.shares.index, ranking.shares.to_numpy(), strict=True)
    }
    return {**asdict(ranking), "shares": shares}
