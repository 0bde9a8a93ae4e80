"""Which files are compared: two folders, or the validation of a trained model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_ext import registry
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json
from nnunet_ext.common.nnunet_files import (
    DATASET,
    Structures,
    check_trained,
    fold_folders,
    plan_names,
    read_splits,
    used_prompts,
)
from nnunet_ext.common.text import some

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")  # that nnU-Net reads
_NAMED = 8  # cases in one message


class CaseFiles(NamedTuple):
    """The two files of a case."""

    case: str
    prediction: Path
    reference: Path


@dataclass(frozen=True, kw_only=True)
class Source:
    """Predictions with their references.

    Args:
        cases: the files of every case, in the order of their names.
        dataset: the content of the dataset.json.
        structures: of that dataset.
        info: what is known about where the predictions come from, see `Evaluation`.
    """

    cases: list[CaseFiles]
    dataset: dict[str, Any]
    structures: Structures
    info: dict[str, Any]


def from_folders(predictions: Path, references: Path, dataset_json: Path | None = None) -> Source:
    """Pair the files of equal names in two folders.

    Args:
        dataset_json: by default the one next to the predictions, else next to the references or in the folder above.

    Raises:
        InputError: everything that is missing, in one message.
    """
    absent = [f"{folder} is not a directory." for folder in (predictions, references) if not folder.is_dir()]
    if absent:
        raise InputError(*absent, hint="Name directories with --pred and --ref.")
    dataset, structures = _read_dataset(_find_dataset_json(dataset_json, predictions, references))
    ending = dataset["file_ending"]
    predicted, referred = (_cases(folder, ending) for folder in (predictions, references))
    problems = [
        *_missing(referred, predicted, predictions, "prediction", ending),
        *_missing(predicted, referred, references, "reference", ending),
    ]
    if not (predicted or referred):
        problems = [_nothing(folder, ending) for folder in (predictions, references)]
    if problems:
        raise InputError(*problems, hint="Both folders must hold the same cases.")
    info = {"predictions": str(predictions.resolve()), **origin(predictions)}
    info["name"] = _name(info, predictions)
    return _source(predicted, referred, references, dataset, structures, info)


def from_model(model: Path, folds: Sequence[str]) -> Source:
    """Pool the final validation of trained folds: each case is predicted by the fold that has not seen it.

    References are nnU-Net's copies in nnUNet_preprocessed, else the raw labels.

    Args:
        model: TRAINER__PLANS__CONFIGURATION below nnUNet_results.
        folds: numbers, or "all".

    Raises:
        InputError: everything that is missing, in one message.
    """
    check_trained(model)
    dataset, structures = _read_dataset(model / DATASET)
    name = plan_names(model).dataset_name or model.resolve().parent.name
    ending, references = dataset["file_ending"], _references(name)
    referred = _cases(references, ending)
    predicted: dict[str, Path] = {}
    problems = []
    for fold in dict.fromkeys(folds):
        folder = model / f"fold_{fold}" / "validation"
        found = _cases(folder, ending) if folder.is_dir() else {}
        expected = _validation_cases(name, fold) or (referred if fold == "all" else found)
        if not found:
            problems.append(f"{folder} holds no validation; nnUNetv2_train ... {fold} --val makes it.")
            continue
        problems += _missing(expected, found, folder, "prediction", ending)
        problems += _missing(found, referred, references, "reference", ending)
        if twice := sorted(set(found) & set(predicted)):
            problems.append(f"fold {fold} has predicted cases of another fold again: {some(twice, _NAMED)}.")
        predicted.update(found)
    if problems:
        raise InputError(*problems, hint="Every case of a fold's validation must be there, once.")
    folders = sorted({file.parent for file in predicted.values()})
    info = {"predictions": str((folders[0] if len(folders) == 1 else model).resolve()), **origin(folders[0])}
    info |= {"name": _name(info, model), "fold": _fold(folds)}
    if len(folders) > 1:
        info["prediction_files"] = {case: str(file.resolve()) for case, file in sorted(predicted.items())}
    return _source(predicted, referred, references, dataset, structures, info)


def _find_dataset_json(given: Path | None, predictions: Path, references: Path) -> Path:
    """Return the given file, else the one next to the predictions, next to the references or in the folder above them.

    Raises:
        InputError: there is none.
    """
    candidates = [given] if given else [f / DATASET for f in (predictions, references, references.resolve().parent)]
    for file in candidates:
        if file.is_file():
            return file
    raise InputError(
        f"No dataset.json, which says what the labels mean: {', '.join(map(str, candidates))} not there.",
        hint="Name it with --dataset-json; nnUNet_raw/DATASET has one.",
    )


def _read_dataset(file: Path) -> tuple[dict[str, Any], Structures]:
    """Read a dataset.json, and the structures that it names.

    Raises:
        InputError: the file cannot be read, or nnU-Net would not take it either.
    """
    dataset = read_json(file, hint="It should be nnU-Net's dataset.json.")
    ending = dataset.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise InputError(f'{file} has no "file_ending".', hint="It should be nnU-Net's (version 2) dataset.json.")
    return dataset, Structures.of(dataset, str(file))


def _source(
    predicted: dict[str, Path],
    referred: dict[str, Path],
    references: Path,
    dataset: dict[str, Any],
    structures: Structures,
    info: dict[str, Any],
) -> Source:
    """Pair the files, and add the references to `info`, with the images where nnU-Net's names lead to them."""
    references = references.resolve()
    info = {**info, "references": str(references), "file_ending": dataset["file_ending"]}
    for images in image_folders(references)[:1]:
        info["images"] = str(images.resolve())
    cases = [CaseFiles(case, file, referred[case]) for case, file in sorted(predicted.items())]
    return Source(cases=cases, dataset=dataset, structures=structures, info=info)


