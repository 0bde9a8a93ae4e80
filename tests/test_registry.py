"""The registry tells the truth about the classes that it lists."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext import registry
from nnunet_ext.registry import ENTRIES, Entry

BASES = {"trainer": nnUNetTrainer, "planner": ExperimentPlanner, "normalization": ImageNormalization}
TRAINERS = registry.entries("trainer")

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)


def test_names_are_unique() -> None:
    """Among all kinds: nnU-Net's roots nest, and people remember names."""
    assert [n for n, count in Counter(e.name for e in ENTRIES).items() if count > 1] == []


@every_entry
def test_entry(entry: Entry) -> None:
    assert entry.kind in registry.ROOTS.values()
    assert re.fullmatch(r"[A-Za-z]\w*", entry.name)
    assert "__" not in entry.name  # nnU-Net splits folder names there
    assert entry.module.startswith("nnunet_ext.")
    assert entry.summary
    assert not entry.summary.endswith(".")
    assert "\n" not in entry.summary


@every_entry
def test_loads_a_class_of_its_kind_from_its_own_module(entry: Entry) -> None:
    loaded = entry.load()
    assert loaded.__name__ == entry.name
    assert loaded.__module__ == entry.module
    assert loaded.__doc__
    if entry.kind in BASES:
        assert issubclass(loaded, BASES[entry.kind])
    else:
        assert callable(loaded)


@pytest.mark.parametrize("entry", [e for e in TRAINERS if e.parameters], ids=lambda e: e.name)
def test_parameter_count_is_that_of_the_network(entry: Entry) -> None:
    with torch.device("meta"):  # counts need no memory
        plan = SimpleNamespace(normalization_schemes=["RGBTo01Normalization"])
        network = entry.load().build_network(plan, 1, 2, False)
    counted = [p.numel() for name, p in network.named_parameters() if not name.startswith("prompts.")]
    assert sum(counted) == entry.parameters


@pytest.mark.parametrize("entry", TRAINERS, ids=lambda e: e.name)
def test_trainer_with_a_network_of_its_own_says_how_to_get_its_plans(entry: Entry) -> None:
    own_network = hasattr(entry.load(), "build_network")
    assert bool(entry.parameters) is bool(entry.planner) is bool(entry.plans) is own_network
    if own_network:
        assert entry.configuration == {2: "2d", 3: "3d_fullres"}[entry.load().dim]
        assert registry.get("planner", entry.planner).plans == entry.plans


@every_entry
def test_find_by_root(entry: Entry) -> None:
    for root, kind in registry.ROOTS.items():
        assert registry.find(root, entry.name) is (entry if kind == entry.kind else None)


@pytest.mark.parametrize("root", [None, "", "nnunetv2", "nnunetv2.imageio"])
def test_no_other_root_is_ours(root: str | None) -> None:
    assert registry.find(root, "nnUNetTrainerRAUNet") is None


def test_entries_cover_the_list_once() -> None:
    assert sorted(e for kind in set(registry.ROOTS.values()) for e in registry.entries(kind)) == sorted(ENTRIES)
