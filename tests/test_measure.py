"""All metrics of a pair of segmentations at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nnunet_ext.metrics.definitions import COUNTS, METRICS, PHYSICAL, PIXELS, PLANAR, Metric
from nnunet_ext.metrics.measure import Ruler, measure, measure_segmentations
from nnunet_ext.metrics.overlap import MaskPair

CLASSES = {"liver": (1,), "tumour": (2,)}
REGIONS = {"liver": (1, 2), "tumour": (2,)}
SCALE = Ruler((3.0, 0.8, 0.7), PHYSICAL, 1.0)


def pairs(highest: int) -> st.SearchStrategy:
    values = st.integers(0, highest)
    shapes = npst.array_shapes(min_dims=3, max_dims=3, max_side=6)
    return shapes.flatmap(lambda shape: npst.arrays(np.uint8, (2, *shape), elements=values))


def assert_equal(one: dict[str, float], other: dict[str, float]) -> None:
    assert one == pytest.approx({**other, "hd_rows": one["hd_rows"]}, nan_ok=True, rel=1e-9)


@settings(deadline=None)
@given(pairs(2))
def test_every_key_and_each_structure_by_itself(pair: np.ndarray) -> None:
    for structures in (CLASSES, REGIONS):
        found = measure_segmentations(*pair, structures, SCALE)
        assert list(found) == list(structures)
        for name, labels in structures.items():
            assert set(found[name]) == {*COUNTS, *(m.key for m in METRICS)}
            masks = [np.isin(segmentation, labels) for segmentation in pair]
            assert_equal(found[name], measure(MaskPair.of(*masks, SCALE.spacing), SCALE))


@settings(deadline=None)
@given(pairs(3), st.integers(0, 5))
def test_what_is_ignored_may_be_anything(pair: np.ndarray, seed: int) -> None:
    prediction, reference = np.minimum(pair[0], 2), pair[1]
    noise = np.random.default_rng(seed).integers(0, 3, reference.shape, np.uint8)
    other = np.where(reference == 3, noise, prediction)
    one, two = (measure_segmentations(p, reference, CLASSES, SCALE, ignore=3) for p in (prediction, other))
    for name in CLASSES:
        assert_equal(one[name], two[name])
        assert sum(one[name][key] for key in COUNTS) == np.count_nonzero(reference != 3)


@settings(deadline=None)
@given(pairs(1))
def test_swapping_the_masks(pair: np.ndarray) -> None:
    one, other = (measure_segmentations(a, b, CLASSES, SCALE)["liver"] for a, b in (pair, pair[::-1]))
    for there, back in (
        *((key, key) for key in ("dice", "iou", "hd", "hd95", "assd", "nsd", "lesion_f1", "dice_slices", "hd_rows")),
        *(("precision", "recall"), ("lesion_precision", "lesion_recall"), ("precision_slices", "recall_slices")),
        *(("volume_reference", "volume_prediction"), ("lesions_reference", "lesions_prediction"), ("fp", "fn")),
    ):
        assert one[there] == pytest.approx(other[back], nan_ok=True), there
    assert one["volume_error"] == -other["volume_error"]


@settings(deadline=None)
@given(pairs(1), st.data())
def test_place_in_the_volume_makes_no_difference(pair: np.ndarray, data: st.DataObject) -> None:
    """More background, with it more true negatives, and the lesion anywhere in it."""
    pads = [(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))) for _ in range(3)]
    pair = np.pad(pair, ((0, 0), (1, 1), (1, 1), (1, 1)))  # so that no axis has length one
    moved = [np.pad(segmentation, pads) for segmentation in pair]
    one, other = (measure_segmentations(*p, CLASSES, SCALE)["liver"] for p in (pair, moved))
    free = ("tn", "specificity")
    assert {k: v for k, v in one.items() if k not in free} == pytest.approx(
        {k: v for k, v in other.items() if k not in free}, nan_ok=True, rel=1e-9
    )


@settings(deadline=None)
@given(pairs(1), st.floats(0.2, 5))
def test_larger_voxels(pair: np.ndarray, factor: float) -> None:
    """Lengths grow with the factor, volumes with its cube, ratios not at all."""
    scale = Ruler(tuple(factor * s for s in SCALE.spacing), PHYSICAL, factor * SCALE.tolerance)
    one, other = (measure_segmentations(*pair, CLASSES, s)["liver"] for s in (SCALE, scale))
    powers = {"length": 1, "volume": 3}
    for metric in METRICS:
        if metric.key == "nsd" or "_small" in metric.key or "_medium" in metric.key or "_large" in metric.key:
            continue  # a distance equal to the tolerance may fall on either side of it, and sizes are in mm
        expected = one[metric.key] * factor ** powers.get(metric.quantity, 0)
        assert other[metric.key] == pytest.approx(expected, nan_ok=True), metric.key


@pytest.mark.parametrize(("units", "volume"), [(PHYSICAL, 6 * 0.0024), (PLANAR, 6 * 0.8), (PIXELS, 6)])
def test_volumes(units: object, volume: float) -> None:
    segmentation = np.zeros((1, 5, 5), np.uint8)
    segmentation[0, 1:3, 1:4] = 1
    scale = Ruler((3.0, 0.8, 1.0), units, 1)
    found = measure_segmentations(0 * segmentation, segmentation, CLASSES, scale)["liver"]
    assert found["volume_reference"] == -found["volume_error"] == pytest.approx(volume)
    assert (found["relative_volume_error"], found["volume_prediction"]) == (-1, 0)


def scenes() -> list[np.ndarray]:
    """References: one lesion in an image, a large one at its border, several in a volume."""
    rng = np.random.default_rng(0)
    one, large = np.zeros((2, 1, 64, 64), np.uint8)
    one[0, 20:30, 22:37] = large[0, 10:50, :30] = 1
    several = np.zeros((12, 40, 40), np.uint8)
    for z, y, x in rng.integers(0, (8, 30, 30), (4, 3)):
        several[z : z + 4, y : y + 9, x : x + 9] = 1
    return [one, large, several]


def cheats(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Masks that nobody needs a network for."""
    full, empty = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    border = full.copy()
    border[tuple(slice(2, -2) if n > 4 else slice(None) for n in shape)] = 0
    rng = np.random.default_rng(1)
    noise = {f"random {part}": (rng.random(shape) < part).astype(np.uint8) for part in (0.01, 0.5)}
    return {"full": full, "empty": empty, "border": border, **noise}


