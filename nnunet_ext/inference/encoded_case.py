"""A preprocessed case whose slices are encoded once, and answer as many prompts as there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image

from nnunet_ext.architectures.samus.segmenter import PromptableSegmenter
from nnunet_ext.inference.prompts import ObjectPrompt, Prompts

AT_ONCE = 16  # requests that are decoded together: each needs a copy of the image's embedding


class EncodedCase:
    """A case behind one network. A prompt belongs to a whole slice, which is resized and never cut into patches.

    Args:
        network: in evaluation mode, on `device`, whenever logits are asked for.
        data: preprocessed image (c, z, y, x).
        patch_size: (H, W) of the plan; smaller images are padded to it, as nnU-Net does.
        device: where the network is.
    """

    def __init__(
        self, network: PromptableSegmenter, data: torch.Tensor, *, patch_size: Sequence[int], device: torch.device
    ) -> None:
        self._network, self._device = network, device
        self._padded, inner = pad_nd_image(data, list(patch_size), "constant", {"value": 0}, True)
        self._inner = (slice(None), *inner[2:])
        self._size = tuple(self._padded.shape[-2:])
        self._offset = torch.tensor([inner[-1].start, inner[-2].start], device=device)
        self._embeddings: dict[int, torch.Tensor] = {}
        self.depth = self._padded.shape[1]

    @property
    def encoded(self) -> int:
        """How many slices have been encoded."""
        return len(self._embeddings)

    @torch.inference_mode()
    def logits(self, z: int, prompts: Prompts) -> torch.Tensor:
        """Return the logits (channels, y, x) of slice z, on the CPU.

        The logit of a class is the highest among its objects. A class without prompts in the slice is asked for with
        the learned prompt.

        Raises:
            InputError: there is no learned prompt.
        """
        network = self._network
        if z not in self._embeddings:
            self._embeddings[z] = network.embed(self._padded[:, z][None].to(self._device))
        asked: list[tuple[int, torch.Tensor]] = []  # (class, tokens)
        for k in range(network.classes):
            if (z, k) in prompts:
                asked += [(k, self._tokens(prompt)) for prompt in prompts[z, k]]
            else:
                asked.append((k, network.learned(1)[0, k]))
        alike = defaultdict(list)  # other numbers of tokens are other requests: padding would change the answer
        for k, tokens in asked:
            alike[len(tokens)].append((k, tokens))
        answers: dict[int, list[torch.Tensor]] = defaultdict(list)
        for group in alike.values():
            for start in range(0, len(group), AT_ONCE):
                part = group[start : start + AT_ONCE]
                masks = network.model.decode(self._embeddings[z], torch.stack([tokens for _, tokens in part])[None])
                for (k, _), mask in zip(part, network.resized(masks, self._size)[0], strict=True):
                    answers[k].append(mask)
        of_classes = torch.stack([torch.stack(answers[k]).amax(0) for k in range(network.classes)])
        return network.emit(of_classes[None], None)[0].float().cpu()[self._inner]

    def _tokens(self, prompt: ObjectPrompt) -> torch.Tensor:
        """Return the tokens (T, dim) of an object."""
        xy = self._network.to_model(prompt.xy.to(self._device) + self._offset, self._size)
        labels = prompt.labels.to(self._device)
        return self._network.model.prompt_encoder.points(xy, labels, end=not prompt.has_box)


class EncodedFolds:
    """A case behind the networks of several folds, whose logits are averaged as nnU-Net averages them.

    Slices that have no prompts are decoded once. With more than one fold, the network's parameters are exchanged for
    every answer.

    Args:
        parameters: the state dict of each fold.

    Other arguments are those of `EncodedCase`.
    """

    def __init__(
        self, network: PromptableSegmenter, parameters: Sequence[Mapping[str, Any]], data: torch.Tensor, **options: Any
    ) -> None:
        self._network, self._parameters, self._device = network, parameters, options["device"]
        self._folds = [EncodedCase(network, data, **options) for _ in parameters]
        self._loaded = -1
        self._promptless: dict[int, torch.Tensor] = {}
        self.depth = self._folds[0].depth

    @property
    def progress(self) -> tuple[int, int]:
        """How many slices are encoded, and how many there are, those of every fold counted."""
        return sum(fold.encoded for fold in self._folds), len(self._folds) * self.depth

    def logits(self, prompts: Prompts, slices: Sequence[int] | None = None) -> torch.Tensor:
        """Return the logits (channels, z, y, x) of some slices, by default of all, see `EncodedCase.logits`."""
        slices = range(self.depth) if slices is None else slices
        with_prompts = {z for z, _ in prompts}
        todo = [z for z in slices if z in with_prompts or z not in self._promptless]
        totals: dict[int, torch.Tensor] = {}
        for i, fold in enumerate(self._folds if todo else ()):
            self._load(i)
            for z in todo:
                found = fold.logits(z, prompts)
                totals[z] = found if z not in totals else totals[z] + found
        means = {z: total / len(self._folds) for z, total in totals.items()}
        self._promptless |= {z: mean for z, mean in means.items() if z not in with_prompts}
        return torch.stack([means[z] if z in means else self._promptless[z] for z in slices], 1)

    def _load(self, fold: int) -> None:
        if self._loaded != fold:
            self._network.load_state_dict(self._parameters[fold])
            self._network.to(self._device).eval()
            self._loaded = fold


def prompted_logits(
    network: PromptableSegmenter,
    data: torch.Tensor,
    prompts: Prompts,
    *,
    patch_size: Sequence[int],
    device: torch.device,
) -> torch.Tensor:
    """Compute the logits of a preprocessed case from prompts: (channels, z, y, x), on the CPU. See `EncodedCase`."""
    case = EncodedCase(network, data, patch_size=patch_size, device=device)
    return torch.stack([case.logits(z, prompts) for z in range(case.depth)], 1)
