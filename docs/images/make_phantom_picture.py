"""Make phantom_lits.png and phantom_busi.png: synthetic scans and pictures, plain and with the labels' outlines.

python docs/images/make_phantom_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from nnunet_ext.phantom import busi, lits

CASES = ((0, 26), (8, 24), (3, 17), (1, 24))  # (case, slice)
SLICES, SIZE = 42, 512
WINDOW = (-120, 240)
OUTLINES = ("#2ee66b", "#ff4d4d")
PICTURES = (("benign", 3), ("benign", 6), ("malignant", 1), ("malignant", 5), ("normal", 2))  # (class, number)
PICTURE_SIZE = 470


def radiological(voxels: NDArray, *, affine: NDArray[np.float64], index: int) -> NDArray:
    """Return slice `index` with the patient's right on the left and the front on top, shape (rows, columns)."""
    canonical = nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))
    return np.asarray(canonical.dataobj)[::-1, ::-1, index].T


def draw(axes: NDArray, *, case: lits.Scan, index: int) -> None:
    """Draw one column: the image, and the image with outlines."""
    image = radiological(case.hu, affine=case.affine, index=index)
    labels = radiological(case.labels, affine=case.affine, index=index)
    for ax in axes:
        ax.imshow(image, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], interpolation="antialiased")
        ax.set_axis_off()
        ax.set_ylim(0.88 * SIZE, 0.12 * SIZE)
    for level, colour in zip((0.5, 1.5), OUTLINES, strict=True):
        if (labels > level).any():
            axes[1].contour(labels > level, [0.5], colors=colour, linewidths=0.8)


def palette() -> Image.Image:
    """Return greys and the outlines in two strengths: a small file that keeps its colours."""
    greys = [(v, v, v) for v in np.linspace(0, 255, 52).astype(int)]
    colours = [
        tuple(int(c * s + 110 * (1 - s)) for c in ImageColor.getrgb(name)) for name in OUTLINES for s in (1, 0.6)
    ]
    image = Image.new("P", (1, 1))
    image.putpalette([int(v) for rgb in (*greys, *colours) for v in rgb])
    return image


def draw_picture(axes: NDArray, *, picture: busi.Frame, colour: str) -> None:
    """Draw one column: the ultrasound picture, and the picture with outlines."""
    for ax in axes:
        ax.imshow(picture.rgb, interpolation="antialiased")
        ax.set_axis_off()
        ax.set_aspect("auto")
    for mask in picture.masks:
        axes[1].contour(mask, [0.5], colors=colour, linewidths=0.8)


def save(figure: plt.Figure, name: str) -> None:
    """Write the figure to the folder of this file."""
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.01, hspace=0.01)
    figure.set_dpi(110)
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    picture = picture.quantize(palette=palette(), dither=Image.Dither.NONE)
    picture.save(Path(__file__).with_name(name), optimize=True)


def main() -> None:
    """Render and save both pictures."""
    figure, axes = plt.subplots(2, len(CASES), figsize=(10, 3.8), facecolor="black")
    for column, (number, index) in zip(axes.T, CASES, strict=True):
        draw(column, case=lits.render(seed=0, case=number, size=SIZE, slices=SLICES), index=index)
    save(figure, "phantom_lits.png")

    figure, axes = plt.subplots(2, len(PICTURES), figsize=(10, 3.3), facecolor="black")
    for column, (kind, number) in zip(axes.T, PICTURES, strict=True):
        picture = busi.render(seed=0, kind=kind, number=number, size=PICTURE_SIZE)
        draw_picture(column, picture=picture, colour=OUTLINES[kind == "malignant"])
    save(figure, "phantom_busi.png")


if __name__ == "__main__":
    main()
