"""nnU-Net's trainer with a budget in passes over the data, restartable at any moment and reproducible."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunet_ext.common import environment
from nnunet_ext.trainers.budget import iterations_per_pass
from nnunet_ext.trainers.progress import Progress
from nnunet_ext.trainers.reproducibility import SeedingLoader, reseed, worker_seeds

CUDA = torch.device("cuda")
INITIAL_WEIGHTS, LOADERS = 2**32 - 1, 2**32 - 2  # stand where an epoch stands in the entropy of a seed


class PassTrainer(nnUNetTrainer):
    """Stock network and recipe; an epoch is a pass over the training cases.

    A pass draws as many samples as plan patches tile the training cases. They are drawn as nnU-Net draws them (with
    replacement, foreground oversampled), so a pass is a budget, not an enumeration. Validation during training is one
    pass over the validation cases, `max_val_iterations` at most.

    Checkpoints are moved into place atomically, every `save_every` epochs. NNUNET_EXT_EPOCHS, NNUNET_EXT_ITERATIONS
    and NNUNET_EXT_VAL_ITERATIONS shorten a run; NNUNET_EXT_SEED makes it reproducible (bit for bit on a CPU with
    nnUNet_n_proc_DA=0).
    """

    num_passes: int = 50
    max_val_iterations: int = 250
    checkpoint_interval: int = 1  # epochs

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = CUDA,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = environment.integer(environment.EPOCHS) or self.num_passes
        self.save_every = self.checkpoint_interval
        self.seed = environment.integer(environment.SEED, minimum=0)
        self.progress: Progress | None = None
        self._iterations = environment.integer(environment.ITERATIONS)
        self._val_iterations = environment.integer(environment.VAL_ITERATIONS)

    def initialize(self) -> None:
        """Build network, optimiser and loss, from the seed if there is one."""
        if self.seed is not None:
            reseed(self.seed, INITIAL_WEIGHTS)
        super().initialize()

    def on_train_start(self) -> None:
        """Open the data and set the length of an epoch."""
        if self.current_epoch == 0 and self.local_rank == 0 and not self.disable_checkpointing:
            self._set_earlier_checkpoints_aside()
        super().on_train_start()
        patch, batch = self.configuration_manager.patch_size, self.configuration_manager.batch_size
        train, val = (iterations_per_pass(d, patch, batch) for d in self.get_tr_and_val_datasets())
        self.num_iterations_per_epoch = self._iterations or train
        self.num_val_iterations_per_epoch = self._val_iterations or min(val, self.max_val_iterations)
        self.print_to_log_file(
            f"{self.num_epochs} epochs of {self.num_iterations_per_epoch} iterations; a pass over the training cases "
            f"is {train} iterations of {batch} samples. Validation: {self.num_val_iterations_per_epoch} iterations."
        )

    def _set_earlier_checkpoints_aside(self) -> None:
        """A new training in the folder of a finished one: `--c` would continue the finished one, and lose the new."""
        for file in Path(self.output_folder).glob("checkpoint_*.pth"):
            file.replace(file.with_name(f"{file.name}.previous"))
            self.print_to_log_file(f"{file.name} of an earlier training was renamed to {file.name}.previous")

    def get_dataloaders(self) -> tuple:
        """nnU-Net's loaders; with a seed, batchgenerators' ordered ones."""
        if self.seed is None:
            return super().get_dataloaders()
        processes = get_allowed_n_proc_DA()
        with mock.patch.dict(os.environ, nnUNet_n_proc_DA="0"):
            loaders = super().get_dataloaders()
        if processes == 0:
            return loaders
        return tuple(
            MultiThreadedAugmenter(
                SeedingLoader(loader.data_loader),
                None,
                n,
                num_cached_per_queue=2,
                seeds=worker_seeds(n, self.seed, LOADERS, self.current_epoch, self.local_rank, which),
                pin_memory=self.device.type == "cuda",
                wait_time=0.002,
            )
            for which, (loader, n) in enumerate(zip(loaders, (processes, max(1, processes // 2)), strict=True))
        )

    def on_train_epoch_start(self) -> None:
        """Reseed, start counting iterations."""
        super().on_train_epoch_start()
        if self.seed is not None:
            reseed(self.seed, self.current_epoch, self.local_rank)
        self.progress = Progress(self.num_iterations_per_epoch, self.print_to_log_file)

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's training step, counted."""
        result = super().train_step(batch)
        if self.progress is not None:
            self.progress.step(float(result["loss"]))
        return result

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """nnU-Net's, without letting one epoch without foreground freeze checkpoint_best.

        The Dice of such an epoch is undefined; nnU-Net's moving average would stay undefined ever after, and nothing
        is better than an undefined best.
        """
        super().on_validation_epoch_end(val_outputs)
        dice, average = (self.logger.get_value(key, step=None) for key in ("mean_fg_dice", "ema_fg_dice"))
        if np.isnan(dice[-1]):
            average[-1] = average[-2] if len(average) > 1 else 0.0
        elif np.isnan(dice[:-1]).all():
            average[-1] = dice[-1]  # the first that is defined starts the average

    def save_checkpoint(self, filename: str) -> None:
        """Write beside, then move into place: a kill leaves the previous checkpoint or the new one, both whole."""
        partial = f"{filename}.partial"
        super().save_checkpoint(partial)
        if self.local_rank == 0 and not self.disable_checkpointing:
            os.replace(partial, filename)
