"""Every metric against independent libraries, each where its definition is ours, on thousands of masks.

MONAI's surface is that of the erosion with face neighbours, as ours, and its percentile is the directed one; its
Hausdorff distance is between surfaces, so it is ours where no voxel is hidden inside. surface-distance weights by
surface area and takes the boundary between voxels: only its greatest distance, and overlap, can be compared.
SimpleITK's Hausdorff distance is between all voxels, as ours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from scipy import ndimage

from nnunet_ext.metrics.definitions import PHYSICAL
from nnunet_ext.metrics.measure import Ruler, measure
from nnunet_ext.metrics.overlap import MaskPair
from nnunet_ext.metrics.surface import surface_distances

Sample = tuple[np.ndarray, np.ndarray, tuple[float, ...]]
SHAPES = [
    ((24, 20), (1.0, 1.0)),
    ((17, 31), (0.5, 2.0)),
    ((8, 16, 14), (5.0, 0.7, 0.9)),
    ((5, 12, 13), (1.0, 1.0, 1.0)),
]
TOLERANCE = 1.5


def smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Lumps of any size, often touching the border."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.5, 3), mode="constant")
    return field > np.quantile(field, rng.uniform(0.3, 0.98))


def edge_cases(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Empty, full, one voxel in a corner and in the middle, a wall, a border, a checkerboard, one slice."""
    empty, full = np.zeros(shape, bool), np.ones(shape, bool)
    corner, middle, wall, one_slice = (empty.copy() for _ in range(4))
    corner[(0,) * len(shape)] = True
    middle[tuple(n // 2 for n in shape)] = True
    wall[:, -1] = True
    one_slice[len(one_slice) // 2, 1:-1] = True
    border = full.copy()
    border[(slice(1, -1),) * len(shape)] = False
    board = np.indices(shape).sum(0) % 2 == 0
    return [empty, full, corner, middle, wall, border, board, one_slice]


def samples(count: int, seed: int = 0) -> Iterator[Sample]:
    """Every pair of edge cases, then random pairs: far apart, or one a noisy copy of the other."""
    rng = np.random.default_rng(seed)
    for shape, spacing in SHAPES:
        edges = edge_cases(shape)
        yield from ((p, r, spacing) for p in edges for r in edges)
        for k in range(count):
            r = smooth(rng, shape)
            p = np.roll(r, rng.integers(-3, 4, len(shape)), tuple(range(len(shape)))) if k % 2 else smooth(rng, shape)
            yield p ^ (rng.random(shape) < rng.choice([0, 0.002])), r, spacing


def ours(p: np.ndarray, r: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    three = (*(1.0,) * (3 - len(spacing)), *spacing)
    return measure(MaskPair.of(p, r, spacing), Ruler(three, PHYSICAL, TOLERANCE))


@pytest.mark.slow
def test_simpleitk() -> None:
    """1,800 pairs."""
    distance, overlap = sitk.HausdorffDistanceImageFilter(), sitk.LabelOverlapMeasuresImageFilter()
    compared = 0
    for p, r, spacing in samples(400, seed=2):
        mine = ours(p, r, spacing)
        images = [sitk.GetImageFromArray(m.astype(np.uint8)) for m in (r, p)]
        for image in images:
            image.SetSpacing(spacing[::-1])
        if p.any() or r.any():
            overlap.Execute(*images)
            assert mine["dice"] == pytest.approx(overlap.GetDiceCoefficient())
            assert mine["iou"] == pytest.approx(overlap.GetJaccardCoefficient())
        if p.any() and r.any():
            distance.Execute(*images)
            assert mine["hd"] == pytest.approx(distance.GetHausdorffDistance(), rel=1e-5)
            compared += 1
    assert compared > 1700


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:monai:FutureWarning")  # it calls its own deprecated arguments
def test_monai() -> None:
    """1,200 pairs."""
    monai = pytest.importorskip("monai.metrics")
    import torch

    compared = 0
    for p, r, spacing in samples(250):
        mine = ours(p, r, spacing)
        pair = {"y_pred": torch.from_numpy(p)[None, None].float(), "y": torch.from_numpy(r)[None, None].float()}
        if r.any():  # else MONAI's are all undefined
            matrix = monai.get_confusion_matrix(**pair)
            for key, name in (("precision", "precision"), ("recall", "sensitivity"), ("specificity", "specificity")):
                theirs = monai.compute_confusion_matrix_metric(name, matrix).item()
                assert mine[key] == pytest.approx(theirs, nan_ok=True)
            assert mine["dice"] == pytest.approx(monai.compute_dice(**pair).item())
            assert mine["iou"] == pytest.approx(monai.compute_iou(**pair).item())
        if not (p.any() and r.any()):
            continue
        options = {"include_background": True, "spacing": list(spacing)}
        theirs = {
            "hd95": monai.compute_hausdorff_distance(**pair, **options, percentile=95),
            "assd": monai.compute_average_surface_distance(**pair, **options, symmetric=True),
            "nsd": monai.compute_surface_dice(**pair, **options, class_thresholds=[TOLERANCE]),
        }
        for key, value in theirs.items():
            assert mine[key] == pytest.approx(value.item(), rel=1e-5, abs=1e-5), key
        compared += 1
    assert compared > 1100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_surface_distance() -> None:
    """1,000 pairs of non-empty masks: it fails on empty ones under numpy 2."""
    library = pytest.importorskip("surface_distance")
    compared = 0
    for p, r, spacing in samples(200, seed=1):
        if not (p.any() and r.any()):
            continue
        assert ours(p, r, spacing)["dice"] == pytest.approx(library.compute_dice_coefficient(r, p))
        found = library.compute_surface_distances(r, p, spacing)
        mine = surface_distances(p, r, spacing)
        diagonal = np.linalg.norm(spacing)  # its surface lies between voxels, half a diagonal from ours at most
        theirs = library.compute_robust_hausdorff(found, 100)
        assert max(mine.prediction.max(), mine.reference.max()) == pytest.approx(theirs, abs=diagonal + 1e-9)
        compared += 1
        if compared % 4 == 0:
            # between two parallel walls, both kinds of surface are equally far apart, everywhere
            walls = np.zeros((2, *p.shape), bool)
            walls[0, compared % p.shape[0]] = walls[1, compared // 3 % p.shape[0]] = True
            found, mine = library.compute_surface_distances(*walls, spacing), surface_distances(*walls, spacing)
            assert mine.hd == pytest.approx(library.compute_robust_hausdorff(found, 100))
            assert mine.hd95 == pytest.approx(library.compute_robust_hausdorff(found, 95))
    assert compared > 900
