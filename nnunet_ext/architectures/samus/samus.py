"""SAMUS (Lin et al., "SAMUS: Adapting Segment Anything Model for Clinically-Friendly and Generalizable Ultrasound
Image Segmentation", MICCAI 2024)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nnunet_ext.architectures.samus import checkpoint
from nnunet_ext.architectures.samus.image_encoder import SAMUSImageEncoder
from nnunet_ext.architectures.samus.model import PromptedModel
from nnunet_ext.architectures.samus.vit import VIT_B, ViT


class SAMUS(PromptedModel):
    """SAM's ViT at 256 x 256 with adapters, a CNN branch and cross-branch attention.

    The arithmetic is the official code's, and so are the names in the state dict. 133,323,568 parameters with ViT-B,
    of which 39,653,120 are trained.

    Args:
        vit: sizes of the transformer.
        image_size: pixels per side.
        options: of the image encoder.
    """

    additions = (r"cnn_embed|post_pos_embed|Adapter",)
    encoder = SAMUSImageEncoder

    def __init__(self, *, vit: ViT = VIT_B, image_size: int = 256, **options: Any) -> None:
        super().__init__(
            image_encoder=self.encoder(vit=vit, image_size=image_size, **options),
            image_size=image_size,
            stride=self.encoder.stride,
            dim=vit.out_channels,
        )
        self.vit = vit
        self.freeze()

    def is_trained(self, name: str) -> bool:
        """What SAMUS adds, and the relative positions of the global blocks, which it resizes."""
        blocks = "|".join(map(str, self.vit.global_blocks))
        patterns = (*self.additions, rf"\.blocks\.({blocks})\.attn\.rel_pos")
        return any(re.search(pattern, name) for pattern in patterns)

    @classmethod
    def from_checkpoint(
        cls, source: str | Path | Mapping[str, torch.Tensor], *, image_size: int = 256, **options: Any
    ) -> SAMUS:
        """A network with the weights of an official SAMUS checkpoint or of SAM (vit_b, vit_l or vit_h).

        Args:
            source: a file, or its content.
            image_size: pixels per side.
            options: of the image encoder.

        Raises:
            InputError: no checkpoint of this architecture, missing tensors, values that are not finite.
        """
        state = checkpoint.read(source)
        model = cls(vit=checkpoint.infer(state, source), image_size=image_size, **options)
        checkpoint.load(model, state, source)
        return model
