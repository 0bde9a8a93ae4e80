"""Labels and regions of dataset.json, against nnU-Net's LabelManager."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import Structures


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
    ],
)
def test_what_nnunet_would_not_take(dataset: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        Structures.of(dataset, "/data/dataset.json")
    assert "/data/dataset.json" in str(error.value)
