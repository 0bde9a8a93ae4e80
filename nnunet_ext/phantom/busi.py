"""Write synthetic breast ultrasound pictures in the download layout of BUSI."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.progress import Track, untracked
from nnunet_ext.phantom.breast import KINDS, MOST_LESIONS, lesion_count, render
from nnunet_ext.phantom.writing import MARK, Job, check_ranges, write_all

MODEL = 1  # raise whenever the same arguments give other pixels
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

    Without `size`, the longer side in pixels, sizes vary as BUSI's do. Picture N of a class depends on (seed, class, N,
    size) only; with `near_duplicates` every tenth shows what the one before it shows. Finished pictures are skipped, so
    that the same call continues an interrupted one.

    Raises:
        InputError: for impossible arguments or an unusable folder.
    """
    counts = dict(zip(KINDS, (benign, malignant, normal), strict=True))
    problems = check_ranges(
        {
            **{f"--{kind}": (count, 0, None) for kind, count in counts.items()},
            "--num-processes": (num_processes, 1, None),
            "--seed": (seed, 0, None),
            "--size": (size, 64, 1024),
        }
    )
    if not any(counts.values()):
        problems.append("No pictures are asked for: --benign, --malignant and --normal are all 0.")
    if problems:
        raise InputError(*problems)
    jobs = []
    for kind, number in [(kind, i + 1) for kind, count in counts.items() for i in range(count)]:
        patient = number - 1 if near_duplicates and number % REPEATS_EVERY == 0 else number
        description = f"{MARK} {MODEL}: {kind} {number}" + (f", patient {patient}" if patient != number else "")
        description += f", seed {seed}" + (f", size {size}" if size else "")
        names = [
            f"{kind} ({number}){mask}.png" for mask in ("", "_mask", *(f"_mask_{i}" for i in range(1, MOST_LESIONS)))
        ]
        picture, *masks = (Path(out) / kind / name for name in names)
        count = max(lesion_count(seed=seed, kind=kind, patient=patient), 1)  # the mask of a normal picture is black
        draw = partial(_draw, description, seed=seed, kind=kind, number=number, size=size, patient=patient)
        files, others = [*masks[:count], picture], masks[count:]
        jobs.append(Job(files=files, description=description, draw=draw, read=_description, others=others))
    return write_all(jobs, num_processes=num_processes, track=track)


def _draw(description: str, *, number: int, **arguments: int) -> Iterator[bytes]:
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
