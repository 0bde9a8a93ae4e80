"""nnU-Net's own summary.json as an evaluation: Dice, IoU and what else its voxel counts say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_ext.common.errors import InputError
from nnunet_ext.evaluation.evaluation import EXTENSION, Evaluation
from nnunet_ext.evaluation.source import provenance
from nnunet_ext.metrics.definitions import PHYSICAL, PIXELS
from nnunet_ext.metrics.overlap import Overlap

SUMMARY = "summary.json"
PICTURES = (".png", ".bmp", ".tif", ".tiff")  # without a spacing that nnU-Net would read


def is_summary(file: Path) -> bool:
    """Whether a file is nnU-Net's rather than our metrics.json, which has the same keys and one more."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "metric_per_case" in content and EXTENSION not in content


def load_summary(file: Path) -> Evaluation:
    """Read a summary.json of nnUNetv2_train, nnUNetv2_evaluate_folder or nnUNetv2_evaluate_simple.

    Names of structures come from the dataset.json beside the predictions or in their trained model's folder; without
    one they are called by their labels.

    Raises:
        InputError: not such a file.
    """
    file = file.absolute()
    try:
        cases = json.loads(file.read_text())["metric_per_case"]
        first = Path(cases[0]["prediction_file"])
        predictions = first.parent if first.parent.is_dir() else file.parent  # moved or copied, most likely with it
        names = _names(predictions)
        rows = [
            {"case": _case(case), "structure": names.get(key, key), **_row(metrics)}
            for case in cases
            for key, metrics in case["metrics"].items()
        ]
        structures = {names.get(key, key): _labels(key) for key in cases[0]["metrics"]}
        if not structures:
            raise LookupError("no labels")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
        raise InputError(
            f"{file} is no summary.json of nnU-Net ({type(e).__name__}: {e}).",
            hint="Evaluate the predictions with nnunet_ext evaluate, and name its folder.",
        ) from e
    return Evaluation(
        table=pd.DataFrame(rows),
        units=PIXELS if first.suffix in PICTURES else PHYSICAL,
        structures=structures,
        info={"predictions": str(predictions), **provenance(predictions)},
    )


def _row(metrics: dict[str, Any]) -> dict[str, float]:
    overlap = Overlap(**{key: int(metrics[key.upper()]) for key in ("tp", "fp", "fn", "tn")})
    return {
        **vars(overlap),
        "dice": float(metrics["Dice"]),
        "iou": float(metrics["IoU"]),
        "precision": overlap.precision,
        "recall": overlap.recall,
    }


def _case(case: dict[str, Any]) -> str:
    name = Path(case["prediction_file"]).name
    return name.removesuffix(".gz").rsplit(".", 1)[0]


def _labels(key: str) -> tuple[int, ...]:
    """Of nnU-Net's key: "1", or "(1, 2)" for a region."""
    return tuple(int(label) for label in key.strip("()").split(",") if label.strip())


def _names(predictions: Path) -> dict[str, str]:
    """nnU-Net's key -> name, from a dataset.json beside the predictions or in the trained model's folder."""
    for folder in (predictions, *predictions.parents[:2]):
        if (folder / "dataset.json").is_file():
            labels = json.loads((folder / "dataset.json").read_text())["labels"]
            return {str(v if isinstance(v, int) else tuple(v)): name for name, v in labels.items()}
    return {}
