"""The losses of SAMUS: every class, or region, is a map of its own against everything else."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

from nnunet_ext.architectures.samus.prompted_model import full_precision
from nnunet_ext.inference.prompts import ForegroundMaps

SMOOTH = 1e-5
Criterion = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


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
