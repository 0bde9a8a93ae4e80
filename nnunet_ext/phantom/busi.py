"""Synthetic BUSI: breasts under an ultrasound probe, and their files in the download layout."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from nnunet_ext.common.processes import Track, untracked
from nnunet_ext.phantom import MARK, Drawing, check_ranges, write_all
from nnunet_ext.phantom.breast import draw_tissue, place_lesions
from nnunet_ext.phantom.ultrasound import Probe, annotate

MODEL = 1  # raise whenever the same arguments give other pixels
KINDS = ("benign", "malignant", "normal")
SUFFIXES = ("", "_mask", "_mask_1", "_mask_2")  # of a picture and of one to three lesions
KEY = "Description"  # of the text chunk
REPEATS_EVERY = 10
RGBA_EVERY = 50  # one picture of BUSI has a mask with colours and transparency


def write_busi(
    *,
    out: Path,
    benign: int,
    malignant: int,
    normal: int,
    size: int | None = None,
    seed: int = 0,
    near_duplicates: bool = False,
    num_processes: int = 1,
    track: Track = untracked,
) -> int:
    """Write so many pictures of each class with their masks; return how many pictures were new.

    Without `size`, the longer side in pixels, sizes vary as BUSI's do. Frame N of a class depends on (seed, class, N,
    size) only; with `near_duplicates` every tenth shows what the one before it shows. Finished pictures are skipped, so
    that the same call continues an interrupted one.

    Raises:
        InputError: for impossible arguments or an unusable folder.
    """
    counts = dict(zip(KINDS, (benign, malignant, normal), strict=True))
    nothing = "No pictures are asked for: --benign, --malignant and --normal are all 0."
    ranges: dict[str, tuple[int | None, int, int | None]] = {f"--{k}": (count, 0, None) for k, count in counts.items()}
    ranges |= {"--num-processes": (num_processes, 1, None), "--seed": (seed, 0, None), "--size": (size, 64, 1024)}
    check_ranges(ranges, *([] if any(counts.values()) else [nothing]))
    drawings = []
    for kind, number in [(kind, i + 1) for kind, count in counts.items() for i in range(count)]:
        patient = number - 1 if near_duplicates and number % REPEATS_EVERY == 0 else number
        description = f"{MARK} {MODEL}: {kind} {number}" + (f", patient {patient}" if patient != number else "")
        description += f", seed {seed}" + (f", size {size}" if size else "")
        picture, *masks = (Path(out) / kind / f"{kind} ({number}){suffix}.png" for suffix in SUFFIXES)
        count = max(lesion_count(seed=seed, kind=kind, patient=patient), 1)  # the mask of a normal picture is black
        draw = partial(_draw, description, seed=seed, kind=kind, number=number, size=size, patient=patient)
        files, others = [*masks[:count], picture], masks[count:]
        drawings.append(Drawing(files=files, description=description, draw=draw, read=_description, others=others))
    return write_all(drawings, num_processes=num_processes, track=track)


def _draw(description: str, *, number: int, **arguments: Any) -> Iterator[bytes]:
    """Yield PNG files in BUSI's modes: 1-bit masks, a rare RGBA mask, RGB for black ones, and last the RGB picture."""
    drawn = render(number=number, **arguments)
    masks = [Image.fromarray(mask) for mask in drawn.masks]
    if number % RGBA_EVERY == 4:
        masks = [mask.convert("RGBA") for mask in masks]
    text = PngInfo()
    text.add_text(KEY, description)
    for image in (*(masks or [Image.fromarray(np.zeros_like(drawn.rgb))]), Image.fromarray(drawn.rgb)):
        content = io.BytesIO()
        image.save(content, "PNG", pnginfo=text)
        yield content.getvalue()


def _description(path: Path) -> str:
    """Read the text chunk; "" if there is none or this is not a picture."""
    try:
        with Image.open(path) as image:
            return str(image.info.get(KEY, ""))
    except (UnidentifiedImageError, OSError, SyntaxError):
        return ""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a machine would store, uint8 (height, width, 3), and what a reader would draw, one mask per lesion."""

    rgb: NDArray[np.uint8]
    masks: tuple[NDArray[np.bool_], ...]


def render(*, seed: int, kind: str, number: int, size: int | None, patient: int | None = None) -> Frame:
    """Draw one picture.

    Args:
        seed, kind, number: which picture; kind is benign, malignant or normal.
        size: pixels of the longer side; None for sizes that vary as BUSI's do.
        patient: whose breast is seen, by default one per picture. Two pictures of one patient are near-duplicates:
            they differ in noise, gain, markers and a few pixels of the frame.
    """
    patient = number if patient is None else patient
    anatomy, view = _stream(seed, kind, patient, 1), _stream(seed, kind, number, 2)
    width = float(np.clip(anatomy.normal(600, 110), 300, 900))
    height = width * anatomy.uniform(0.68, 0.95)
    scale = 1 if size is None else size / max(width, height)
    width, height, depth = round(width * scale), round(height * scale), float(anatomy.uniform(28, 42))  # pixels, mm
    pixel = depth / height
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(pixel)
    x = (np.arange(width, dtype=np.float32)[None, :] - np.float32(width / 2)) * np.float32(pixel)
    probe = Probe(anatomy)
    lesions = place_lesions(anatomy, kind, lesion_count(seed=seed, kind=kind, patient=patient), depth, pixel * width)
    tissue = draw_tissue(anatomy, y, x, depth)
    for lesion in lesions:
        lesion.paint(tissue, y, x, anatomy)
    probe.gain += view.uniform(-1, 1)
    top, right = view.integers(0, 1 + (height // 100 if patient != number else 0), 2)
    framed = slice(top, height), slice(0, width - right)
    grey = probe.acquire(tissue, pixel=pixel, rng=view)[framed]
    masks = tuple(lesion.mask(y, x)[framed] for lesion in lesions)
    return Frame(rgb=annotate(grey, masks=masks, rng=_stream(seed, kind, number, 3)), masks=masks)


def lesion_count(*, seed: int, kind: str, patient: int) -> int:
    """Return how many lesions the picture of a patient shows, without drawing it."""
    if kind == "normal":
        return 0
    draw = _stream(seed, kind, patient, 0).uniform()
    return 1 + int(draw > 0.92) + int(draw > 0.985)


def _stream(seed: int, kind: str, number: int, part: int) -> np.random.Generator:
    """Return random numbers that depend on the arguments alone."""
    return np.random.default_rng([seed, KINDS.index(kind), number, part])
