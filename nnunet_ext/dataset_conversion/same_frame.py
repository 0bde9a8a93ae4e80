"""Which of many images show the same frame, or all but the same, whole or in part: the search behind `duplicates`.

Every image is a thumbnail of 128 x 128 pixels, whatever its aspect. Two are compared in three steps, the first of them
for all pairs:

1. The whole of one and its middle are correlated with 225 windows of the other, of 1 to 0.7 of its width and of its
   height. What is correlated is local contrast (the deviation from the surroundings, in units of how much these vary),
   so that brightness and the bright-above, dark-below of every B-mode image do not count, and burnt-in text counts no
   more than its area. The whole frames are also correlated as they are, at 16 x 16 pixels.
2. Where either looks alike, an affine transformation is fitted (enhanced correlation, `cv2.findTransformECC`), from the
   best window on. That holds crops, zoom, shifts and another aspect at once.
3. What counts is how well the finer local contrast correlates in the part that both show.

`python benchmarks/near_duplicates.py --source DIR` measures recall and precision; its figures are in docs/busi.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import numpy as np
from PIL import Image

from nnunet_ext.common.processes import Track, untracked

SIDE = 128
SAME = 0.5  # correlation, once aligned, of the same frame
LIKELY = 0.35  # and where the whole frames look alike before
_FRAMES_ALIKE = 0.83  # correlation of whole frames at 16 x 16 pixels
_WINDOWS_ALIKE = 0.55  # correlation of a window's local contrast
_MIN_OVERLAP = 0.4  # of the area
_MEANS_WEIGHT = 0.25  # of the means of rows and columns, in which all B-mode images are alike
_FRAME_CELLS, _WINDOW_CELLS = 16, 10  # per side
_COARSE, _FINE = 10.0, 6.0  # pixels of the surroundings that contrast is relative to, to align and to judge
_NOISE = 4.0  # squared grey values that do not count as contrast
_ITERATIONS = 30
_WIDTHS = (1.0, 0.92, 0.84, 0.76, 0.7)  # of the image's; the n-th has n places
_WINDOWS = [(place * (1 - width) / max(n, 1), width) for n, width in enumerate(_WIDTHS) for place in range(n + 1)]
_PARTS = [(0.0, 1.0), (0.1, 0.8)]  # the whole and the middle, as (start, width) like the windows
_BLOCK = 16  # images that are compared with all at a time
_KEPT = 2048  # images whose contrast is kept, 64 kB each


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images by their number, and how much alike they are: 1 for the same pixels."""

    one: int
    other: int
    similarity: float


@dataclass(frozen=True, kw_only=True)
class _Start:
    """From where two images are aligned: `transform` maps pixels of `template` to those of `image`, both by number."""

    template: int
    image: int
    similarity: float
    frames_alike: bool
    transform: np.ndarray


