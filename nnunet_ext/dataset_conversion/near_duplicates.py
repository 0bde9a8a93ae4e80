"""Images that show the same frame, or all but the same, so that no split puts them on two sides.

Thumbnails of 16 x 16 pixels are correlated. Every B-mode image is bright above and dark below, so that plain thumbnails
of unrelated images correlate by up to 0.93; the means of rows and columns therefore count a quarter.

Measured on 190 images of BUSI (17,955 pairs), all pairs near the threshold looked at by eye: 21 pairs show the same or
the next frame (of different size, crop or brightness), and the least alike of them correlate by 0.868 (malignant 4 and
9, two frames of one lesion) and 0.919. The most alike of all others reach 0.709 (benign 62, malignant 1: two unlike
lesions) and 0.696 (benign 108, 119); of 36,100 pairs of an image and the mirror image of one, which are no duplicates,
0.796. The threshold is half-way from there to 0.868. Plain thumbnails leave a gap of 0.975 to 0.929 without mirror
images, thumbnails without the means one of 0.698 to 0.660; 8 x 8 pixels leave a smaller one too. By the tail of their
distribution, unrelated pairs promise fewer than one false one among the 303,810 pairs of all 780 images.

Found again are images with burnt-in text and a calliper line (0.936 at least), of half the size (0.998), with another
gamma (0.992), with 2 % cropped on every side (0.938), and with text and that crop (0.885). Crops of 4 % from two sides
(0.762) and other planes of one lesion are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 16
THRESHOLD = 0.83
_MEANS_WEIGHT = 0.25
_ROWS = 512  # of the correlation matrix at a time


@dataclass(frozen=True, kw_only=True)
class Group:
    """Indices of images each of which is a near-duplicate of another one; `similarity` is that of the weakest pair."""

    members: tuple[int, ...]
    similarity: float


def thumbnail(image: Image.Image) -> np.ndarray:
    """(16, 16) float32 area means of a one-channel image of any size and aspect."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)


def near_duplicates(thumbnails: Sequence[np.ndarray]) -> list[Group]:
    """Groups of two and more: connected components of the pairs whose similarity reaches `THRESHOLD`.

    One matrix product, a stretch of rows at a time: memory grows with the number of images only, and 10,000 of them
    take a second.
    """
    if not thumbnails:
        return []
    features = _features(np.stack(thumbnails))
    pairs, similarities = [], []
    for start in range(0, len(features), _ROWS):
        similarity = features[start : start + _ROWS] @ features[start:].T
        rows, columns = np.nonzero(np.triu(similarity >= THRESHOLD, k=1))
        pairs.append(np.stack([rows, columns]) + start)
        similarities.append(similarity[rows, columns])
    (rows, columns), weights = np.concatenate(pairs, axis=1), np.concatenate(similarities)
    shape = (len(features), len(features))
    _, component = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=shape), directed=False)
    return [
        Group(
            members=tuple(np.flatnonzero(component == found).tolist()),
            similarity=float(weights[component[rows] == found].min()),
        )
        for found in dict.fromkeys(component[rows].tolist())
    ]


def _features(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 16, 16) -> (N, 256) rows whose scalar products are the similarities; an even image resembles nothing."""
    centred = thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)
    means = centred.mean(axis=1, keepdims=True) + centred.mean(axis=2, keepdims=True)
    flat = (centred - (1 - _MEANS_WEIGHT) * means).reshape(len(thumbnails), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-3)
