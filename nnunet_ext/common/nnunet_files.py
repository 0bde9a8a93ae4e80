"""What the files say that nnU-Net leaves next to a dataset, a trained model and predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json
from nnunet_ext.common.shapes import Shape, Text, checked, read_as

DATASET, PLANS, SPLITS = "dataset.json", "plans.json", "splits_final.json"
HIGHEST = (1 << 16) - 1  # label in a file that nnU-Net writes
ARGUMENTS = "predict_from_raw_data_args.json"  # of nnUNetv2_predict
PROMPTS = "prompts_used.json"  # of nnunet_ext predict: the model, and where each click came from


@dataclass(frozen=True, kw_only=True)
class Structures:
    """The labels and regions of a dataset.json, by nnU-Net's rules.

    nnU-Net's own LabelManager knows them as well, but imports torch, for which every worker process would wait.

    Args:
        labels: name -> the labels that make it up; nnU-Net's order: labels by their values, regions as they are listed.
        ignore: the label of voxels that count nowhere, if there is one.
        known: all labels that a segmentation may hold.
    """

    labels: dict[str, tuple[int, ...]]
    ignore: int | None
    known: frozenset[int]

    @classmethod
    def of(cls, dataset: Mapping[str, Any], source: str = DATASET) -> Structures:
        """Read the content of a dataset.json.

        >>> Structures.of({"labels": {"background": 0, "tumour": 2, "liver": 1}}).labels
        {'liver': (1,), 'tumour': (2,)}

        Args:
            source: the file's name, for messages.

        Raises:
            InputError: the content is not what nnU-Net would take either.
        """
        values = named_labels(dataset, source)
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
        order = dataset.get("regions_class_order")
        if has_regions and not (isinstance(order, list | tuple) and len(order) == len(foreground)):
            problems.append(f"{source} has regions, and needs a regions_class_order with as many entries.")
        if problems:
            raise InputError(*problems, hint="Correct the file, or name another one with --dataset-json.")
        if not has_regions:
            foreground = dict(sorted(foreground.items(), key=lambda item: item[1]))
        return cls(labels=foreground, ignore=ignore, known=frozenset(known if ignore is None else known | {ignore}))


def read_dataset(file: Path) -> tuple[dict[str, Any], Structures]:
    """Read a dataset.json, and the structures that it names.

    Raises:
        InputError: it cannot be read, or nnU-Net would not take it either.
    """
    dataset = read_json(file, hint="It should be nnU-Net's dataset.json.")
    ending = dataset.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise InputError(f'{file} has no "file_ending".', hint="It should be nnU-Net's (version 2) dataset.json.")
    if not isinstance(dataset.get("overwrite_image_reader_writer", ""), str):
        raise InputError(f"{file}: overwrite_image_reader_writer is no name.", hint="Name a reader of nnU-Net's.")
    return dataset, Structures.of(dataset, str(file))


def channel_names(dataset: Mapping[str, Any]) -> list[str]:
    """Return the names of a dataset.json's channels in their order; nnU-Net's first version called them modalities."""
    return list(dataset.get("channel_names", dataset.get("modality", {})).values())


def named_labels(dataset: Mapping[str, Any], source: str = "dataset.json") -> Mapping[str, Any]:
    """Return the labels and regions of a dataset.json by their names, as the file has them.

    Raises:
        InputError: there are none, or something else.
    """
    values = dataset.get("labels")
    if not isinstance(values, Mapping) or not all(map(_is_label_or_region, values.values())):
        raise InputError(
            f"{source} has no labels as nnU-Net wants them.",
            hint='"labels" maps names to whole numbers, or to lists of them: {"background": 0, "tumour": 1}.',
        )
    return values


def _is_label_or_region(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(v, int) and not isinstance(v, bool) and v <= HIGHEST for v in values)


class PlanNames(Shape):
    """What plans.json calls itself and its dataset."""

    dataset_name: Text | None = None
    plans_name: Text | None = None


def plan_names(folder: Path) -> PlanNames:
    """Read the names in plans.json of a trained model or of predictions; both are None where there is none.

    Raises:
        InputError: the file is there, but broken.
    """
    file = folder / PLANS
    return read_as(PlanNames, file) if os.path.exists(file) else PlanNames()


class Fold(Shape):
    """One fold of splits_final.json."""

    train: list[Text]
    val: list[Text]


def read_splits(preprocessed: Path) -> list[Fold]:
    """Read splits_final.json of a preprocessed dataset; no folds where there is none.

    Raises:
        InputError: the file is there, but broken.
    """
    file = preprocessed / SPLITS
    folds = read_json(file, list) if os.path.exists(file) else []
    return [checked(Fold, fold, f"{file}: fold {i}") for i, fold in enumerate(folds)]


def check_trained(model: Path) -> None:
    """Check that a folder TRAINER__PLANS__CONFIGURATION holds what every trained model has.

    Raises:
        InputError: it does not.
    """
    if missing := [name for name in (DATASET, PLANS) if not (model / name).is_file()]:
        raise InputError(
            f"{model} is not a trained model: {' and '.join(missing)} missing.",
            hint="A model is a folder like nnUNet_results/Dataset030_BUSI/nnUNetTrainerSAMUSHF__nnUNetSAMUSPlans__2d.",
        )


class UsedCheckpoint(Shape):
    """A checkpoint in prompts_used.json; `file` is below the model's folder."""

    file: Text


class UsedPrompts(Shape):
    """What prompts_used.json says: where the clicks of a folder of predictions came from, and where they were.

    Args:
        rule: how prompts were made of a reference; empty for the papers' click on the middle.
        model: the trained model's folder; empty where it is not said.
        cases: the clicks of each case as a file for --prompts has them.
    """

    source: Literal["none", "file", "reference", "session"]
    rule: Annotated[str, Field(pattern=r"^(random|box|corrections:[0-9]{1,3})?$")] = ""
    model: Text = ""
    checkpoints: list[UsedCheckpoint] = Field(default_factory=list)
    cases: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)

    @property
    def prompts(self) -> str:
        """The source, and the rule where there is one: what tells comparable predictions."""
        return f"{self.source}, {self.rule}" if self.rule else self.source


def used_prompts(predictions: Path) -> UsedPrompts | None:
    """Read prompts_used.json of a folder of predictions; None where there is none.

    Raises:
        InputError: the file is there, but broken: that predictions have no record is not what it says.
    """
    file = predictions / PROMPTS
    if not os.path.exists(file):
        return None
    return read_as(UsedPrompts, file, hint="Put it right, or predict again into an empty folder.")


def fold_folders(predictions: Path) -> list[Path]:
    """Return the trained folds that predictions come from, as far as their place or `nnunet_ext predict` tells.

    These are a validation's own fold, the folds of a model whose validations lie below, or those in a record of
    clicks; ``nnUNetv2_predict`` leaves no word on the model.
    """
    if predictions.name == "validation" and predictions.parent.name.startswith("fold_"):
        return [predictions.parent]
    used = used_prompts(predictions)
    named = [Path(used.model, c.file).parent for c in used.checkpoints] if used and used.model else []
    return named or [validation.parent for validation in sorted(predictions.glob("fold_*/validation"))]
