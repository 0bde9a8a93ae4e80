"""SAM's mask decoder for batches."""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder as SAMMaskDecoder


class MaskDecoder(SAMMaskDecoder):
    """Several requests to each image of a batch, one mask each. The arithmetic and the state dict are SAM's.

    SAM's own takes one image; with ``multimask_output=False`` it computes four masks and a quality estimate and keeps
    the first mask, which is all that is computed here.
    """

    def masks(
        self, embedding: torch.Tensor, positions: torch.Tensor, sparse: torch.Tensor, dense: torch.Tensor
    ) -> torch.Tensor:
        """Logits at a quarter of a token.

        Args:
            embedding: (B, dim, h, w) of the images.
            positions: (1, dim, h, w).
            sparse: (B, K, T, dim), T tokens for each of K requests.
            dense: (1, dim, 1, 1) or (1, dim, h, w).

        Returns:
            (B, K, 4 h, 4 w)
        """
        batch, requests = sparse.shape[:2]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(batch * requests, -1, -1), sparse.flatten(0, 1)], 1)
        image = (embedding + dense).repeat_interleave(requests, 0)
        tokens, pixels = self.transformer(image, positions.expand_as(image), tokens)
        upscaled = self.output_upscaling(pixels.transpose(1, 2).reshape(image.shape))
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1])  # token 0 is the quality's, 1 the first mask's
        return torch.einsum("bc,bchw->bhw", weights, upscaled).unflatten(0, (batch, requests))
