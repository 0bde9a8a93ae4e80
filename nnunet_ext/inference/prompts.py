"""Prompts in a preprocessed case: taken from a reference segmentation, or moved there from the original image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.common.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ForegroundMaps:
    """Takes nnU-Net's segmentations apart into one map per foreground class or region.

    Args:
        classes: the label of each class, or the labels of each region, in the order of the network's masks.
        has_regions: they are regions; nnU-Net's training targets have a channel for each of them.
        ignore_label: its pixels count nowhere; with regions it is the last channel of a target.
    """

    classes: Sequence[Any]
    has_regions: bool = False
    ignore_label: int | None = None

    @classmethod
    def of(cls, manager: LabelManager) -> ForegroundMaps:
        """Return how the segmentations of nnU-Net's label manager are read."""
        classes = manager.foreground_regions if manager.has_regions else manager.foreground_labels
        return cls(classes=classes, has_regions=manager.has_regions, ignore_label=manager.ignore_label)

    def __call__(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return maps (B, K, H, W) and valid pixels (B, 1, H, W), both bool, of a target (B, 1 or regions, H, W)."""
        if not self.has_regions:
            return self.of_labels(target), target != (-1 if self.ignore_label is None else self.ignore_label)
        if self.ignore_label is None:
            return target > 0, torch.ones_like(target[:, :1], dtype=torch.bool)
        return target[:, :-1] > 0, target[:, -1:] <= 0

    def of_labels(self, segmentation: torch.Tensor) -> torch.Tensor:
        """Return the maps (B, K, H, W) of a segmentation (B, 1, H, W) that holds labels, with regions too."""
        return torch.cat([torch.isin(segmentation, segmentation.new_tensor(c)) for c in self.classes], 1)

    def of_reference(self, segmentation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return maps (z, K, y, x) and valid pixels (z, 1, y, x) of a preprocessed reference (1, z, y, x), labels."""
        slices = segmentation.transpose(0, 1)
        inside = slices >= 0
        if self.ignore_label is not None:
            inside &= slices != self.ignore_label
        return self.of_labels(slices), inside


@dataclass(frozen=True, kw_only=True)
class ObjectPrompt:
    """The points and the box that ask for one mask of a class in one slice of a preprocessed case.

    Shapes: xy (N, 2) in pixels of the preprocessed slice, labels (N,), SAM's: 1 for foreground, 0 for background, 2 and
    3 for the upper left and lower right corner of a box, which come last, as in SAM.
    """

    xy: torch.Tensor
    labels: torch.Tensor

    @property
    def has_box(self) -> bool:
        """Whether there is a box."""
        return bool((self.labels > 1).any())


# By (slice, class), classes counted from 0 without the background; the mask of a class is that of all its objects.
Prompts = dict[tuple[int, int], tuple[ObjectPrompt, ...]]


def random_clicks(
    maps: torch.Tensor, valid: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Click once per map on a pixel of the foreground, each as likely as the other.

    This is the rule of training in SAMUS's official code. A map without foreground gets a click on its background,
    labelled 0.

    Shapes: maps (B, K, H, W) and pixels that count (B, 1, H, W), bool, on the CPU -> (x, y) in pixels (B, K, 1, 2),
    labels (B, K, 1).
    """
    candidates, labels = _candidates(maps, valid)
    picked = torch.multinomial(candidates.flatten(0, 1).float(), 1, generator=generator)
    return _points(picked.view(*maps.shape[:2], 1), maps), labels


def fixed_clicks(maps: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Click on the middle one of the foreground pixels in reading order: the rule of validation and test.

    Shapes: as `random_clicks`.
    """
    candidates, labels = _candidates(maps, valid)
    order = candidates.cumsum(-1)
    picked = (order == order[..., -1:] // 2 + 1).int().argmax(-1, keepdim=True)
    return _points(picked, maps), labels


def _candidates(maps: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pixels that may be clicked (B, K, H W) and the label of the click (B, K, 1)."""
    valid = valid | ~valid.any((-2, -1), keepdim=True)  # where nothing counts, a click anywhere does no harm
    foreground, background = (maps & valid).flatten(2), (~maps & valid).flatten(2)
    any_foreground = foreground.any(-1, keepdim=True)
    return torch.where(any_foreground, foreground, background), any_foreground.long()


def _points(index: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    width = maps.shape[-1]
    return torch.stack([index % width, index // width], -1).float()


def tight_boxes(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tightest box around the foreground of each map, through the centres of its outermost pixels.

    Args:
        maps: (B, K, H, W), bool.

    Returns:
        Corners as (x, y) in pixels (B, K, 2, 2), upper left first, and which maps have foreground and so a box (B, K).
    """
    height, width = maps.shape[-2:]
    rows, columns = maps.any(-1), maps.any(-2)
    low = torch.stack([_first(columns), _first(rows)], -1)
    high = torch.stack([width - 1 - _first(columns.flip(-1)), height - 1 - _first(rows.flip(-1))], -1)
    return torch.stack([low, high], -2), rows.any(-1)


def _first(found: torch.Tensor) -> torch.Tensor:
    """Return the index of the first True along the last axis; 0 where there is none."""
    return found.int().argmax(-1)


def clicks_from_reference(seg: torch.Tensor, maps: ForegroundMaps) -> Prompts:
    """Click once per slice and class of a reference by the papers' rule for tests, see `fixed_clicks`.

    Args:
        seg: preprocessed reference (1, z, y, x), labels, -1 outside of the image.
        maps: how labels are to be read.
    """
    return one_request_each(*fixed_clicks(*maps.of_reference(seg)))


def one_request_each(points: torch.Tensor, labels: torch.Tensor) -> Prompts:
    """Return the prompts that ask once per slice and class, of points (z, K, N, 2) and their labels (z, K, N)."""
    return {
        (z, k): (ObjectPrompt(xy=points[z, k], labels=labels[z, k]),)
        for z in range(len(points))
        for k in range(points.shape[1])
    }


def to_preprocessed(
    prompts: Sequence[Mapping[str, Any]],
    *,
    classes: Sequence[str],
    properties: Mapping[str, Any],
    shape: Sequence[int],
    transpose_forward: Sequence[int],
    name: str,
) -> Prompts:
    """Move prompts into a preprocessed case: transposed, cropped and resized as nnU-Net did with the image.

    Args:
        prompts: of one case, as `prompt_file.read_prompts` returns them.
        classes: as for `read_prompts`.
        properties: what nnU-Net's preprocessor noted about the case.
        shape: (z, y, x) of the preprocessed case.
        transpose_forward: of the plans.
        name: of the case, for errors.

    Raises:
        InputError: every prompt that is outside of the image or in the part that was cropped off, and every box that
            does not lie in one slice as the model sees them.
    """
    objects: dict[tuple[int, int, int], list[tuple[float, float, int]]] = defaultdict(list)
    bounds, before = properties["bbox_used_for_cropping"], properties["shape_before_cropping"]
    problems = []

    def moved(x: float, y: float, z: float) -> list[float]:
        original = [z, y, x]
        place = [original[axis] for axis in transpose_forward]
        inside = all(0 <= p <= s - 1 for p, s in zip(place, before, strict=True))
        return [
            (p - lo + 0.5) * n / (hi - lo) - 0.5 if inside else float("nan")
            for p, (lo, hi), n in zip(place, bounds, shape, strict=True)
        ]

    for prompt in prompts:
        kind = "box" if "box" in prompt else "click"
        (x, y, *rest), z = prompt.get("box") or prompt["point"], 0.0
        corners = [(x, y)]
        if kind == "box":
            corners.append((rest[0], rest[1]))
            rest = rest[2:]
        z = rest[0] if rest else z
        what = f"{name}: the {kind} at {prompt.get('box') or prompt['point']}"
        places = [moved(*corner, z) for corner in corners]
        if any(p != p for place in places for p in place):
            size = tuple(before[transpose_forward.index(axis)] for axis in (2, 1, 0))
            problems.append(f"{what} is outside of the image of {size}.")
            continue
        low, high = ([pick(axis) for axis in zip(*places, strict=True)] for pick in (min, max))
        if any(h < -0.5 or p > n - 0.5 for p, h, n in zip(low, high, shape, strict=True)):
            problems.append(f"{what} is in the empty margin of the image.")
            continue
        slices = {min(max(round(place[0]), 0), shape[0] - 1) for place in places}
        if len(slices) > 1:
            problems.append(f"{what} does not lie in a slice, which this model has along another axis.")
            continue
        if kind == "box":
            low, high = ([min(max(p, -0.5), n - 0.5) for p, n in zip(c, shape, strict=True)] for c in (low, high))
            added = [(low[2], low[1], 2), (high[2], high[1], 3)]
        else:
            added = [(low[2], low[1], int(prompt["foreground"]))]
        objects[slices.pop(), classes.index(prompt["class"]), prompt.get("object", 1)] += added
    if problems:
        raise InputError(*problems)
    found: dict[tuple[int, int], list[ObjectPrompt]] = defaultdict(list)
    for (place_z, k, _), points in objects.items():
        points.sort(key=lambda point: max(point[2], 1))  # the box last, and its corners in their order
        xy, labels = torch.tensor([p[:2] for p in points]), torch.tensor([p[2] for p in points])
        found[place_z, k].append(ObjectPrompt(xy=xy, labels=labels))
    return {key: tuple(of_class) for key, of_class in found.items()}


def to_original(
    prompts: Prompts,
    *,
    classes: Sequence[str],
    ndim: int,
    properties: Mapping[str, Any],
    shape: Sequence[int],
    transpose_backward: Sequence[int],
) -> list[dict[str, Any]]:
    """Move the prompts of a preprocessed case to the original image, as a file of prompts has them.

    Args:
        ndim: 2 for pictures, whose places are [x, y]; 3 for volumes.

    Other arguments are those of `to_preprocessed`.
    """
    bounds, written = properties["bbox_used_for_cropping"], []

    def moved(z: int, xy: Sequence[float]) -> list[float]:
        place = [
            (p + 0.5) * (hi - lo) / n - 0.5 + lo
            for p, (lo, hi), n in zip((z, xy[1], xy[0]), bounds, shape, strict=True)
        ]
        return [round(place[axis], 2) for axis in reversed(transpose_backward)]

    for (z, k), of_class in prompts.items():
        for number, prompt in enumerate(of_class, 1):
            common = {"class": classes[k]} | ({"object": number} if number > 1 else {})
            places = [moved(z, xy) for xy in prompt.xy.tolist()]
            labels = [int(label) for label in prompt.labels]
            for place, label in zip(places, labels, strict=True):
                if label in (0, 1):
                    written.append({**common, "point": place[:ndim], "foreground": bool(label)})
            if prompt.has_box:
                (x0, y0, z0), (x1, y1, _) = places[labels.index(2)], places[labels.index(3)]
                low_x, high_x, low_y, high_y = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
                written.append({**common, "box": [low_x, low_y, high_x, high_y, z0][: ndim + 2]})
    return written
