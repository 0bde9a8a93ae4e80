"""Clicks, boxes and corrections in a person's place, for training with prompts.

Boxes and corrections follow the rules by which SAM was trained (Kirillov et al., Segment Anything, ICCV 2023, appendix
A, "Training algorithm"), but that a mask is not given back to the network as a prompt. Clicks are SAMUS's, see
`random_clicks`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from nnunet_ext.inference.prompts import random_clicks, tight_boxes

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


def simulated_prompts(
    maps: torch.Tensor,
    valid: torch.Tensor,
    generator: torch.Generator,
    *,
    clicked_share: float,
    box_share: float,
    correction_share: float,
    masks_of: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> dict[str, torch.Tensor | bool]:
    """Draw the prompts of a batch, one request per sample and class.

    Args:
        maps, valid: foreground (B, K, H, W) and pixels that count (B, 1, H, W), bool, on the CPU.
        generator: of all that is drawn, the same numbers whatever the masks.
        clicked_share: of samples that have prompts at all.
        box_share: of samples that have boxes in place of clicks, where a map has foreground.
        correction_share: of samples with prompts, whose mask is corrected by a click on an error.
        masks_of: makes masks (b, K, H, W), bool, of the samples chosen in (B,) from points (B, K, 2, 2) with labels
            (B, K, 2).

    Returns:
        What `PromptableSegmenter` takes with the image.
    """
    clicks, signs = random_clicks(maps, valid, generator)
    points = torch.cat([clicks, torch.zeros_like(clicks)], -2)
    labels = torch.cat([signs, torch.full_like(signs, -1)], -1)  # SAM's "not a point" behind a click
    clicked = torch.rand(len(maps), generator=generator) < clicked_share
    if box_share:
        corners, found = jittered_boxes(maps, generator)
        boxed = (torch.rand(len(maps), 1, generator=generator) < box_share) & found
        points = torch.where(boxed[..., None, None], corners, points)
        labels = torch.where(boxed[..., None], torch.tensor([2, 3]), labels)  # and none behind a box
    prompts: dict[str, torch.Tensor | bool] = {"points": points, "labels": labels, "clicked": clicked, "end": False}
    corrected = clicked & (torch.rand(len(maps), generator=generator) < correction_share) if correction_share else None
    if corrected is not None and corrected.any():
        masks = maps.clone()
        masks[corrected] = masks_of(corrected, points, labels)
        more_points, more_labels = correcting_clicks(masks, maps, valid, generator)
        prompts |= {"more_points": more_points, "more_labels": more_labels, "corrected": corrected}
    return prompts


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
    tight, found = tight_boxes(maps)
    sides = tight.diff(dim=-2) + 1
    noise = torch.randn((*maps.shape[:2], 2, 2), generator=generator) * JITTER * sides
    corners = tight + noise.clamp(-LARGEST_JITTER, LARGEST_JITTER)
    corners = corners.sort(-2).values.clamp_min(0)
    return torch.minimum(corners, corners.new_tensor([width - 1, height - 1])), found


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
