"""The trainers under nnU-Net's own training function, in this process and on tiny data."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from torch.nn.functional import binary_cross_entropy_with_logits
from training import (
    CPU,
    PLANS,
    checkpoint,
    images,
    make,
    model_folder,
    one_fast,
    predict,
    resumed_equals_whole,
    train,
    two_processes,
)

from nnunet_ext import registry
from nnunet_ext.common.errors import InputError

TRAINERS = [e for e in registry.entries("trainer") if e.planner != "SAMUSPlanner"]  # those: test_samus_trainers.py


@pytest.mark.parametrize("entry", one_fast(TRAINERS, "nnUNetTrainerRAUNet"))
def test_every_trainer_trains_validates_and_predicts(entry: registry.Entry, datasets: Path, prepared: Path) -> None:
    configuration = entry.configuration or "2d"
    train(entry.name, configuration=configuration)
    folder = model_folder(datasets, entry.name, configuration=configuration)
    summary = json.loads((folder / "fold_0" / "validation" / "summary.json").read_text())
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1
    assert len(summary["metric_per_case"]) == 2
    case = images(prepared)[2]
    if entry.prompts == "click":
        with pytest.raises(InputError, match="nnunet_ext predict"):
            predict(folder, [case])
        return
    [segmentation] = predict(folder, [case])
    validated = sitk.GetArrayFromImage(sitk.ReadImage(folder / "fold_0" / "validation" / "case_2.nii.gz"))
    assert np.array_equal(segmentation, validated)


@pytest.mark.parametrize("dataset_id", [30, 31, 32, 33, 34], ids=["regions", "classes", "ignore", "channels", "png"])
def test_kinds_of_data(dataset_id: int, datasets: Path, kinds: Path) -> None:
    train("nnUNetTrainerRAUNet", dataset_id)
    folder = model_folder(datasets, "nnUNetTrainerRAUNet", dataset=dataset_id)
    heads = checkpoint(folder)["network_weights"]["head.seg_layers.weight"].shape[0]
    assert heads == {30: 2, 31: 3}.get(dataset_id, 1)
    [segmentation] = predict(folder, images(kinds, dataset_id)[:1])
    assert segmentation.shape == ((1, 40, 36) if dataset_id == 34 else (6, 40, 36))
    has_regions = json.loads((folder / "plans.json").read_text()).get("nnunet_ext", {}).get("has_regions", False)
    assert has_regions == (dataset_id == 30)


@pytest.mark.slow
def test_stock_plans_and_note(datasets: Path, kinds: Path, capsys: pytest.CaptureFixture) -> None:
    train("nnUNetTrainerRAUNet", plans="nnUNetPlans")
    note = next(line for line in capsys.readouterr().out.splitlines() if "Du & Wang" in line)
    for part in (
        "patch 40x40 (paper: 512x512)",
        "normalisation CTNormalization (paper: LiverWindowCLAHENormalization)",
        "GiB in fp32",
        "nnUNetv2_plan_and_preprocess -d Dataset029_Tiny -c 2d -pl RAUNetPlanner",
        "-p nnUNetRAUNetPlans",
    ):
        assert part in note


def test_note_on_the_papers_own_plan_names_only_what_differs(datasets: Path) -> None:
    note = make("nnUNetTrainerRAUNet").plan_note()
    assert "patch 40x40" in note
    assert "batch size" not in note
    assert "normalisation" not in note
    assert "-pl" not in note


@pytest.mark.parametrize(
    ("trainer", "configuration"), [("nnUNetTrainerRAUNet", "3d_fullres"), ("nnUNetTrainerUNet3D", "2d")]
)
def test_wrong_dimension(trainer: str, configuration: str, datasets: Path) -> None:
    with pytest.raises(InputError, match=f"{trainer} is a .D network; configuration '{configuration}' has .D patches"):
        make(trainer, configuration=configuration)
    assert not list(datasets.iterdir())


def test_cascade_is_refused(datasets: Path, prepared: Path, tmp_path: Path) -> None:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    base = prepared / "nnUNet_preprocessed" / "Dataset029_Tiny"
    plans = json.loads((base / f"{PLANS}.json").read_text())
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    trainer = recursive_find_trainer_class_by_name("nnUNetTrainerUNet3D")
    with pytest.raises(InputError, match="cascade"):
        trainer(plans, "3d_cascade_fullres", 0, json.loads((base / "dataset.json").read_text()), CPU)
    assert not list(datasets.iterdir())


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_wrong_budget(value: str, datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNET_EXT_EPOCHS", value)
    with pytest.raises(InputError, match="NNUNET_EXT_EPOCHS"):
        make("nnUNetTrainerRAUNet")


def test_recipe(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EPOCHS", "ITERATIONS", "VAL_ITERATIONS"):
        monkeypatch.delenv(f"NNUNET_EXT_{name}")
    trainer = make("nnUNetTrainerRAUNet")
    trainer.on_train_start()
    assert trainer.num_epochs == 50
    assert trainer.num_iterations_per_epoch == 6  # 2 cases of 6 slices, batch 2
    assert trainer.num_val_iterations_per_epoch == 6
    assert type(trainer.optimizer) is torch.optim.Adam
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 0
    for epoch in (0, 25, 49):
        trainer.lr_scheduler.step(epoch)
        assert trainer.optimizer.param_groups[0]["lr"] == 1e-4
    assert trainer.inference_allowed_mirroring_axes == (1,)  # horizontal
    assert trainer.save_every == 1


@pytest.mark.slow
def test_matched_budget_is_stock_but_for_the_length(
    datasets: Path, kinds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EPOCHS", "ITERATIONS", "VAL_ITERATIONS"):
        monkeypatch.delenv(f"NNUNET_EXT_{name}")
    ours, stock = make("nnUNetTrainerMatchedBudget", plans="nnUNetPlans"), make("nnUNetTrainer", plans="nnUNetPlans")
    ours.on_train_start()
    stock.initialize()
    batch = ours.configuration_manager.batch_size
    assert ours.num_epochs == 50
    assert ours.num_iterations_per_epoch == -(-12 // batch)
    assert str(ours.network) == str(stock.network)
    assert type(ours.optimizer) is type(stock.optimizer)
    assert ours.initial_lr == stock.initial_lr
    assert str(ours.loss) == str(stock.loss)


def test_loss_is_bce_and_dice_written_out(datasets: Path) -> None:
    """0.5 BCE(z) + Dice(sigmoid(z)) over the batch, values and gradients; nnU-Net's Dice loss is -Dice."""
    trainer = make("nnUNetTrainerRAUNet")
    trainer.initialize()
    torch.manual_seed(0)
    z = torch.randn(2, 1, 9, 7, dtype=torch.double, requires_grad=True)
    target = (torch.rand(2, 1, 9, 7) > 0.7).double()
    ours = trainer.loss(torch.cat([torch.zeros_like(z), z], 1), target)
    p = torch.sigmoid(z)
    dice = (2 * (p * target).sum() + 1e-5) / (p.sum() + target.sum() + 1e-5)
    by_hand = 0.5 * binary_cross_entropy_with_logits(z, target) - dice
    torch.testing.assert_close(ours, by_hand)
    gradients = [torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (ours, by_hand)]
    torch.testing.assert_close(*gradients)


