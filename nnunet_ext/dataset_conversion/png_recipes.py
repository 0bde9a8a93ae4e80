"""How an ultrasound image or its label map is written: picklable, so that worker processes can do it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_ext.dataset_conversion import png
from nnunet_ext.dataset_conversion.png import PngFile


@dataclass(frozen=True, kw_only=True)
class WriteGrey:
    """The image in one 8-bit channel, at its own size; `pixels` saves decoding it where that was done before."""

    source: PngFile
    pixels: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __call__(self, target: Path) -> None:
        pixels = np.asarray(png.grey(self.source.decode())) if self.pixels is None else self.pixels
        png.write(pixels, target)


@dataclass(frozen=True, kw_only=True)
class WriteLesion:
    """The union of all masks of an image as `label`, 0 elsewhere."""

    sources: tuple[PngFile, ...]
    label: int

    def __call__(self, target: Path) -> None:
        union = np.logical_or.reduce([png.lesion(source.decode()) for source in self.sources])
        png.write(union * np.uint8(self.label), target)
