"""The paper's intensity chain per 512x512 slice, against scikit-image and SciPy doing the same steps.

    python benchmarks/preprocessing.py [--runs 15]

"The same" is window to 8 bit, 3x3 median, CLAHE on an 8x8 grid of tiles. scikit-image's CLAHE is another algorithm with
another clip limit scale, so the outputs differ; the steps and their order are equal. Aim: at least 10 times faster.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import interleaved, machine, medians, save
from scipy.ndimage import median_filter
from skimage.exposure import equalize_adapthist

from nnunet_ext.phantom.lits import render
from nnunet_ext.preprocessing import LiverWindowCLAHENormalization, LiverWindowNormalization, window

SLICES = 4


def scikit_image(volume: np.ndarray) -> np.ndarray:
    """Window, SciPy's median, scikit-image's CLAHE."""
    out = np.empty(volume.shape, np.float32)
    for source, target in zip(volume, out, strict=True):
        grey = median_filter(np.rint(window(source) * 255).astype(np.uint8), 3)
        target[...] = equalize_adapthist(grey, kernel_size=(64, 64), clip_limit=0.01, nbins=256)
    return out


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs, where = parser.parse_args().runs, machine()
    scan = render(seed=0, case=0, size=512, slices=SLICES)
    volume = np.ascontiguousarray(scan.hu.T, dtype=np.float32)
    chain, plain = (s(False, {}) for s in (LiverWindowCLAHENormalization, LiverWindowNormalization))
    variants = {
        "nnunet_ext: window, median, CLAHE (OpenCV)": lambda: chain.run(volume),
        "scikit-image + SciPy: window, median, CLAHE": lambda: scikit_image(volume),
        "nnunet_ext: window only": lambda: plain.run(volume),
    }
    ms = {name: seconds * 1000 / SLICES for name, seconds in medians(interleaved(variants, runs)).items()}
    ours, theirs, _ = ms.values()
    save(
        "preprocessing",
        title="Preprocessing chain per 512x512 slice",
        command="python benchmarks/preprocessing.py",
        notes=[f"Medians of {runs} interleaved runs over {SLICES} slices. Aim: at least 10 times faster: "
               f"**{theirs / ours:.0f} times**."],
        header=("chain", "ms per slice", "ratio to ours"),
        rows=[(name, f"{value:.2f}", f"{value / ours:.2f}") for name, value in ms.items()],
        packages=("opencv-python-headless", "scikit-image", "scipy", "numpy"),
        where=where,
        runs=runs,
        milliseconds_per_slice=ms,
        times_faster=theirs / ours,
    )  # fmt: skip


if __name__ == "__main__":
    main()