@pytest.mark.parametrize("metric", [m for m in METRICS if m.ranked and m.better], ids=lambda m: m.key)
def test_no_ranked_metric_prefers_masks_that_need_no_network(metric: Metric) -> None:
    """A prediction that is off by some pixels is better than all of them; models are ranked by means over cases."""
    values: dict[str, list[float]] = {}
    for reference in scenes():
        for name, mask in {"honest": np.roll(reference, 2, axis=1), **cheats(reference.shape)}.items():
            found = measure_segmentations(mask, reference, {"lesion": (1,)}, SCALE)["lesion"][metric.key]
            values.setdefault(name, []).append(found)
    honest = np.mean(values.pop("honest"))
    empty = values.pop("empty")  # a distance to nothing is undefined, and such cases are left out of ranks
    assert empty == [0] * len(empty) or (metric.quantity == "length" and np.isnan(empty).all())
    assert {name: own for name, own in values.items() if not metric.better * (np.mean(own) - honest) < 0} == {}


def test_lesion_f1_of_a_mask_of_everything_by_both_rules() -> None:
    reference = scenes()[0]
    found = measure_segmentations(np.ones_like(reference), reference, {"lesion": (1,)}, SCALE)["lesion"]
    assert (found["lesion_f1"], found["lesion_f1_touch"], found["lesion_false_positives"]) == (0, 1, 1)
