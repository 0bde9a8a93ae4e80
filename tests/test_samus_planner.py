"""What SAMUSPlanner plans, what nnU-Net makes of it, and predictions at native size."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
import tiny
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import run_training
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image
from torch import nn
from training import make

from nnunet_ext.common.errors import InputError
from nnunet_ext.planning import SAMUSPlanner

PLANS = "nnUNetSAMUSPlans"
SIZES = ((300, 500), (471, 562), (200, 190), (256, 256))  # (height, width)
CPU = torch.device("cpu")


def plan(folders: Path, shape: tuple = (1, 471, 562), spacing: tuple = (999, 1, 1), **kwargs: object) -> dict:
    return tiny.plan(folders, shape, spacing, **{"channels": ("ultrasound",), "planner": "SAMUSPlanner", **kwargs})


def blob(size: tuple[int, int]) -> np.ndarray:
    """A bright smooth disc, 8 bit, with the full range of values."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    distance = np.hypot(y - 0.1, x + 0.2)
    return np.rint(255 * np.clip(1.3 - 1.5 * distance, 0, 1)).astype(np.uint8)


@pytest.fixture
def pictures(nnunet_folders: Path) -> Path:
    """Dataset 34: PNG images of four sizes, planned and preprocessed; the raw folder."""
    raw = nnunet_folders / "nnUNet_raw" / tiny.make_raw(34, tiny.BINARY, channels=("ultrasound",), png=True)
    for i, size in enumerate(SIZES):
        image = blob(size)
        tiny.write(raw / "imagesTr" / f"case_{i}_0000.png", image, ())
        tiny.write(raw / "labelsTr" / f"case_{i}.png", (image > 127).astype(np.uint8), ())
    assert tiny.plan_and_preprocess(34, "SAMUSPlanner") == PLANS
    return raw


def preprocessed(name: str) -> nnUNetDatasetBlosc2:
    return nnUNetDatasetBlosc2(str(Path(os.environ["nnUNet_preprocessed"]) / name / f"{PLANS}_2d"))


def test_plan(nnunet_folders: Path) -> None:
    plans = plan(nnunet_folders)
    assert plans["plans_name"] == PLANS
    assert list(plans["configurations"]) == ["2d"]
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 1, 2]
    two = plans["configurations"]["2d"]
    assert (two["patch_size"], two["batch_size"]) == ([256, 256], 4)
    assert two["median_image_size_in_voxels"] == [256, 256]
    assert two["normalization_schemes"] == ["RGBTo01Normalization"]
    assert two["use_mask_for_norm"] == [False]
    assert two["resampling_fn_data"] == two["resampling_fn_seg"] == "resize_slices"
    assert two["resampling_fn_data_kwargs"] == {"size": [256, 256], "is_seg": False}
    assert two["resampling_fn_seg_kwargs"] == {"size": [256, 256], "is_seg": True}
    assert two["resampling_fn_probabilities"] == "resample_data_or_seg_to_shape"
    assert two["preprocessor_name"] == "DefaultPreprocessor"


@pytest.mark.parametrize("gigabytes", [0.01, 80])
def test_the_memory_target_changes_nothing(gigabytes: float, nnunet_folders: Path) -> None:
    two = plan(nnunet_folders, gpu_memory_target_in_gb=gigabytes)["configurations"]["2d"]
    assert (two["patch_size"], two["batch_size"]) == ([256, 256], 4)


@pytest.mark.parametrize("spacing", [(0.5, 0.7, 0.7), (5, 0.7, 0.7), (1, 0.1, 9)])
def test_volumes(spacing: tuple[float, ...], nnunet_folders: Path) -> None:
    """Axial slices of any spacing; nnU-Net would turn thin ones and stretch the patch and strides of oblong pixels."""
    plans = plan(nnunet_folders, (200, 512, 400), spacing, channels=("CT",))
    assert list(plans["configurations"]) == ["2d"]
    assert plans["transpose_forward"] == [0, 1, 2]
    two = plans["configurations"]["2d"]
    assert two["patch_size"] == [256, 256]
    assert two["spacing"] == list(spacing[1:])
    assert two["architecture"]["arch_kwargs"]["strides"] == [[1, 1], *[[2, 2]] * 6]
    assert two["normalization_schemes"] == ["RescaleTo01Normalization"]