def test_region_loss_is_bce_and_dice_of_each_region(datasets: Path) -> None:
    trainer = make("nnUNetTrainerRAUNet", 30)
    trainer.initialize()
    torch.manual_seed(0)
    z = torch.randn(2, 2, 9, 7, dtype=torch.double, requires_grad=True)
    target = (torch.rand(2, 2, 9, 7) > 0.7).double()
    p, axes = torch.sigmoid(z), (0, 2, 3)
    dice = (2 * (p * target).sum(axes) + 1e-5) / (p.sum(axes) + target.sum(axes) + 1e-5)
    by_hand = 0.5 * binary_cross_entropy_with_logits(z, target) - dice.mean()
    torch.testing.assert_close(trainer.loss(z, target), by_hand, check_dtype=False)


def test_augmentation_is_rotation_scaling_and_flip(datasets: Path) -> None:
    trainer = make("nnUNetTrainerRAUNet")
    trainer.initialize()
    transforms = trainer.get_training_transforms((40, 40), (-0.2, 0.2), None, (1,), False)
    names = [type(t).__name__ for t in transforms.transforms]
    assert names == ["SpatialTransform", "MirrorTransform", "RemoveLabelTransform"]


def test_horizontal_flip_only(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rotation and scaling, a sample is the image or its left-right mirror image, in 2D and in 3D."""
    from nnunet_ext.trainers import raunet

    monkeypatch.setattr(raunet, "SCALING", (1.0, 1.0))
    for name, size in (("nnUNetTrainerRAUNet", (8, 8)), ("nnUNetTrainerUNet3D", (3, 8, 8))):
        image = torch.arange(float(np.prod(size))).reshape(1, *size)
        transforms = getattr(raunet, name).get_training_transforms(
            size, (0.0, 0.0), None, (len(size) - 1,), len(size) == 3
        )
        seen = set()
        for _ in range(20):
            out = transforms(image=image.clone(), segmentation=torch.zeros((1, *size), dtype=torch.int16))["image"]
            same, mirrored = torch.allclose(out, image, atol=1e-3), torch.allclose(out, image.flip(-1), atol=1e-3)
            assert same or mirrored
            seen.add(same)
        assert seen == {True, False}


@pytest.mark.parametrize("entry", one_fast([e for e in TRAINERS if e.planner], "nnUNetTrainerUNetBN"))
def test_every_trained_parameter_gets_a_gradient(entry: registry.Entry, datasets: Path) -> None:
    trainer = make(entry.name, configuration=entry.configuration or "2d")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trainer.train_step(next(trainer.dataloader_train))
    without = [n for n, p in trainer.network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


@pytest.mark.slow
def test_interrupted_and_resumed_equals_uninterrupted(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed_equals_whole("nnUNetTrainerRAUNet", 29, PLANS, datasets, tmp_path / "again", monkeypatch)


def test_seed_decides(datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_weights(seed: str) -> torch.Tensor:
        monkeypatch.setenv("NNUNET_EXT_SEED", seed)
        trainer = make("nnUNetTrainerRAUNet")
        trainer.initialize()
        return next(trainer.network.parameters()).detach()

    assert torch.equal(first_weights("1"), first_weights("1"))
    assert not torch.equal(first_weights("1"), first_weights("2"))


@pytest.mark.slow
def test_ordered_loaders_follow_seed_and_epoch(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same batches with the same seed, whatever state torch was in; others after a resume at another epoch."""
    from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    monkeypatch.setenv("NNUNET_EXT_SEED", "5")

    def batches(epoch: int) -> torch.Tensor:
        trainer = make("nnUNetTrainerRAUNet")
        trainer.initialize()
        trainer.current_epoch = epoch
        torch.manual_seed(epoch)
        loaders = trainer.get_dataloaders()
        assert all(type(loader) is MultiThreadedAugmenter for loader in loaders)
        data = torch.stack([next(loaders[0])["data"] for _ in range(4)])
        for loader in loaders:
            loader._finish()
        return data

    first = batches(0)
    assert torch.equal(first, batches(0))
    assert not torch.equal(first, batches(1))
    assert not torch.equal(first[0], first[1])  # two workers, two streams


def test_workers_draw_different_random_numbers_from_torch() -> None:
    from nnunet_ext.trainers.pass_trainer import SeedingLoader

    class Loader:
        def set_thread_id(self, number: int) -> None:
            self.number = number

    draws = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        SeedingLoader(Loader()).set_thread_id(0)
        draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_note_names_a_window_without_the_filters(datasets: Path) -> None:
    trainer = make("nnUNetTrainerRAUNet")
    trainer.configuration_manager.configuration["normalization_schemes"] = ["LiverWindowNormalization"]
    assert "normalisation LiverWindowNormalization (paper: LiverWindowCLAHENormalization)" in trainer.plan_note()


@pytest.mark.slow
def test_validation_without_foreground_does_not_freeze_the_best_checkpoint(datasets: Path) -> None:
    trainer = make("nnUNetTrainerRAUNet")
    trainer.initialize()

    def epoch(number: int, tp: float, error: float) -> float:
        output = {
            "loss": np.float32(1),
            **{k: np.array([v]) for k, v in (("tp_hard", tp), ("fp_hard", error), ("fn_hard", error))},
        }
        trainer.logger.log("epoch_start_timestamps", 0, number)
        trainer.logger.log("train_losses", 0.0, number)
        trainer.logger.log("lrs", 0.0, number)
        with np.errstate(invalid="ignore"):
            trainer.on_validation_epoch_end([output])
        trainer.on_epoch_end()
        return trainer._best_ema

    output = Path(trainer.output_folder)
    assert epoch(0, 0.0, 0.0) == 0  # undefined Dice
    first = (output / "checkpoint_best.pth").stat().st_mtime_ns
    assert epoch(1, 9.0, 11.0) == pytest.approx(0.45)  # the first that is defined starts the average
    assert epoch(2, 0.0, 0.0) == pytest.approx(0.45)
    assert epoch(3, 9.0, 1.0) == pytest.approx(0.9 * 0.45 + 0.1 * 0.9)
    assert (output / "checkpoint_best.pth").stat().st_mtime_ns > first
    assert np.isnan(trainer.logger.get_value("mean_fg_dice", step=2))  # what was undefined stays so


def test_a_kill_while_saving_leaves_the_previous_checkpoint(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make("nnUNetTrainerRAUNet")
    trainer.initialize()
    file = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    whole = file.read_bytes()

    def half(checkpoint: dict, filename: str) -> None:
        Path(filename).write_bytes(whole[: len(whole) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(str(file))
    assert file.read_bytes() == whole


@pytest.mark.slow
def test_disabled_checkpointing_writes_none(datasets: Path) -> None:
    train("nnUNetTrainerRAUNet", disable_checkpointing=True)
    assert not list(datasets.rglob("*.pth*"))


@pytest.mark.slow
def test_val_and_npz(datasets: Path) -> None:
    train("nnUNetTrainerRAUNet")
    validation = model_folder(datasets, "nnUNetTrainerRAUNet") / "fold_0" / "validation"
    first = (validation / "summary.json").read_text()
    train("nnUNetTrainerRAUNet", only_run_validation=True, export_validation_probabilities=True)
    assert json.loads((validation / "summary.json").read_text())["mean"] == json.loads(first)["mean"]
    probabilities = np.load(validation / "case_2.npz")["probabilities"]
    assert probabilities.shape == (2, 6, 40, 36)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=2e-3)


def test_pretrained_weights_to_another_number_of_classes(datasets: Path, kinds: Path) -> None:
    train("nnUNetTrainerRAUNet")
    file = model_folder(datasets, "nnUNetTrainerRAUNet") / "fold_0" / "checkpoint_final.pth"
    trainer = make("nnUNetTrainerRAUNet", 31)
    maybe_load_checkpoint(trainer, False, False, str(file))
    for key, tensor in torch.load(file, weights_only=False)["network_weights"].items():
        assert torch.equal(trainer.network.state_dict()[key], tensor) or ".seg_layers." in key


@pytest.mark.slow
def test_best_configuration_and_ensembles(datasets: Path, kinds: Path, tmp_path: Path) -> None:
    from nnunetv2.ensembling.ensemble import ensemble_folders
    from nnunetv2.evaluation.find_best_configuration import find_best_configuration

    pair = ("nnUNetTrainerRAUNet", "nnUNetTrainerMatchedBudget")
    for trainer in pair:
        train(trainer, export_validation_probabilities=True)
    models = [{"plans": PLANS, "configuration": "2d", "trainer": t} for t in pair]
    find_best_configuration(29, models, folds=(0,), num_processes=1)
    summary = json.loads((datasets / "Dataset029_Tiny" / "inference_information.json").read_text())
    assert len(summary["all_results"]) == 3  # two models and their ensemble

    train("nnUNetTrainerMatchedBudget", plans="nnUNetPlans", export_validation_probabilities=True)
    folders = [
        str(model_folder(datasets, t, p) / "fold_0" / "validation")
        for t, p in ((pair[0], PLANS), (pair[1], "nnUNetPlans"))
    ]
    preprocessed = kinds / "nnUNet_preprocessed" / "Dataset029_Tiny"
    ensemble_folders(
        folders,
        str(tmp_path / "ensemble"),
        num_processes=1,
        dataset_json_file_or_dict=str(preprocessed / "dataset.json"),
        plans_json_file_or_dict=str(preprocessed / f"{PLANS}.json"),
    )
    assert (tmp_path / "ensemble" / "case_2.nii.gz").is_file()


@pytest.mark.slow
def test_zip_export_and_import(datasets: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.model_sharing.model_export import export_pretrained_model
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    train("nnUNetTrainerRAUNet", 30)
    folder = model_folder(datasets, "nnUNetTrainerRAUNet", dataset=30)
    [before] = predict(folder, images(prepared, 30)[:1])
    archive = tmp_path / "model.zip"
    export_pretrained_model(
        30, str(archive), configurations=("2d",), trainer="nnUNetTrainerRAUNet", plans_identifier=PLANS, folds=(0,)
    )
    assert any(n.endswith("checkpoint_final.pth") for n in zipfile.ZipFile(archive).namelist())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("nnUNet_results", str(elsewhere))
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.delenv("nnUNet_preprocessed")
    install_model_from_zip_file(str(archive))
    [after] = predict(model_folder(elsewhere, "nnUNetTrainerRAUNet", dataset=30), images(prepared, 30)[:1])
    assert np.array_equal(before, after)


@pytest.mark.slow
def test_torch_compile_keeps_the_output(datasets: Path) -> None:
    """With the eager backend: what nnU-Net's default compile on CUDA traces is the same computation."""
    trainer = make("nnUNetTrainerRAUNet")
    trainer.initialize()
    net = trainer.network.eval()
    x = torch.rand(1, 1, 40, 40)
    with torch.no_grad():
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


@pytest.mark.slow
def test_two_processes(short_runs: Path) -> None:
    two_processes(short_runs, "29", "nnUNetTrainerRAUNet", PLANS, batch_size=1)
