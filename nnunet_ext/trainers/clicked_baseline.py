"""Stock nnU-Net with a channel for the click: the baseline of networks that were trained with clicks."""

from __future__ import annotations

from typing import Literal, cast

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_ext.architectures.click_channels import ClickChannels
from nnunet_ext.common import host
from nnunet_ext.common.errors import InputError
from nnunet_ext.inference.model_folder import with_click_channels
from nnunet_ext.inference.prompts import ForegroundMaps, Prompts, fixed_clicks, random_clicks
from nnunet_ext.trainers.paper_recipe import has_regions, note_regions
from nnunet_ext.trainers.pass_trainer import CUDA, nnUNetTrainerMatchedBudget, nnUNetTrainerMatchedBudget400
from nnunet_ext.trainers.simulated_prompts import seed_clicks
from nnunet_ext.trainers.validation import validate_with_clicks


class nnUNetTrainerMatchedBudgetClick(nnUNetTrainerMatchedBudget):
    """Stock nnU-Net network and recipe, but for a channel per class with a click, for the liver paper's 50 passes.

    The clicks are those of SAM's family: in training one per sample and class, drawn from the augmented target; in
    validation and prediction one per slice and class. They are slice by slice, hence the network is a 2D one. Where an
    image is larger than the patch, nnU-Net's windows lie across it, and some of them have no click in them; therefore
    a tenth of the channels is left empty in training.
    """

    prompts: Literal["click"] = "click"
    click_sigma = 10.0  # pixels
    empty_share = 0.1  # of the channels in training

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA
    ) -> None:
        if len(PlansManager(plans).get_configuration(configuration).patch_size) != 2:
            raise InputError(
                f"{type(self).__name__} takes clicks slice by slice, as SAM's family does; configuration "
                f"{configuration!r} has 3D patches.",
                hint="Train it on 2d.",
            )
        super().__init__(plans, configuration, fold, dataset_json, device)
        note_regions(self.plans_manager, self.label_manager)

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build nnU-Net's network with a channel more per class, for training and for prediction."""
        classes = num_output_channels if has_regions(plans_manager) else num_output_channels - 1
        network = super().build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels + classes,
            num_output_channels,
            enable_deep_supervision,
        )
        return ClickChannels(network, image_channels=num_input_channels, classes=classes, sigma=cls.click_sigma)

    def initialize(self) -> None:
        """Build, and prepare the clicks."""
        self.maps = ForegroundMaps.of(self.label_manager)
        self._click_generator = torch.Generator()
        super().initialize()

    def on_train_epoch_start(self) -> None:
        """Seed the clicks as well, apart from everything else that is random."""
        super().on_train_epoch_start()
        seed_clicks(self._click_generator, self.seed, self.current_epoch, self.local_rank)

    def train_step(self, batch: dict) -> dict:
        """Do nnU-Net's step with a click per sample and class, a tenth of which are left out."""
        points, labels = random_clicks(*self.maps(_full_size(batch)), self._click_generator)
        left_out = torch.rand(labels.shape, generator=self._click_generator) < self.empty_share
        return super().train_step(self._clicked(batch, points, labels.masked_fill(left_out, -1)))

    def validation_step(self, batch: dict) -> dict:
        """Do nnU-Net's step with the fixed click of every sample and class."""
        return super().validation_step(self._clicked(batch, *fixed_clicks(*self.maps(_full_size(batch)))))

    def _clicked(self, batch: dict, points: torch.Tensor, labels: torch.Tensor) -> dict:
        data = batch["data"]
        channels = self._click_channels.channels(points, labels, data.shape[-2:])
        return {**batch, "data": torch.cat([data, channels.to(data)], 1)}

    @property
    def _click_channels(self) -> ClickChannels:
        return cast(ClickChannels, host.unwrapped(self.network))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Do nnU-Net's with clicks from the reference, which is written down."""
        network = self._click_channels
        self.set_deep_supervision_enabled(False)
        on_device = self.device.type == "cuda"
        predictor = nnUNetPredictor(device=self.device, perform_everything_on_device=on_device, allow_tqdm=False)
        predictor.manual_initialization(
            network,
            self.plans_manager,
            self.configuration_manager,
            None,
            self.dataset_json,
            type(self).__name__,
            self.inference_allowed_mirroring_axes,
        )

        def logits(data: torch.Tensor, prompts: Prompts) -> torch.Tensor:
            return predictor.predict_sliding_window_return_logits(with_click_channels(network, data, prompts)).cpu()

        network.eval()
        validate_with_clicks(self, logits, self.maps, save_probabilities=save_probabilities)
        self.set_deep_supervision_enabled(True)


def _full_size(batch: dict) -> torch.Tensor:
    """Return the target at the size of the image; deep supervision has smaller ones behind it."""
    target = batch["target"]
    return target[0] if isinstance(target, list) else target


class nnUNetTrainerMatchedBudget400Click(nnUNetTrainerMatchedBudgetClick, nnUNetTrainerMatchedBudget400):
    """Stock nnU-Net network and recipe, but for the clicks' channels, for the ultrasound paper's 400 passes."""
