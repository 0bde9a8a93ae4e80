"""Write synthetic breast ultrasound pictures in the download layout of BUSI."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from nnunet_ext.common.errors import InputError
from nnunet_ext.phantom.breast import KINDS, MOST_LESIONS, lesion_count, render
from nnunet_ext.phantom.writing import MARK, Job, too_small, write_all, write_file

MODEL = 1  # raise whenever the same arguments give other pixels
KEY = "Description"
SMALLEST, LARGEST = 64, 1024  # pixels
REPEATS_EVERY = 10
RGBA_EVERY = 50  # one picture of BUSI has a mask with colours and transparency


@dataclass(frozen=True, kw_only=True)
class Picture(Job):
    """One picture to write with its masks; the arguments of `render`, and where to."""

    kind: str
    number: int
    size: int | None
    near_duplicates: bool

    @property
    def patient(self) -> int:
        """With near-duplicates, every tenth picture shows the patient of the one before."""
        repeats = self.near_duplicates and self.number % REPEATS_EVERY == 0
        return self.number - 1 if repeats else self.number

    @property
    def image(self) -> Path:
        """The picture's own file."""
        return self.out / self.kind / f"{self.kind} ({self.number}).png"

    @property
    def masks(self) -> list[Path]:
        """One file per lesion; one for a normal picture, all black."""
        count = lesion_count(seed=self.seed, kind=self.kind, patient=self.patient)
        return [self.mask(i) for i in range(max(count, 1))]

    def mask(self, index: int) -> Path:
        """BUSI's names: _mask, _mask_1, _mask_2."""
        return self.image.with_name(f"{self.image.stem}_mask{f'_{index}' if index else ''}.png")

    @property
    def files(self) -> list[Path]:
        """The masks, and last the picture."""
        return [*self.masks, self.image]

    @property
    def description(self) -> str:
        """What the text chunk says about the origin."""
        patient = "" if self.patient == self.number else f", patient {self.patient}"
        size = "" if self.size is None else f", size {self.size}"
        return f"{MARK} {MODEL}: {self.kind} {self.number}{patient}, seed {self.seed}{size}"

    @staticmethod
    def description_of(path: Path) -> str | None:
        """The text chunk; None if the file is missing, an empty string if it has none or is no picture."""
        if not path.is_file():
            return None
        try:
            with Image.open(path) as image:
                return str(image.info.get(KEY, ""))
        except (UnidentifiedImageError, OSError, SyntaxError):
            return ""

    def done(self) -> bool:
        """True also only if no mask of another draw lies beside ours."""
        return super().done() and not self.leftovers()

    def leftovers(self) -> list[Path]:
        """Masks that an earlier phantom with more lesions left under this picture's name."""
        ours = set(self.masks)
        others = [mask for mask in map(self.mask, range(MOST_LESIONS)) if mask not in ours]
        return [mask for mask in others if (self.description_of(mask) or "").startswith(MARK)]

    def write(self) -> None:
        """Render and write, the picture last; the modes are BUSI's: RGB pictures, 1-bit masks, RGB for black ones."""
        drawn = render(seed=self.seed, kind=self.kind, number=self.number, size=self.size, patient=self.patient)
        for leftover in self.leftovers():
            leftover.unlink()
        masks = [self.mask_image(mask) for mask in drawn.masks] or [Image.fromarray(np.zeros_like(drawn.rgb))]
        for path, image in zip(self.files, (*masks, Image.fromarray(drawn.rgb)), strict=True):
            write_png(path=path, image=image, description=self.description)

    def mask_image(self, mask: NDArray[np.bool_]) -> Image.Image:
        """1 bit, but for the rare RGBA mask."""
        image = Image.fromarray(mask)
        return image.convert("RGBA") if self.number % RGBA_EVERY == 4 else image


def write_png(*, path: Path, image: Image.Image, description: str) -> None:
    """Write one PNG file, without a time stamp."""
    text = PngInfo()
    text.add_text(KEY, description)
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=text)
    write_file(path, data.getvalue())


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
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write so many pictures of each class with their masks; return how many pictures were new.

    Without `size`, the longer side in pixels, sizes vary as BUSI's do. Picture N of a class depends on (seed, class, N,
    size) only; with `near_duplicates` every tenth shows what the one before it shows. Finished pictures are skipped, so
    that the same call continues an interrupted one. `progress` is told (done, all) after every picture.

    Raises:
        InputError: for impossible arguments or an unusable folder.
    """
    out = Path(out)
    counts = dict(zip(KINDS, (benign, malignant, normal), strict=True))
    problems = too_small(
        {
            **{f"--{kind}": (count, 0) for kind, count in counts.items()},
            "--num-processes": (num_processes, 1),
            "--seed": (seed, 0),
        }
    )
    if not problems and not any(counts.values()):
        problems.append("No pictures are asked for: --benign, --malignant and --normal are all 0.")
    if size is not None and not SMALLEST <= size <= LARGEST:
        problems.append(f"--size must be {SMALLEST} to {LARGEST} pixels, not {size}.")
    if problems:
        raise InputError(*problems)
    pictures = [
        Picture(out=out, seed=seed, kind=kind, number=number, size=size, near_duplicates=near_duplicates)
        for kind, count in counts.items()
        for number in range(1, count + 1)
    ]
    return write_all(pictures, out=out, num_processes=num_processes, progress=progress)
