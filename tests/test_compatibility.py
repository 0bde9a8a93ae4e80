"""What commit a5e75ff stored is read: checkpoints, plans, records. See tests/data/a5e75ff/README.md."""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext import registry
from nnunet_ext.cli import main
from nnunet_ext.inference.prompt_file import read_prompts

OLD = Path(__file__).resolve().parent / "data" / "a5e75ff"
RAUNET, TINY = "nnUNetTrainerRAUNet", "nnUNetTrainerSAMUSHFTiny"
CPU = torch.device("cpu")
STATE_DICTS: dict[str, tuple[int, str]] = json.loads((OLD / "state_dicts.json").read_text())


def restore(trainer: str, folder: Path) -> Path:
    """Unpack a model folder; returns its fold."""
    fold = folder / "fold_0"
    fold.mkdir(parents=True)
    for file in (OLD / trainer).iterdir():
        if file.suffix == ".xz":
            (fold / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
        else:
            shutil.copy(file, folder / file.name)
    return fold


def image(size: tuple[int, int]) -> torch.Tensor:
    """The image of make.py."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    return (0.5 + 0.3 * torch.sin(9 * x + 4 * y) + 0.2 * torch.cos(7 * x * y))[None, None]


@pytest.mark.parametrize(
    ("trainer", "checkpoint", "size"), [(RAUNET, "checkpoint_latest.pth", 40), (TINY, "checkpoint_best.pth", 256)]
)
def test_checkpoints_predict_as_they_did(trainer: str, checkpoint: str, size: int, tmp_path: Path) -> None:
    restore(trainer, tmp_path)
    predictor = nnUNetPredictor(device=CPU, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(tmp_path), (0,), checkpoint)
    with torch.no_grad():
        logits = predictor.network.eval()(image((size, size)))
    expected = json.loads((OLD / trainer / "logits.json").read_text())
    some = logits[0, 1, :: size // 8, :: size // 8]
    torch.testing.assert_close(some, torch.tensor(expected["some"]), rtol=1e-3, atol=1e-3)
    assert logits.double().sum().item() == pytest.approx(expected["sum"], rel=1e-3)
    assert logits.double().square().sum().item() == pytest.approx(expected["squares"], rel=1e-3)


@pytest.mark.parametrize(("trainer", "dataset"), [(RAUNET, 29), (TINY, 35)])
def test_trainings_are_continued(trainer: str, dataset: int, nnunet_folders: Path) -> None:
    """With --c, from optimiser states and from slim checkpoints as well."""
    name = f"Dataset{dataset:03d}_Tiny"
    plans = json.loads((OLD / trainer / "plans.json").read_text())["plans_name"]
    preprocessed = nnunet_folders / "nnUNet_preprocessed" / name
    (preprocessed / f"{plans}_2d").mkdir(parents=True)
    (preprocessed / f"{plans}_2d" / "case_0.b2nd").touch()  # its ending tells nnU-Net how to read preprocessed data
    shutil.copy(OLD / trainer / "plans.json", preprocessed / f"{plans}.json")
    shutil.copy(OLD / trainer / "dataset.json", preprocessed / "dataset.json")
    fold = restore(trainer, nnunet_folders / "nnUNet_results" / name / f"{trainer}__{plans}__2d")
    made = get_trainer_from_args(str(dataset), "2d", 0, trainer, plans, continue_training=True, device=CPU)
    (fold / "checkpoint_best.pth").unlink(missing_ok=True)  # --c prefers the latest anyway
    maybe_load_checkpoint(made, True, False)
    assert made.current_epoch == 1
    stored = torch.load(fold / "checkpoint_latest.pth", weights_only=False)
    state = made.network.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in stored["network_weights"].items())
    if trainer == TINY:
        frozen = torch.load(fold / "checkpoint_frozen.pth")
        assert frozen
        assert all(torch.equal(state[key], tensor) for key, tensor in frozen.items())
        assert len(frozen) + len(stored["network_weights"]) == len(state)
    moments = [m for s in made.optimizer.state.values() for m in (s["exp_avg"], s["exp_avg_sq"])]
    assert len(moments) == 2 * len(stored["optimizer_state"]["state"]) > 0
    assert all(m.any() for m in moments if m.numel() > 1)


@pytest.mark.parametrize("trainer", [RAUNET, TINY])
def test_plans_name_classes_that_are_found(trainer: str) -> None:
    manager = PlansManager(str(OLD / trainer / "plans.json"))
    entry = registry.get("trainer", trainer)
    assert manager.plans_name == entry.plans
    assert manager.experiment_planner_class is registry.get("planner", entry.planner).load()
    plan = manager.get_configuration("2d")
    if trainer == RAUNET:
        assert registry.get("normalization", *plan.normalization_schemes) is not None
    else:
        for function in (plan.resampling_fn_data, plan.resampling_fn_seg):
            assert function.func is registry.get("resampling", "resize_slices").load()


@pytest.mark.parametrize("name", STATE_DICTS)
def test_networks_have_the_tensors_that_they_had(name: str) -> None:
    number, digest = STATE_DICTS[name]
    entry = registry.get("trainer", name)
    with torch.device("meta"):
        plan = SimpleNamespace(normalization_schemes=["RGBTo01Normalization"])
        state = entry.load().build_network(plan, 1, 2, False).state_dict()
    assert len(state) == number
    lines = sorted(f"{key} {tuple(t.shape)} {t.dtype}" for key, t in state.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest


def test_records_of_prompts(tmp_path: Path) -> None:
    """A folder of predictions is continued, and the record serves as a file of clicks."""
    import tiny

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(tmp_path / "nnUNet_raw"))
        name = tiny.make_raw(35, tiny.BINARY, channels=("ultrasound",), png=True)
    raw, model, out = tmp_path / "nnUNet_raw" / name, tmp_path / "model", tmp_path / "out"
    best = restore(TINY, model) / "checkpoint_best.pth"
    out.mkdir()
    record = json.loads((OLD / "prompts_used.json").read_text())
    stat = best.stat()
    here = {"bytes": stat.st_size, "modified": stat.st_mtime_ns}
    record.update({"from": str(raw / "labelsTr"), "model": str(model)})  # everything else is as it was written
    record["checkpoints"][0].update(here)
    (out / "prompts_used.json").write_text(json.dumps(record))
    for case in record["cases"]:
        (out / f"{case}.png").touch()
    command = ("predict", "-m", model, "-i", raw / "imagesTr", "-o", out, "--from-reference", raw / "labelsTr")
    assert main([*map(str, command), "-device", "cpu"]) == 0
    assert {f.stat().st_size for f in out.glob("*.png")} == {0}  # none was predicted once more

    clicks = tmp_path / "clicks.json"
    clicks.write_text(json.dumps(record["cases"]))
    assert read_prompts(clicks, cases=sorted(record["cases"]), classes=["tumour"], ndim=2) == record["cases"]
