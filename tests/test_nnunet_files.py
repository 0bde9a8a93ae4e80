"""Labels and regions of dataset.json, against nnU-Net's LabelManager."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import (
    Structures,
    fold_folders,
    plan_names,
    read_splits,
    used_prompts,
)
from nnunet_ext.evaluation.source import origin


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (tiny.BINARY, None),
        (tiny.CLASSES, None),
        (tiny.REGIONS, [1, 2]),
        (tiny.IGNORE, None),
        ({"tumour": 2, "background": 0, "liver": 1}, None),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}, [1, 2, 3]),
        ({"background": 0, "a": [1], "b": 2}, None),
    ],
)
def test_as_nnunets_label_manager(labels: dict[str, Any], order: list[int] | None) -> None:
    structures = Structures.of({"labels": labels, "regions_class_order": order})
    theirs = LabelManager(labels, order)
    assert structures.ignore == theirs.ignore_label
    expected = theirs.foreground_regions if theirs.has_regions else theirs.foreground_labels
    assert list(structures.labels.values()) == [v if isinstance(v, tuple) else (v,) for v in expected]
    assert structures.known - {structures.ignore} == set(theirs.all_labels)
    for name, values in structures.labels.items():
        assert values == (tuple(labels[name]) if isinstance(labels[name], list) else (labels[name],))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({}, "no labels"),
        ({"labels": {"0": "background", "1": "tumour"}}, "no labels as nnU-Net wants them"),
        ({"labels": {"background": 0, "tumour": []}}, "no labels as nnU-Net wants them"),
        ({"labels": {"tumour": 1}}, "background must be label 0"),
        ({"labels": {"background": 0}}, "no structure"),
        ({"labels": {"background": 0, "tumour": 1, "ignore": 1}}, "ignore label must be the highest"),
        ({"labels": {"background": 0, "all": [0, 1]}, "regions_class_order": [1]}, "all holds the background"),
        ({"labels": tiny.REGIONS}, "regions_class_order"),
        ({"labels": tiny.REGIONS, "regions_class_order": 2}, "regions_class_order"),
        ({"labels": {"background": 0, "tumour": 1 << 16}}, "no labels as nnU-Net wants them"),
    ],
)
def test_what_nnunet_would_not_take(dataset: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        Structures.of(dataset, "/data/dataset.json")
    assert "/data/dataset.json" in str(error.value)


USED = {"source": "file", "model": "/models/T__P__2d", "checkpoints": [{"file": "fold_0/checkpoint_best.pth"}]}


def test_where_clicks_came_from(tmp_path: Path) -> None:
    assert used_prompts(tmp_path) is None
    (tmp_path / "prompts_used.json").write_text(json.dumps(USED))
    assert fold_folders(tmp_path) == [Path("/models/T__P__2d/fold_0")]
    assert origin(tmp_path)["prompts"] == "file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "holds a list"),
        (json.dumps({**USED, "source": None}), "source: Input should be 'none', 'file'"),
        (json.dumps({**USED, "source": ["file"]}), "source: Input should be"),
        (json.dumps({**USED, "model": 5}), "model: Input should be a valid string"),
        (json.dumps({**USED, "checkpoints": [None]}), "checkpoints, item 1: Input should be"),
        (json.dumps({**USED, "checkpoints": {"a": 1}}), "checkpoints: Input should be a valid list"),
        (json.dumps({**USED, "cases": {"a": 1}}), "cases, a: Input should be a valid list"),
    ],
)
def test_a_broken_record_of_clicks_is_not_no_clicks(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "prompts_used.json").write_text(text)
    for read in (used_prompts, fold_folders, origin):
        with pytest.raises(InputError, match=message):
            read(tmp_path)


def test_broken_plans_and_splits_are_not_missing_ones(tmp_path: Path) -> None:
    assert plan_names(tmp_path).plans_name is None
    assert read_splits(tmp_path) == []
    (tmp_path / "plans.json").write_text('{"plans_name": 5}')
    (tmp_path / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}, {"train": [1]}]')
    with pytest.raises(InputError, match="plans_name: Input should be a valid string"):
        plan_names(tmp_path)
    with pytest.raises(InputError) as error:
        read_splits(tmp_path)
    assert len(error.value.problems) == 2
    assert "splits_final.json: fold 1: train, item 1: Input should be a valid string" in str(error.value)
