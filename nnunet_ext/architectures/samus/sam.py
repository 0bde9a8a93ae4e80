"""SAM itself (Kirillov et al., "Segment Anything", ICCV 2023), the row that SAMUS is compared with."""

from __future__ import annotations

import re

import torch

from nnunet_ext.architectures.samus.image_encoder import PATCH, SAMImageEncoder
from nnunet_ext.architectures.samus.model import UNUSED, PromptedModel
from nnunet_ext.architectures.samus.vit import VIT_B, ViT

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # SAM's, of RGB in 0 ... 255


class SAM(PromptedModel):
    """SAM with a frozen image encoder; the mask decoder is trained, as MedSAM's first version did.

    At 256 pixels the position embedding and the global relative positions are interpolated, at 1024 they are SAM's.

    Args:
        vit: sizes of the transformer.
        image_size: pixels per side.
    """

    def __init__(self, *, vit: ViT = VIT_B, image_size: int = 256) -> None:
        super().__init__(
            image_encoder=SAMImageEncoder(vit=vit, image_size=image_size),
            image_size=image_size,
            stride=PATCH,
            dim=vit.out_channels,
        )
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(1, 3, 1, 1), persistent=False)
        self.freeze()

    def is_trained(self, name: str) -> bool:
        """The mask decoder, less the heads that a single mask does not use."""
        return name.startswith("mask_decoder.") and re.search(UNUSED, name) is None

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1 or 3, S, S) in [0, 1] -> embedding (B, dim, S / 16, S / 16), after SAM's own normalisation."""
        with torch.no_grad():  # all of it is frozen
            return self.image_encoder((255 * image - self.pixel_mean) / self.pixel_std)
