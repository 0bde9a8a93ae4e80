"""Validation of prompted networks: the same samples in every epoch, and clicks for networks that need some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.configuration import default_num_processes
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.common.files import write_json
from nnunet_ext.common.nnunet_files import PROMPTS
from nnunet_ext.inference.prompts import ForegroundMaps, Prompts, clicks_from_reference


class OrderedLoader(nnUNetDataLoader):
    """nnU-Net's loader that takes the cases in their order, over and over, instead of drawing them.

    The lowest validation loss is then no luck of the draw. Where a patch does not cover the case, its place is drawn
    from a seed of its own, which depends on the position in the order alone. Ranks of a distributed training take
    turns.
    """

    rank, ranks = 0, 1
    position = 0

    def restart(self) -> None:
        """Begin with the first case again."""
        self.position = self.rank * self.batch_size

    def get_indices(self) -> list[str]:
        """Return the next cases."""
        chosen = [self.indices[(self.position + i) % len(self.indices)] for i in range(self.batch_size)]
        self.position += self.ranks * self.batch_size
        return chosen

    def generate_train_batch(self) -> dict:
        """Return nnU-Net's batch; the generator that training draws from stays where it is."""
        state = np.random.get_state()
        np.random.seed(self.position % 2**32)
        try:
            return super().generate_train_batch()
        finally:
            np.random.set_state(state)


def ordered_validation(trainer: nnUNetTrainer) -> SingleThreadedAugmenter:
    """Return a validation loader as nnU-Net's trainer makes it, but ordered and in this process.

    Nothing is augmented, and nothing is scaled for deep supervision, which no trainer of ours uses.
    """
    plan, labels = trainer.configuration_manager, trainer.label_manager
    _, dataset = trainer.get_tr_and_val_datasets()
    transforms = trainer.get_validation_transforms(
        None,
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


def validate_with_clicks(
    trainer: nnUNetTrainer,
    logits_of: Callable[[torch.Tensor, Prompts], torch.Tensor],
    maps: ForegroundMaps,
    *,
    save_probabilities: bool,
) -> None:
    """Predict the validation cases with a click per slice and class from the reference; write what nnU-Net writes.

    Args:
        trainer: after its training.
        logits_of: makes logits (channels, z, y, x), on the CPU, of a preprocessed case (c, z, y, x) and its clicks.
        maps: how segmentations are to be read.
        save_probabilities: as for nnU-Net's own final validation.
    """
    labels, plans, plan = trainer.label_manager, trainer.plans_manager, trainer.configuration_manager
    folder = Path(trainer.output_folder) / "validation"
    folder.mkdir(exist_ok=True)
    _, keys = trainer.do_split()
    if trainer.is_ddp:
        keys = keys[trainer.local_rank :: dist.get_world_size()]
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, keys)
    trainer.print_to_log_file("Final validation with clicks FROM THE REFERENCE (fixed: the middle foreground pixel).")
    for case in dataset.identifiers:
        data, seg, _, properties = dataset.load_case(case)
        prompts = clicks_from_reference(torch.from_numpy(seg[:]), maps)
        logits = logits_of(torch.from_numpy(data[:]), prompts)
        out = str(folder / case)
        export_prediction_from_logits(
            logits.numpy(), properties, plan, plans, trainer.dataset_json, out, save_probabilities
        )
    if trainer.is_ddp:
        dist.barrier()
    if trainer.local_rank:
        return
    record = {"source": "reference", "from": "the fixed click of the final validation"}
    write_json(folder / PROMPTS, record)  # as nnunet_ext predict writes it; nnunet_ext evaluate reads it
    metrics = compute_metrics_on_folder(
        str(Path(trainer.preprocessed_dataset_folder_base) / "gt_segmentations"),
        str(folder),
        str(folder / "summary.json"),
        plans.image_reader_writer_class(),
        trainer.dataset_json["file_ending"],
        maps.classes,
        labels.ignore_label,
        chill=True,
        num_processes=default_num_processes,
    )
    trainer.print_to_log_file(
        "Mean Validation Dice with reference clicks: ", metrics["foreground_mean"]["Dice"], also_print_to_console=True
    )
