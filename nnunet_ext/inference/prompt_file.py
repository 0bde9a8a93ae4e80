"""The file that says where to click, and where a click lands after preprocessing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nnunet_ext.common.errors import InputError
from nnunet_ext.inference.prompted import Clicks

EXAMPLE = '{"case_1": [{"point": [120, 88]}, {"point": [10, 9], "foreground": false}]}'


def read(path: Path, *, cases: Sequence[str], classes: Sequence[str], ndim: int) -> dict[str, list[dict[str, Any]]]:
    """Clicks by case: {"case": [{"point": [x, y] or [x, y, z], "foreground": true, "class": "lesion"}, ...], ...}.

    Points count pixels of the original image from 0; ``foreground`` is true and ``class`` the only one by default.

    Args:
        path: the file.
        cases: the images that are to be predicted.
        classes: names of the foreground classes or regions.
        ndim: 2 for pictures, 3 for volumes.

    Raises:
        InputError: everything that is wrong with the file, at once.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read as JSON: {e}.", hint=f"It looks like {EXAMPLE}.") from e
    problems = []
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no object.", hint=f"It looks like {EXAMPLE}.")
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
        raise InputError(*problems, hint=f"It looks like {EXAMPLE}.")
    return {
        case: [{"class": classes[0], "foreground": True, **click} for click in clicks]
        for case, clicks in content.items()
    }


def _fault(click: Any, classes: Sequence[str], ndim: int) -> str:
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
) -> dict:
    """`Prompts` in a preprocessed case: transposed, cropped and resized as nnU-Net did with the image.

    Args:
        clicks: of one case, as `read` returns them.
        classes: as for `read`.
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
    """The inverse, for the record: (x, y) in a preprocessed slice -> [x, y, z] in the original image."""
    box = properties["bbox_used_for_cropping"]
    place = [(p + 0.5) * (hi - lo) / n - 0.5 + lo for p, (lo, hi), n in zip((z, xy[1], xy[0]), box, shape, strict=True)]
    return [round(place[axis], 2) for axis in reversed(transpose_backward)]
