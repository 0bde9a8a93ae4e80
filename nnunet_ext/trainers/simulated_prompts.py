"""Boxes and corrections in a person's place, for training with prompts, and the generator that all of them follow.

The rules are those by which SAM was trained (Kirillov et al., Segment Anything, ICCV 2023, appendix A, "Training
algorithm"). Clicks are SAMUS's, see `random_clicks`.
"""

from __future__ import annotations

import numpy as np
import torch

from nnunet_ext.inference.prompts import random_clicks

CLICKS = 2**32 - 3  # stands where an epoch stands in the entropy of a seed
JITTER, LARGEST_JITTER = 0.1, 20  # of a box: standard deviation as a share of the side, and pixels at most


def seed_clicks(generator: torch.Generator, seed: int | None, epoch: int, rank: int) -> None:
    """Seed the generator of clicks for an epoch, apart from everything else that is random.

    Args:
        seed: of the training; None: at random.
    """
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(int(np.random.SeedSequence((seed, CLICKS, epoch, rank)).generate_state(1)[0]))


def jittered_boxes(maps: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a loose box around the foreground of each map.

    Every coordinate of the box is moved by normal noise with a standard deviation of a tenth of the box's side, by 20
    pixels at most, and stays in the image.

    Args:
        maps: (B, K, H, W), bool, on the CPU.
        generator: of the noise.

    Returns:
        Corners as (x, y) in pixels (B, K, 2, 2), upper left first, and which maps have foreground and so a box (B, K).
    """
    height, width = maps.shape[-2:]
    rows, columns = maps.any(-1), maps.any(-2)
    low = torch.stack([_first(columns), _first(rows)], -1)
    high = torch.stack([width - 1 - _first(columns.flip(-1)), height - 1 - _first(rows.flip(-1))], -1)
    sides = (high - low + 1)[..., None, :]
    noise = torch.randn((*maps.shape[:2], 2, 2), generator=generator) * JITTER * sides
    corners = torch.stack([low, high], -2) + noise.clamp(-LARGEST_JITTER, LARGEST_JITTER)
    corners = corners.sort(-2).values.clamp_min(0)
    return torch.minimum(corners, corners.new_tensor([width - 1, height - 1])), rows.any(-1)


def _first(found: torch.Tensor) -> torch.Tensor:
    """Return the index of the first True along the last axis; 0 where there is none."""
    return found.int().argmax(-1)


def correcting_clicks(
    masks: torch.Tensor, maps: torch.Tensor, valid: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Click once per map on a pixel where a mask is wrong, each as likely as the other.

    The click is on the foreground where the mask lacks something, and on the background where it has too much. Where a
    mask is right, it is anywhere and confirms.

    Shapes: masks and maps (B, K, H, W) and pixels that count (B, 1, H, W), bool, on the CPU -> (x, y) in pixels
    (B, K, 1, 2), labels (B, K, 1).
    """
    points, _ = random_clicks(masks ^ maps, valid, generator)
    x, y = points.long().unbind(-1)
    return points, maps.flatten(2).gather(-1, y * maps.shape[-1] + x).long()
