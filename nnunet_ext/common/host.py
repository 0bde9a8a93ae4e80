"""Every private name of another package that this one reads, calls or overrides.

A private name may move with any release of its owner. tests/test_host.py says which of them did, and what broke.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from nnunetv2.run import load_pretrained_weights as pretrained
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

if TYPE_CHECKING:
    from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter


class Private(NamedTuple):
    """One private name.

    Args:
        owner: "module:class" or "module".
        name: of the attribute or method.
        use: where we touch it and what for, hence what breaks when it moves.
    """

    owner: str
    name: str
    use: str


TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer"
TRANSFORM = "batchgeneratorsv2.transforms.base.basic_transform:BasicTransform"

PRIVATE = (
    Private(TRAINER, "_build_loss", "overridden in trainers/raunet.py and prompted_recipe.py: the papers' losses"),
    Private(TRAINER, "_best_ema", "set in trainers: checkpoint_best by validation loss, and after an interruption"),
    Private(TRANSFORM, "_apply_to_image", "overridden in trainers/samus_training.py: SAMUS's zoom"),
    Private(TRANSFORM, "_apply_to_segmentation", "overridden in trainers/samus_training.py: SAMUS's zoom"),
    Private(
        "batchgenerators.dataloading.multi_threaded_augmenter:MultiThreadedAugmenter",
        "_finish",
        "called by `stop_workers`: validation loaders that prompted trainers replace",
    ),
    Private(
        "batchgenerators.dataloading.nondet_multi_threaded_augmenter:NonDetMultiThreadedAugmenter",
        "_finish",
        "called by `stop_workers`: validation loaders that prompted trainers replace",
    ),
    Private("torch._dynamo", "OptimizedModule", "asked for by `unwrapped`: compiled networks"),
    Private("torch._dynamo:OptimizedModule", "_orig_mod", "read by `unwrapped`: compiled networks"),
    Private("torch.utils", "_python_dispatch", "`TorchDispatchMode`, in architectures/memory.py: what a step holds"),
    Private("torchvision.extension", "_has_ops", "called in _nnunet_ext_hook.py and cli/doctor.py: does it fit torch"),
    Private("sys", "_getframe", "called in _nnunet_ext_hook.py and here: who it is that imports torchvision"),
)


def unwrapped(network: nn.Module) -> nn.Module:
    """Return a network without what DDP and ``torch.compile`` wrap around it."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def stop_workers(loader: MultiThreadedAugmenter) -> None:
    """End the worker processes of one of batchgenerators' loaders that nobody will ask any more."""
    loader._finish()


def pretrained_weights() -> tuple[str, Mapping[str, Any]] | None:
    """Return file and tensors of ``-pretrained_weights`` while nnU-Net transfers them, which it tells no trainer.

    nnU-Net has one function for that; its local variables say it. None at any other time.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is pretrained.load_pretrained_weights.__code__:
            return frame.f_locals["fname"], frame.f_locals.get("pretrained_dict", {})
        frame = frame.f_back
    return None
