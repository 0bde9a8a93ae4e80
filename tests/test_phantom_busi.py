"""The synthetic BUSI: layout, modes, reproducibility, what lesions and speckle look like, resuming, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lits_source import tree
from PIL import Image
from scipy import ndimage

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.phantom import busi
from nnunet_ext.phantom.busi import KINDS, lesion_count, render
from nnunet_ext.phantom.ultrasound import Probe, Tissue, diameters, response

SIZE = 128
FEW = {"benign": 4, "malignant": 2, "normal": 2, "size": SIZE}


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), np.float32)


def number_with(count: int, kind: str = "benign", seed: int = 0) -> int:
    """The first picture that shows so many lesions."""
    return next(n for n in range(1, 1000) if lesion_count(seed=seed, kind=kind, patient=n) == count)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("busi")
    assert busi.write_busi(out=out, **FEW) == 8
    return out


def test_layout_and_modes(written: Path) -> None:
    """As in BUSI: RGB pictures, one-bit masks, one RGBA mask, black RGB masks of normal pictures."""
    assert sorted(p.name for p in written.iterdir()) == sorted(KINDS)
    for kind in KINDS:
        expected = set()
        for number in range(1, FEW[kind] + 1):
            stem = f"{kind} ({number})"
            masks = max(lesion_count(seed=0, kind=kind, patient=number), 1)
            expected |= {f"{stem}.png", *(f"{stem}_mask{f'_{i}' if i else ''}.png" for i in range(masks))}
            with Image.open(written / kind / f"{stem}.png") as image:
                assert (image.format, image.mode) == ("PNG", "RGB")
                assert max(image.size) == SIZE
                size = image.size
            for path in (written / kind).glob(f"{stem}_mask*.png"):
                with Image.open(path) as mask:
                    assert mask.size == size
                    assert mask.mode == ("RGB" if kind == "normal" else "RGBA" if number == 4 else "1")
                assert set(np.unique(grey(path))) == ({0} if kind == "normal" else {0, 255})
        assert {p.name for p in (written / kind).iterdir()} == expected


def test_bytes_depend_on_neither_processes_nor_counts(written: Path, tmp_path: Path) -> None:
    busi.write_busi(out=tmp_path, benign=2, malignant=1, normal=0, size=SIZE, num_processes=2)
    ours, others = tree(tmp_path), tree(written)
    assert len(ours) >= 6
    assert ours == {name: others[name] for name in ours}


def test_seed_class_and_number_give_other_patients() -> None:
    pictures = [
        render(seed=s, kind=k, number=n, size=64).rgb
        for s, k, n in ((0, "benign", 1), (1, "benign", 1), (0, "malignant", 1), (0, "benign", 2))
    ]
    first = pictures[0]
    for other in pictures[1:]:
        assert first.shape != other.shape or (first != other).mean() > 0.5


def test_sizes_vary_unless_fixed() -> None:
    free = [render(seed=0, kind="normal", number=n, size=None).rgb.shape[:2] for n in range(1, 6)]
    assert len(set(free)) == 5
    assert all(300 <= max(shape) <= 900 for shape in free)
    fixed = [render(seed=0, kind="normal", number=n, size=80).rgb.shape[:2] for n in range(1, 6)]
    assert {max(shape) for shape in fixed} == {80}
    assert len(set(fixed)) > 1


@pytest.mark.parametrize("kind", ["benign", "malignant"])
def test_size_changes_resolution_not_anatomy(kind: str) -> None:
    small, large = (render(seed=0, kind=kind, number=3, size=size) for size in (96, 192))
    for a, b in zip(small.masks, large.masks, strict=True):
        b = np.asarray(Image.fromarray(b).resize(a.shape[::-1]))
        assert (a & b).sum() > 0.85 * (a | b).sum()


@pytest.mark.parametrize("kind", ["benign", "malignant"])
def test_lesions_are_darker_than_what_surrounds_them(kind: str) -> None:
    for number in range(1, 9):
        picture = render(seed=3, kind=kind, number=number, size=SIZE)
        image = picture.rgb[..., 0].astype(np.float32)
        for mask in picture.masks:
            assert 0.002 < mask.mean() < 0.3
            assert ndimage.label(mask)[1] == 1
            beside = ndimage.binary_dilation(mask, np.ones((1, 3)), 12) & ~ndimage.binary_dilation(mask, None, 3)
            assert image[ndimage.binary_erosion(mask, None, 2)].mean() < image[beside].mean() - 10


def test_benign_are_wider_and_malignant_taller() -> None:
    shapes = {}
    for kind in ("benign", "malignant"):
        ratios = []
        for number in range(1, 13):
            for mask in render(seed=1, kind=kind, number=number, size=64).masks:
                rows, columns = np.nonzero(mask)
                ratios.append(np.ptp(rows) / np.ptp(columns))
        shapes[kind] = np.median(ratios)
    assert shapes["benign"] < 0.9 < shapes["malignant"]


def test_several_lesions_have_masks_of_their_own() -> None:
    for count in (2, 3):
        masks = render(seed=0, kind="benign", number=number_with(count), size=SIZE).masks
        assert len(masks) == count
        assert np.sum(masks, axis=0).max() == 1, "apart"


def test_near_duplicates(tmp_path: Path) -> None:
    """Every tenth picture shows the patient of the one before, and no bytes are equal."""
    busi.write_busi(out=tmp_path, benign=10, malignant=0, normal=0, size=SIZE, near_duplicates=True)
    small = [
        np.asarray(Image.fromarray(grey(tmp_path / "benign" / f"benign ({n}).png")).resize((32, 32))).ravel()
        for n in (8, 9, 10)
    ]
    alike = np.corrcoef(small)
    assert alike[1, 2] > 0.9
    assert alike[0, 1] < 0.8
    assert (small[1] != small[2]).mean() > 0.5


def tissue(shape: tuple[int, int], **changes: np.ndarray) -> Tissue:
    flat = {"echo": np.full(shape, 30, np.float32)} | {
        n: np.zeros(shape, np.float32) for n in ("mirror", "attenuation")
    }
    return Tissue(**{**flat, **changes})


@pytest.mark.parametrize(("attenuation", "sign"), [(2.0, -1), (-2.0, 1)])
def test_shadow_and_enhancement(attenuation: float, sign: int) -> None:
    """What swallows more sound than the rest darkens what lies behind it, and only that."""
    block = np.zeros((120, 120), np.float32)
    block[30:50, 40:80] = attenuation
    probe = Probe(np.random.default_rng(0))
    image = probe.acquire(tissue(block.shape, attenuation=block), pixel=0.25, rng=np.random.default_rng(1)) * 1.0
    behind, beside = image[60:100, 48:72].mean(), image[60:100, :24].mean()
    assert sign * (behind - beside) > 25
    assert abs(image[:25, 48:72].mean() - image[:25, :24].mean()) < 6


def test_speckle_has_the_mean_of_the_tissue_and_fades_with_compounding() -> None:
    spread = []
    for looks in (1, 4):
        probe = Probe(np.random.default_rng(0))
        probe.looks, probe.gain, probe.decline, probe.smoothing, probe.dynamic_range = looks, 0, 0, 0, 60
        image = probe.acquire(tissue((200, 200)), pixel=0.1, rng=np.random.default_rng(2)) * (60 / 255)
        assert image.mean() == pytest.approx(30, abs=2)
        spread.append(image.std())
    assert spread[0] == pytest.approx(5.6, abs=0.6), "dB, of log-compressed Rayleigh speckle"
    assert spread[1] == pytest.approx(spread[0] / 2, abs=0.4)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_response_keeps_unit_variance(sigma: float) -> None:
    assert (response(sigma) ** 2).sum() == pytest.approx(1)


def test_diameters_of_an_ellipse() -> None:
    y, x = np.mgrid[:60, :80]
    (start, end), (top, bottom) = diameters(((x - 40) / 30) ** 2 + ((y - 30) / 10) ** 2 <= 1)
    assert sorted((start, end)) == [(10, 30), (70, 30)]
    assert sorted((top, bottom)) == [(40, 20), (40, 40)]


def test_resumes_and_skips(tmp_path: Path) -> None:
    arguments = {"out": tmp_path, "benign": 2, "malignant": 1, "normal": 1, "size": 64}
    assert busi.write_busi(**arguments) == 4
    before = tree(tmp_path)
    stamp = (tmp_path / "benign" / "benign (1).png").stat().st_mtime_ns
    (tmp_path / "benign" / "benign (2)_mask.png").unlink()
    (tmp_path / "benign" / ".benign (2).png.4194305.partial").touch()  # of a process that was killed
    seen = []
    assert busi.write_busi(**arguments, track=lambda items, total, **_: seen.append(total) or items) == 1
    assert seen == [1]
    assert (tmp_path / "benign" / "benign (1).png").stat().st_mtime_ns == stamp
    assert tree(tmp_path) == before
    assert busi.write_busi(**arguments, seed=5) == 4, "other arguments, other files"
    assert tree(tmp_path) != before


def test_masks_of_an_earlier_draw_are_removed(tmp_path: Path) -> None:
    """A picture with three lesions, drawn again with a seed that gives it one."""
    seed = next(s for s in range(1000) if lesion_count(seed=s, kind="benign", patient=1) == 3)
    other = next(s for s in range(1000) if lesion_count(seed=s, kind="benign", patient=1) == 1)
    for s, masks in ((seed, 3), (other, 1)):
        busi.write_busi(out=tmp_path, benign=1, malignant=0, normal=0, size=64, seed=s)
        assert len(list(tmp_path.rglob("*_mask*.png"))) == masks


def test_errors_name_every_problem(tmp_path: Path) -> None:
    with pytest.raises(InputError) as e:
        busi.write_busi(out=tmp_path, benign=-1, malignant=-1, normal=-1, size=3, seed=-1, num_processes=0)
    assert len(e.value.problems) == 6
    with pytest.raises(InputError, match="all 0"):
        busi.write_busi(out=tmp_path, benign=0, malignant=0, normal=0)
    assert list(tmp_path.iterdir()) == []


def test_real_pictures_are_never_overwritten(tmp_path: Path) -> None:
    real = tmp_path / "benign" / "benign (1).png"
    real.parent.mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(real)
    before = sorted(tmp_path.rglob("*")), tree(tmp_path)
    with pytest.raises(InputError, match="not a phantom"):
        busi.write_busi(out=tmp_path, **FEW)
    assert (sorted(tmp_path.rglob("*")), tree(tmp_path)) == before


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = ["--benign", "1", "--malignant", "1", "--normal", "1"]
    command = ["phantom", "busi", *counts, "--size", "64", "--num-processes", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "3 cases written, 0" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 cases written, 3 were there already" in capsys.readouterr().out
    assert main([*command, "--size", "5"]) == 2
    assert "--size" in capsys.readouterr().err
