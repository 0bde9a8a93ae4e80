"""Near-duplicates are found through size, crop, brightness and burnt-in text, and unlike images are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from busi_source import ultrasound
from PIL import Image, ImageDraw

from nnunet_ext.dataset_conversion import duplicates
from nnunet_ext.dataset_conversion.duplicates import Duplicates, find_duplicates, similar, thumbnail
from nnunet_ext.dataset_conversion.types import Case

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
    {"normal (45)", "normal (62)"},
    {"normal (51)", "normal (54)"},
    {"normal (55)", "normal (68)"},
]


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


VARIANTS = {
    "text": with_text,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "another aspect": lambda image: image.resize((image.width, image.height * 3 // 4)),
    "brighter": lambda image: image.point([round(255 * (i / 255) ** 0.8) for i in range(256)]),
    "cropped": cropped,
    "text and cropped": lambda image: cropped(with_text(image)),
}


def find(thumbnails: list[np.ndarray]) -> list[tuple[int, ...]]:
    """The indices of each group."""
    return [members for members, _ in similar(np.array(thumbnails))]


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, Image.Image]:
    paths = sorted(p for p in (shared_data / BUSI).glob("*/*.png") if "_mask" not in p.name)
    return {path.stem: Image.open(path).convert("L") for path in paths}


def test_real_groups_are_those_seen_by_eye(real: dict[str, Image.Image]) -> None:
    names = list(real)
    found = [{names[i] for i in group} for group in find([thumbnail(image) for image in real.values()])]
    assert sorted(map(sorted, found)) == sorted(map(sorted, REAL_GROUPS))


def test_real_images_are_unlike_mirror_images(real: dict[str, Image.Image]) -> None:
    thumbnails = [thumbnail(image) for image in real.values()]
    mirrored = [t[:, ::-1] for t in thumbnails]
    for group in find(thumbnails + mirrored):
        sides = {index < len(thumbnails) for index in group}
        assert len(sides) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_real_images_are_found_again(real: dict[str, Image.Image], variant: str) -> None:
    pairs = [t for image in list(real.values())[::10] for t in (thumbnail(image), thumbnail(VARIANTS[variant](image)))]
    assert find(pairs) == [(i, i + 1) for i in range(0, len(pairs), 2)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_drawn_images_are_found_again(variant: str) -> None:
    image = ultrasound(1, (300, 240))
    others = [ultrasound(n, (300, 240)) for n in range(2, 20)]
    ((members, similarity),) = similar(np.array([thumbnail(i) for i in (image, *others, VARIANTS[variant](image))]))
    assert members == (0, 19)
    assert duplicates.THRESHOLD < similarity < 1


def test_groups_are_connected_components_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """a is like b and b like c, though a is not like c; whatever the length of the blocks."""
    rng = np.random.RandomState(0)
    a, c = (rng.randn(16, 16).astype(np.float32) for _ in range(2))
    others = list(rng.randn(7, 16, 16).astype(np.float32))
    chain = [*others[:3], a, *others[3:5], 0.88 * a + 0.47 * c, *others[5:], 0.56 * a + 0.83 * c]  # 28 degrees apart
    assert find([a, c]) == find([a, chain[-1]]) == []
    ((members, similarity),) = similar(np.stack(chain))
    assert members == (3, 6, 9)
    features = duplicates._features(np.stack(chain))
    assert similarity == pytest.approx(min(features[3] @ features[6], features[6] @ features[9]))
    for rows in (1, 2, 3, 4, 7):
        monkeypatch.setattr(duplicates, "_ROWS", rows)
        assert find(chain) == [(3, 6, 9)]


def test_even_images_and_none() -> None:
    assert find([]) == []
    assert find([np.full((16, 16), value, np.float32) for value in (0, 7, 7)]) == []
    assert find([thumbnail(ultrasound(1))]) == []


def test_similarity_against_its_definition() -> None:
    """Pearson's correlation of thumbnails whose row and column means count a quarter."""
    one, other = (np.asarray(thumbnail(ultrasound(n)), float) for n in (1, 2))

    def parts(t: np.ndarray) -> np.ndarray:
        t = t - t.mean()
        trend = t.mean(0, keepdims=True) + t.mean(1, keepdims=True)
        return (t - trend + duplicates._MEANS_WEIGHT * trend).ravel()

    features = duplicates._features(np.stack([one, other]).astype(np.float32))
    assert features[0] @ features[1] == pytest.approx(np.corrcoef(parts(one), parts(other))[0, 1], abs=1e-5)


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
    ids = [shot.case.id for shot in shots]
    assert Duplicates(policy="group", groups=found.groups).units(ids) == {
        "benign_1": ["benign_1", "benign_2", "normal_1"],
        "benign_3": ["benign_3"],
        "malignant_1": ["malignant_1", "malignant_2"],
    }
    assert Duplicates(policy="ignore", groups=found.groups).units(ids) == {id_: [id_] for id_ in ids}
