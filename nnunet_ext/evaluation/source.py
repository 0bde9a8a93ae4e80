"""Which files are compared: two folders, or the validation of a trained model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_ext import registry
from nnunet_ext.common.errors import InputError
from nnunet_ext.evaluation.structures import Structures

DATASET, PLANS, PROMPTS = "dataset.json", "plans.json", "prompts_used.json"
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")  # that nnU-Net reads
_NAMED = 8  # cases in one message


@dataclass(frozen=True, kw_only=True)
class Source:
    """Predictions with their references.

    Args:
        predictions, references: case -> file; the same cases, in the order of names.
        dataset: content of the dataset.json.
        structures: of that dataset.
        info: what is known about where the predictions come from, see `Evaluation`.
    """

    predictions: dict[str, Path]
    references: dict[str, Path]
    dataset: dict[str, Any]
    structures: Structures
    info: dict[str, Any] = field(default_factory=dict)


def from_folders(predictions: Path, references: Path, dataset_json: Path | None = None) -> Source:
    """Two folders with files of equal names.

    Args:
        dataset_json: default: the one beside the predictions, else beside the references or in the folder above them.

    Raises:
        InputError: everything that is missing, in one message.
    """
    absent = [f"{folder} is no folder." for folder in (predictions, references) if not folder.is_dir()]
    if absent:
        raise InputError(*absent, hint="Name folders with --pred and --ref.")
    dataset, structures = _dataset(_find_dataset_json(dataset_json, predictions, references))
    ending = dataset["file_ending"]
    found = [_cases(folder, ending) for folder in (predictions, references)]
    problems = [
        *_missing(found[1], found[0], predictions, "prediction", ending),
        *_missing(found[0], found[1], references, "reference", ending),
    ]
    if not (found[0] or found[1]):
        problems = [_nothing(folder, ending) for folder in (predictions, references)]
    if problems:
        raise InputError(*problems, hint="Both folders must hold the same cases.")
    info = {"predictions": str(predictions.resolve()), "references": str(references.resolve()), "file_ending": ending}
    return Source(
        predictions=found[0],
        references=found[1],
        dataset=dataset,
        structures=structures,
        info={**info, **provenance(predictions)},
    )


def from_model(model: Path, folds: Sequence[str]) -> Source:
    """The final validation of trained folds, pooled: each case is predicted by the fold that has not seen it.

    References are nnU-Net's copies in nnUNet_preprocessed, else the raw labels.

    Args:
        model: TRAINER__PLANS__CONFIGURATION below nnUNet_results.
        folds: numbers, or "all".

    Raises:
        InputError: everything that is missing, in one message.
    """
    missing = [f"{model} is no trained model: {n} missing." for n in (DATASET, PLANS) if not (model / n).is_file()]
    if missing:
        raise InputError(*missing, hint="-m is a folder like nnUNet_results/Dataset029_LiTS/TRAINER__PLANS__2d.")
    dataset, structures = _dataset(model / DATASET)
    name = _read_json(model / PLANS).get("dataset_name", model.resolve().parent.name)
    ending, references = dataset["file_ending"], _references(name)
    there = _cases(references, ending)
    predictions: dict[str, Path] = {}
    problems = []
    for fold in dict.fromkeys(folds):
        folder = model / f"fold_{fold}" / "validation"
        found = _cases(folder, ending) if folder.is_dir() else {}
        expected = _validation_cases(name, fold) or (there if fold == "all" else found)
        if not found:
            problems.append(f"{folder} holds no validation; nnUNetv2_train ... {fold} --val makes it.")
            continue
        problems += _missing(expected, found, folder, "prediction", ending)
        problems += _missing(found, there, references, "reference", ending)
        if twice := sorted(set(found) & set(predictions)):
            problems.append(f"fold {fold} has predicted cases of another fold again: {_names(twice)}.")
        predictions.update(found)
    if problems:
        raise InputError(*problems, hint="Every case of a fold's validation must be there, once.")
    predictions = dict(sorted(predictions.items()))
    folders = sorted({str(file.parent.resolve()) for file in predictions.values()})
    info = {
        "predictions": folders[0] if len(folders) == 1 else str(model.resolve()),
        **({"prediction_files": {c: str(f.resolve()) for c, f in predictions.items()}} if len(folders) > 1 else {}),
        "references": str(references.resolve()),
        "file_ending": ending,
        **provenance(Path(folders[0])),
        "fold": _fold(folds),
    }
    return Source(
        predictions=predictions,
        references={case: there[case] for case in predictions},
        dataset=dataset,
        structures=structures,
        info=info,
    )


def images_of(source: Source) -> Path | None:
    """The folder of the images, where nnU-Net's names lead to it."""
    references = Path(source.info["references"])
    folder = references.with_name(references.name.replace("labels", "images", 1))
    if references.name == "gt_segmentations":
        folder = Path(os.environ.get("nnUNet_raw", "")) / references.parent.name / "imagesTr"
    return folder if folder != references and folder.is_dir() else None


