"""Deterministic weights and one deterministic batch for every SAMUS, so that its outputs can be compared with numbers.

Weights follow from the names and shapes of the tensors alone. There are two kinds, alike but for twenty matrices. The
oracle's are those on which the official code was run. They make the decoder's attention between tokens and image so
sharp (its logits have a standard deviation of 265) that the decoder turns a relative error of 1e-7 into one of 1e-3:
low-res logits are known to 1 % only and gradient norms to 5 %, whichever code computes them, while everything up to the
image embedding is known to 1e-6. On calm weights all of it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

import numpy as np
import torch
from samus_reference import ReferenceSAMUS, official_loss
from torch import nn
from torch.nn import functional as F  # noqa: N812

# Embeddings have unit variance; all other matrices have 1 / fan-in.
EMBEDDINGS = ("embeddings", "embed.weight", "iou_token.weight", "mask_tokens.weight", "gaussian")
SHARP = ("attn_token_to_image", "cross_attn_image_to_token")  # unit variance as well in the oracle


def tensor(name: str, shape: tuple[int, ...], *, oracle: bool = False) -> torch.Tensor:
    """The values of the tensor of this name: normal noise seeded by the name, scaled as its role asks, float32."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    if name.endswith("pos_embed") or "rel_pos" in name:
        values *= np.float32(0.02)
    elif len(shape) == 1:  # biases around 0, factors of normalisations around 1
        values = np.float32(0.05) * values + np.float32(name.endswith("weight"))
    elif not any(part in name for part in EMBEDDINGS + SHARP * oracle):
        values *= np.float32(np.prod(shape[1:]) ** -0.5)
    return torch.from_numpy(values)


def official_keys(**sizes: object) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an official checkpoint, or of one with other `ReferenceSAMUS` sizes."""
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in ReferenceSAMUS(**sizes).state_dict().items()}


def fill_(
    module: nn.Module, *, prefix: str = "", keys: Collection[str] | None = None, oracle: bool = False
) -> nn.Module:
    """Load deterministic weights into any module with official names, in place; returns it.

    Args:
        module: all of SAMUS or a part of it.
        prefix: what comes before the module's own names in those of the official checkpoint, with its last dot.
        keys: fill these only, by full name, and keep the rest of the module (for parts that the official code lacks).
        oracle: the oracle's weights instead of calm ones.

    Raises:
        KeyError: if the module lacks one of `keys`.
    """
    shapes = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    names = shapes if keys is None else [key.removeprefix(prefix) for key in keys]
    module.load_state_dict({name: tensor(prefix + name, shapes[name], oracle=oracle) for name in names}, strict=False)
    return module


class Batch:
    """Two images of a dark ellipse in smooth noise, one click on each; at 256 pixels the official code's own test.

    Attributes:
        image: (2, 1, S, S) in [0, 1].
        points_xy, point_labels: (2, 1, 2) pixels and (2, 1).
        mask: (2, 1, S/2, S/2), the ellipses.
    """

    def __init__(self, size: int = 256) -> None:
        scale = size / 256
        x = torch.arange(size) / scale
        self.points_xy = torch.tensor([[[140.0, 110.0]], [[134.0, 114.0]]])
        radii = [((x - cx) / 60) ** 2 + ((x[:, None] - cy) / 45) ** 2 for cx, cy in self.points_xy[:, 0]]
        ellipse = (torch.stack(radii)[:, None] < 1).float()
        noise = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(7))
        self.image = 0.7 * F.avg_pool2d(noise, 5, stride=1, padding=2) + 0.3 * (1 - ellipse)
        self.points_xy *= scale
        self.point_labels = torch.ones(2, 1, dtype=torch.int32)
        self.mask = ellipse[..., ::2, ::2]

    def inputs(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image, clicks and labels of one of the two, as a batch of one."""
        one = slice(i, i + 1)
        return self.image[one], self.points_xy[one], self.point_labels[one]


def intermediates(net: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Outputs of the encoder's parts and the low-res logits, in evaluation mode and without gradients; about 1.5 GB.

    Returns:
        by part: `patch_embed`, `position_adapter`, `block0`... as (B, G, G, C); `cnn_stem`, `neck` as (B, C, G, G);
        `low_res_logits` (2, 1, S/2, S/2).
    """
    encoder = net.image_encoder
    parts = {"cnn_stem": encoder.cnn_embed, "patch_embed": encoder.patch_embed, "neck": encoder.neck}
    parts |= {"position_adapter": encoder.post_pos_embed}
    parts |= {f"block{i}": block for i, block in enumerate(encoder.blocks)}
    seen: dict[str, torch.Tensor] = {}

    def hook(part: str) -> torch.utils.hooks.RemovableHandle:
        def keep(module: nn.Module, args: tuple, out: torch.Tensor | tuple) -> None:
            seen[part] = out[0] if isinstance(out, tuple) else out

        return parts[part].register_forward_hook(keep)

    handles = [hook(part) for part in parts]
    with torch.no_grad():
        seen["low_res_logits"] = net.eval().predict_low_res(batch.image, batch.points_xy, batch.point_labels)
    for handle in handles:
        handle.remove()
    return seen


def gradient_norms(net: nn.Module, batch: Batch, low_res: torch.Tensor) -> dict[str, float]:
    """Norm of the official loss's gradient of every trained parameter.

    The loss's gradient of the logits goes back through one image after the other, which adds up to the same with the
    memory of one image.

    Args:
        low_res: the network's logits for the batch.
    """
    low_res = low_res.clone().requires_grad_()
    official_loss(low_res, batch.mask).backward()
    net.zero_grad()
    for i in range(2):
        net.predict_low_res(*batch.inputs(i)).backward(low_res.grad[i : i + 1])
    return {n: p.grad.norm().item() for n, p in net.named_parameters() if p.requires_grad}
