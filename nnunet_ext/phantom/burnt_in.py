"""What machines and readers write into ultrasound pictures: callipers, labels, a mark in the corner."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

WHITE, COLOURED = (235, 235, 235), (250, 220, 60)
LABELS = ("LT", "RT", "LT 2 O'CLOCK", "RT UOQ", "RT 1", "lt breast", "AXILLA")
SMALLEST_FOR_TEXT = 96  # pixels; below it letters are blots
Point = tuple[int, int]  # (x, y)


def annotate(
    grey: NDArray[np.uint8], *, masks: Sequence[NDArray[np.bool_]], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The picture as (height, width, 3), with markers on some.

    Callipers span the lesions on a quarter of the pictures with any, one in twenty has them in colour, as on BUSI.
    """
    rgb = np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))
    scale = max(grey.shape) / 600
    colour = COLOURED if rng.uniform() < 0.05 else WHITE
    measured, labelled, marked = rng.uniform(size=3) < (0.3, 0.3, 0.4)
    if measured:
        for mask in masks:
            callipers(rgb, mask, colour=colour, scale=scale, dotted=bool(rng.uniform() < 0.6))
    if max(grey.shape) >= SMALLEST_FOR_TEXT:
        height, width = grey.shape
        if labelled:
            at = (round(rng.uniform(0.04, 0.6) * width), round(rng.uniform(0.68, 0.94) * height))
            write(rgb, str(rng.choice(LABELS)), at, colour=WHITE, scale=0.6 * scale)
        if marked:
            write(rgb, "USG", (0, round(9 * scale)), colour=WHITE, scale=0.35 * scale)
    return rgb


def callipers(
    rgb: NDArray[np.uint8], mask: NDArray[np.bool_], *, colour: tuple[int, int, int], scale: float, dotted: bool
) -> None:
    """Crosses at both ends of the lesion's longest diameter and across it, numbered."""
    for name, (start, end) in zip("12", diameters(mask), strict=True):
        if dotted:
            points = np.linspace(start, end, max(int(np.hypot(*np.subtract(start, end)) / (5 * scale)), 2))
            for x, y in np.rint(points).astype(int):
                cv2.circle(rgb, (int(x), int(y)), max(round(0.6 * scale), 0), colour, -1)
        for x, y in (start, end):
            arm = max(round(6 * scale), 1)
            cv2.line(rgb, (x - arm, y), (x + arm, y), colour, max(round(1.5 * scale), 1))
            cv2.line(rgb, (x, y - arm), (x, y + arm), colour, max(round(1.5 * scale), 1))
        if max(mask.shape) >= SMALLEST_FOR_TEXT:
            write(rgb, name, (end[0] + round(5 * scale), end[1] + round(14 * scale)), colour=colour, scale=0.45 * scale)


def diameters(mask: NDArray[np.bool_]) -> tuple[tuple[Point, Point], tuple[Point, Point]]:
    """The ends of a mask along its principal axis and across it."""
    points = np.argwhere(mask)[:, ::-1].astype(np.float64)
    centre = points.mean(0)
    offsets = points - centre
    _, axes = np.linalg.eigh(offsets.T @ offsets)
    ends = []
    for axis in axes.T[::-1]:
        along = offsets @ axis
        ends.append(tuple(tuple(int(v) for v in np.rint(centre + t * axis)) for t in (along.min(), along.max())))
    return ends[0], ends[1]


def write(rgb: NDArray[np.uint8], text: str, at: Point, *, colour: tuple[int, int, int], scale: float) -> None:
    """White letters with a dark edge, at the lower left corner `at`."""
    thickness = max(round(2 * scale), 1)
    cv2.putText(rgb, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), thickness + 2, cv2.LINE_AA)
    cv2.putText(rgb, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
