"""Clicks: from a reference segmentation, from a file that people write, and where they land after preprocessing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json

EXAMPLE = '{"case_1": [{"point": [120, 88]}, {"point": [10, 9], "foreground": false}]}'


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


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """The clicks on one class in one slice of a preprocessed case.

    Shapes: xy (N, 2) in pixels of the preprocessed slice, labels (N,), 1 for foreground and 0 for background.
    """

    xy: torch.Tensor
    labels: torch.Tensor


Prompts = dict[tuple[int, int], Clicks]  # by (slice, class), classes counted from 0 without the background


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


def clicks_from_reference(seg: torch.Tensor, maps: ForegroundMaps) -> Prompts:
    """Click once per slice and class of a reference by the papers' rule for tests, see `fixed_clicks`.

    Args:
        seg: preprocessed reference (1, z, y, x), labels, -1 outside of the image.
        maps: how labels are to be read.
    """
    slices = seg.transpose(0, 1)
    inside = slices >= 0
    if maps.ignore_label is not None:
        inside &= slices != maps.ignore_label
    points, labels = fixed_clicks(maps.of_labels(slices), inside)
    return {
        (z, k): Clicks(xy=points[z, k], labels=labels[z, k]) for z in range(len(points)) for k in range(points.shape[1])
    }


def read_prompts(
    path: Path, *, cases: Sequence[str], classes: Sequence[str], ndim: int
) -> dict[str, list[dict[str, Any]]]:
    """Read clicks: {"case": [{"point": [x, y] or [x, y, z], "foreground": true, "class": "lesion"}, ...], ...}.

    Points count pixels of the original image from 0; ``foreground`` is true and ``class`` the only one by default.

    Args:
        path: the file.
        cases: the images that are to be predicted.
        classes: names of the foreground classes or regions.
        ndim: 2 for pictures, 3 for volumes.

    Raises:
        InputError: everything that is wrong with the file, at once.
    """
    hint = f"It looks like {EXAMPLE}."
    content = read_json(path, hint=hint)
    problems = []
    unknown, missing = sorted(set(content) - set(cases)), sorted(set(cases) - set(content))
    if unknown:
        problems.append(f"{path}: no image for {', '.join(unknown)}.")
    if missing:
        problems.append(f"{path}: no clicks for {', '.join(missing)}.")
    for case, clicks in content.items():
        for i, click in enumerate(clicks if isinstance(clicks, list) else [None]):
            if fault := _fault(click, classes, ndim):
                problems.append(f"{path}: click {i + 1} of {case}: {fault}.")
    if problems:
        raise InputError(*problems, hint=hint)
    return {
        case: [{"class": classes[0], "foreground": True, **click} for click in clicks]
        for case, clicks in content.items()
    }


def _fault(click: Any, classes: Sequence[str], ndim: int) -> str:
    """Return what is wrong with a click of a file; empty if nothing is."""
    if not isinstance(click, dict) or not click.keys() <= {"point", "foreground", "class"}:
        return 'not an object with "point" and, optionally, "foreground" and "class"'
    point = click.get("point")
    if not isinstance(point, list) or len(point) != ndim or not all(isinstance(v, int | float) for v in point):
        return f'"point" must be {ndim} numbers'
    if not isinstance(click.get("foreground", True), bool):
        return '"foreground" must be true or false'
    if "class" not in click and len(classes) > 1:
        return f'"class" must say which of {", ".join(classes)}'
    if click.get("class", classes[0]) not in classes:
        return f'"class" must be one of {", ".join(classes)}'
    return ""


def to_preprocessed(
    clicks: Sequence[Mapping[str, Any]],
    *,
    classes: Sequence[str],
    properties: Mapping[str, Any],
    shape: Sequence[int],
    transpose_forward: Sequence[int],
    name: str,
) -> Prompts:
    """Move clicks into a preprocessed case: transposed, cropped and resized as nnU-Net did with the image.

    Args:
        clicks: of one case, as `read_prompts` returns them.
        classes: as for `read_prompts`.
        properties: what nnU-Net's preprocessor noted about the case.
        shape: (z, y, x) of the preprocessed case.
        transpose_forward: of the plans.
        name: of the case, for errors.

    Raises:
        InputError: a click outside of the image, or in the part that was cropped off.
    """
    grouped: dict[tuple[int, int], list[tuple[float, float, int]]] = defaultdict(list)
    box, before = properties["bbox_used_for_cropping"], properties["shape_before_cropping"]
    for click in clicks:
        x, y, *z = click["point"]
        original = [z[0] if z else 0, y, x]
        place = [original[axis] for axis in transpose_forward]
        if not all(0 <= p <= s - 1 for p, s in zip(place, before, strict=True)):
            raise InputError(f"{name}: the click at {click['point']} is outside of the image of {tuple(before)[::-1]}.")
        scaled = [(p - lo + 0.5) * n / (hi - lo) - 0.5 for p, (lo, hi), n in zip(place, box, shape, strict=True)]
        if not all(-0.5 <= p <= n - 0.5 for p, n in zip(scaled, shape, strict=True)):
            raise InputError(f"{name}: the click at {click['point']} is in the empty margin of the image.")
        key = (min(max(round(scaled[0]), 0), shape[0] - 1), classes.index(click["class"]))
        grouped[key].append((scaled[2], scaled[1], int(click["foreground"])))
    return {
        key: Clicks(xy=torch.tensor([p[:2] for p in points]), labels=torch.tensor([p[2] for p in points]))
        for key, points in grouped.items()
    }


def to_original(
    xy: Sequence[float],
    z: int,
    *,
    properties: Mapping[str, Any],
    shape: Sequence[int],
    transpose_backward: Sequence[int],
) -> list[float]:
    """Move (x, y) in a preprocessed slice to [x, y, z] in the original image: the inverse, for the record."""
    box = properties["bbox_used_for_cropping"]
    place = [(p + 0.5) * (hi - lo) / n - 0.5 + lo for p, (lo, hi), n in zip((z, xy[1], xy[0]), box, shape, strict=True)]
    return [round(place[axis], 2) for axis in reversed(transpose_backward)]
