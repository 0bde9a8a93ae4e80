"""From clicks to masks: SAM's prompt encoder and mask decoder, and the model that they make with an image encoder."""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any

import torch
from segment_anything.modeling import MaskDecoder as SAMMaskDecoder
from segment_anything.modeling import PromptEncoder as SAMPromptEncoder
from segment_anything.modeling import TwoWayTransformer
from torch import nn

from nnunet_ext.architectures.samus.image_encoder import VIT_B, ViT

UNUSED = r"iou_prediction_head|output_hypernetworks_mlps\.[1-9]"  # SAM's heads that a single mask does not use


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Return a context without autocast on the device, for what half precision would change."""
    if device.type in ("cpu", "cuda"):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


class PromptEncoder(SAMPromptEncoder):
    """Turns clicks into tokens. The arithmetic and the state dict are SAM's.

    SAM assigns through boolean masks, which neither export nor compilation can follow, and its random Fourier features
    would lose the click's place in half precision.
    """

    def points(self, xy: torch.Tensor, labels: torch.Tensor, *, end: bool = True) -> torch.Tensor:
        """Return the tokens of clicks and boxes.

        Args:
            xy: (..., N, 2) in pixels of the network's image, the centre of the first pixel being (0, 0).
            labels: (..., N), SAM's: 1 for foreground, 0 for background, 2 and 3 for a box's upper left and lower right
                corner, -1 for no point.
            end: with SAM's "not a point" behind them, which SAM has where there is no box.

        Returns:
            (..., N + 1 or N, dim), in the precision of the weights.
        """
        with full_precision(xy.device):
            height, width = self.input_image_size
            place = (xy.float() + 0.5) / xy.new_tensor([width, height], dtype=torch.float32)
            kinds = torch.cat([self.not_a_point_embed.weight, *(e.weight for e in self.point_embeddings)])
            is_place = (labels >= 0)[..., None].to(kinds.dtype)
            tokens = is_place * self._features(place) + kinds[labels.long() + 1]
            return torch.cat([tokens, kinds[:1].expand(*tokens.shape[:-2], 1, -1)], -2) if end else tokens

    def _features(self, place: torch.Tensor) -> torch.Tensor:
        """Return SAM's random Fourier features of places (..., 2) in [0, 1], computed in fp32: (..., dim)."""
        weights = self.pe_layer.positional_encoding_gaussian_matrix
        angles = 2 * math.pi * ((2 * place - 1) @ weights.to(place.dtype))
        return torch.cat([angles.sin(), angles.cos()], -1).to(weights.dtype)

    def image_positions(self) -> torch.Tensor:
        """Return the position of every token of the image embedding: (1, dim, h, w), as precise as the weights."""
        device = self.no_mask_embed.weight.device
        with full_precision(device):
            y, x = ((torch.arange(n, device=device) + 0.5) / n for n in self.image_embedding_size)
            place = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)
            return self._features(place).permute(2, 0, 1)[None]

    def no_mask(self) -> torch.Tensor:
        """Return the dense prompt of a request without a mask: (1, dim, 1, 1)."""
        return self.no_mask_embed.weight[..., None, None]


class MaskDecoder(SAMMaskDecoder):
    """Answers several requests to each image of a batch, one mask each. The arithmetic and the state dict are SAM's.

    SAM's own takes one image; with ``multimask_output=False`` it computes four masks and a quality estimate and keeps
    the first mask, which is all that is computed here.
    """

    def masks(
        self, embedding: torch.Tensor, positions: torch.Tensor, sparse: torch.Tensor, dense: torch.Tensor
    ) -> torch.Tensor:
        """Return the logits, four per side of a token.

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


class PromptedModel(nn.Module):
    """Encodes an image once, then makes as many masks as there are prompts.

    Subclasses say which parameters are trained (`is_trained`); `freeze` stops the gradients of the others, whose
    modules stay in evaluation mode for good. `additions` are patterns of the parameters that they add to SAM, one per
    step: a checkpoint that has none of a step's is one from before it.

    Args:
        vit: sizes of the transformer.
        image_size: S, pixels per side.
        options: of `encoder`, the class of the image encoder: (B, 1 or 3, S, S) -> (B, dim, S / stride, S / stride).
    """

    additions: tuple[str, ...] = ()
    encoder: type[Any]

    def __init__(self, *, vit: ViT = VIT_B, image_size: int = 256, **options: Any) -> None:
        super().__init__()
        grid, dim = image_size // self.encoder.stride, vit.out_channels
        self.vit = vit
        self.image_size = image_size
        self.image_encoder = self.encoder(vit=vit, image_size=image_size, **options)
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
        self.freeze()

    def is_trained(self, name: str) -> bool:
        """Tell whether the method trains the parameter of that name."""
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
        """Set the mode; modules without a trained parameter stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if not any(p.requires_grad for p in module.parameters()):
                module.training = False
        return self

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Return the embedding of images: (B, 1 or 3, S, S) in [0, 1] -> (B, dim, S / stride, S / stride)."""
        return self.image_encoder(image)

    def decode(self, embedding: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K, 4 S / stride, 4 S / stride) of K requests per image, tokens (B, K, T, dim)."""
        prompts = self.prompt_encoder
        return self.mask_decoder.masks(embedding, prompts.image_positions(), sparse, prompts.no_mask())

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width of the masks that are decoded, four per side of a token."""
        height, width = self.prompt_encoder.image_embedding_size
        return 4 * height, 4 * width

    def predict_low_res(self, image: torch.Tensor, points_xy: torch.Tensor, point_labels: torch.Tensor) -> torch.Tensor:
        """Return one mask for all clicks of an image.

        Args:
            image: (B, 1 or 3, S, S) in [0, 1].
            points_xy: (B, N, 2) in pixels.
            point_labels: (B, N), 1 for foreground and 0 for background.

        Returns:
            Logits (B, 1, 4 S / stride, 4 S / stride).
        """
        return self.decode(self.encode(image), self.prompt_encoder.points(points_xy, point_labels)[:, None])
