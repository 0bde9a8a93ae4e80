"""Parameters and operations of networks, from folders without weights, and what else fills the table of costs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from evaluations import evaluation

from nnunet_ext import registry
from nnunet_ext.comparison import ModelRuns
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.report import build_report
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


EVIL = """from pathlib import Path
Path(__file__).with_name("was_run").touch()
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn import Conv2d as Conv, Identity as Network
class nnUNetTrainerEvil(nnUNetTrainer):
    pass
"""


class TestForeignCode:
    """A model's folder may come from anywhere, and a metrics.json may name it; nothing in it chooses what is run."""

    @pytest.fixture
    def evil(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder from which Python imports, with a module that leaves a file where it is imported."""
        folder = tmp_path / "evil"
        folder.mkdir()
        (folder / "evil.py").write_text(EVIL)
        monkeypatch.delitem(sys.modules, "evil", raising=False)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("nnUNet_extTrainer", str(folder))
        return folder

    @pytest.mark.parametrize(
        ("trainer", "edit"),
        [
            ("nnUNetTrainer", {"network_class_name": "evil.Network"}),
            ("nnUNetTrainer", {"network_class_name": "evil"}),
            ("nnUNetTrainer", {"conv_op": "evil.Conv"}),
            ("nnUNetTrainer", {"conv_op": "evil"}),
            ("nnUNetTrainer", {"norm_op_kwargs": {"eps": ["evil.Conv"]}, "_kw_requires_import": ["norm_op_kwargs"]}),
            ("nnUNetTrainerBN", {"conv_op": "evil.Conv", "_kw_requires_import": []}),
            ("nnUNetTrainerMatchedBudget", {"network_class_name": "evil.Network"}),
            ("nnUNetTrainerEvil", {}),
        ],
    )
    @pytest.mark.parametrize("inherited", [False, True])
    def test_is_not_run(
        self, prepared: Path, tmp_path: Path, evil: Path, trainer: str, edit: dict[str, object], inherited: bool
    ) -> None:
        folder = model(tmp_path, prepared, trainer)
        plans = json.loads((folder / "plans.json").read_text())
        architecture = plans["configurations"]["2d"]["architecture"]
        for key, value in edit.items():
            (architecture if key in architecture else architecture["arch_kwargs"])[key] = value
        if inherited:
            plans["configurations"]["base"] = plans["configurations"]["2d"]
            plans["configurations"]["2d"] = {"inherits_from": "base"}
        (folder / "plans.json").write_text(json.dumps(plans))
        assert network_size(folder) is None
        assert not (evil / "was_run").exists()

    @pytest.mark.parametrize(
        "name",
        [
            "torch.hub.load",
            "torch.nn.functional.torch.hub.load",
            "torch.nn.init.normal_",
            "torch.nn.Module.load_state_dict",
        ],
    )
    @pytest.mark.parametrize("key", ["network_class_name", "conv_op"])
    def test_is_not_run_by_way_of_torch(
        self, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, key: str
    ) -> None:
        calls: list[object] = []
        monkeypatch.setattr("torch.hub.load", lambda *args, **_: calls.append(args))
        monkeypatch.setattr("torch.nn.init.normal_", lambda *args, **_: calls.append(args))
        folder = model(tmp_path, prepared, "nnUNetTrainer")
        plans = json.loads((folder / "plans.json").read_text())
        architecture = plans["configurations"]["2d"]["architecture"]
        (architecture if key in architecture else architecture["arch_kwargs"])[key] = name
        (folder / "plans.json").write_text(json.dumps(plans))
        assert network_size(folder) is None
        assert calls == []

    def test_a_label_manager_is_nnunets(self, prepared: Path, tmp_path: Path) -> None:
        folder = model(tmp_path, prepared, "nnUNetTrainer")
        size = network_size(folder)
        plans = json.loads((folder / "plans.json").read_text())
        (folder / "plans.json").write_text(json.dumps(plans | {"label_manager": "insert_crop_into_image"}))
        network_size.cache_clear()
        assert network_size(folder) == size

    def test_a_report_of_foreign_metrics_runs_none(self, prepared: Path, tmp_path: Path, evil: Path) -> None:
        folder = model(tmp_path, prepared, "nnUNetTrainer")
        plans = json.loads((folder / "plans.json").read_text())
        plans["configurations"]["2d"]["architecture"]["network_class_name"] = "evil.Network"
        (folder / "plans.json").write_text(json.dumps(plans))
        (folder / "fold_0" / "validation").mkdir(parents=True)
        run = evaluation([0.5, 0.6], predictions=str(folder / "fold_0" / "validation"), trainer="nnUNetTrainer")
        run.save(tmp_path / "metrics")
        loaded = Evaluation.load(tmp_path / "metrics" / "metrics.json")
        build_report({"A": [loaded]}, tmp_path / "report.html")
        assert (tmp_path / "report.html").is_file()
        assert not (evil / "was_run").exists()


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
