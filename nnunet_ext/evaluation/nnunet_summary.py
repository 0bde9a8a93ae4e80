"""nnU-Net's own summary.json as an evaluation: Dice, IoU and what else its voxel counts say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json, read_json_if_any
from nnunet_ext.common.nnunet_files import DATASET
from nnunet_ext.evaluation.evaluation import EXTENSION, TO_NNUNET, Evaluation, table_of
from nnunet_ext.evaluation.source import origin
from nnunet_ext.metrics.definitions import COUNTS, PHYSICAL, PIXELS
from nnunet_ext.metrics.overlap import Overlap

SUMMARY = "summary.json"
PICTURES = (".png", ".bmp", ".tif", ".tiff")  # without a spacing that nnU-Net would read
HINT = "Evaluate the predictions with nnunet_ext evaluate, and name its folder."


def is_summary(file: Path) -> bool:
    """Return whether a file is nnU-Net's rather than our metrics.json, which has the same keys and one more."""
    content = read_json_if_any(file)
    return "metric_per_case" in content and EXTENSION not in content


def load_summary(file: Path) -> Evaluation:
    """Read a summary.json of nnUNetv2_train, nnUNetv2_evaluate_folder or nnUNetv2_evaluate_simple.

    Names of structures come from the dataset.json next to the predictions or in their trained model's folder; without
    one they are called by their labels.

    Raises:
        InputError: the file is not there, or is not such a file.
    """
    file = file.absolute()
    content = read_json(file, hint=HINT)
    try:
        cases = content["metric_per_case"]
        first = Path(cases[0]["prediction_file"])
        predictions = first.parent if first.parent.is_dir() else file.parent  # moved or copied, most likely with it
        names = _names(predictions)
        units = PIXELS if first.suffix in PICTURES else PHYSICAL
        rows = [
            {"case": _case(case), "structure": names.get(key, key), **_row(metrics)}
            for case in cases
            for key, metrics in case["metrics"].items()
        ]
        structures = {names.get(key, key): _labels(key) for key in cases[0]["metrics"]}
        if not structures:
            raise LookupError("no labels")
        info = {"predictions": str(predictions), **origin(predictions)}
        return Evaluation(table=table_of(rows, units), units=units, structures=structures, info=info)
    except (ValueError, LookupError, TypeError, AttributeError) as e:
        raise InputError(f"{file} is not a summary.json of nnU-Net ({type(e).__name__}: {e}).", hint=HINT) from e


def _row(metrics: dict[str, Any]) -> dict[str, float]:
    overlap = Overlap(**{key: int(metrics[TO_NNUNET[key]]) for key in COUNTS})
    ratios = {key: float(metrics[TO_NNUNET[key]]) for key in ("dice", "iou")}
    return {**vars(overlap), **ratios, "precision": overlap.precision, "recall": overlap.recall}


def _case(case: dict[str, Any]) -> str:
    name = Path(case["prediction_file"]).name
    return name.removesuffix(".gz").rsplit(".", 1)[0]


def _labels(key: str) -> tuple[int, ...]:
    """Return the labels of nnU-Net's key: "1", or "(1, 2)" for a region."""
    return tuple(int(label) for label in key.strip("()").split(",") if label.strip())


def _names(predictions: Path) -> dict[str, str]:
    """Return names by nnU-Net's keys, from a dataset.json next to the predictions or in the trained model's folder."""
    for folder in (predictions, *predictions.parents[:2]):
        if labels := read_json_if_any(folder / DATASET).get("labels"):
            return {str(v if isinstance(v, int) else tuple(v)): name for name, v in labels.items()}
    return {}
