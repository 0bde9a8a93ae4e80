"""The augmentation of SAMUS's official code, and what nnU-Net's training transforms end with in any case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from torch.nn import functional as F  # noqa: N812

ROTATION = (-np.pi / 6, np.pi / 6)
LARGEST_ZOOM = 1.3
P = 0.5  # of each of the four


class RandomZoom(BasicTransform):
    """Enlarges by 1 to `largest` and cuts a random part of the original size out of it.

    Shapes: (C, H, W) -> (C, H, W); images bilinear, segmentations nearest neighbour.
    """

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def get_parameters(self, **data_dict) -> dict:
        shape = data_dict["image"].shape[1:]
        zoom = np.random.uniform(1, self.largest)
        size = [max(1, round(s / zoom)) for s in shape]
        return {
            "part": [
                slice(lo, lo + n)
                for lo, n in ((np.random.randint(s - n + 1), n) for s, n in zip(shape, size, strict=True))
            ]
        }

    def _apply_to_image(self, img: torch.Tensor, **params) -> torch.Tensor:
        part = img[(slice(None), *params["part"])]
        return F.interpolate(part[None], size=img.shape[1:], mode="bilinear", align_corners=False)[0]

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params) -> torch.Tensor:
        part = segmentation[(slice(None), *params["part"])]
        resized = F.interpolate(part[None].float(), size=segmentation.shape[1:], mode="nearest")[0]
        return resized.to(segmentation.dtype)


def inverse_gamma(**_: object) -> float:
    """Draw 1 / g for one of SAMUS's g = 1.0, 1.1, ..., 2.4."""
    return 1 / (1 + 0.1 * np.random.randint(15))


def samus_transforms(patch_size: Sequence[int]) -> list[BasicTransform]:
    """Return gamma, rotation by 30 degrees, zoom by 1.3 and contrast at most, each for half of the samples; no flip.

    Gamma and contrast act between the extremes of a sample, since images need not be in [0, 1].
    """
    return [
        RandomTransform(
            GammaTransform(
                gamma=inverse_gamma, p_invert_image=0, synchronize_channels=True, p_per_channel=1, p_retain_stats=0
            ),
            apply_probability=P,
        ),
        SpatialTransform(
            tuple(patch_size),
            patch_center_dist_from_border=0,
            random_crop=False,
            p_elastic_deform=0,
            p_rotation=P,
            rotation=ROTATION,
            p_scaling=0,
            bg_style_seg_sampling=False,
            border_mode_seg="constant",
            padding_value_seg=-1,
        ),
        RandomTransform(RandomZoom(LARGEST_ZOOM), apply_probability=P),
        RandomTransform(
            ContrastTransform(contrast_range=uniform_contrast, preserve_range=True, synchronize_channels=True),
            apply_probability=P,
        ),
    ]


def uniform_contrast(**_: object) -> float:
    """Draw the factor of torchvision's ColorJitter in SAMUS's code."""
    return np.random.uniform(0.8, 2.0)


def segmentation_transforms(
    use_mask_for_norm: Sequence[bool] | None, regions: Sequence | None, ignore_label: int | None
) -> list[BasicTransform]:
    """Return what nnU-Net's training transforms end with, whatever the augmentation.

    Zero outside the mask, padding (-1) to background, labels to regions: each where the dataset asks for it.
    """
    transforms: list[BasicTransform] = []
    if use_mask_for_norm is not None and any(use_mask_for_norm):
        channels = [i for i, masked in enumerate(use_mask_for_norm) if masked]
        transforms.append(MaskImageTransform(apply_to_channels=channels, channel_idx_in_seg=0, set_outside_to=0))
    transforms.append(RemoveLabelTansform(-1, 0))
    if regions is not None:
        ignored = [] if ignore_label is None else [ignore_label]
        transforms.append(ConvertSegmentationToRegionsTransform([*regions, *ignored], channel_in_seg=0))
    return transforms
