"""SAMUS-HF: SAMUS with high-frequency information from a wavelet transform in its CNN branch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from nnunet_ext.architectures.samus.hf_gate import HighFrequencyGate
from nnunet_ext.architectures.samus.hf_stem import HighFrequencyStem
from nnunet_ext.architectures.samus.high_frequency import HighFrequencyImage
from nnunet_ext.architectures.samus.image_encoder import Checkpointing, SAMUSImageEncoder
from nnunet_ext.architectures.samus.multi_scale_attention_gate import MultiScaleAttentionGate
from nnunet_ext.architectures.samus.samus import SAMUS
from nnunet_ext.architectures.samus.vit import ViT

Picture = Literal["high_frequency", "grey"]
Fusion = Literal["gate", "literal_gate", "input"]
STEM = (16, 32, 64, 128)  # channels; an eighth of the CNN branch's cost and parameters


class GreyImage(nn.Module):
    """The control arm: the image itself where SAMUS-HF sees its high frequencies.

    Shapes: (B, 1, S, S) -> (B, 1, S, S), without gradients.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.detach().float()


class LiteralGate(nn.Module):
    """Add the high-frequency features to the CNN branch, then CMU-Net's gate as it was published.

    Shapes: c (B, channels, H, W), h (B, hf_channels, H, W) -> (B, channels, H, W).
    """

    def __init__(self, *, channels: int, hf_channels: int) -> None:
        super().__init__()
        self.inject = nn.Conv2d(hf_channels, channels, 1)
        self.gate = MultiScaleAttentionGate(channels)

    def forward(self, c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return self.gate(c + self.inject(h))


class FourthChannel(nn.Conv2d):
    """A fourth input channel of the CNN branch's first convolution, as a summand of its output.

    Its weights begin at zero, hence with SAMUS; kept apart, so that the other three channels load from a SAMUS file.

    Shapes: H (B, 1, S, S) -> (B, channels, S, S).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.weight)


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
        checkpointing: Checkpointing = "none",
        wavelet: str = "haar",
        normalization: Literal["minmax", "percentile"] = "minmax",
        picture: Picture = "high_frequency",
        fusion: Fusion = "gate",
    ) -> None:
        super().__init__(vit=vit, image_size=image_size, checkpointing=checkpointing)
        grey = picture == "grey"
        self.picture = GreyImage() if grey else HighFrequencyImage(wavelet=wavelet, normalization=normalization)
        with torch.random.fork_rng(devices=[]):  # one seed gives SAMUS, SAMUS-HF and the control the same common parts
            self.high_frequency = nn.ModuleDict()
            if fusion == "input":
                self.high_frequency["channel"] = FourthChannel(vit.stem_channels[0])
            else:
                gate = HighFrequencyGate if fusion == "gate" else LiteralGate
                self.high_frequency["stem"] = HighFrequencyStem(features=STEM)
                self.high_frequency["gate"] = gate(channels=vit.embed_dim, hf_channels=STEM[-1])

    def branch(self, image: torch.Tensor) -> torch.Tensor:
        """The gated CNN branch: (B, 1 or 3, S, S) -> (B, dim, S / 8, S / 8)."""
        h = self.picture(image.mean(1, keepdim=True)).to(image.dtype)
        if "channel" in self.high_frequency:
            return self.cnn_embed(image, self.high_frequency["channel"](h))
        return self.high_frequency["gate"](self.cnn_embed(image), self.high_frequency["stem"](h))


class SAMUSHF(SAMUS):
    """SAMUS with a high-frequency gate; 1,213,936 more parameters, all trained.

    With the default gate an untrained SAMUS-HF computes bit for bit what SAMUS with the same weights computes.

    Args:
        vit, image_size: see `SAMUS`.
        options: see `SAMUSHFImageEncoder`.
    """

    additions = (*SAMUS.additions, r"\.high_frequency\.")
    encoder = SAMUSHFImageEncoder
