"""Which files are compared: two folders, or the validation of a trained model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import is_special
from nnunet_ext.common.nnunet_files import (
    ARGUMENTS,
    PLANS,
    PROMPTS,
    Structures,
    check_trained,
    fold_folders,
    plan_names,
    read_splits,
)
from nnunet_ext.common.text import some
from nnunet_ext.evaluation.labels import Side, read_labels
from nnunet_ext.evaluation.origin import ALL, GROUND_TRUTH, drawn_folds, fold_names, of_training, origin

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
        notes: what a reader should know of it, a sentence each.
    """

    cases: list[CaseFiles]
    dataset: dict[str, Any]
    structures: Structures
    info: dict[str, Any]
    notes: tuple[str, ...] = ()


def from_folders(
    predictions: Path, references: Path, dataset_json: Path | None = None, labels_from: Side | None = None
) -> Source:
    """Pair the files of equal names in two folders.

    Args:
        dataset_json: by default the one next to the predictions, else next to the references or in the folder above.
        labels_from: which of these says what labels mean, where they contradict each other.

    Raises:
        InputError: everything that is missing, in one message; the folders are the same, or look swapped.
    """
    absent = [f"{folder} is not a directory." for folder in (predictions, references) if not folder.is_dir()]
    if absent:
        raise InputError(*absent, hint="Name directories with --pred and --ref.")
    notes = _roles(predictions, references)
    dataset, structures = read_labels(
        [predictions, *(fold.parent for fold in fold_folders(predictions.resolve()))],
        [references, references.resolve().parent],
        dataset_json=dataset_json,
        labels_from=labels_from,
    )
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
    if same := [case for case, file in predicted.items() if file.samefile(referred[case])]:
        raise InputError(
            f"{predictions}: these predictions are their own references: {some(same, _NAMED)}.",
            hint="Name the folder of predictions with --pred, and that of references with --ref.",
        )
    info = {"predictions": str(predictions.resolve()), **origin(predictions)}
    info["name"] = _name(info, predictions)
    held_out = references.resolve().name == "labelsTs"
    if not held_out:
        info |= of_training(info, predicted, validation=predictions.resolve().name == "validation")
    return _source(predicted, referred, references, dataset, structures, info, notes)


def from_model(model: Path, folds: Sequence[str], labels_from: Side | None = None) -> Source:
    """Pool the final validation of trained folds: each case is predicted by the fold that has not seen it.

    References are nnU-Net's copies in nnUNet_preprocessed, else the raw labels.

    Args:
        model: TRAINER__PLANS__CONFIGURATION below nnUNet_results.
        folds: numbers, or "all".
        labels_from: as for `from_folders`.

    Raises:
        InputError: everything that is missing, in one message.
    """
    check_trained(model)
    name = plan_names(model).dataset_name or model.resolve().parent.name
    references = _references(name)
    dataset, structures = read_labels([model], [references.parent], labels_from=labels_from)
    ending = dataset["file_ending"]
    referred = _cases(references, ending)
    predicted: dict[str, Path] = {}
    trained: list[str] = []
    problems = []
    for fold in dict.fromkeys(folds):
        folder = model / f"fold_{fold}" / "validation"
        found = _cases(folder, ending) if folder.is_dir() else {}
        expected = _validation_cases(name, fold) or (referred if fold == ALL else found)
        if not found:
            problems.append(f"{folder} holds no validation; nnUNetv2_train ... {fold} --val makes it.")
            continue
        problems += _missing(expected, found, folder, "prediction", ending)
        problems += _missing(found, referred, references, "reference", ending)
        if twice := sorted(set(found) & set(predicted)):
            problems.append(f"fold {fold} has predicted cases of another fold again: {some(twice, _NAMED)}.")
        predicted.update(found)
        own = {"dataset": name, "fold": fold_names([fold])}
        trained += of_training(own, found, validation=True).get("trained_cases", [])
    if problems:
        raise InputError(*problems, hint="Every case of a fold's validation must be there, once.")
    folders = sorted({file.parent for file in predicted.values()})
    info = {"predictions": str((folders[0] if len(folders) == 1 else model).resolve()), **origin(folders[0])}
    info |= {"name": _name(info, model), "fold": fold_names(folds)}
    info |= {"trained_cases": sorted(trained)} if trained else {}
    if len(folders) > 1:
        info["prediction_files"] = {case: str(file.resolve()) for case, file in sorted(predicted.items())}
    return _source(predicted, referred, references, dataset, structures, info)


def _source(
    predicted: dict[str, Path],
    referred: dict[str, Path],
    references: Path,
    dataset: dict[str, Any],
    structures: Structures,
    info: dict[str, Any],
    notes: Iterable[str] = (),
) -> Source:
    """Pair the files, and add the references to `info`, with the images where nnU-Net's names lead to them."""
    references = references.resolve()
    info = {**info, "references": str(references), "file_ending": dataset["file_ending"]}
    for images in image_folders(references)[:1]:
        info["images"] = str(images.resolve())
    cases = [CaseFiles(case, file, referred[case]) for case, file in sorted(predicted.items())]
    notes = (*notes, *drawn_folds(info))
    return Source(cases=cases, dataset=dataset, structures=structures, info=info, notes=notes)


def _roles(predictions: Path, references: Path) -> list[str]:
    """Return in a sentence what suggests that one of the folders is not what it is taken for.

    Raises:
        InputError: both folders suggest that they were swapped.
    """
    made = [name for name in (PROMPTS, ARGUMENTS, PLANS) if (references / name).exists()]
    labels = predictions.resolve().name in ("labelsTr", "labelsTs", GROUND_TRUTH)
    if made and labels:
        raise InputError(
            f"{references} holds {made[0]}, as predictions do, and {predictions} is called as labels are.",
            hint="They look swapped: --pred DIR names predictions, --ref DIR references.",
        )
    found = [f"The references in {references} look like predictions: they lie next to {made[0]}."] if made else []
    return found + [f"{predictions} is called as labels are, not predictions."] * labels


def image_folders(references: Path | None, dataset: str = "") -> list[Path]:
    """Return the folders to which nnU-Net's names lead from references, or else from a dataset's, to its images."""
    found = []
    if references is not None:
        found.append(references.with_name(references.name.replace("labels", "images", 1)))
        dataset = dataset or (references.parent.name if references.name == GROUND_TRUTH else "")
    if dataset and (raw := os.environ.get("nnUNet_raw")):
        found += [Path(raw) / dataset / name for name in ("imagesTr", "imagesTs")]
    return [folder for folder in found if folder != references and folder.is_dir()]


def _name(info: dict[str, Any], folder: Path) -> str:
    """Return what tables call the model unless it is given a name: its trainer and configuration, else a folder."""
    return " ".join(info[key] for key in ("trainer", "configuration") if key in info) or folder.resolve().name


def _references(dataset: str) -> Path:
    candidates = [
        Path(os.environ[variable]) / dataset / folder
        for variable, folder in (("nnUNet_preprocessed", GROUND_TRUTH), ("nnUNet_raw", "labelsTr"))
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
    if special := [file for file in files if is_special(file)]:
        raise InputError(*(f"{file} is not a file, but a pipe or a device." for file in special))
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