def test_a_channel_may_ask_for_no_normalisation(nnunet_folders: Path) -> None:
    plans = plan(nnunet_folders, (20, 100, 100), (1, 1, 1), channels=("CT", "noNorm", "T1"))
    schemes = plans["configurations"]["2d"]["normalization_schemes"]
    assert schemes == ["RescaleTo01Normalization", "NoNormalization", "RescaleTo01Normalization"]


@pytest.mark.slow
def test_16_bit_pictures_are_rescaled(nnunet_folders: Path) -> None:
    raw = nnunet_folders / "nnUNet_raw" / tiny.make_raw(29, tiny.BINARY, channels=("ultrasound",), png=True)
    Image.fromarray(np.full((40, 36), 4000, np.uint16)).save(raw / "imagesTr" / "case_0_0000.png")
    assert plan(nnunet_folders)["configurations"]["2d"]["normalization_schemes"] == ["RescaleTo01Normalization"]


@pytest.mark.slow
def test_another_size_is_a_subclass(nnunet_folders: Path) -> None:
    class Larger(SAMUSPlanner):
        default_plans_name = "larger"
        image_size = 1024

    plan(nnunet_folders)  # writes the fingerprint
    plans = Larger(29, gpu_memory_target_in_gb=2).plan_experiment()
    assert plans["plans_name"] == "larger"
    two = plans["configurations"]["2d"]
    assert (list(two["patch_size"]), two["batch_size"]) == ([1024, 1024], 4)
    assert two["resampling_fn_data_kwargs"]["size"] == [1024, 1024]


@pytest.mark.parametrize("channels", [("a", "b"), ("T1", "T2", "FLAIR", "PD")])
def test_channels_that_sam_cannot_take(channels: tuple[str, ...], nnunet_folders: Path) -> None:
    with pytest.raises(InputError, match=rf"SAM's family takes one grey .* not {len(channels)} channels"):
        plan(nnunet_folders, channels=channels)
    assert not list(nnunet_folders.rglob(f"{PLANS}.json"))
    plan(nnunet_folders, channels=channels, planner="ExperimentPlanner")
    with pytest.raises(InputError, match=rf"nnUNetTrainerSAMUS takes one grey .* not {len(channels)} channels"):
        make("nnUNetTrainerSAMUS", plans="nnUNetPlans")
    assert not list((nnunet_folders / "nnUNet_results").iterdir())


@pytest.mark.parametrize(("channels", "warned"), [(("R", "G", "B"), False), (("T1", "T2", "FLAIR"), True)])
def test_three_channels_that_are_no_colours(
    channels: tuple[str, ...], warned: bool, nnunet_folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan(nnunet_folders, channels=channels)
    said = "The channels T1, T2, FLAIR are taken for red, green and blue"
    assert (said in caplog.text) == (said in make("nnUNetTrainerSAMUSHFTiny", plans=PLANS).plan_note()) == warned


def test_a_target_spacing_is_refused(nnunet_folders: Path) -> None:
    with pytest.raises(InputError, match="resizes every slice to 256 pixels a side, whatever its spacing"):
        plan(nnunet_folders, overwrite_target_spacing=[999.0, 0.5, 0.5])


def test_what_patches_of_stock_plans_cost_is_said(nnunet_folders: Path) -> None:
    def note(plans: str) -> str:
        return make("nnUNetTrainerSAMUSHFTiny", plans=plans).plan_note()

    plan(nnunet_folders, (1, 700, 900))
    assert "passes of the encoder" not in note(PLANS)
    plan(nnunet_folders, (1, 700, 900), planner="ExperimentPlanner", gpu_memory_target_in_gb=1)
    assert "An image of the median size takes 9 passes of the encoder" in note("nnUNetPlans")


def test_plans_name_of_the_user(nnunet_folders: Path) -> None:
    assert plan(nnunet_folders, overwrite_plans_name="mine")["plans_name"] == "mine"


@pytest.mark.slow
def test_stock_networks_fit_the_plan(nnunet_folders: Path) -> None:
    architecture = plan(nnunet_folders)["configurations"]["2d"]["architecture"]
    net = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        *(1, 2),
        deep_supervision=False,
    )
    with torch.no_grad():
        assert net(torch.zeros(1, 1, 256, 256)).shape == (1, 2, 256, 256)


