"""Parameters and operations of a trained model's network, without its weights and without computing anything."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_ext.common.errors import InputError


class NetworkSize(NamedTuple):
    """Of the network that predicts.

    Args:
        parameters, trained: numbers of the network, and those of them that training changes.
        flops: floating-point operations of one forward pass over one patch of the plan, as torch counts them:
            convolutions, matrix products and attention, two for a multiply-add. None if it predicts with clicks only.
    """

    parameters: int
    trained: int
    flops: int | None


@cache
def network_size(model: Path) -> NetworkSize | None:
    """Of nnU-Net's folder TRAINER__PLANS__CONFIGURATION; None where that does not lead to a network."""
    try:
        plans, dataset = (json.loads((model / name).read_text()) for name in ("plans.json", "dataset.json"))
        trainer_name, _, configuration = model.name.split("__")
    except (OSError, ValueError):
        return None
    try:
        return _size(trainer_name, plans, configuration, dataset)
    except Exception as e:  # noqa: BLE001  (trainers of others may do anything; a report does without)
        logging.getLogger(__name__).info("%s: the network cannot be built (%s: %s)", model, type(e).__name__, e)
        return None


def _size(trainer_name: str, plans: dict[str, Any], configuration: str, dataset: dict[str, Any]) -> NetworkSize:
    import torch
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from torch.utils.flop_counter import FlopCounterMode

    manager = PlansManager(plans)
    plan = manager.get_configuration(configuration)
    channels = determine_num_input_channels(manager, plan, dataset)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    trainer = recursive_find_trainer_class_by_name(trainer_name)
    with torch.device("meta"), torch.no_grad():
        network = trainer.build_network_architecture(manager, plan, channels, heads, enable_deep_supervision=False)
        numbers = [(p.numel(), p.requires_grad) for p in network.parameters()]
        flops = None
        with FlopCounterMode(display=False) as counter:
            try:
                network.requires_grad_(False).eval()(torch.empty(1, channels, *plan.patch_size))
                flops = counter.get_total_flops()
            except InputError:
                pass  # it takes no image without a click
    return NetworkSize(sum(n for n, _ in numbers), sum(n for n, trained in numbers if trained), flops)
