"""Stock nnU-Net with clicks as channels: the channels, training, prediction, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn
from training import CPU, PLANS, images, make, model_folder, predict, resumed_equals_whole, train, two_processes

from nnunet_ext.architectures.click_channels import ClickChannels
from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.inference.model_folder import with_click_channels
from nnunet_ext.inference.prompts import ObjectPrompt, fixed_clicks, random_clicks

CLICK = "nnUNetTrainerMatchedBudgetClick"


class ShowsClicks(nn.Module):
    """In place of a network: the logit of the foreground is ten times the channel of its clicks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0 * x[:, :1], 10 * x[:, 1:]], 1)


def test_channels_are_gaussians_at_the_clicks() -> None:
    network = ClickChannels(nn.Identity(), image_channels=1, classes=1, sigma=3)
    xy = torch.tensor([[5.0, 2.0], [30.0, 14.0], [9.0, 9.0], [8.0, 2.0]])
    drawn = network.channels(xy, torch.tensor([1, 0, -1, 1]), (20, 40))
    y, x = np.mgrid[:20, :40]
    gaussians = [np.exp(-((x - a) ** 2 + (y - b) ** 2) / 18) for a, b in xy.tolist()]
    np.testing.assert_allclose(drawn, np.maximum(gaussians[0], gaussians[3]) - gaussians[1], atol=1e-6)
    assert drawn[2, 5] == 1
    assert drawn[14, 30] == pytest.approx(-1, abs=1e-4)
    several = network.channels(xy.expand(2, 3, -1, -1), torch.ones(2, 3, 4), (20, 40))
    assert several.shape == (2, 3, 20, 40)