def image_folders(references: Path | None, dataset: str = "") -> list[Path]:
    """Return the folders to which nnU-Net's names lead from references, or else from a dataset's, to its images."""
    found = []
    if references is not None:
        found.append(references.with_name(references.name.replace("labels", "images", 1)))
        dataset = dataset or (references.parent.name if references.name == "gt_segmentations" else "")
    if dataset and (raw := os.environ.get("nnUNet_raw")):
        found += [Path(raw) / dataset / name for name in ("imagesTr", "imagesTs")]
    return [folder for folder in found if folder != references and folder.is_dir()]


def _name(info: dict[str, Any], folder: Path) -> str:
    """Return what tables call the model unless it is given a name: its trainer and configuration, else a folder."""
    return " ".join(info[key] for key in ("trainer", "configuration") if key in info) or folder.resolve().name


def origin(predictions: Path) -> dict[str, Any]:
    """Return what is known of the model and its prompts from files next to predictions and the folders above."""
    predictions = predictions.resolve()
    used, folds = used_prompts(predictions), fold_folders(predictions)
    info: dict[str, Any] = {}
    model = folds[0].parent if folds else Path(used.model if used else "")
    if model.name.count("__") == 2:
        info["trainer"], info["plans"], info["configuration"] = model.name.split("__")
        info["dataset"] = model.parent.name
    names = plan_names(predictions)
    info |= {k: v for k, v in (("dataset", names.dataset_name), ("plans", names.plans_name)) if v}
    if folds:
        info["fold"] = _fold(fold.name.removeprefix("fold_") for fold in folds)
    entry = registry.get("trainer", info.get("trainer", ""))
    clicks = entry is not None and entry.prompts == "click"  # its validation clicks on the reference
    return {**info, "prompts": used.source if used else "reference" if clicks else "none"}


def _fold(folds: Iterable[Any]) -> Any:
    """Return one fold as a number (or "all"), several as a list."""
    values = [int(fold) if str(fold).isdigit() else str(fold) for fold in folds]
    return values[0] if len(values) == 1 else values


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
        f"{dataset} has no references: there is no {' and no '.join(map(str, candidates)) or 'folder to look into'}.",
        hint="Set nnUNet_preprocessed or nnUNet_raw, or use --pred and --ref.",
    )


def _validation_cases(dataset: str, fold: str) -> list[str]:
    """Return the cases that the splits name for a fold; none where that is not known."""
    splits = read_splits(Path(os.environ.get("nnUNet_preprocessed", "")) / dataset)
    return splits[int(fold)].val if fold.isdecimal() and int(fold) < len(splits) else []


def _cases(folder: Path, ending: str) -> dict[str, Path]:
    files = sorted(f for f in folder.iterdir() if f.name.endswith(ending) and not f.name.startswith("."))
    return {file.name.removesuffix(ending): file for file in files}


def _missing(wanted: Iterable[str], found: Iterable[str], folder: Path, what: str, ending: str) -> list[str]:
    """Return a sentence on the cases that a folder lacks, and one on those that have another file ending there."""
    lacking = sorted(set(wanted) - set(found))
    other = {case: e for case in lacking for e in ENDINGS if e != ending and (folder / f"{case}{e}").is_file()}
    absent = [case for case in lacking if case not in other]
    problems = [f"{folder} holds no {what} of {some(absent, _NAMED)}."] if absent else []
    if other:
        endings = ", ".join(sorted(set(other.values())))
        problems.append(f"{folder}: {some(other, _NAMED)} with ending {endings}, and dataset.json says {ending}.")
    return problems


def _nothing(folder: Path, ending: str) -> str:
    others = sorted({e for f in folder.iterdir() for e in ENDINGS if f.name.endswith(e)})
    return f"{folder} holds no *{ending} file, as dataset.json has it" + (f", but *{others[0]}." if others else ".")
