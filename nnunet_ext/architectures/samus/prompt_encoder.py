"""SAM's prompt encoder, in full precision and without branches on the data."""

from __future__ import annotations

import torch
from segment_anything.modeling import PromptEncoder as SAMPromptEncoder

from nnunet_ext.architectures.samus.precision import full_precision


class PromptEncoder(SAMPromptEncoder):
    """Clicks to tokens. The arithmetic and the state dict are SAM's.

    SAM assigns through boolean masks, which neither export nor compilation can follow, and its random Fourier features
    would lose the click's place in half precision.
    """

    def points(self, xy: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Tokens of clicks, and SAM's "not a point" behind them.

        Args:
            xy: (..., N, 2) in pixels of the network's image, the centre of the first pixel being (0, 0).
            labels: (..., N), 1 for foreground and 0 for background.

        Returns:
            (..., N + 1, dim), in fp32.
        """
        with full_precision(xy.device):
            height, width = self.input_image_size
            place = (xy.float() + 0.5) / xy.new_tensor([width, height], dtype=torch.float32)
            positive, negative = self.point_embeddings[1].weight[0], self.point_embeddings[0].weight[0]
            tokens = self.pe_layer._pe_encoding(place) + torch.where(labels[..., None] == 1, positive, negative)
            end = self.not_a_point_embed.weight.expand(*tokens.shape[:-2], 1, -1)
            return torch.cat([tokens, end], -2)

    def image_positions(self) -> torch.Tensor:
        """Position of every token of the image embedding: (1, dim, h, w), in fp32."""
        with full_precision(self.no_mask_embed.weight.device):
            return self.get_dense_pe()

    def no_mask(self) -> torch.Tensor:
        """The dense prompt of a request without a mask: (1, dim, 1, 1)."""
        return self.no_mask_embed.weight[..., None, None]
