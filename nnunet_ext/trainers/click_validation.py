"""nnU-Net's final validation for networks that need clicks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from nnunetv2.configuration import default_num_processes
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.inference.export_prediction import export_prediction_from_logits

from nnunet_ext.inference.folder import RECORD
from nnunet_ext.inference.prompted import clicks_from_reference, prompted_logits

if TYPE_CHECKING:
    from nnunet_ext.trainers.prompted_recipe import PromptedRecipe


def validate_with_clicks(trainer: PromptedRecipe, *, save_probabilities: bool) -> None:
    """Predict the validation cases with a click per slice and class from the reference; writes what nnU-Net writes."""
    labels, plans, plan = trainer.label_manager, trainer.plans_manager, trainer.configuration_manager
    network = trainer.segmenter.eval()
    folder = Path(trainer.output_folder) / "validation"
    folder.mkdir(exist_ok=True)
    _, keys = trainer.do_split()
    if trainer.is_ddp:
        keys = keys[trainer.local_rank :: dist.get_world_size()]
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, keys)
    trainer.print_to_log_file("Final validation with clicks FROM THE REFERENCE (fixed: the middle foreground pixel).")
    for case in dataset.identifiers:
        data, seg, _, properties = dataset.load_case(case)
        regions = labels.foreground_regions if labels.has_regions else None
        prompts = clicks_from_reference(torch.from_numpy(seg[:]), trainer.maps, regions)
        logits = prompted_logits(
            network, torch.from_numpy(data[:]), prompts, patch_size=plan.patch_size, device=trainer.device
        )
        out = str(folder / case)
        export_prediction_from_logits(
            logits.numpy(), properties, plan, plans, trainer.dataset_json, out, save_probabilities
        )
    if trainer.is_ddp:
        dist.barrier()
    if trainer.local_rank:
        return
    record = {"source": "reference", "from": "the fixed click of the final validation"}
    (folder / RECORD).write_text(json.dumps(record))  # as nnunet_ext predict writes it; nnunet_ext evaluate reads it
    metrics = compute_metrics_on_folder(
        str(Path(trainer.preprocessed_dataset_folder_base) / "gt_segmentations"),
        str(folder),
        str(folder / "summary.json"),
        plans.image_reader_writer_class(),
        trainer.dataset_json["file_ending"],
        labels.foreground_regions if labels.has_regions else labels.foreground_labels,
        labels.ignore_label,
        chill=True,
        num_processes=default_num_processes,
    )
    trainer.print_to_log_file(
        "Mean Validation Dice with reference clicks: ", metrics["foreground_mean"]["Dice"], also_print_to_console=True
    )
