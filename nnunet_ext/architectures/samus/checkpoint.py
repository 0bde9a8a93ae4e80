"""Checkpoints of SAM and of SAMUS: what they are of, and how they get into our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.nn import functional as F  # noqa: N812

from nnunet_ext.architectures.samus.image_encoder import ViT
from nnunet_ext.architectures.samus.prompted_model import PromptedModel
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.text import some
from nnunet_ext.weights import Source, name_of

_STEM = ("inc.conv.0", "downs.0.maxpool_conv.1", "downs.1.maxpool_conv.1")
_FETCH = "SAM's official file fits: nnunet_ext weights download."
State = Mapping[str, torch.Tensor]


def infer(state: State, source: Source) -> ViT:
    """Return the sizes of the vision transformer whose checkpoint, of SAM or SAMUS, this is."""
    try:
        depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("image_encoder.blocks."))
        tables = [len(state[f"image_encoder.blocks.{i}.attn.rel_pos_h"]) for i in range(depth)]
        embed_dim = len(state["image_encoder.patch_embed.proj.weight"])
        head_dim = state["image_encoder.blocks.0.attn.rel_pos_h"].shape[1]
        stem = [len(state[name]) for part in _STEM if (name := f"image_encoder.cnn_embed.{part}.weight") in state]
        vit = ViT(
            embed_dim=embed_dim,
            depth=depth,
            num_heads=embed_dim // head_dim,
            global_blocks=tuple(i for i, length in enumerate(tables) if length != tables[0]),
            window_size=(tables[0] + 1) // 2,
            position_grid=state["image_encoder.pos_embed"].shape[1],
            out_channels=len(state["image_encoder.neck.0.weight"]),
        )
        return replace(vit, stem_channels=(stem[0], stem[1], stem[2])) if stem else vit  # SAM has none
    except (KeyError, ValueError, IndexError, AttributeError, TypeError, ArithmeticError) as e:
        raise InputError(f"{name_of(source)} is not a checkpoint of SAM or SAMUS ({e}).", hint=_FETCH) from e


def load(model: PromptedModel, state: State, source: Source) -> None:
    """Fill a network from a checkpoint of its own kind or of SAM, whose tensors it shares by name.

    Relative positions and, where the shapes ask for it, the position embedding are interpolated linearly, as the
    official SAMUS code does with the former. What a method adds (`PromptedModel.additions`) may be absent as a whole
    and then keeps its initial values.

    Raises:
        InputError: tensors are missing, or their shapes are of another network.
    """
    own = model.state_dict()
    absent = [name for name in own if name not in state]
    for pattern in model.additions:
        added = [name for name in own if re.search(pattern, name)]
        if not any(name in state for name in added):  # a checkpoint from before this step
            absent = [name for name in absent if name not in added]
    if absent:
        raise InputError(
            f"{name_of(source)}: {len(absent)} tensors of {type(model).__name__} are missing, such as {some(absent)}.",
            hint=_FETCH,
        )
    fitting = {name: _fit(name, state[name], tensor.shape) for name, tensor in own.items() if name in state}
    whole = [name for name, t in fitting.items() if t.is_floating_point() != own[name].is_floating_point()]
    if whole:
        name = whole[0]
        raise InputError(
            f"{name_of(source)}: {some(whole)} of {state[name].dtype}, where {type(model).__name__} has "
            f"{own[name].dtype}.",
            hint=_FETCH,
        )
    wrong = [name for name, tensor in fitting.items() if tensor.shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise InputError(
            f"{name_of(source)} is of another network: {name} has shape {tuple(state[name].shape)}, "
            f"{type(model).__name__} has {tuple(own[name].shape)}.",
            hint=_FETCH,
        )
    model.load_state_dict({**own, **fitting})


def _fit(name: str, tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Resize what describes positions; anything else is returned as it is."""
    if not tensor.numel():
        return tensor
    if "rel_pos" in name and tensor.ndim == 2 and tensor.shape[1] == shape[1]:
        return F.interpolate(tensor[None, None].float(), size=shape, mode="bilinear", align_corners=False)[0, 0]
    if name.endswith("pos_embed") and tensor.ndim == 4 and tensor.shape[3] == shape[3]:
        channels_first = tensor.permute(0, 3, 1, 2).float()
        resized = F.interpolate(channels_first, size=shape[1:3], mode="bilinear", align_corners=False)
        return resized.permute(0, 2, 3, 1)
    return tensor
