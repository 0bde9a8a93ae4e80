"""The networks of the SAMUS-HF paper's table: SAM, SAMUS and SAMUS-HF."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import nn

from nnunet_ext.architectures.samus import checkpoint
from nnunet_ext.architectures.samus.adapters import SAMUSImageEncoder
from nnunet_ext.architectures.samus.high_frequency import (
    FourthChannel,
    HighFrequencyGate,
    HighFrequencyImage,
    HighFrequencyStem,
    LiteralGate,
)
from nnunet_ext.architectures.samus.image_encoder import VIT_B, SAMImageEncoder, ViT
from nnunet_ext.architectures.samus.prompted_model import UNUSED, PromptedModel
from nnunet_ext.weights import Source, read_state_dict

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # SAM's, of RGB in 0 ... 255
STEM = (16, 32, 64, 128)  # channels; an eighth of the CNN branch's cost and parameters


class SAM(PromptedModel):
    """SAM (Kirillov et al., "Segment Anything", ICCV 2023) with a frozen image encoder.

    The mask decoder is trained, as MedSAM's first version did.

    At 256 pixels the position embedding and the global relative positions are interpolated, at 1024 they are SAM's.

    >>> from nnunet_ext.architectures.samus.image_encoder import VIT_TINY
    >>> model = SAM(vit=VIT_TINY).eval()  # SAM(), with ViT-B, has 90,737,200 parameters
    >>> image, click, foreground = torch.zeros(1, 1, 256, 256), torch.tensor([[[120.0, 88.0]]]), torch.ones(1, 1)
    >>> model.predict_low_res(image, click, foreground).shape
    torch.Size([1, 1, 64, 64])

    Args:
        vit: sizes of the transformer.
        image_size: pixels per side.
    """

    encoder = SAMImageEncoder

    def __init__(self, *, vit: ViT = VIT_B, image_size: int = 256) -> None:
        super().__init__(vit=vit, image_size=image_size)
        self.pixel_mean: torch.Tensor
        self.pixel_std: torch.Tensor
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(1, 3, 1, 1), persistent=False)

    def is_trained(self, name: str) -> bool:
        """Tell whether a parameter is of the mask decoder, less the heads that a single mask does not use."""
        return name.startswith("mask_decoder.") and re.search(UNUSED, name) is None

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Apply SAM's own normalisation and encode: (B, 1 or 3, S, S) in [0, 1] -> (B, dim, S / 16, S / 16)."""
        with torch.no_grad():  # all of it is frozen
            return self.image_encoder((255 * image - self.pixel_mean) / self.pixel_std)


class SAMUS(PromptedModel):
    """SAM's ViT at 256 x 256 with adapters, a CNN branch and cross-branch attention.

    Source: Lin et al., "SAMUS: Adapting Segment Anything Model for Clinically-Friendly and Generalizable Ultrasound
    Image Segmentation", MICCAI 2024. The arithmetic is the official code's, and so are the names in the state dict.
    133,323,568 parameters with ViT-B, of which 39,653,120 are trained. `from_checkpoint` reads the official weights.

    >>> from nnunet_ext.architectures.samus.image_encoder import VIT_TINY
    >>> model = SAMUS(vit=VIT_TINY).eval()
    >>> image, click, foreground = torch.zeros(1, 1, 256, 256), torch.tensor([[[120.0, 88.0]]]), torch.ones(1, 1)
    >>> model.predict_low_res(image, click, foreground).shape
    torch.Size([1, 1, 128, 128])

    Args:
        vit: sizes of the transformer.
        image_size: pixels per side.
        options: of the image encoder.
    """

    additions: tuple[str, ...] = (r"cnn_embed|post_pos_embed|Adapter",)
    encoder = SAMUSImageEncoder

    def is_trained(self, name: str) -> bool:
        """Tell whether SAMUS adds a parameter, or resizes it: the relative positions of the global blocks."""
        blocks = "|".join(map(str, self.vit.global_blocks))
        patterns = (*self.additions, rf"\.blocks\.({blocks})\.attn\.rel_pos")
        return any(re.search(pattern, name) for pattern in patterns)

    @classmethod
    def from_checkpoint(cls, source: Source, *, image_size: int = 256, **options: Any) -> SAMUS:
        """Return a network with the weights of an official SAMUS checkpoint or of SAM (vit_b, vit_l or vit_h).

        Args:
            source: a file, or its content.
            image_size: pixels per side.
            options: of the image encoder.

        Raises:
            InputError: no checkpoint of this architecture, missing tensors, values that are not finite.
        """
        state = read_state_dict(source)
        model = cls(vit=checkpoint.infer(state, source), image_size=image_size, **options)
        checkpoint.load(model, state, source)
        return model


