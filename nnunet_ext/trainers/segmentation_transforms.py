"""What nnU-Net's training transforms end with, whatever the augmentation."""

from __future__ import annotations

from collections.abc import Sequence

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform


def segmentation_transforms(
    use_mask_for_norm: Sequence[bool] | None, regions: Sequence | None, ignore_label: int | None
) -> list[BasicTransform]:
    """Zero outside the mask, padding (-1) to background, labels to regions: each where the dataset asks for it."""
    transforms: list[BasicTransform] = []
    if use_mask_for_norm is not None and any(use_mask_for_norm):
        channels = [i for i, masked in enumerate(use_mask_for_norm) if masked]
        transforms.append(MaskImageTransform(apply_to_channels=channels, channel_idx_in_seg=0, set_outside_to=0))
    transforms.append(RemoveLabelTansform(-1, 0))
    if regions is not None:
        ignored = [] if ignore_label is None else [ignore_label]
        transforms.append(ConvertSegmentationToRegionsTransform([*regions, *ignored], channel_in_seg=0))
    return transforms
