"""What SAM, SAMUS and SAMUS-HF have in common: an image encoder, SAM's prompt encoder and SAM's mask decoder."""

from __future__ import annotations

import re

import torch
from segment_anything.modeling import TwoWayTransformer
from torch import nn

from nnunet_ext.architectures.samus.mask_decoder import MaskDecoder
from nnunet_ext.architectures.samus.prompt_encoder import PromptEncoder

UNUSED = r"iou_prediction_head|output_hypernetworks_mlps\.[1-9]"  # SAM's heads that a single mask does not use


class PromptedModel(nn.Module):
    """Encode an image once, then ask for as many masks as there are prompts.

    Subclasses say which parameters are trained (`is_trained`); `freeze` stops the gradients of the others, whose
    modules stay in evaluation mode for good. `additions` are patterns of the parameters that they add to SAM, one per
    step: a checkpoint that has none of a step's is one from before it.

    Args:
        image_encoder: (B, 1 or 3, S, S) -> (B, dim, S / stride, S / stride).
        image_size: S, pixels per side.
        stride: pixels per token.
        dim: channels of the image embedding.
    """

    additions: tuple[str, ...] = ()

    def __init__(self, *, image_encoder: nn.Module, image_size: int, stride: int, dim: int) -> None:
        super().__init__()
        grid = image_size // stride
        self.image_size = image_size
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        )
        self.mask_decoder = MaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(depth=2, embedding_dim=dim, num_heads=8, mlp_dim=8 * dim),
        )

    def is_trained(self, name: str) -> bool:
        """Whether the method trains the parameter of that name."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Train what the method trains and nothing else."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.is_trained(name))
        self.train(self.training)

    def train_all(self) -> None:
        """Train everything that an output depends on, for networks that begin at random; prompts stay as they are."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith("prompt_encoder.") and re.search(UNUSED, name) is None)
        self.train(self.training)

    def train(self, mode: bool = True) -> PromptedModel:
        """Modules without a trained parameter stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if not any(p.requires_grad for p in module.parameters()):
                module.training = False
        return self

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1 or 3, S, S) in [0, 1] -> embedding (B, dim, S / stride, S / stride)."""
        return self.image_encoder(image)

    def decode(self, embedding: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        """Embedding and tokens (B, K, T, dim) of K requests per image -> logits (B, K, 4 S / stride, 4 S / stride)."""
        prompts = self.prompt_encoder
        return self.mask_decoder.masks(embedding, prompts.image_positions(), sparse, prompts.no_mask())

    def predict_low_res(self, image: torch.Tensor, points_xy: torch.Tensor, point_labels: torch.Tensor) -> torch.Tensor:
        """One mask for all clicks of an image.

        Args:
            image: (B, 1 or 3, S, S) in [0, 1].
            points_xy: (B, N, 2) in pixels.
            point_labels: (B, N), 1 for foreground and 0 for background.

        Returns:
            Logits (B, 1, 4 S / stride, 4 S / stride).
        """
        return self.decode(self.encode(image), self.prompt_encoder.points(points_xy, point_labels)[:, None])
