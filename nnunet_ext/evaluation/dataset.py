"""What is compared: the labels and regions of a dataset.json, by nnU-Net's rules.

nnU-Net's own LabelManager knows them as well, but imports torch, for which every worker process would wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json

DATASET = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class Structures:
    """The structures of a dataset.

    Args:
        labels: name -> the labels that make it up; nnU-Net's order: labels by their values, regions as they are listed.
        ignore: the label of voxels that count nowhere, if there is one.
        known: all labels that a segmentation may hold.
    """

    labels: dict[str, tuple[int, ...]]
    ignore: int | None
    known: frozenset[int]

    @classmethod
    def of(cls, dataset: Mapping[str, Any], source: str = "dataset.json") -> Structures:
        """Read the content of a dataset.json.

        >>> Structures.of({"labels": {"background": 0, "tumour": 2, "liver": 1}}).labels
        {'liver': (1,), 'tumour': (2,)}

        Args:
            source: the file's name, for messages.

        Raises:
            InputError: the content is not what nnU-Net would take either.
        """
        values = dataset.get("labels")
        if not isinstance(values, Mapping) or not all(map(_is_label_or_region, values.values())):
            raise InputError(
                f"{source} has no labels as nnU-Net wants them.",
                hint='"labels" maps names to whole numbers, or to lists of them: {"background": 0, "tumour": 1}.',
            )
        ignore = values.get("ignore")
        all_of = {n: tuple(v) if isinstance(v, list) else (v,) for n, v in values.items() if n != "ignore"}
        foreground = {name: labels for name, labels in all_of.items() if set(labels) != {0}}
        known = {0}.union(*all_of.values())
        has_regions = any(len(labels) > 1 for labels in all_of.values())
        problems = []
        if all_of.get("background") != (0,):
            problems.append(f"{source}: background must be label 0.")
        if not foreground:
            problems.append(f"{source} names no structure besides the background.")
        if ignore is not None and ignore != max(known) + 1:
            problems.append(f"{source}: the ignore label must be the highest, and one above the next.")
        problems += [
            f"{source}: {n} holds the background, label 0." for n, v in foreground.items() if 0 in v or min(v) < 0
        ]
        if has_regions and len(dataset.get("regions_class_order") or ()) != len(foreground):
            problems.append(f"{source} has regions, and needs a regions_class_order with as many entries.")
        if problems:
            raise InputError(*problems, hint="Correct the file, or name another one with --dataset-json.")
        if not has_regions:
            foreground = dict(sorted(foreground.items(), key=lambda item: item[1]))
        return cls(labels=foreground, ignore=ignore, known=frozenset(known if ignore is None else known | {ignore}))


def _is_label_or_region(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def find_dataset_json(given: Path | None, predictions: Path, references: Path) -> Path:
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


def read_dataset(file: Path) -> tuple[dict[str, Any], Structures]:
    """Read a dataset.json, and the structures that it names.

    Raises:
        InputError: the file cannot be read, or nnU-Net would not take it either.
    """
    dataset = read_json(file, hint="It should be nnU-Net's dataset.json.")
    if not isinstance(dataset.get("file_ending"), str):
        raise InputError(f'{file} has no "file_ending".', hint="It should be nnU-Net's (version 2) dataset.json.")
    return dataset, Structures.of(dataset, str(file))
