"""What SAMUS's official code trains with, its augmentation and its losses, and the loss of the SAMUS-HF paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

from nnunet_ext.architectures.samus.prompted_model import full_precision
from nnunet_ext.inference.prompts import ForegroundMaps

P = 0.5  # of each of the four
SMOOTH = 1e-5
Criterion = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


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
        starts = [np.random.randint(s - n + 1) for s, n in zip(shape, size, strict=True)]
        return {"part": (slice(None), *(slice(lo, lo + n) for lo, n in zip(starts, size, strict=True)))}

    def _apply_to_image(self, img: torch.Tensor, **params) -> torch.Tensor:
        part = img[params["part"]]
        return F.interpolate(part[None], size=img.shape[1:], mode="bilinear", align_corners=False)[0]

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params) -> torch.Tensor:
        part = segmentation[params["part"]]
        resized = F.interpolate(part[None].float(), size=segmentation.shape[1:], mode="nearest")[0]
        return resized.to(segmentation.dtype)


def inverse_gamma(**_: object) -> float:
    """Draw 1 / g for one of SAMUS's g = 1.0, 1.1, ..., 2.4."""
    return 1 / (1 + 0.1 * np.random.randint(15))


def uniform_contrast(**_: object) -> float:
    """Draw the factor of torchvision's ColorJitter in SAMUS's code."""
    return np.random.uniform(0.8, 2.0)


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
            rotation=(-np.pi / 6, np.pi / 6),
            p_scaling=0,
            bg_style_seg_sampling=False,
            border_mode_seg="constant",
            padding_value_seg=-1,
        ),
        RandomTransform(RandomZoom(1.3), apply_probability=P),
        RandomTransform(
            ContrastTransform(contrast_range=uniform_contrast, preserve_range=True, synchronize_channels=True),
            apply_probability=P,
        ),
    ]


def dice_loss(z: torch.Tensor, t: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return 1 - (2 sum(p t) + s) / (sum(p^2) + sum(t^2) + s), the sums over all pixels of the batch (SAMUS's code)."""
    p, t = torch.sigmoid(z) * valid, t * valid
    dims = (0, 2, 3)
    dice = (2 * (p * t).sum(dims) + SMOOTH) / ((p * p).sum(dims) + (t * t).sum(dims) + SMOOTH)
    return 1 - dice.mean()


def dice_mse(z: torch.Tensor, t: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return Dice + mean squared error of the probabilities: the loss of the SAMUS-HF paper.

    Shapes: logits z, maps t (B, K, H, W), valid (B, 1, H, W), all float.
    """
    return dice_loss(z, t, valid) + _mean((torch.sigmoid(z) - t) ** 2, valid)


def dice_bce(z: torch.Tensor, t: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return 0.8 Dice + 0.2 binary cross-entropy with foreground counted twice: the loss of SAMUS's official code.

    Shapes: as `dice_mse`.
    """
    bce = F.binary_cross_entropy_with_logits(z, t, pos_weight=z.new_tensor(2.0), reduction="none")
    return 0.8 * dice_loss(z, t, valid) + 0.2 * _mean(bce, valid)


def _mean(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return (x * valid).sum() / (valid.sum() * x.shape[1]).clamp_min(1)


class ForegroundLoss(nn.Module):
    """A criterion on the logits that a `PromptableSegmenter` emits, in full precision.

    The target is resized to the logits, nearest neighbour, as SAMUS does for its loss at 128 x 128.

    Args:
        criterion: `dice_mse` or `dice_bce`.
        maps: how nnU-Net's segmentations are to be read.
    """

    def __init__(self, *, criterion: Criterion, maps: ForegroundMaps) -> None:
        super().__init__()
        self.criterion, self.maps = criterion, maps

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits (B, C, h, w) against a segmentation (B, 1 or regions, H, W)."""
        maps, valid = (F.interpolate(m.float(), size=output.shape[-2:], mode="nearest") for m in self.maps(target))
        with full_precision(output.device):
            z = output.float()
            return self.criterion(z if self.maps.has_regions else z[:, 1:], maps, valid)
