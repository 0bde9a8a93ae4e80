"""Tiny BUSI downloads, made by hand so that every pixel is known, and their conversion in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_ext.dataset_conversion import engine
from nnunet_ext.dataset_conversion.busi import BusiReader
from nnunet_ext.dataset_conversion.types import Outcome, Settings

DATASET = "Dataset030_BUSI"
SIZE = (64, 48)  # width, height
TWINS = ["benign_0001", "benign_0009", "malignant_0009"]  # in `twins`


def ultrasound(number: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """Coarse noise that gets darker with depth, another one for every number."""
    noise = np.random.RandomState(number).randint(40, 200, (16, 16)) * np.linspace(1, 0.4, 16)[:, None]
    return Image.fromarray(noise.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def lesion(size: tuple[int, int] = SIZE, *, left: int = 20) -> np.ndarray:
    """(height, width) bool, ten pixels wide."""
    mask = np.zeros(size[::-1], bool)
    mask[10:25, left : left + 10] = True
    return mask


def mask_image(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def published(root: Path, *, benign: int = 3, malignant: int = 2, normal: int = 0) -> Path:
    """The layout of the download: colour images, one-bit masks, a second mask for every third benign image."""
    number = 0
    for diagnosis, count in (("benign", benign), ("malignant", malignant), ("normal", normal)):
        for n in range(1, count + 1):
            number += 1
            stem = root / diagnosis / f"{diagnosis} ({n})"
            save(ultrasound(number).convert("RGB"), stem.with_name(f"{stem.name}.png"))
            mask = lesion() if diagnosis != "normal" else np.zeros_like(lesion())
            save(mask_image(mask).convert("1"), stem.with_name(f"{stem.name}_mask.png"))
            if diagnosis == "benign" and n % 3 == 0:
                save(mask_image(lesion(left=40)).convert("1"), stem.with_name(f"{stem.name}_mask_1.png"))
    return root


def twins(source: Path) -> Path:
    """`published` with benign 1 again: smaller as benign 9, with burnt-in text as malignant 9."""
    published(source, benign=8, malignant=8)
    save(ultrasound(1).resize((50, 40)), source / "benign" / "benign (9).png")
    save(mask_image(lesion((50, 40))), source / "benign" / "benign (9)_mask.png")
    written = ultrasound(1)
    written.paste(255, (5, 40, 20, 43))
    save(written, source / "malignant" / "malignant (9).png")
    save(mask_image(lesion()), source / "malignant" / "malignant (9)_mask.png")
    return source


def flattened(source: Path, root: Path, *, suffix: str = "") -> Path:
    """The files of `published` as images/X.png, masks/0/X.png and masks/1/X.png; masks may keep a suffix."""
    for path in source.rglob("*.png"):
        name, _, mask = path.stem.partition("_mask")
        if "_mask" in path.stem:
            save(Image.open(path), root / "masks" / (mask[1:] or "0") / f"{name}{suffix}.png")
        else:
            save(Image.open(path), root / "images" / path.name)
    return root


def convert(
    source: Path,
    *,
    classes: tuple[str, ...] = ("benign", "malignant"),
    target: str = "lesion",
    duplicates: str = "group",
    **settings,
) -> Outcome:
    """With the command's defaults, but one process."""
    settings = {"dataset_id": 30, "name": "BUSI", **settings}
    own = {name: settings.pop(name) for name in ("cohort", "drop") if name in settings}
    reader = BusiReader(classes=classes, target=target, duplicates=duplicates, **own)
    return engine.run(reader, Settings(source=source, **settings))


def image_of(folder: Path, case: str) -> np.ndarray:
    """A converted image, which has to be 8-bit grey."""
    with Image.open(next(folder.glob(f"imagesT?/{case}_0000.png"))) as image:
        assert image.mode == "L"
        return np.asarray(image)


def label_of(folder: Path, case: str) -> np.ndarray:
    """A converted label map, which has to be 8-bit grey."""
    with Image.open(next(folder.glob(f"labelsT?/{case}.png"))) as image:
        assert image.mode == "L"
        return np.asarray(image)
