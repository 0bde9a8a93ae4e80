"""Prompts taken from a reference segmentation by a rule, in place of a person who knows the answer."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from nnunet_ext.common.errors import InputError
from nnunet_ext.inference.prompts import (
    ForegroundMaps,
    ObjectPrompt,
    Prompts,
    clicks_from_reference,
    fixed_clicks,
    one_request_each,
    random_clicks,
    tight_boxes,
)

CENTRE, RANDOM, BOX, CORRECTIONS = "centre", "random", "box", "corrections"
MOST_CLICKS = 100


@dataclass(frozen=True)
class ReferenceRule:
    """How prompts are made of a reference.

    A class that a slice lacks gets a click on the background there, as in training, whatever the rule.

    Args:
        kind: "centre" clicks on the middle foreground pixel in reading order, the rule of SAMUS's official code for
            tests; "random" on a foreground pixel, each as likely as the other, the same for a case every time; "box"
            is the tightest box around the foreground; "corrections" begins as "centre" does, and clicks on the middle
            of the largest error of the mask so far until `clicks` are there or the mask is right.
        clicks: in all; more than one with "corrections" alone.
    """

    kind: str = CENTRE
    clicks: int = 1

    @classmethod
    def parse(cls, text: str) -> ReferenceRule:
        """Return the rule that a text like "box" or "corrections:3" names.

        >>> ReferenceRule.parse("corrections:3")
        ReferenceRule(kind='corrections', clicks=3)

        Raises:
            InputError: it names none.
        """
        kind, _, number = text.partition(":")
        if kind == CORRECTIONS and number.isascii() and number.isdigit() and 1 <= int(number) <= MOST_CLICKS:
            return cls(kind, int(number))
        if text in (CENTRE, RANDOM, BOX):
            return cls(text)
        raise InputError(
            f"{text!r} is not a rule.",
            hint=f"Choose {CENTRE}, {RANDOM}, {BOX}, or {CORRECTIONS}:N with N from 1 to {MOST_CLICKS} clicks.",
        )

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return f"{self.kind}:{self.clicks}" if self.kind == CORRECTIONS else self.kind

    def prompts(
        self,
        reference: torch.Tensor,
        maps: ForegroundMaps,
        *,
        name: str,
        segment: Callable[[Prompts], Any],
    ) -> Prompts:
        """Return the prompts of a case, one request per slice and class.

        Args:
            reference: preprocessed, (1, z, y, x), labels, -1 outside of the image.
            maps: how labels are to be read.
            name: of the case, which seeds what is random.
            segment: makes a segmentation (z, y, x) of prompts; asked by "corrections" alone.
        """
        if self.kind in (CENTRE, CORRECTIONS):
            found = clicks_from_reference(reference, maps)
            for _ in range(self.clicks - 1):
                if not (more := _corrections(segment(found), reference, maps)):
                    break
                found = found | {key: (_joined(found[key][0], click),) for key, click in more.items()}
            return found
        foreground, valid = maps.of_reference(reference)
        if self.kind == RANDOM:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            return one_request_each(*random_clicks(foreground, valid, generator))
        found = one_request_each(*fixed_clicks(foreground, valid))
        corners, boxed = tight_boxes(foreground & valid)
        for z, k in boxed.nonzero().tolist():
            found[z, k] = (ObjectPrompt(xy=corners[z, k].float(), labels=torch.tensor([2, 3])),)
        return found


def _joined(prompt: ObjectPrompt, click: ObjectPrompt) -> ObjectPrompt:
    return ObjectPrompt(xy=torch.cat([prompt.xy, click.xy]), labels=torch.cat([prompt.labels, click.labels]))


def _corrections(
    segmentation: Any, reference: torch.Tensor, maps: ForegroundMaps
) -> dict[tuple[int, int], ObjectPrompt]:
    """Return a click per slice and class whose mask is wrong, on the innermost pixel of its largest error.

    An error is an area, connected through sides, where the mask lacks something, or one where it has too much.
    """
    foreground, valid = maps.of_reference(reference)
    masks = maps.of_labels(torch.as_tensor(np.asarray(segmentation)).long()[:, None])
    clicks = {}
    for z in range(len(masks)):
        for k in range(masks.shape[1]):
            wanted = foreground[z, k].numpy()
            wrong = (masks[z, k] ^ foreground[z, k]).numpy() & valid[z, 0].numpy()
            areas = [ndimage.label(wrong & side)[0] for side in (wanted, ~wanted)]
            sizes = [np.bincount(area.ravel())[1:] for area in areas]
            largest = [size.max(initial=0) for size in sizes]
            side = int(np.argmax(largest))  # what is missing, where both are as large
            if not largest[side]:
                continue
            inside = areas[side] == 1 + int(sizes[side].argmax())
            depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
            clicks[z, k] = ObjectPrompt(xy=torch.tensor([[float(x), float(y)]]), labels=torch.tensor([1 - side]))
    return clicks
