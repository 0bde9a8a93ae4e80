"""checkpoint_latest without what never changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from nnunet_ext.common import environment
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import atomic

FROZEN = "checkpoint_frozen.pth"


class SlimCheckpoints:
    """Leaves frozen tensors out of ``checkpoint_latest.pth`` and puts them back when it is loaded.

    They are written once, to ``checkpoint_frozen.pth`` in the same folder. Of SAMUS 375 MB stay out of every
    checkpoint_latest; the best and the final one, which are predicted with, are always whole. Off unless
    NNUNET_EXT_SLIM_CHECKPOINTS is 1.

    Args:
        network: whose state dict nnU-Net saves and loads.
        folder: of the checkpoints.
    """

    def __init__(self, network: nn.Module, folder: Path) -> None:
        self.network, self.file = network, folder / FROZEN
        self.enabled = environment.switch(environment.SLIM_CHECKPOINTS)
        self._written = False
        network.register_load_state_dict_pre_hook(self._complete)

    @contextlib.contextmanager
    def saving(self, filename: str) -> Iterator[None]:
        """Keep frozen tensors out of what is saved to `filename` meanwhile, if that is checkpoint_latest."""
        if not (self.enabled and Path(filename).name == "checkpoint_latest.pth"):
            yield
            return
        frozen = self._frozen()
        if not self._written:
            with atomic(self.file) as partial:
                torch.save(frozen, partial)
            self._written = True

        def drop(_module: nn.Module, state: dict, _prefix: str, _metadata: dict) -> None:
            for name in frozen:
                del state[name]

        handle = self.network.register_state_dict_post_hook(drop)
        try:
            yield
        finally:
            handle.remove()

    def _frozen(self) -> dict[str, torch.Tensor]:
        """Return the frozen parameters. Buffers count as trained: those of a batch norm change."""
        frozen = {name for name, p in self.network.named_parameters() if not p.requires_grad}
        return {name: t for name, t in self.network.state_dict().items() if name in frozen}

    def _complete(self, _module: nn.Module, state: dict, *_: object) -> None:
        """Put the frozen tensors back into a state dict that lacks all of them."""
        missing = [name for name in self._frozen() if name not in state]
        if not missing or len(missing) < len(self._frozen()):
            return  # whole, or not one of ours
        if not self.file.is_file():
            raise InputError(
                f"checkpoint_latest.pth was written without the frozen weights, and {self.file} is gone.",
                hint="Put it back into the checkpoint's folder, or train anew.",
            )
        state.update(torch.load(self.file, map_location="cpu", weights_only=True))
