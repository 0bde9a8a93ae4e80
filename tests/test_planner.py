"""What RAUNetPlanner plans for data of different kinds; nothing is preprocessed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tiny import plan


def test_lits(nnunet_folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    plans = plan(nnunet_folders, (120, 512, 512))
    assert plans["plans_name"] == "nnUNetRAUNetPlans"
    assert list(plans["configurations"]) == ["2d", "3d_fullres"]  # neither low resolution nor cascade
    two, three = plans["configurations"]["2d"], plans["configurations"]["3d_fullres"]
    assert (two["patch_size"], two["batch_size"]) == ([512, 512], 2)
    assert (three["patch_size"], three["batch_size"]) == ([64, 128, 128], 2)
    for configuration in (two, three):
        assert configuration["normalization_schemes"] == ["LiverWindowCLAHENormalization"]
        assert configuration["preprocessor_name"] == "DefaultPreprocessor"
    for what in ("data", "seg", "probabilities"):
        assert two[f"resampling_fn_{what}"] == "no_resampling_hack"
        assert two[f"resampling_fn_{what}_kwargs"] == {}
        assert three[f"resampling_fn_{what}"] == "resample_data_or_seg_to_shape"
    assert two["median_image_size_in_voxels"] == [512, 512]
    assert not caplog.records  # the paper's batch fits the default target of 8 GB


def test_always_axial(nnunet_folders: Path) -> None:
    """nnU-Net would turn slices thinner than pixels to the coronal plane."""
    plans = plan(nnunet_folders, (500, 512, 512), spacing=(0.625, 0.78, 0.78))
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 1, 2]
    assert plans["configurations"]["2d"]["patch_size"] == [512, 512]


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((30, 101, 122), [112, 128]),  # smaller data: the padded image
        ((20, 96, 96), [96, 96]),
        ((100, 512, 300), [512, 320]),
        ((100, 800, 800), [512, 512]),
        ([(20, 100, 90), (20, 90, 100), (20, 60, 60), (20, 60, 60)], [112, 112]),  # every slice fits
    ],
)
def test_patch(shape, patch: list[int], nnunet_folders: Path) -> None:
    assert plan(nnunet_folders, shape)["configurations"]["2d"]["patch_size"] == patch


def test_3d_patch_of_small_volumes(nnunet_folders: Path) -> None:
    patch = plan(nnunet_folders, (20, 100, 100), spacing=(3, 3, 3))["configurations"]["3d_fullres"]["patch_size"]
    assert patch == [20, 112, 112]


def test_other_channels_keep_their_scheme(nnunet_folders: Path) -> None:
    plans = plan(nnunet_folders, (20, 100, 100), channels=("CT", "PET", "noNorm"))
    schemes = plans["configurations"]["2d"]["normalization_schemes"]
    assert schemes == ["LiverWindowCLAHENormalization", "ZScoreNormalization", "NoNormalization"]


def test_2d_images(nnunet_folders: Path) -> None:
    plans = plan(nnunet_folders, (1, 300, 400), spacing=(999, 1, 1), channels=("ultrasound",))
    assert list(plans["configurations"]) == ["2d"]
    assert plans["configurations"]["2d"]["patch_size"] == [320, 448]
    assert plans["configurations"]["2d"]["normalization_schemes"] == ["ZScoreNormalization"]


def test_a_larger_target_changes_nothing(nnunet_folders: Path) -> None:
    two = plan(nnunet_folders, (120, 512, 512), gpu_memory_target_in_gb=80)["configurations"]["2d"]
    assert (two["patch_size"], two["batch_size"]) == ([512, 512], 2)


def test_a_smaller_target_shrinks_the_batch_with_a_warning(
    nnunet_folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        plans = plan(nnunet_folders, (120, 512, 512), gpu_memory_target_in_gb=3)
    two = plans["configurations"]["2d"]
    assert (two["patch_size"], two["batch_size"]) == ([512, 512], 1)
    assert "2d: the paper's batch of 2 patches of 512x512 needs about 3.7 GiB" in caplog.text
    assert "-gpu_memory_target" in caplog.text
    assert "NNUNET_EXT_RECOMPUTE=1" in caplog.text


@pytest.mark.slow
def test_recomputation_fits_into_less(
    nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NNUNET_EXT_RECOMPUTE", "1")
    two = plan(nnunet_folders, (120, 512, 512), gpu_memory_target_in_gb=3)["configurations"]["2d"]
    assert (two["patch_size"], two["batch_size"]) == ([512, 512], 2)
    assert not [r for r in caplog.records if "2d" in r.message]


@pytest.mark.slow
def test_a_tiny_target_shrinks_the_patch_too(nnunet_folders: Path) -> None:
    plans = plan(nnunet_folders, (120, 512, 512), gpu_memory_target_in_gb=1)
    two = plans["configurations"]["2d"]
    assert two["batch_size"] == 1
    assert max(two["patch_size"]) < 512
    strides = two["architecture"]["arch_kwargs"]["strides"]
    assert all(p % 2 ** (len(strides) - 1) == 0 for p in two["patch_size"])


def test_plans_name_of_the_user(nnunet_folders: Path) -> None:
    assert plan(nnunet_folders, (20, 96, 96), overwrite_plans_name="mine")["plans_name"] == "mine"


@pytest.mark.slow
def test_stock_networks_fit_the_plan(nnunet_folders: Path) -> None:
    """Stock nnUNetTrainer trains on these plans: its network takes patches of the planned size."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plans = plan(nnunet_folders, (30, 101, 122))
    for name in ("2d", "3d_fullres"):
        configuration = plans["configurations"][name]
        architecture = configuration["architecture"]
        net = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            *(1, 2),
            deep_supervision=False,
        )
        patch = configuration["patch_size"]
        with torch.no_grad():
            assert net(torch.zeros(1, 1, *patch)).shape == (1, 2, *patch)


def test_a_target_spacing_is_honoured_in_2d_and_3d(nnunet_folders: Path) -> None:
    plans = plan(nnunet_folders, (40, 300, 200), spacing=(3, 0.5, 0.5), overwrite_target_spacing=[3.0, 1.0, 1.0])
    two, three = plans["configurations"]["2d"], plans["configurations"]["3d_fullres"]
    assert (two["spacing"], three["spacing"]) == ([1, 1], [3, 1, 1])
    assert two["patch_size"] == [160, 112]  # 150 x 100 pixels, padded
    for configuration in (two, three):
        assert configuration["resampling_fn_data"] == "resample_data_or_seg_to_shape"


@pytest.mark.parametrize(("median", "warned"), [(-19, False), (139, False), (-80, True), (1124, True)])
def test_foreground_outside_of_the_window_is_named(
    median: float, warned: bool, nnunet_folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan(nnunet_folders, (20, 96, 96), median=median)
    assert (f"the median of the foreground is {median}, outside of the paper's window" in caplog.text) == warned


def test_the_window_is_of_ct_alone(nnunet_folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan(nnunet_folders, (20, 96, 96), channels=("MR",), median=900)
    assert not caplog.records
