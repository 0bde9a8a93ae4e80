"""Clicks from a reference segmentation, by the rules of SAMUS's official code."""

from __future__ import annotations

import torch


def random_clicks(
    maps: torch.Tensor, valid: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One click per map on a pixel of the foreground, each as likely as the other; the rule of training.

    A map without foreground gets a click on its background, labelled 0.

    Shapes: maps (B, K, H, W) and pixels that count (B, 1, H, W), bool, on the CPU -> (x, y) in pixels (B, K, 1, 2),
    labels (B, K, 1).
    """
    candidates, labels = _candidates(maps, valid)
    picked = torch.multinomial(candidates.flatten(0, 1).float(), 1, generator=generator)
    return _points(picked.view(*maps.shape[:2], 1), maps), labels


def fixed_clicks(maps: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle one of the foreground pixels in reading order; the rule of validation and test.

    Shapes: as `random_clicks`.
    """
    candidates, labels = _candidates(maps, valid)
    order = candidates.cumsum(-1)
    picked = (order == order[..., -1:] // 2 + 1).int().argmax(-1, keepdim=True)
    return _points(picked, maps), labels


def _candidates(maps: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels that may be clicked (B, K, H W) and the label of the click (B, K, 1)."""
    valid = valid | ~valid.any((-2, -1), keepdim=True)  # where nothing counts, a click anywhere does no harm
    foreground, background = (maps & valid).flatten(2), (~maps & valid).flatten(2)
    any_foreground = foreground.any(-1, keepdim=True)
    return torch.where(any_foreground, foreground, background), any_foreground.long()


def _points(index: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    width = maps.shape[-1]
    return torch.stack([index % width, index // width], -1).float()