def provenance(predictions: Path) -> dict[str, Any]:
    """What files beside predictions, and the names of the folders above, tell about the model and its prompts."""
    predictions = predictions.resolve()
    prompts = _read_json(predictions / PROMPTS)
    model, info = prompts.get("model"), {}
    folds = [Path(c["file"]).parent.name.removeprefix("fold_") for c in prompts.get("checkpoints", ())]
    if predictions.name == "validation" and predictions.parent.name.startswith("fold_"):
        model, folds = predictions.parent.parent, [predictions.parent.name.removeprefix("fold_")]
    if model and Path(model).name.count("__") == 2:
        info["trainer"], info["plans"], info["configuration"] = Path(model).name.split("__")
        info["dataset"] = Path(model).parent.name
    plans = _read_json(predictions / PLANS)
    info |= {
        k: plans[theirs] for k, theirs in (("dataset", "dataset_name"), ("plans", "plans_name")) if theirs in plans
    }
    if folds:
        info["fold"] = _fold(folds)
    trainer = info.get("trainer", "")
    clicks = trainer.endswith("Click") and registry.get("trainer", trainer) is not None
    return {**info, "prompts": prompts.get("source", "reference" if clicks else "none")}


def _fold(folds: Iterable[Any]) -> Any:
    """One fold as a number (or "all"), several as a list."""
    values = [int(fold) if str(fold).isdigit() else str(fold) for fold in folds]
    return values[0] if len(values) == 1 else values


def _find_dataset_json(given: Path | None, predictions: Path, references: Path) -> Path:
    candidates = [given] if given else [f / DATASET for f in (predictions, references, references.resolve().parent)]
    for file in candidates:
        if file.is_file():
            return file
    raise InputError(
        f"No dataset.json, which says what the labels mean: {', '.join(map(str, candidates))} not there.",
        hint="Name it with --dataset-json; nnUNet_raw/DATASET has one.",
    )


def _dataset(file: Path) -> tuple[dict[str, Any], Structures]:
    try:
        dataset = json.loads(file.read_text())
    except (OSError, ValueError) as e:
        raise InputError(f"{file} cannot be read: {e}.", hint="It should be nnU-Net's dataset.json.") from e
    if not isinstance(dataset, dict) or not isinstance(dataset.get("file_ending"), str):
        raise InputError(f'{file} has no "file_ending".', hint="It should be nnU-Net's (version 2) dataset.json.")
    return dataset, Structures.of(dataset, str(file))


def _read_json(file: Path) -> dict[str, Any]:
    """A record that may be missing or broken: then nothing is known."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _references(dataset: str) -> Path:
    candidates = [
        Path(os.environ[variable]) / dataset / folder
        for variable, folder in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr"))
        if os.environ.get(variable)
    ]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise InputError(
        f"No references of {dataset}: {' and '.join(map(str, candidates)) or 'no folder'} there.",
        hint="Set nnUNet_preprocessed or nnUNet_raw, or use --pred and --ref.",
    )


def _validation_cases(dataset: str, fold: str) -> list[str]:
    """As the splits have it; empty where that is not known."""
    file = Path(os.environ.get("nnUNet_preprocessed", "")) / dataset / "splits_final.json"
    try:
        return list(json.loads(file.read_text())[int(fold)]["val"])
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return []


def _cases(folder: Path, ending: str) -> dict[str, Path]:
    files = sorted(f for f in folder.iterdir() if f.name.endswith(ending) and not f.name.startswith("."))
    return {file.name.removesuffix(ending): file for file in files}


def _missing(wanted: Iterable[str], found: Iterable[str], folder: Path, what: str, ending: str) -> list[str]:
    """A sentence on the cases that a folder lacks, and one on those that have another file ending there."""
    lacking = sorted(set(wanted) - set(found))
    other = {case: e for case in lacking for e in ENDINGS if e != ending and (folder / f"{case}{e}").is_file()}
    absent = [case for case in lacking if case not in other]
    problems = [f"{folder} holds no {what} of {_names(absent)}."] if absent else []
    if other:
        endings = ", ".join(sorted(set(other.values())))
        problems.append(f"{folder}: {_names(list(other))} with ending {endings}, and dataset.json says {ending}.")
    return problems


def _nothing(folder: Path, ending: str) -> str:
    others = sorted({e for f in folder.iterdir() for e in ENDINGS if f.name.endswith(e)})
    return f"{folder} holds no *{ending} file, as dataset.json has it" + (f", but *{others[0]}." if others else ".")


def _names(cases: Sequence[str]) -> str:
    return ", ".join(cases[:_NAMED]) + (f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else "")
