"""Prediction of one preprocessed case from clicks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image

from nnunet_ext.architectures.samus.promptable import PromptableSegmenter
from nnunet_ext.inference.clicks import fixed_clicks
from nnunet_ext.losses import ForegroundMaps


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """The clicks on one class in one slice of a preprocessed case.

    Shapes: xy (N, 2) in pixels of the preprocessed slice, labels (N,), 1 for foreground and 0 for background.
    """

    xy: torch.Tensor
    labels: torch.Tensor


Prompts = Mapping[tuple[int, int], Clicks]  # by (slice, class), classes counted from 0 without the background


def clicks_from_reference(seg: torch.Tensor, maps: ForegroundMaps, regions: Sequence | None) -> dict:
    """One click per slice and class by the papers' rule for tests, see `fixed_clicks`.

    Args:
        seg: preprocessed reference (1, z, y, x), labels, -1 outside of the image.
        maps: how labels are to be read.
        regions: nnU-Net's foreground regions, where the classes are regions.

    Returns:
        `Prompts`
    """
    slices = seg.transpose(0, 1)
    if maps.has_regions:
        found = torch.cat([torch.isin(slices, torch.tensor(region)) for region in regions], 1)
    else:
        found, _ = maps(slices)
    inside = slices >= 0
    if maps.ignore_label is not None:
        inside &= slices != maps.ignore_label
    points, labels = fixed_clicks(found, inside)
    return {
        (z, k): Clicks(xy=points[z, k], labels=labels[z, k]) for z in range(len(points)) for k in range(points.shape[1])
    }


@torch.inference_mode()
def prompted_logits(
    network: PromptableSegmenter,
    data: torch.Tensor,
    prompts: Prompts,
    *,
    patch_size: Sequence[int],
    device: torch.device,
) -> torch.Tensor:
    """Logits of a case, slice by slice; a class without clicks is asked for with the learned prompt.

    A click belongs to a whole image, which is therefore never cut into patches but resized by the network.

    Args:
        network: in evaluation mode, on `device`.
        data: preprocessed image (c, z, y, x).
        prompts: the clicks.
        patch_size: (H, W) of the plan; smaller images are padded to it, as nnU-Net does.

    Returns:
        (channels, z, y, x), on the CPU.

    Raises:
        InputError: no click and no learned prompt.
    """
    padded, inner = pad_nd_image(data, list(patch_size), "constant", {"value": 0}, True)
    top, left = inner[-2].start, inner[-1].start
    size = tuple(padded.shape[-2:])
    out = []
    for z in range(padded.shape[1]):
        embedding = network.embed(padded[:, z][None].to(device))
        masks = []
        for k in range(network.classes):
            clicks = prompts.get((z, k))
            if clicks is None:
                tokens = network.learned(1)[:, k : k + 1]
            else:
                xy = clicks.xy.to(device) + torch.tensor([left, top], device=device)
                tokens = network.model.prompt_encoder.points(network.to_model(xy, size), clicks.labels.to(device))
                tokens = tokens[None, None]
            masks.append(network.model.decode(embedding, tokens))
        out.append(network.emit(torch.cat(masks, 1), size)[0].float().cpu())
    return torch.stack(out, 1)[(slice(None), *inner[1:])]
