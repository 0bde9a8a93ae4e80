"""Where predictions come from, as far as files say: which model, with which prompts, and which cases it has seen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunet_ext import registry
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import ARGUMENTS, SPLITS, fold_folders, plan_names, read_splits, used_prompts

ALL = "all"  # nnU-Net's fold that trains on every case
GROUND_TRUTH = "gt_segmentations"  # nnU-Net's copies of all labels that it trains on


def origin(predictions: Path) -> dict[str, Any]:
    """Return what is known of the model and its prompts from files next to predictions and the folders above.

    Prompts are "unknown" where nothing says that there were none: in ensembles, for instance.
    """
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
        info["fold"] = fold_names(fold.name.removeprefix("fold_") for fold in folds)
    entry = registry.get("trainer", info.get("trainer", ""))
    automatic = bool(folds) or (predictions / ARGUMENTS).is_file()  # nnU-Net's own validation or prediction
    clicks = entry is not None and entry.prompts == "click"  # its validation clicks on the reference
    said = "reference" if clicks else "none" if automatic else "unknown"
    return {**info, "prompts": used.prompts if used else said}


def fold_names(folds: Iterable[Any]) -> Any:
    """Return one fold as a number (or "all"), several as a list."""
    values = [int(fold) if str(fold).isdecimal() else str(fold) for fold in folds]
    return values[0] if len(values) == 1 else values


def of_training(info: dict[str, Any], cases: Iterable[str], *, validation: bool) -> dict[str, list[str]]:
    """Return those of the cases that the model of these predictions was trained on, as far as nnU-Net's files say.

    Args:
        info: what `origin` returns: the dataset and the folds, one of which is enough.
        cases: of the dataset's training images, by their names.
        validation: whether these are nnU-Net's final validation; that of fold all has the cases that it trained on.

    Returns:
        The cases as ``trained_cases``, to be added to `info`; nothing where there are none.
    """
    names, found = set(cases), set()
    for fold in _folds(info):
        found |= names if validation and fold == ALL else _training_set(_preprocessed(info), fold) & names
    return {"trained_cases": sorted(found)} if found else {}


def _folds(info: dict[str, Any]) -> list[int | str]:
    folds = info.get("fold", [])
    return folds if isinstance(folds, list) else [folds]


def _preprocessed(info: dict[str, Any]) -> Path:
    return Path(os.environ.get("nnUNet_preprocessed", "")) / info.get("dataset", "")


def _training_set(dataset: Path, fold: int | str) -> set[str]:
    """Return the cases that a fold trains on; none where that is not known."""
    splits = read_splits(dataset)
    if fold == ALL:
        of_splits = {case for split in splits for case in (*split.train, *split.val)}
        files = [file.name for file in dataset.glob(f"{GROUND_TRUTH}/*")]
        return of_splits | {name[:at] for name in files for at, letter in enumerate(name) if letter == "."}
    return set(splits[fold].train) if isinstance(fold, int) and fold < len(splits) else set()


def drawn_folds(info: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for every fold that the stored split lacks, for which nnU-Net draws another one."""
    dataset = _preprocessed(info)
    splits = read_splits(dataset)
    for fold in _folds(info):
        if splits and isinstance(fold, int) and fold >= len(splits):
            yield (
                f"Fold {fold} is none of the {len(splits)} in {dataset / SPLITS}: nnU-Net drew a random split for it, "
                "which may part a patient's images or near-duplicates."
            )


def with_prompts(info: dict[str, Any], declared: str) -> dict[str, Any]:
    """Return what is known with the source of prompts that a user declares.

    Raises:
        InputError: files say something else.
    """
    if (known := info["prompts"]) not in ("unknown", declared):
        raise InputError(
            f"--prompts {declared}: what lies next to the predictions says {known}.", hint="Leave --prompts out."
        )
    return {**info, "prompts": declared}


def of_members(info: dict[str, Any], members: Sequence[Path]) -> dict[str, Any]:
    """Return what is known of an ensemble's prompts, which nnU-Net does not record: those that all its members have.

    Raises:
        InputError: a member is not a folder or has no record, members differ, or the ensemble's own files say
            something else.
    """
    problems, found = [], {}
    for member in members:
        if not member.is_dir():
            problems.append(f"--members {member} is not a directory.")
        elif (prompts := origin(member)["prompts"]) == "unknown":
            problems.append(f"--members {member}: no file says whether prompts were given.")
        else:
            found[member] = prompts
    if len(set(found.values())) > 1:
        problems.append(f"--members have different prompts: {', '.join(f'{m}: {p}' for m, p in found.items())}.")
    if problems:
        raise InputError(*problems, hint="Name the folders that went into nnUNetv2_ensemble with -i.")
    [prompts] = set(found.values())
    if info["prompts"] not in ("unknown", prompts):
        raise InputError(f"--members: they have {prompts}, and what lies next to the ensemble says {info['prompts']}.")
    return {**info, "prompts": prompts, "members": [str(member.resolve()) for member in members]}
