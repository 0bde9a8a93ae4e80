"""Parameters and operations of networks, from folders without weights, and what else fills the table of costs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from evaluations import evaluation

from nnunet_ext import registry
from nnunet_ext.comparison import ModelRuns
from nnunet_ext.report.costs import cost_of, network_size
from nnunet_ext.report.data import Cost, Extras, ReportData

DATASET, PLANS = "Dataset029_Tiny", "nnUNetRAUNetPlans"


def model(root: Path, prepared: Path, trainer: str) -> Path:
    """A folder as nnU-Net leaves it, without any checkpoint."""
    folder = root / f"{trainer}__{PLANS}__2d"
    folder.mkdir()
    source = prepared / "nnUNet_preprocessed" / DATASET
    shutil.copy(source / f"{PLANS}.json", folder / "plans.json")
    shutil.copy(prepared / "nnUNet_raw" / DATASET / "dataset.json", folder)
    return folder


def test_counts_are_those_of_the_network(prepared: Path, tmp_path: Path) -> None:
    size = network_size(model(tmp_path, prepared, "nnUNetTrainerRAUNet"))
    assert size.parameters == size.trained == registry.get("trainer", "nnUNetTrainerRAUNet").parameters
    plain = network_size(model(tmp_path, prepared, "nnUNetTrainerUNet"))
    assert plain.parameters > 4 * size.parameters
    assert plain.flops > 2 * size.flops > 1e8


def test_a_stock_trainer(prepared: Path, tmp_path: Path) -> None:
    size = network_size(model(tmp_path, prepared, "nnUNetTrainer"))
    assert size.parameters > 1e5
    assert size.flops > 1e7


def test_a_network_that_needs_clicks_has_no_operations_of_its_own(prepared: Path, tmp_path: Path) -> None:
    tiny, clicks = (
        network_size(model(tmp_path, prepared, f"nnUNetTrainerSAMUSHFTiny{suffix}")) for suffix in ("", "Click")
    )
    assert tiny.flops > 1e8
    assert clicks.flops is None
    assert tiny.parameters > clicks.parameters  # by the learned prompt


@pytest.mark.parametrize("name", ["nnUNetTrainerNobodyKnows", "no_model"])
def test_what_cannot_be_built(name: str, prepared: Path, tmp_path: Path) -> None:
    folder = model(tmp_path, prepared, name)
    assert network_size(folder if "Trainer" in name else folder.rename(tmp_path / name)) is None
    assert network_size(tmp_path / "nothing") is None


def test_a_trainer_of_others_cannot_cost_a_report(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = model(tmp_path, prepared, "nnUNetTrainerUNet")
    (broken / "plans.json").write_text("{}")
    assert network_size(broken) is None

    def build(*_: object, **__: object) -> None:
        raise AttributeError("weights that are not there")

    trainer = registry.get("trainer", "nnUNetTrainerResUNet").load()
    monkeypatch.setattr(trainer, "build_network_architecture", build)
    assert network_size(model(tmp_path, prepared, "nnUNetTrainerResUNet")) is None


def test_gaps_are_filled_from_the_registry_and_from_manifests() -> None:
    run = evaluation([0.5, 0.6], trainer="nnUNetTrainerSAMUSHF")
    steps = {kind: {"kind": kind, "seconds": 30.0, "peak_bytes_of_largest_process": 7} for kind in ("train", "predict")}
    data = ReportData(
        models=[ModelRuns(name="A", runs=[run])],
        extras=Extras(manifests={"A": [{"steps": steps}]}, costs={"A": Cost(flops=1e9, training_seconds=5.0)}),
    )
    entry = registry.get("trainer", "nnUNetTrainerSAMUSHF")
    assert cost_of(data, "A") == Cost(
        parameters=entry.parameters,
        trained=entry.trained,
        flops=1e9,
        training_seconds=5.0,
        seconds_per_case=15.0,
        peak_memory_bytes=7,
    )
