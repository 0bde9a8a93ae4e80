"""The registry tells the truth about the classes that it lists, and nobody else looks at their names."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext import registry, weights
from nnunet_ext.cli import main
from nnunet_ext.registry import ENTRIES, Entry
from nnunet_ext.trainers.paper_recipe import PaperRecipe
from nnunet_ext.trainers.pass_trainer import PassTrainer
from nnunet_ext.trainers.prompted_recipe import PromptedRecipe

ROOT = Path(__file__).resolve().parent.parent
BASES = {"trainer": nnUNetTrainer, "planner": ExperimentPlanner, "normalization": ImageNormalization}
TRAINERS = [e for e in ENTRIES if e.kind == "trainer"]

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
every_trainer = pytest.mark.parametrize("entry", TRAINERS, ids=lambda e: e.name)


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
    assert not set("\n|") & set(entry.summary)  # one line, and a cell of a table


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


@every_trainer
def test_facts_of_a_trainer(entry: Entry) -> None:
    trainer = entry.load()
    own, prompted = issubclass(trainer, PaperRecipe), issubclass(trainer, PromptedRecipe)
    assert entry.family
    assert (entry.family == "samus") is prompted
    assert (entry.family == "nnunet") is not own
    assert entry.prompts == getattr(trainer, "prompts", "none")
    assert entry.pretrained == (trainer.pretrained if prompted else "")
    assert not entry.pretrained or entry.pretrained in weights.CHECKPOINTS
    assert entry.best_checkpoint == prompted
    assert entry.follows_environment == issubclass(trainer, PassTrainer)
    assert bool(entry.parameters) is bool(entry.planner) is bool(entry.paper) is own
    assert not entry.paper_row or own
    if own:
        assert entry.configuration == {2: "2d", 3: "3d_fullres"}[trainer.dim]
        assert f"\n## {entry.paper}\n" in (ROOT / "docs" / "deviations.md").read_text()
        assert trainer.paper in entry.paper
        planner = registry.get("planner", entry.planner)
        assert entry.plans == planner.plans == planner.load().default_plans_name


@pytest.mark.parametrize("entry", [e for e in TRAINERS if e.parameters], ids=lambda e: e.name)
def test_parameter_counts_are_those_of_the_network(entry: Entry) -> None:
    """Learned prompts do not count: their number depends on the classes."""
    with torch.device("meta"):  # counts need no memory
        plan = SimpleNamespace(normalization_schemes=["RGBTo01Normalization"])
        network = entry.load().build_network(plan, 1, 2, False)
    sizes = [(p.numel(), p.requires_grad) for name, p in network.named_parameters() if not name.startswith("prompts.")]
    assert sum(n for n, _ in sizes) == entry.parameters
    assert sum(n for n, trained in sizes if trained) == (entry.trained or entry.parameters)


@every_entry
def test_find_by_root(entry: Entry) -> None:
    for root, kind in registry.ROOTS.items():
        assert registry.find(root, entry.name) is (entry if kind == entry.kind else None)


@pytest.mark.parametrize("root", [None, "", "nnunetv2", "nnunetv2.imageio"])
def test_no_other_root_is_ours(root: str | None) -> None:
    assert registry.find(root, "nnUNetTrainerRAUNet") is None


def test_entries_cover_the_list_once() -> None:
    assert sorted(e for kind in set(registry.ROOTS.values()) for e in registry.entries(kind)) == sorted(ENTRIES)


# entries of other packages, see also test_plugin.py

MINE = Entry("trainer", "nnUNetTrainerMine", "my_package.trainers", "an example")


class Point:
    """An entry point of that value."""

    name, value = "mine", "my_package:ENTRIES"

    def __init__(self, entries: Any) -> None:
        self.entries = entries

    def load(self) -> Any:
        if isinstance(self.entries, Exception):
            raise self.entries
        return self.entries


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch):
    """Set the values of the entry points, and read them anew."""

    def set_points(*values: Any) -> None:
        monkeypatch.setattr(registry, "entry_points", lambda group: [Point(value) for value in values])
        registry._entries_of_others.cache_clear()

    yield set_points
    registry._entries_of_others.cache_clear()


@pytest.mark.parametrize("value", [MINE, (MINE,), [MINE]])
def test_entries_of_others(others, value: Any) -> None:
    others(value)
    assert registry.get("trainer", MINE.name) is MINE
    assert registry.find("nnunetv2.training.nnUNetTrainer", MINE.name) is MINE
    assert registry.entries() == (*ENTRIES, MINE)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (ModuleNotFoundError("No module named 'my_package'"), "No module named 'my_package'"),
        (None, "not iterable"),
        (["nnUNetTrainerMine"], "is not an nnunet_ext.registry.Entry"),
        ([MINE._replace(kind="network")], "is not an nnunet_ext.registry.Entry"),
        ([MINE, MINE._replace(name="nnUNetTrainerRAUNet")], "name of a trainer of nnunet_ext.trainers.raunet"),
    ],
)
def test_a_package_whose_entries_cannot_be_taken_is_left_out(
    others, value: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    others(value, MINE._replace(name="nnUNetTrainerOther"))
    for _ in range(2):
        assert registry.get("trainer", MINE.name) is None
        assert registry.get("trainer", "nnUNetTrainerOther") is not None
    assert registry.get("trainer", "nnUNetTrainerRAUNet").module == "nnunet_ext.trainers.raunet"
    [warning] = capsys.readouterr().err.splitlines()
    assert warning.startswith("nnunet_ext: the classes of mine = my_package:ENTRIES are ignored: ")
    assert reason in warning


# one truth

BY_NAME = re.compile(
    r"""(endswith|startswith|removeprefix|removesuffix)\(\(?["'](Click|Tiny|nnUNetTrainer\w|nnunet_ext\.trainers)"""
    r"""|["'](Click|Tiny|Control|HF|SAMUS\w*|SAM|RAUNet)["']\ (not\ )?in\ """
    r"""|\.module\b\ *[=!]=|[=!]=\ *\w+\.module\b|["']nnunet_ext\.trainers\.""",
    re.VERBOSE,
)


def test_nobody_decides_by_names() -> None:
    """Facts about classes come from the registry, so that classes of other packages have them as well."""
    files = [f for f in (ROOT / "nnunet_ext").rglob("*.py") if f.name != "registry.py"]
    lines = [(f, line) for f in files for line in f.read_text(encoding="utf-8").splitlines()]
    assert [f"{f.relative_to(ROOT)}: {line.strip()}" for f, line in lines if BY_NAME.search(line)] == []


def test_the_documentation_lists_the_trainers(capsys: pytest.CaptureFixture[str]) -> None:
    """`nnunet_ext list --markdown` prints what belongs between the marks in docs/trainers.md."""
    assert main(["list", "--markdown"]) == 0
    page = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    assert page.split("<!-- trainers -->\n")[1].split("<!-- /trainers -->")[0] == capsys.readouterr().out
    assert main(["list"]) == 0
    listing = capsys.readouterr().out
    assert all(f"  {e.name} " in listing for e in ENTRIES)