class SAMUSHFImageEncoder(SAMUSImageEncoder):
    """SAMUS's image encoder whose CNN branch sees a high-frequency image of the input.

    Args:
        wavelet, normalization: see `HighFrequencyImage`.
        picture: ``high_frequency``, or ``grey`` for the control arm: the same modules see the plain image.
        fusion: ``gate`` on the branch's output before the first global block, so that all of the transformer sees it;
            ``literal_gate``, CMU-Net's; ``input``, a fourth channel of the branch's first convolution and no gate.

    Shapes: as `SAMUSImageEncoder`.
    """

    def __init__(
        self,
        *,
        vit: ViT,
        image_size: int,
        wavelet: str = "haar",
        normalization: Literal["minmax", "percentile"] = "minmax",
        picture: Literal["high_frequency", "grey"] = "high_frequency",
        fusion: Literal["gate", "literal_gate", "input"] = "gate",
    ) -> None:
        super().__init__(vit=vit, image_size=image_size)
        self.picture = None
        if picture == "high_frequency":
            self.picture = HighFrequencyImage(wavelet=wavelet, normalization=normalization)
        with torch.random.fork_rng(devices=[]):  # one seed gives SAMUS, SAMUS-HF and the control the same common parts
            self.high_frequency = nn.ModuleDict()
            if fusion == "input":
                self.high_frequency["channel"] = FourthChannel(vit.stem_channels[0])
            else:
                gate = HighFrequencyGate if fusion == "gate" else LiteralGate
                self.high_frequency["stem"] = HighFrequencyStem(features=STEM)
                self.high_frequency["gate"] = gate(channels=vit.embed_dim, hf_channels=STEM[-1])

    def branch(self, image: torch.Tensor) -> torch.Tensor:
        """Return the gated CNN branch: (B, 1 or 3, S, S) -> (B, dim, S / 8, S / 8)."""
        h = image.mean(1, keepdim=True).detach()
        if self.picture is not None:
            h = self.picture(h).to(image.dtype)
        if "channel" in self.high_frequency:
            return self.cnn_embed(image, self.high_frequency["channel"](h))
        return self.high_frequency["gate"](self.cnn_embed(image), self.high_frequency["stem"](h))


class SAMUSHF(SAMUS):
    """SAMUS with a high-frequency gate; 1,213,936 more parameters, all trained.

    With the default gate an untrained SAMUS-HF computes bit for bit what SAMUS with the same weights computes.

    >>> from nnunet_ext.architectures.samus.image_encoder import VIT_TINY
    >>> _ = torch.manual_seed(0)
    >>> plain = SAMUS(vit=VIT_TINY).eval()
    >>> _ = torch.manual_seed(0)
    >>> high_frequency = SAMUSHF(vit=VIT_TINY).eval()
    >>> image, click, foreground = torch.rand(1, 1, 256, 256), torch.tensor([[[120.0, 88.0]]]), torch.ones(1, 1)
    >>> masks = [model.predict_low_res(image, click, foreground) for model in (plain, high_frequency)]
    >>> torch.equal(*masks)
    True

    Args:
        vit, image_size: see `SAMUS`.
        options: see `SAMUSHFImageEncoder`.
    """

    additions = (*SAMUS.additions, r"\.high_frequency\.")
    encoder = SAMUSHFImageEncoder


def kind_of(state: checkpoint.State) -> type[PromptedModel]:
    """Return which of the networks a state dict has the parameters of, by what each adds to the one before it."""

    def has(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in state)

    return next(kind for kind in (SAMUSHF, SAMUS, SAM) if all(map(has, kind.additions)))