def thumbnail(image: Image.Image) -> np.ndarray:
    """Return (128, 128) uint8 area means of a one-channel image of any size and aspect."""
    return cv2.resize(np.asarray(image), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def pairs(thumbnails: Sequence[np.ndarray], track: Track = untracked) -> list[Pair]:
    """Return every two of N thumbnails that show the same frame.

    Time grows with the square of N, memory with N.
    """
    if len(thumbnails) < 2:
        return []
    contrast = lru_cache(_KEPT)(lambda index: _contrast(thumbnails[index], _COARSE))
    halved = lru_cache(_KEPT)(lambda index: cv2.resize(contrast(index), None, fx=0.5, fy=0.5))
    fine = lru_cache(_KEPT)(lambda index: cv2.GaussianBlur(_contrast(thumbnails[index], _FINE), (0, 0), 1.0))
    candidates: dict[tuple[int, int], list[_Start]] = defaultdict(list)
    for starts in track(_starts(thumbnails, contrast), total=len(thumbnails), what="comparing", unit="image"):
        for start in starts:
            candidates[min(start.template, start.image), max(start.template, start.image)].append(start)
    found = []
    for (one, other), starts in candidates.items():
        similarity = -1.0
        for start in sorted(starts, key=lambda start: -start.similarity):
            if similarity < SAME:
                transform = _fitted(halved(start.template), halved(start.image), start.transform)
                similarity = max(similarity, _correlation(fine(start.template), fine(start.image), transform))
        if similarity >= (LIKELY if starts[0].frames_alike else SAME):
            found.append(Pair(one=one, other=other, similarity=similarity))
    return sorted(found, key=lambda pair: (pair.one, pair.other))


def _starts(thumbnails: Sequence[np.ndarray], contrast: Callable[[int], np.ndarray]) -> Iterator[list[_Start]]:
    """Yield for each image all that look like it at first sight, each pair from one side or from both."""
    windows, parts = _averages(_WINDOWS, _WINDOW_CELLS), [_averages([part], _WINDOW_CELLS) for part in _PARTS]
    frame, count = _averages(_PARTS[:1], _FRAME_CELLS), len(thumbnails)
    blocks = [range(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK)]
    frames, seen = [], []
    for block in blocks:
        frames.append(_features([thumbnails[index] for index in block], frame))
        seen.append(np.stack([_features([contrast(index) for index in block], part) for part in parts], axis=1))
    whole, queries = np.concatenate(frames), np.concatenate(seen).reshape(count * len(parts), -1)
    for block in blocks:
        others = _features([contrast(index) for index in block], windows).reshape(-1, queries.shape[1])
        likeness = _product(queries, others).reshape(count, len(parts), len(block), -1)
        for place, image in enumerate(block):
            alike = likeness[:, :, place].reshape(count, -1)
            similarities, frames_alike = alike.max(axis=1), whole @ whole[image] >= _FRAMES_ALIKE
            likely = (similarities >= _WINDOWS_ALIKE) | frames_alike
            likely[image] = False
            yield [
                _Start(
                    template=template,
                    image=image,
                    similarity=float(similarities[template]),
                    frames_alike=bool(frames_alike[template]),
                    transform=_transform(int(alike[template].argmax())),
                )
                for template in np.flatnonzero(likely).tolist()
            ]


def _averages(windows: Sequence[tuple[float, float]], cells: int) -> np.ndarray:
    """Return (windows, cells, 128) weights: the means of 128 pixels over each cell of each window."""
    starts, widths = np.array(windows).T[:, :, None] * SIDE
    edges = starts + widths * np.arange(cells + 1) / cells
    pixels = np.arange(SIDE)
    covered = np.minimum(edges[:, 1:, None], pixels + 1) - np.maximum(edges[:, :-1, None], pixels)
    return (covered.clip(0, 1) / np.diff(edges)[..., None]).astype(np.float32)


def _features(images: Sequence[np.ndarray], averages: np.ndarray) -> np.ndarray:
    """Return rows whose scalar products are correlations, for each image one for each window down by each across.

    An even window resembles nothing.
    """
    windows, cells, _ = averages.shape
    rows, side = averages.reshape(-1, SIDE), windows * cells
    across = _product(np.concatenate(images).astype(np.float32), rows)
    both = _product(rows, across.reshape(len(images), SIDE, side).transpose(0, 2, 1).reshape(-1, SIDE))
    means = both.reshape(windows, cells, len(images), windows, cells).transpose(2, 0, 3, 1, 4).reshape(-1, cells, cells)
    means -= means.mean(axis=(1, 2), keepdims=True)
    means -= (1 - _MEANS_WEIGHT) * (means.mean(axis=1, keepdims=True) + means.mean(axis=2, keepdims=True))
    flat = means.reshape(len(images) * windows * windows, -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-3)


def _product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the scalar products of all rows: by OpenCV, since BLAS takes five times as long while cores are busy."""
    return np.asarray(cv2.gemm(one, other, 1, np.empty(0), 0, flags=cv2.GEMM_2_T))


def _contrast(thumbnail: np.ndarray, surroundings: float) -> np.ndarray:
    """Return (128, 128) float32: the deviation from the Gaussian mean, in standard deviations around, 2.5 at most."""
    image = thumbnail.astype(np.float32)
    deviation = image - cv2.GaussianBlur(image, (0, 0), surroundings)
    spread = np.sqrt(cv2.GaussianBlur(deviation * deviation, (0, 0), surroundings) + _NOISE)
    return np.clip(deviation / spread, -2.5, 2.5)


def _transform(number: int) -> np.ndarray:
    """Return the (2, 3) affine map from a part of one halved image, centres of pixels, to a window of another.

    `number` counts parts, windows down and windows across, the last of them fastest.
    """
    part, window = divmod(number, len(_WINDOWS) ** 2)
    down, across = divmod(window, len(_WINDOWS))
    (start, width), rows = _PARTS[part], []
    for axis, (window_start, window_width) in enumerate((_WINDOWS[across], _WINDOWS[down])):
        zoom = window_width / width
        row = [0.0, 0.0, (window_start - start * zoom) * SIDE / 2 + (zoom - 1) / 2]
        row[axis] = zoom
        rows.append(row)
    return np.array(rows, np.float32)


def _fitted(template: np.ndarray, image: np.ndarray, transform: np.ndarray) -> np.ndarray | None:
    """Return the affine map of whole images that aligns two halved ones best, from `transform` on; None without one."""
    limits = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, 1e-3)
    try:
        _, fitted = cv2.findTransformECC(template, image, transform, cv2.MOTION_AFFINE, limits)
    except cv2.error:  # they have too little in common
        return None
    whole = np.array(fitted)
    whole[:, 2] = 2 * whole[:, 2] + (1 - whole[:, :2].sum(axis=1)) / 2  # pixel 0 is pixels 0 and 1
    return whole


def _correlation(template: np.ndarray, image: np.ndarray, transform: np.ndarray | None) -> float:
    """Return the correlation of two images where both show something; -1 where that is too little."""
    if transform is None:
        return -1.0
    warp = partial(cv2.warpAffine, M=transform, dsize=(SIDE, SIDE))
    shared = warp(np.ones((SIDE, SIDE), np.uint8), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
    if shared.mean() < _MIN_OVERLAP:
        return -1.0
    seen = np.stack([template[shared], warp(image, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)[shared]])
    seen -= seen.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(seen, axis=1)
    return float(seen[0] @ seen[1] / lengths.prod()) if lengths.min() > 1e-3 else -1.0
