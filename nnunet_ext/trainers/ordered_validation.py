"""The same validation samples in every epoch, so that the lowest validation loss is no luck of the draw."""

from __future__ import annotations

import numpy as np
import torch.distributed as dist
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class OrderedLoader(nnUNetDataLoader):
    """nnU-Net's loader that takes the cases in their order, over and over, instead of drawing them.

    Where a patch does not cover the case, its place is drawn from a seed of its own, which depends on the position in
    the order alone. Ranks of a distributed training take turns.
    """

    rank, ranks = 0, 1
    position = 0

    def restart(self) -> None:
        """Begin with the first case again."""
        self.position = self.rank * self.batch_size

    def get_indices(self) -> list[str]:
        """The next cases."""
        chosen = [self.indices[(self.position + i) % len(self.indices)] for i in range(self.batch_size)]
        self.position += self.ranks * self.batch_size
        return chosen

    def generate_train_batch(self) -> dict:
        """nnU-Net's batch; the generator that training draws from stays where it is."""
        state = np.random.get_state()
        np.random.seed(self.position % 2**32)
        try:
            return super().generate_train_batch()
        finally:
            np.random.set_state(state)


def ordered_validation(trainer: nnUNetTrainer) -> SingleThreadedAugmenter:
    """A validation loader as nnU-Net's trainer makes it, but ordered and in this process: nothing is augmented."""
    plan, labels = trainer.configuration_manager, trainer.label_manager
    _, dataset = trainer.get_tr_and_val_datasets()
    transforms = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(),
        is_cascaded=trainer.is_cascaded,
        foreground_labels=labels.foreground_labels,
        regions=labels.foreground_regions if labels.has_regions else None,
        ignore_label=labels.ignore_label,
    )
    loader = OrderedLoader(
        dataset,
        trainer.batch_size,
        plan.patch_size,
        plan.patch_size,
        labels,
        oversample_foreground_percent=trainer.oversample_foreground_percent,
        transforms=transforms,
    )
    if trainer.is_ddp:
        loader.rank, loader.ranks = dist.get_rank(), dist.get_world_size()
    loader.restart()
    return SingleThreadedAugmenter(loader, None)
