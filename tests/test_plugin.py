"""Other packages add classes by the entry-point group nnunet_ext.classes: tests/plugin, built and installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from environments import Environment, replaced
from PIL import Image
from test_compatibility import TINY, restore
from test_discovery import FIND, PROBE

PLUGIN = Path(__file__).resolve().parent / "plugin"
MODULE = "example_plugin.classes"
NAMES = {"nnUNetTrainerExample", "ExamplePlanner", "ExampleNormalization", "example_resize"}


@pytest.fixture(scope="module")
def environment(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and the plug-in."""
    made = Environment(tmp_path_factory.mktemp("plugged"))
    made.pip("install", distributions[1])
    made.pip("install", shutil.copytree(PLUGIN, tmp_path_factory.mktemp("source") / "plugin"))
    return made


@pytest.fixture
def broken(environment: Environment) -> Iterator[Environment]:
    """The same while the plug-in's entries cannot be imported."""
    with replaced(environment.site_packages / "example_plugin" / "entries.py", "def broken(:\n"):
        yield environment


def test_found_in_every_process(environment: Environment) -> None:
    """By nnU-Net's own look-ups of each kind, here and in spawned workers; they pickle."""
    facts = json.loads(environment.run(PROBE).stdout.splitlines()[-1])
    assert facts["pickled"]
    for process in ("main", "spawn worker", "torch child"):
        assert {name for name, module in facts[process].items() if module == MODULE} == NAMES


def test_listed(environment: Environment) -> None:
    listing = environment.run("-m", "nnunet_ext", "list").stdout
    assert all(f"  {name} " in listing for name in NAMES)
    assert "an example that needs clicks; 2d; -p nnUNetExamplePlans" in listing
    assert "`nnUNetTrainerExample`" in environment.run("-m", "nnunet_ext", "list", "--markdown").stdout


def test_its_facts_decide_how_it_predicts(environment: Environment, tmp_path: Path) -> None:
    """A model folder of its trainer, with weights that commit a5e75ff stored."""
    model, images, labels = (tmp_path / name for name in ("model", "images", "labels"))
    best = restore(TINY, model) / "checkpoint_best.pth"
    script = (
        "import sys, torch\n"
        "checkpoint = torch.load(sys.argv[1], weights_only=False)\n"
        "checkpoint['trainer_name'] = 'nnUNetTrainerExample'\n"
        "weights = checkpoint['network_weights']\n"
        "checkpoint['network_weights'] = {k: t for k, t in weights.items() if not k.startswith('prompts.')}\n"
        "torch.save(checkpoint, sys.argv[1])\n"
    )
    environment.run("-c", script, best)
    picture = np.random.default_rng(0).integers(0, 255, (40, 36), np.uint8)
    for folder, name, array in ((images, "a_0000.png", picture), (labels, "a.png", (picture > 127).astype(np.uint8))):
        folder.mkdir()
        Image.fromarray(array).save(folder / name)
    command = ("-m", "nnunet_ext", "predict", "-m", model, "-i", images, "-o", tmp_path / "out", "-device", "cpu")
    refused = environment.run(*command, check=False)
    assert refused.returncode == 2
    assert "was trained with clicks only" in refused.stderr
    environment.run(*command, "--from-reference", labels)
    assert json.loads((tmp_path / "out" / "prompts_used.json").read_text())["source"] == "reference"


def test_broken_plugin(broken: Environment) -> None:
    """Our classes, stock classes and the list go on without it, with one warning."""
    script = FIND + "for name in ('nnUNetTrainer', 'nnUNetTrainerRAUNet') * 2:\n    print(find(name).__name__)\n"
    result = broken.run("-c", script)
    assert result.stdout.split() == ["nnUNetTrainer", "nnUNetTrainerRAUNet"] * 2
    assert result.stderr.count("nnunet_ext: the classes of example = example_plugin.entries:ENTRIES are ignored") == 1
    assert "SyntaxError" in result.stderr
    listing = broken.run("-m", "nnunet_ext", "list")
    assert "nnUNetTrainerRAUNet" in listing.stdout
    assert "nnUNetTrainerExample" not in listing.stdout
    assert listing.stderr.count("are ignored") == 1


def test_it_costs_nothing_at_start_up(broken: Environment) -> None:
    """Entry points are read where nnU-Net looks for a class that is not ours, and not before."""
    script = FIND + "find('nnUNetTrainerRAUNet')\nimport sys\nprint('example_plugin' in sys.modules)\n"
    result = broken.run("-c", script)
    assert result.stdout == "False\n"
    assert "ignored" not in result.stderr