def test_an_image_without_clicks_is_refused_and_says_what_to_do() -> None:
    network = ClickChannels(nn.Identity(), image_channels=2, classes=1)
    with pytest.raises(InputError, match="nnunet_ext predict -m"):
        network(torch.rand(1, 2, 8, 8))
    assert network(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("mirrored", [(0, 1), None], ids=["mirrored", "plain"])
def test_clicks_stay_where_they_are_in_windows_and_mirror_images(
    mirrored: tuple[int, int] | None, datasets: Path
) -> None:
    """Two slices, larger than the patch in one direction and smaller in the other."""
    network = ClickChannels(ShowsClicks(), image_channels=1, classes=1, sigma=2)
    trainer = make(CLICK)
    predictor = nnUNetPredictor(device=CPU, perform_everything_on_device=False, allow_tqdm=False)
    predictor.manual_initialization(
        network, trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json, "", mirrored
    )
    xy, foreground = torch.tensor([[70.0, 11.0]]), torch.tensor([1])
    given = with_click_channels(
        network,
        torch.rand(1, 2, 30, 90),
        {(0, 0): (ObjectPrompt(xy=xy, labels=foreground),), (1, 0): (ObjectPrompt(xy=xy / 2, labels=1 - foreground),)},
    )
    logits = predictor.predict_sliding_window_return_logits(given).float()
    for z, (point, label) in enumerate(((xy, foreground), (xy / 2, 1 - foreground))):
        expected = 10 * network.channels(point, label, (30, 90))
        torch.testing.assert_close(logits[1, z], expected, atol=0.02, rtol=0)  # nnU-Net adds up in half precision


def test_recipe_is_its_twins_but_for_a_channel_per_class(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EPOCHS", "ITERATIONS", "VAL_ITERATIONS"):
        monkeypatch.delenv(f"NNUNET_EXT_{name}")
    for twin, passes in (("nnUNetTrainerMatchedBudget", 50), ("nnUNetTrainerMatchedBudget400", 400)):
        trainer, other = make(f"{twin}Click"), make(twin)
        for made in (trainer, other):
            made.initialize()
        assert trainer.num_epochs == other.num_epochs == passes
        assert trainer.save_every == other.save_every
        assert trainer.initial_lr == other.initial_lr
        assert str(trainer.loss) == str(other.loss)
        ours, theirs = trainer.network.network.state_dict(), other.network.state_dict()
        assert ours.keys() == theirs.keys()
        differing = {name for name in ours if ours[name].shape != theirs[name].shape}
        assert differing
        assert all(ours[name].shape[1] == theirs[name].shape[1] + 1 for name in differing)
        assert all(".stages.0.0.convs.0." in name for name in differing)  # the first convolution alone


def test_three_dimensions_are_refused(datasets: Path) -> None:
    with pytest.raises(InputError, match=r"clicks slice by slice(.|\n)*Train it on 2d"):
        make(CLICK, configuration="3d_fullres")
    assert not list(datasets.iterdir())


def seen(trainer, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Keep what the network of a trainer is given."""
    kept: list[torch.Tensor] = []
    forward = ClickChannels.forward
    monkeypatch.setattr(ClickChannels, "forward", lambda self, x: (kept.append(x.detach()), forward(self, x))[1])
    return kept


def test_steps_click_as_samus_does(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNUNET_EXT_SEED", "3")
    trainer = make(CLICK)
    trainer.on_train_start()
    given = seen(trainer, monkeypatch)
    batch = next(trainer.dataloader_train)
    maps, valid = trainer.maps(batch["target"][0])
    monkeypatch.setattr(trainer, "empty_share", 0)
    for _ in range(2):
        trainer.on_train_epoch_start()
        trainer.train_step(batch)
    assert torch.equal(given[0], given[1])  # the same epoch, the same clicks
    points, labels = random_clicks(maps, valid, trainer._click_generator)  # others
    trainer.on_train_epoch_start()
    points, labels = random_clicks(maps, valid, trainer._click_generator)
    for channel, (x, y), label, found in zip(
        given[0][:, -1], points[:, 0, 0].long().tolist(), labels.flatten().tolist(), maps.flatten(1).any(1), strict=True
    ):
        assert channel[y, x] == (1 if found else -1)
        assert label == found
    assert torch.equal(given[0][:, :-1], batch["data"])
    trainer.validation_step(batch)
    points, _ = fixed_clicks(maps, valid)
    x, y = points[:, 0, 0].long().unbind(-1)
    assert (given[2][torch.arange(len(x)), -1, y, x].abs() == 1).all()
    monkeypatch.setattr(trainer, "empty_share", 1)
    trainer.train_step(batch)
    assert not given[3][:, -1].any()
    trainer.on_train_end()


def test_trains_and_validates_with_clicks(datasets: Path, prepared: Path) -> None:
    train(CLICK, 29)
    folder = model_folder(datasets, CLICK)
    validation = folder / "fold_0" / "validation"
    assert len(json.loads((validation / "summary.json").read_text())["metric_per_case"]) == 2
    assert json.loads((validation / "prompts_used.json").read_text())["source"] == "reference"
    assert main(["evaluate", "-m", str(folder), "-f", "0", "--out", str(datasets / "out")]) == 0
    assert Evaluation.load(datasets / "out").info["prompts"] == "reference"
    with pytest.raises(InputError, match="nnunet_ext predict -m"):
        predict(folder, images(prepared)[:1])


def array(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(file))


def test_predicts_from_reference_and_file_what_it_validated(
    datasets: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train(CLICK, 29)
    folder, raw = model_folder(datasets, CLICK), prepared / "nnUNet_raw" / "Dataset029_Tiny"
    command = ["predict", "-m", folder, "-i", raw / "imagesTr", "-chk", "checkpoint_final.pth", "-device", "cpu"]

    def run(out: str, *options: object) -> int:
        return main([*map(str, (*command, "-o", tmp_path / out, *options))])

    assert run("none") == 2
    assert "was trained with clicks only" in capsys.readouterr().err
    assert run("reference", "--from-reference", raw / "labelsTr") == 0
    validated = array(folder / "fold_0" / "validation" / "case_2.nii.gz")
    assert np.array_equal(array(tmp_path / "reference" / "case_2.nii.gz"), validated)
    used = json.loads((tmp_path / "reference" / "prompts_used.json").read_text())
    assert used["source"] == "reference"
    assert len(used["cases"]["case_2"]) == 6  # a click per slice
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(used["cases"]))
    assert run("file", "--prompts", file) == 0
    assert np.mean(array(tmp_path / "file" / "case_2.nii.gz") != validated) < 1e-3  # the record rounds
    file.write_text(json.dumps({**used["cases"], "case_1": []}))
    assert run("empty", "--prompts", file) == 2
    assert "no prompts for case_1" in capsys.readouterr().err
    assert not (tmp_path / "empty").exists()


def test_clicks_decide_and_boxes_are_refused() -> None:
    network = ClickChannels(ShowsClicks(), image_channels=1, classes=2)
    data, click = torch.rand(1, 2, 8, 9), ObjectPrompt(xy=torch.tensor([[3.0, 4.0]]), labels=torch.tensor([1]))
    given = with_click_channels(network, data, {(1, 0): (click,)})
    assert torch.equal(given[:1], data)
    assert given[1, 1].argmax() == 4 * 9 + 3
    assert not given[1, 0].any()
    assert not given[2].any()
    box = ObjectPrompt(xy=torch.tensor([[1.0, 1.0], [3.0, 4.0]]), labels=torch.tensor([2, 3]))
    with pytest.raises(InputError, match="takes clicks, no boxes"):
        with_click_channels(network, data, {(1, 0): (click,), (0, 1): (box,)})


@pytest.mark.parametrize("dataset", range(30, 35), ids=["regions", "classes", "ignore", "channels", "png"])
def test_kinds_of_data(dataset: int, datasets: Path, kinds: Path) -> None:
    train(CLICK, dataset, export_validation_probabilities=True)
    folder = model_folder(datasets, CLICK, dataset=dataset)
    assert np.isfinite(np.load(folder / "fold_0" / "validation" / "case_2.npz")["probabilities"]).all()
    with pytest.raises(InputError, match="nnunet_ext predict -m"):
        predict(folder, images(kinds, dataset)[:1])


@pytest.mark.slow
def test_interrupted_and_resumed_equals_uninterrupted(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed_equals_whole(CLICK, 29, PLANS, datasets, tmp_path / "again", monkeypatch)


@pytest.mark.slow
def test_distributed(short_runs: Path) -> None:
    two_processes(short_runs, "29", CLICK, PLANS, batch_size=1)
