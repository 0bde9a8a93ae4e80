"""A prompted model as nnU-Net wants a network: an image of any size in, one channel per class out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from nnunet_ext.architectures.samus.prompted_model import PromptedModel
from nnunet_ext.common.errors import InputError, clicks_needed


def check_channels(channels: int, taker: str) -> None:
    """Raise InputError for a number of channels that SAM's family cannot take."""
    if channels not in (1, 3):
        raise InputError(
            f"{taker} takes one grey channel or three of colour, not {channels} channels.",
            hint="Make a dataset of one of the channels.",
        )


class LearnedPrompts(nn.Module):
    """Two tokens per class that stand for "the usual object", so that no click is needed.

    They begin as what a click in the middle of the image would be. nnU-Net leaves `seg_layers` out when pretrained
    weights are transferred to another number of classes.
    """

    def __init__(self, *, classes: int, dim: int) -> None:
        super().__init__()
        self.seg_layers = nn.ParameterDict({"tokens": nn.Parameter(torch.zeros(classes, 2, dim))})

    def forward(self, batch: int) -> torch.Tensor:
        """Return the tokens of a batch: (B, classes, 2, dim)."""
        return self.seg_layers["tokens"].expand(batch, -1, -1, -1)

    @torch.no_grad()
    def reset(self, model: PromptedModel) -> None:
        """Set the tokens to the model's embedding of a click."""
        middle = self.seg_layers["tokens"].new_full((1, 2), (model.image_size - 1) / 2)
        self.seg_layers["tokens"].copy_(model.prompt_encoder.points(middle, torch.ones(1, device=middle.device)))


class PromptableSegmenter(nn.Module):
    """Resizes to the model's image size and back, and asks for one mask per class.

    Every class has its own logit z. Where nnU-Net's channels are classes, background included, they are
    [0, z_1, ..., z_K], so that softmax is sigmoid for one class and argmax is right for more; where they are regions,
    they are the z alone. However many classes, the image is encoded once.

    Args:
        model: SAM, SAMUS or SAMUS-HF.
        in_channels: of the image; 1, or 3 for colour.
        out_channels: nnU-Net's channels.
        has_regions: whether these are regions.
        learned_prompts: answer without a click as well.
        rescale: bring every sample to [0, 1], for plans whose normalisation does not.

    Raises:
        InputError: neither 1 nor 3 input channels; or no click where there are no learned prompts.
    """

    def __init__(
        self,
        *,
        model: PromptedModel,
        in_channels: int = 1,
        out_channels: int = 2,
        has_regions: bool = False,
        learned_prompts: bool = True,
        rescale: bool = False,
    ) -> None:
        super().__init__()
        check_channels(in_channels, type(model).__name__)
        self.model = model
        self.has_regions = has_regions
        self.rescale = rescale
        self.classes = out_channels if has_regions else out_channels - 1
        self.prompts = None
        if learned_prompts:
            self.prompts = LearnedPrompts(classes=self.classes, dim=model.prompt_encoder.embed_dim)
            self.prompts.reset(model)

    def forward(
        self,
        image: torch.Tensor,
        points: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        clicked: torch.Tensor | None = None,
        more_points: torch.Tensor | None = None,
        more_labels: torch.Tensor | None = None,
        corrected: torch.Tensor | None = None,
        end: bool = True,
        low_res: bool = False,
    ) -> torch.Tensor:
        """Return the logits.

        Args:
            image: (B, in_channels, H, W).
            points: clicks or corners of boxes (B, classes, N, 2) as (x, y) in pixels of `image`; None: the learned
                prompts.
            labels: (B, classes, N), SAM's, as for `PromptEncoder.points`.
            clicked: (B,), where a sample's points count and not the learned prompts, which are two tokens; None:
                everywhere.
            more_points, more_labels: points (B, classes, M, 2) with labels (B, classes, M) that are added to the others
                where a sample is `corrected`. Those are decoded apart, for other numbers of tokens are other requests.
            corrected: (B,).
            end: end the points with SAM's "not a point".
            low_res: leave the logits at the model's resolution, where SAMUS computes its loss.

        Returns:
            (B, out_channels, H, W), or (B, out_channels, h, w) with `low_res`.
        """
        size = image.shape[-2:]
        if points is None or labels is None:
            tokens = chosen = self.learned(len(image))
        else:
            tokens = chosen = self.model.prompt_encoder.points(self.to_model(points, size), labels, end=end)
            if clicked is not None and self.prompts is not None:
                chosen = torch.where(clicked[:, None, None, None], tokens, self.prompts(len(image)))
        embedding = self.embed(image)
        z = self.model.decode(embedding, chosen)
        if more_points is not None and more_labels is not None and corrected is not None:
            more = self.model.prompt_encoder.points(self.to_model(more_points, size), more_labels, end=False)
            corrected_z = self.model.decode(embedding, torch.cat([tokens, more], -2))
            z = torch.where(corrected[:, None, None, None], corrected_z, z)
        return self.emit(z, None if low_res else size)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Return the model's embedding of images (B, in_channels, H, W)."""
        if self.rescale:
            low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
            image = (image - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)
        inner = self.model.image_size
        shrunk = any(s > inner for s in image.shape[-2:])  # then antialiased, as the SAMUSPlanner's plans resize
        size = (inner, inner)
        return self.model.encode(
            F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=shrunk)
        )

    def to_model(self, points: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Convert (x, y) in pixels of an image of `size` (H, W) to pixels of the model's image."""
        scale = self.model.image_size / points.new_tensor([size[1], size[0]], dtype=torch.float32)
        return (points + 0.5) * scale - 0.5

    def learned(self, batch: int) -> torch.Tensor:
        """Return the tokens that stand for no click: (B, classes, 2, dim)."""
        if self.prompts is None:
            raise clicks_needed()
        return self.prompts(batch)

    def emit(self, z: torch.Tensor, size: Sequence[int] | None) -> torch.Tensor:
        """Turn one logit per class into nnU-Net's channels, resized to `size` unless that is None."""
        if size is not None:
            z = self.resized(z, size)
        return z if self.has_regions else torch.cat([torch.zeros_like(z[:, :1]), z], 1)

    def resized(self, z: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Resize logits (B, K, h, w) to `size` (H, W)."""
        return F.interpolate(z, size=tuple(size), mode="bilinear", align_corners=False)
