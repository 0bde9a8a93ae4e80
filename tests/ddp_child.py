"""One rank of a distributed training on CPUs.

nnU-Net's launcher speaks NCCL only, and its trainer puts every rank on a GPU; this harness overrides the device and the
wrapper's arguments, and nothing else.
"""

from __future__ import annotations

import sys

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel


def run(rank: int, rendezvous: str, output: str, dataset: str, trainer_name: str, plans: str) -> None:
    """Train one epoch on a tiny dataset and write what the test compares."""
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    sys.modules[nnUNetTrainer.__module__].DDP = lambda network, device_ids: DistributedDataParallel(network)
    trainer = get_trainer_from_args(dataset, "2d", 0, trainer_name, plans)
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    trainer.initialize()
    before = {k: v.clone() for k, v in trainer.network.module.state_dict().items()}

    step, seen = trainer.train_step, []

    def train_step(batch: dict) -> dict:
        seen.append(batch["data"].clone())
        return step(batch)

    trainer.train_step = train_step
    trainer.run_training()
    parameters = trainer.network.module.named_parameters()
    weights = trainer.network.module.state_dict()
    torch.save(
        {
            "weights": weights,
            "without_gradient": [n for n, p in parameters if p.requires_grad and p.grad is None],
            "batch_size": trainer.batch_size,
            "data": torch.cat(seen),
            "moved": any(not torch.equal(before[k], weights[k]) for k in weights),
        },
        f"{output}/rank_{rank}.pt",
    )
    dist.destroy_process_group()
