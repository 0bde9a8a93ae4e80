"""Models compared on the same cases: what each reached, what sets two of them apart, how firm their order is."""

from nnunet_ext.comparison.comparer import compare
from nnunet_ext.comparison.export import (
    FILES,
    case_rows,
    check_folder,
    model_rows,
    pair_rows,
    save,
    to_csv,
    to_json,
    to_latex,
    to_text,
)
from nnunet_ext.comparison.model_runs import ModelRuns, read_models
from nnunet_ext.comparison.results import Comparison, Friedman, ModelSummary, Pair, Ranking, Result
from nnunet_ext.metrics.definitions import DEFAULT_METRICS

__all__ = [
    "DEFAULT_METRICS",
    "FILES",
    "Comparison",
    "Friedman",
    "ModelRuns",
    "ModelSummary",
    "Pair",
    "Ranking",
    "Result",
    "case_rows",
    "check_folder",
    "compare",
    "model_rows",
    "pair_rows",
    "read_models",
    "save",
    "to_csv",
    "to_json",
    "to_latex",
    "to_text",
]
