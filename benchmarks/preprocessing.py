"""The paper's intensity chain per 512x512 slice, against scikit-image and SciPy doing the same steps.

    python benchmarks/preprocessing.py [--runs 15]

"The same" is window to 8 bit, 3x3 median, CLAHE on an 8x8 grid of tiles. scikit-image's CLAHE is another algorithm with
another clip limit scale, so the outputs differ; the steps and their order are equal.
"""

from __future__ import annotations

import numpy as np
from common import aim, interleaved, machine, medians, options, save
from scipy.ndimage import median_filter
from skimage.exposure import equalize_adapthist

from nnunet_ext.phantom.lits import render
from nnunet_ext.preprocessing import LiverWindowCLAHENormalization, LiverWindowNormalization, window

SLICES = 4
AIM = 10  # times as fast as the others


def scikit_image(volume: np.ndarray) -> np.ndarray:
    """Run the window, SciPy's median and scikit-image's CLAHE."""
    out = np.empty(volume.shape, np.float32)
    for source, target in zip(volume, out, strict=True):
        grey = median_filter(np.rint(window(source) * 255).astype(np.uint8), 3)
        target[...] = equalize_adapthist(grey, kernel_size=(64, 64), clip_limit=0.01, nbins=256)
    return out


def main() -> None:
    """Measure, print, write."""
    runs, where = options(__doc__, runs=15).parse_args().runs, machine()
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
        notes=[
            f"Medians of {runs} interleaved runs over {SLICES} slices.",
            "",
            aim("speed of window, median and CLAHE over the others'", theirs / ours, AIM, at_least=True),
        ],
        header=("chain", "ms per slice", "ratio to ours"),
        rows=[(name, f"{value:.2f}", f"{value / ours:.2f}") for name, value in ms.items()],
        packages=("opencv-python-headless", "scikit-image", "scipy", "numpy"),
        where=where,
        runs=runs,
        milliseconds_per_slice=ms,
        times_faster=theirs / ours,
    )


if __name__ == "__main__":
    main()
