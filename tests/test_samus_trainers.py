"""The ultrasound trainers under nnU-Net's own training function, with a tiny vision transformer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from test_trainers import images, model_folder, predict, train

from nnunet_ext import registry
from nnunet_ext.architectures.samus.vit import VIT_TINY
from nnunet_ext.errors import InputError
from nnunet_ext.trainers.prompted_recipe import PromptedRecipe

PLANS = "nnUNetSAMUSPlans"
TRAINERS = [e for e in registry.entries("trainer") if e.planner == "SAMUSPlanner"]
BUSI = 35  # PNG, 36 x 40 pixels, one class


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny PNG datasets with SAMUSPlanner's plans: 35 binary, 36 classes, 37 regions; 35 with stock plans as well."""
    root = tmp_path_factory.mktemp("ultrasound")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / name).mkdir()
            patch.setenv(name, str(root / name))
        for dataset_id, labels in ((35, tiny.BINARY), (36, tiny.CLASSES), (37, tiny.REGIONS)):
            tiny.make_raw(dataset_id, labels, channels=("ultrasound",), png=True)
            tiny.plan_and_preprocess(dataset_id, "SAMUSPlanner")
        tiny.plan_and_preprocess(35, "ExperimentPlanner")
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny transformer wherever a trainer does not choose one itself, and no SAM file."""
    monkeypatch.setattr(PromptedRecipe, "vit", VIT_TINY)
    monkeypatch.setenv("NNUNET_EXT_SAM_CHECKPOINT", "random")


@pytest.mark.parametrize("entry", [e for e in TRAINERS if "1024" not in e.name], ids=lambda e: e.name)
def test_every_trainer_trains_validates_and_predicts(entry: registry.Entry, datasets: Path, prepared: Path) -> None:
    train(entry.name, BUSI, plans=PLANS)
    folder = model_folder(datasets, entry.name, PLANS, dataset=BUSI)
    summary = json.loads((folder / "fold_0" / "validation" / "summary.json").read_text())
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1
    assert len(summary["metric_per_case"]) == 2
    case = images(prepared, BUSI)[:1]
    if "Click" in entry.name:
        with pytest.raises(InputError, match="nnunet_ext predict"):
            predict(folder, case)
    else:
        assert predict(folder, case)[0].shape == (1, 40, 36)