def test_pictures_of_any_size_become_256_in_0_to_1(pictures: Path) -> None:
    dataset = preprocessed(pictures.name)
    for i, size in enumerate(SIZES):
        data, seg, _, properties = dataset.load_case(f"case_{i}")
        assert data.shape == seg.shape == (1, 1, 256, 256)
        assert tuple(properties["shape_before_cropping"]) == (1, *size)
        values = np.asarray(data)
        assert 0 <= values.min() < 0.05
        assert 0.95 < values.max() <= 1
        assert set(np.unique(np.asarray(seg))) <= {-1, 0, 1}
        assert (np.asarray(seg) == 1).any()


@pytest.mark.slow
def test_volumes_keep_their_slices(nnunet_folders: Path) -> None:
    name = tiny.make_raw(33, tiny.BINARY, channels=("T1", "T2", "FLAIR"))
    tiny.plan_and_preprocess(33, "SAMUSPlanner")
    data, seg, _, _ = preprocessed(name).load_case("case_0")
    assert data.shape == (3, 6, 256, 256)
    assert seg.shape == (1, 6, 256, 256)
    assert np.asarray(data).min() >= 0
    assert np.asarray(data).max() <= 1


class Threshold(nn.Module):
    """Foreground where the image is brighter than one half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = 20 * (x - 0.5)
        return torch.cat([-z, z], 1)


@pytest.fixture
def predictor(pictures: Path) -> nnUNetPredictor:
    base = Path(os.environ["nnUNet_preprocessed"]) / pictures.name
    plans = PlansManager(str(base / f"{PLANS}.json"))
    out = nnUNetPredictor(
        use_mirroring=False, device=CPU, perform_everything_on_device=False, verbose=False, allow_tqdm=False
    )
    dataset = json.loads((base / "dataset.json").read_text())
    out.manual_initialization(
        Threshold(),
        plans,
        plans.get_configuration("2d"),
        [{}],
        dataset,
        "nnUNetTrainer",
        inference_allowed_mirroring_axes=None,
    )
    return out


@pytest.mark.slow
def test_predictions_come_back_at_native_size(predictor: nnUNetPredictor, pictures: Path, tmp_path: Path) -> None:
    """Through nnU-Net's preprocessing, sliding window and export, with probabilities."""
    cases = [f"case_{i}" for i in range(len(SIZES))]
    files = [[str(pictures / "imagesTr" / f"{c}_0000.png")] for c in cases]
    out = [str(tmp_path / c) for c in cases]
    predictor.predict_from_files_sequential(files, out, save_probabilities=True)
    for case, size in zip(cases, SIZES, strict=True):
        segmentation = np.asarray(Image.open(tmp_path / f"{case}.png"))
        truth = np.asarray(Image.open(pictures / "labelsTr" / f"{case}.png"))
        probabilities = np.load(tmp_path / f"{case}.npz")["probabilities"]
        assert segmentation.shape == truth.shape == size
        assert probabilities.shape == (2, 1, *size)
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-3)
        assert (segmentation != truth).mean() < 0.01


@pytest.mark.slow
def test_stock_trainer_on_these_plans(nnunet_folders: Path, fork_pools: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stock network trains, and validates at native size; 32 pixels keep it short."""
    monkeypatch.setattr(SAMUSPlanner, "image_size", 32)
    name = tiny.make_raw(34, tiny.BINARY, channels=("ultrasound",), png=True)
    tiny.plan_and_preprocess(34, "SAMUSPlanner")
    for budget in ("NNUNET_EXT_EPOCHS", "NNUNET_EXT_ITERATIONS", "NNUNET_EXT_VAL_ITERATIONS"):
        monkeypatch.setenv(budget, "1")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")  # after planning: nnU-Net's planner cannot do with zero threads
    run_training("34", "2d", 0, "nnUNetTrainerMatchedBudget", PLANS, device=CPU)
    trained = nnunet_folders / "nnUNet_results" / name / f"nnUNetTrainerMatchedBudget__{PLANS}__2d"
    sizes = [sitk.ReadImage(f).GetSize() for f in (trained / "fold_0" / "validation").glob("*.png")]
    assert sizes == [(36, 40)] * 2
