"""Models compared on the same cases: what each reached, what sets two of them apart, how firm their order is."""

from nnunet_ext.comparison.compare import DEFAULT_METRICS, compare
from nnunet_ext.comparison.export import case_rows, method, model_rows, pair_rows, to_csv, to_json
from nnunet_ext.comparison.folder import FILES, check_folder, save
from nnunet_ext.comparison.latex import to_latex
from nnunet_ext.comparison.model import Model, read_models
from nnunet_ext.comparison.records import Comparison, Friedman, Pair, Ranking, Result, Summary
from nnunet_ext.comparison.terminal import to_text

__all__ = [
    "DEFAULT_METRICS",
    "FILES",
    "Comparison",
    "Friedman",
    "Model",
    "Pair",
    "Ranking",
    "Result",
    "Summary",
    "case_rows",
    "check_folder",
    "compare",
    "method",
    "model_rows",
    "pair_rows",
    "read_models",
    "save",
    "to_csv",
    "to_json",
    "to_latex",
    "to_text",
]
