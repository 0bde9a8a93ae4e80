"""Near-duplicates are found through size, crop, zoom, brightness and burnt-in text, and unlike images are not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from busi_source import ultrasound
from PIL import Image, ImageDraw, ImageOps

from nnunet_ext.dataset_conversion import same_frame
from nnunet_ext.dataset_conversion.duplicates import Duplicates, connected, find_duplicates
from nnunet_ext.dataset_conversion.same_frame import SIDE, pairs, thumbnail
from nnunet_ext.dataset_conversion.types import Case
from nnunet_ext.phantom.busi import render

BUSI = "busi/Dataset_BUSI_with_GT"
# looked at by eye, all pairs near the threshold among them
REAL_GROUPS = [
    {"benign (11)", "benign (328)"},
    {"benign (108)", "benign (94)"},
    {"benign (119)", "benign (122)"},
    {"benign (131)", "malignant (51)"},
    {"benign (133)", "benign (51)"},
    {"benign (15)", "benign (332)"},
    {"benign (219)", "benign (272)"},
    {"benign (225)", "benign (292)"},
    {"benign (231)", "benign (295)"},
    {"benign (233)", "benign (299)"},
    {"benign (235)", "benign (294)"},
    {"benign (269)", "normal (1)"},
    {"benign (321)", "benign (4)"},
    {"benign (433)", "malignant (145)"},
    {"malignant (116)", "malignant (18)"},
    {"malignant (4)", "malignant (5)", "malignant (9)"},
    {"malignant (65)", "malignant (66)"},  # the middle of the frame, 1.4 times as wide
    {"normal (45)", "normal (62)"},
    {"normal (51)", "normal (54)"},
    {"normal (55)", "normal (68)"},
]


@cache
def phantom(number: int) -> Image.Image:
    """A breast under the probe, another one for every number."""
    return Image.fromarray(render(seed=0, kind="benign", number=number, size=300).rgb).convert("L")


def with_text(image: Image.Image) -> Image.Image:
    image = image.copy()
    width, height = image.size
    draw = ImageDraw.Draw(image)
    draw.text((width // 5, int(height * 0.8)), "LT BREAST 3 OC", fill=255, font_size=height // 16)
    draw.line((width * 0.3, height * 0.4, width * 0.6, height * 0.45), fill=255, width=2)
    return image


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 50, height // 50, width - width // 50, height - height // 50))


def zoomed(image: Image.Image, zoom: float, left: float, top: float) -> Image.Image:
    """1/zoom of both sides, at the size of the whole; `left` and `top` are shares of what is cut off."""
    width, height = image.size
    x, y = left * width * (1 - 1 / zoom), top * height * (1 - 1 / zoom)
    return image.resize(image.size, Image.Resampling.BICUBIC, (x, y, x + width / zoom, y + height / zoom))


VARIANTS = {
    "text": with_text,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "another aspect": lambda image: image.resize((image.width, image.height * 3 // 4)),
    "brighter": lambda image: image.point([round(255 * (i / 255) ** 0.8) for i in range(256)]),
    "cropped": cropped,
    "text and cropped": lambda image: cropped(with_text(image)),
    "4 % from two sides": lambda image: image.crop((0, 0, image.width * 24 // 25, image.height * 24 // 25)),
    "1.2 times": lambda image: with_text(zoomed(image, 1.2, 0.3, 0.9)),
    "1.4 times": lambda image: zoomed(image, 1.4, 0.6, 0.4),
    "1.4 times as wide": lambda image: image.resize((600, 400), box=(30, 0, 30 + image.width / 1.4, image.height)),
}


def find(images: list[Image.Image]) -> list[tuple[int, int]]:
    """The numbers of every two that show the same."""
    return [(pair.one, pair.other) for pair in pairs([thumbnail(image) for image in images])]


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, Image.Image]:
    paths = sorted(p for p in (shared_data / BUSI).glob("*/*.png") if "_mask" not in p.name)
    return {path.stem: Image.open(path).convert("L") for path in paths}


def test_real_groups_are_those_seen_by_eye(real: dict[str, Image.Image]) -> None:
    names = list(real)
    found = pairs([thumbnail(image) for image in real.values()])
    links = {(pair.one, pair.other): pair.similarity for pair in found}
    groups = [{names[i] for i in group} for group, _ in connected(links, len(names))]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, REAL_GROUPS))
    assert min(pair.similarity for pair in found) > 0.7


def test_real_images_are_unlike_mirror_images(real: dict[str, Image.Image]) -> None:
    images = list(real.values())
    for one, other in find(images + [ImageOps.mirror(image) for image in images]):
        assert (one < len(images)) is (other < len(images))


@pytest.mark.parametrize("variant", VARIANTS)
def test_real_images_are_found_again(real: dict[str, Image.Image], variant: str) -> None:
    images = [made for image in list(real.values())[::10] for made in (image, VARIANTS[variant](image))]
    assert find(images) == [(i, i + 1) for i in range(0, len(images), 2)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_drawn_images_are_found_again(variant: str) -> None:
    images = [phantom(n) for n in range(1, 10)]
    assert find([*images, VARIANTS[variant](images[3])]) == [(3, 9)]


def test_burnt_in_text_alone_is_no_likeness() -> None:
    assert find([with_text(phantom(n)) for n in range(1, 12)]) == []


def test_the_same_pixels_are_alike_by_1() -> None:
    ((pair),) = pairs([thumbnail(phantom(1)), thumbnail(phantom(2)), thumbnail(phantom(1))])
    assert (pair.one, pair.other, round(pair.similarity, 3)) == (0, 2, 1)


def test_order_and_number_do_not_matter() -> None:
    images = [phantom(1), phantom(2), VARIANTS["1.2 times"](phantom(1)), phantom(3)]
    ((pair),) = pairs([thumbnail(image) for image in images])
    ((turned),) = pairs([thumbnail(image) for image in images[::-1]])
    assert (pair.one, pair.other, turned.one, turned.other) == (0, 2, 1, 3)
    assert pair.similarity == pytest.approx(turned.similarity, abs=1e-6)
    assert pairs([thumbnail(image) for image in images]) == [pair]


def test_groups_are_connected_components() -> None:
    """0 is like 3 and 3 like 5, though 0 is not like 5; nobody knows how much 6 is like 7."""
    links = {(0, 3): 0.9, (1, 2): 0.8, (3, 5): 0.7, (6, 7): None, (2, 1): None}
    assert connected(links, 8) == [((0, 3, 5), 0.7), ((1, 2), 0.8), ((6, 7), None)]
    assert connected({}, 6) == []


def test_even_images_and_none() -> None:
    assert find([]) == []
    assert find([Image.new("L", (64, 48), value) for value in (0, 7, 7)]) == []
    assert find([phantom(1)]) == []


def test_features_against_their_definition() -> None:
    """Pearson's correlation of means over cells, of which those of rows and columns count a quarter."""
    one, other = (np.asarray(thumbnail(phantom(n)), np.float32) for n in (1, 2))

    def cells(image: np.ndarray) -> np.ndarray:
        means = image[13:113, 13:113].reshape(10, 10, 10, 10).mean(axis=(1, 3)).astype(float)
        means -= means.mean()
        trend = means.mean(0, keepdims=True) + means.mean(1, keepdims=True)
        return (means - trend + same_frame._MEANS_WEIGHT * trend).ravel()

    averages = same_frame._averages([(13 / SIDE, 100 / SIDE)], 10)
    ours, others = same_frame._features([one, other], averages)
    assert ours @ others == pytest.approx(np.corrcoef(cells(one), cells(other))[0, 1], abs=1e-5)


