"""What labels mean: which dataset.json says it, where that of the predictions and that of the references differ."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import DATASET, Structures, read_dataset

Side = Literal["predictions", "references"]
Dataset = tuple[dict[str, Any], Structures]


def read_labels(
    predictions: Iterable[Path],
    references: Iterable[Path],
    *,
    dataset_json: Path | None = None,
    labels_from: Side | None = None,
) -> Dataset:
    """Read the dataset.json that says what the labels mean, and the structures that it names.

    Args:
        predictions: folders where the predictions' may lie, the first that has one counts.
        references: folders where the references' may lie.
        dataset_json: decides, whatever lies there.
        labels_from: decides where the two contradict each other.

    Raises:
        InputError: there is none, it cannot be read, nnU-Net would not take it either, or the two contradict each other
            and nobody decides.
    """
    if dataset_json is not None:
        return read_dataset(dataset_json)
    folders = {"predictions": list(predictions), "references": list(references)}
    sides = [labels_from] if labels_from else list(folders)
    candidates = [[folder / DATASET for folder in folders[side]] for side in sides]
    there = [file for own in candidates for file in [f for f in own if f.is_file()][:1]]
    if not there:
        absent = ", ".join(str(file) for own in candidates for file in own)
        raise InputError(
            f"No dataset.json, which says what the labels mean: {absent} not there.",
            hint="Name it with --dataset-json; nnUNet_raw/DATASET has one.",
        )
    read = [read_dataset(file) for file in there]
    if len(there) == 2 and (contradictions := _contradictions(*(structures for _, structures in read))):
        raise InputError(
            f"{there[0]} and {there[1]} contradict each other: {'; '.join(contradictions)}.",
            hint="--labels-from predictions or --labels-from references says which of them holds for all files.",
        )
    return read[0]


def _contradictions(one: Structures, other: Structures) -> list[str]:
    """Return what two dataset.json say differently: a name with other labels, or labels with another name."""
    found = []
    for name, labels in _names(one).items():
        theirs = _names(other)
        if theirs.get(name, labels) != labels:
            found.append(f"{name} is {_shown(labels)} in the one and {_shown(theirs[name])} in the other")
        elif name not in theirs:
            found += [
                f"{_shown(labels)} is {name} in the one and {n} in the other" for n in theirs if theirs[n] == labels
            ]
    return found


def _names(structures: Structures) -> dict[str, tuple[int, ...]]:
    """Return labels by name, without regard to capitals, and that of voxels that are ignored with them."""
    ignored = {} if structures.ignore is None else {"ignore": (structures.ignore,)}
    named = {name.casefold(): tuple(sorted(labels)) for name, labels in structures.labels.items()}
    return {**named, **ignored}


def _shown(labels: tuple[int, ...]) -> str:
    return f"label{'s' * (len(labels) > 1)} {', '.join(map(str, labels))}"
