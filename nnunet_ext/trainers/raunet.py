"""The rows of the RA-U-Net paper's table 1 as nnU-Net trainers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_ext.architectures.raunet import Norm, UNet, UNet3D
from nnunet_ext.planning import PAPER_BATCH_SIZE, PAPER_PATCH_SIZE
from nnunet_ext.preprocessing import LiverWindowCLAHENormalization
from nnunet_ext.trainers.paper_recipe import PaperRecipe

ROTATION = (-np.pi / 12, np.pi / 12)  # 15 degrees; the paper names rotation, scaling and flip without ranges
SCALING = (0.9, 1.1)


class nnUNetTrainerRAUNet(PaperRecipe):
    """RA-U-Net: bottleneck residual blocks, attention gates, GroupNorm.

    Recipe of the paper: 0.5 BCE + Dice, Adam at a constant 1e-4, 50 passes, batch 2; rotation, scaling and
    horizontal flip in training, horizontal flip at test time.
    """

    paper = "Du & Wang 2025"
    learning_rate = 1e-4
    num_passes = 50
    paper_patch_size: tuple[int, ...] = PAPER_PATCH_SIZE[2]
    paper_batch_size = PAPER_BATCH_SIZE
    paper_normalization = LiverWindowCLAHENormalization.__name__

    block: Literal["double", "bottleneck"] = "bottleneck"
    gates = True
    num_3x3 = 2
    norm: Norm = "group"
    groups = 32

    @classmethod
    def build_network(
        cls, plan: ConfigurationManager, in_channels: int, out_channels: int, has_regions: bool
    ) -> nn.Module:
        """Build `UNet` with the options of this class."""
        return UNet(
            in_channels=in_channels,
            out_channels=out_channels,
            binary=out_channels == 2 and not has_regions,
            block=cls.block,
            gates=cls.gates,
            num_3x3=cls.num_3x3,
            norm=cls.norm,
            groups=cls.groups,
        )

    def _build_loss(self) -> nn.Module:
        """Return 0.5 BCE + Dice: softmax over [0, z] makes nnU-Net's cross-entropy BCE, its Dice that of sigmoid(z)."""
        loss = super()._build_loss()
        loss.weight_ce = 0.5
        return loss

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        """Rotate and scale within axial slices, also in 3D; flip horizontally, also at test time."""
        patch_size = self.configuration_manager.patch_size
        horizontal = (len(patch_size) - 1,)
        in_slice = get_patch_size(patch_size[-2:], ROTATION, ROTATION, ROTATION, SCALING)
        self.inference_allowed_mirroring_axes = horizontal
        return ROTATION, self.dim == 3, np.array([*patch_size[:-2], *in_slice]), horizontal

    @classmethod
    def augmentation(
        cls, patch_size: Sequence[int], rotation: tuple[float, float], mirror_axes: Sequence[int], in_slices: bool
    ) -> list[BasicTransform]:
        """Return rotation, scaling and flip."""
        spatial = SpatialTransform(
            tuple(patch_size[-2:]),
            patch_center_dist_from_border=0,
            random_crop=False,
            p_elastic_deform=0,
            p_rotation=1,
            rotation=rotation,
            p_scaling=1,
            scaling=SCALING,
            p_synchronize_scaling_across_axes=1,
            bg_style_seg_sampling=False,
            border_mode_seg="constant",
            padding_value_seg=-1,
        )
        transforms = [Convert3DTo2DTransform(), spatial, Convert2DTo3DTransform()] if in_slices else [spatial]
        return [*transforms, MirrorTransform(allowed_axes=tuple(mirror_axes))]


class nnUNetTrainerUNet(nnUNetTrainerRAUNet):
    """U-Net: the row without residual blocks and gates, with GroupNorm like the others."""

    block = "double"
    gates = False


class nnUNetTrainerAttentionUNet(nnUNetTrainerUNet):
    """U-Net with attention gates."""

    gates = True


class nnUNetTrainerResUNet(nnUNetTrainerRAUNet):
    """U-Net with bottleneck residual blocks."""

    gates = False


class nnUNetTrainerRAUNetLiteral(nnUNetTrainerRAUNet):
    """RA-U-Net as the paper's text has it: one 3x3 convolution in the bottleneck, 6.31 M parameters, not 7.29 M."""

    num_3x3 = 1


class nnUNetTrainerUNetBN(nnUNetTrainerUNet):
    """U-Net with batch norm: separates the effect of GroupNorm from that of the blocks."""

    norm = "batch"


class nnUNetTrainerUNet3D(nnUNetTrainerRAUNet):
    """3D U-Net on patches of 64x128x128, base width 32."""

    dim = 3
    paper_patch_size = PAPER_PATCH_SIZE[3]

    @classmethod
    def build_network(
        cls, plan: ConfigurationManager, in_channels: int, out_channels: int, has_regions: bool
    ) -> nn.Module:
        """Build `UNet3D` with the options of this class."""
        return UNet3D(
            in_channels=in_channels,
            out_channels=out_channels,
            binary=out_channels == 2 and not has_regions,
            norm=cls.norm,
            groups=cls.groups,
        )
