"""The rows of the SAMUS-HF paper's table as nnU-Net trainers."""

from __future__ import annotations

from typing import Any, ClassVar

from nnunet_ext.architectures.samus.image_encoder import VIT_H, VIT_L, VIT_TINY
from nnunet_ext.architectures.samus.models import SAM, SAMUS, SAMUSHF
from nnunet_ext.architectures.samus.prompted_model import PromptedModel
from nnunet_ext.trainers.prompted_recipe import PromptedRecipe


class nnUNetTrainerSAMUS(PromptedRecipe):
    """SAMUS: SAM's ViT-B with adapters, a CNN branch and cross-branch attention."""

    model = SAMUS


class nnUNetTrainerSAMUSHF(nnUNetTrainerSAMUS):
    """SAMUS-HF: SAMUS whose CNN branch is gated by the high frequencies of a Haar transform."""

    model = SAMUSHF


class nnUNetTrainerSAMUSHFControl(nnUNetTrainerSAMUSHF):
    """The control arm: SAMUS-HF's additional modules see the plain image, so that only the wavelet is missing."""

    model_options: ClassVar[dict[str, Any]] = {"picture": "grey"}


class nnUNetTrainerSAM(PromptedRecipe):
    """SAM at 256 x 256 with a frozen image encoder; its mask decoder is trained."""

    model = SAM


class nnUNetTrainerSAM1024(nnUNetTrainerSAM):
    """SAM at its own 1024 x 1024."""

    image_size = 1024


class nnUNetTrainerSAMUSClick(nnUNetTrainerSAMUS):
    """SAMUS trained and validated with clicks from the reference only, as the papers do."""

    prompts = "click"


class nnUNetTrainerSAMUSHFClick(nnUNetTrainerSAMUSHF):
    """SAMUS-HF with clicks only."""

    prompts = "click"


class nnUNetTrainerSAMUSHFControlClick(nnUNetTrainerSAMUSHFControl):
    """The control arm with clicks only."""

    prompts = "click"


class nnUNetTrainerSAMClick(nnUNetTrainerSAM):
    """SAM with clicks only."""

    prompts = "click"


class nnUNetTrainerSAMUSDiceBCE(nnUNetTrainerSAMUS):
    """SAMUS with its official code's loss, 0.8 Dice + 0.2 BCE."""

    loss_name = "dice_bce"


class nnUNetTrainerSAMUSHFDiceBCE(nnUNetTrainerSAMUSHF):
    """SAMUS-HF with the loss of SAMUS's official code, 0.8 Dice + 0.2 BCE."""

    loss_name = "dice_bce"


class nnUNetTrainerSAMUSHFBestDice(nnUNetTrainerSAMUSHF):
    """SAMUS-HF whose checkpoint_best is nnU-Net's: by the moving average of the validation Dice."""

    best_by = "ema_dice"


class nnUNetTrainerSAMUSHFLiteralGate(nnUNetTrainerSAMUSHF):
    """SAMUS-HF with CMU-Net's gate as published: it enhances only, and training does not begin with SAMUS."""

    model_options: ClassVar[dict[str, Any]] = {"fusion": "literal_gate"}


class nnUNetTrainerSAMUSHFInput(nnUNetTrainerSAMUSHF):
    """SAMUS-HF with the high frequencies as a fourth input channel of the CNN branch, and no gate."""

    model_options: ClassVar[dict[str, Any]] = {"fusion": "input"}


class nnUNetTrainerSAMUSHFPercentile(nnUNetTrainerSAMUSHF):
    """SAMUS-HF whose bands are stretched between percentiles, for padded images: their edges outshine all tissue."""

    model_options: ClassVar[dict[str, Any]] = {"normalization": "percentile"}


class nnUNetTrainerSAMUSHFViTL(nnUNetTrainerSAMUSHF):
    """SAMUS-HF on SAM's ViT-L."""

    vit = VIT_L
    pretrained = "vit_l"


class nnUNetTrainerSAMUSHFViTH(nnUNetTrainerSAMUSHF):
    """SAMUS-HF on SAM's ViT-H."""

    vit = VIT_H
    pretrained = "vit_h"


class nnUNetTrainerSAMUSHFTiny(nnUNetTrainerSAMUSHF):
    """SAMUS-HF with a tiny transformer that begins at random and is trained as a whole; no SAM weights needed."""

    vit = VIT_TINY
    pretrained = ""

    @classmethod
    def build_model(cls) -> PromptedModel:
        """Train all of the image encoder and of the mask decoder, for there is nothing to preserve."""
        model = super().build_model()
        model.train_all()
        return model


class nnUNetTrainerSAMUSHFTiny128(nnUNetTrainerSAMUSHFTiny):
    """The tiny SAMUS-HF on images of 128x128, a quarter of the work: for demonstrations on a CPU."""

    image_size = 128


class nnUNetTrainerSAMUSHFTinyClick(nnUNetTrainerSAMUSHFTiny):
    """The tiny SAMUS-HF with clicks only."""

    prompts = "click"