class Shot:
    """What `find_duplicates` wants to know of an image."""

    def __init__(self, id_: str, number: int, size: tuple[int, int] = (64, 48)) -> None:
        self.case, self.size = Case(id=id_, image=Path(id_), masks=(), category=id_.split("_")[0]), size
        self.thumbnail = thumbnail(ultrasound(number, size))


def test_the_largest_is_kept_and_conflicts_are_seen() -> None:
    shots = [Shot("normal_1", 1), Shot("benign_2", 1, (96, 72)), Shot("benign_1", 1), Shot("benign_3", 5)]
    shots += [Shot("malignant_2", 7), Shot("malignant_1", 7)]
    found = find_duplicates(shots, "drop")
    one, other = found.groups
    assert (one.ids, one.kept, one.conflict) == (("benign_1", "benign_2", "normal_1"), "benign_2", True)
    assert (other.ids, other.kept, other.conflict) == (("malignant_1", "malignant_2"), "malignant_1", False)
    assert found.dropped() == {"benign_1", "normal_1", "malignant_2"}
    assert Duplicates(policy="group", groups=found.groups).inseparable() == [one.ids, other.ids]
    assert Duplicates(policy="ignore", groups=found.groups).inseparable() == found.inseparable() == []


def test_known_groups_join_those_that_are_found() -> None:
    shots = [Shot("benign_1", 1), Shot("benign_2", 1), Shot("benign_3", 5), Shot("benign_4", 7), Shot("benign_5", 8)]
    known = [["benign_2", "benign_3"], ["benign_4", "benign_5"], ["benign_4", "elsewhere"]]
    one, other = find_duplicates(shots, "group", known=known).groups
    assert one.ids == ("benign_1", "benign_2", "benign_3")
    assert one.similarity == pytest.approx(1, abs=1e-3)
    assert (other.ids, other.similarity) == (("benign_4", "benign_5"), None)
