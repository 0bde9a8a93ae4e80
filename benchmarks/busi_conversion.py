"""Seconds that converting all of BUSI takes on two cores.

    python benchmarks/busi_conversion.py [--source Dataset_BUSI_with_GT] [--runs 5]

From a part of BUSI a whole one is made by mirroring (in four orientations, so that mirrored images are no
near-duplicates); without any, 780 images of noise of BUSI's mean size are drawn, which compress worse than ultrasound.
Every run is a command of its own, which includes Python's start and imports.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from common import aim, convert, interleaved, machine, medians, options, save
from PIL import Image

from nnunet_ext.dataset_conversion.busi import PUBLISHED
from nnunet_ext.dataset_conversion.same_frame import SIDE, pairs

AIM = 10  # seconds
ORIENTATIONS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
)


def mirror(source: Path, folder: Path) -> None:
    """Write every image and mask in as many orientations as it takes to come near to BUSI's number."""
    paths = sorted(source.rglob("*.png"))
    images = sum("_mask" not in path.name for path in paths)
    for k, orientation in enumerate(ORIENTATIONS[: max(1, round(sum(PUBLISHED.values()) / images))]):
        for path in paths:
            target = folder / path.parent.name / path.name.replace("(", f"({k}00")
            target.parent.mkdir(parents=True, exist_ok=True)
            if orientation is None:
                shutil.copy(path, target)
                continue
            with Image.open(path) as image:
                image.transpose(orientation).save(target)


def draw(folder: Path) -> None:
    """Write grey noise stored in colour, as BUSI's images are, with one-bit masks."""
    rng = np.random.default_rng(0)
    mask = np.zeros((503, 618), bool)
    mask[200:300, 200:400] = True
    for diagnosis, count in PUBLISHED.items():
        (folder / diagnosis).mkdir(parents=True)
        for n in range(1, count + 1):
            layers = np.repeat(np.repeat(rng.integers(20, 200, (8, 8)), 64, axis=0)[:503], 78, axis=1)[:, :618]
            image = Image.fromarray((layers * rng.rayleigh(0.3, mask.shape)).clip(0, 255).astype(np.uint8))
            image.convert("RGB").save(folder / diagnosis / f"{diagnosis} ({n}).png")
            Image.fromarray(mask & (diagnosis != "normal")).save(folder / diagnosis / f"{diagnosis} ({n})_mask.png")


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__, runs=5)
    parser.add_argument("--source", type=Path, help="BUSI, or part of it")
    args = parser.parse_args()
    thumbnails = np.random.default_rng(0).integers(0, 256, (sum(PUBLISHED.values()), SIDE, SIDE), np.uint8)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        mirror(args.source, root / "BUSI") if args.source else draw(root / "BUSI")
        files = list((root / "BUSI").rglob("*.png"))
        count, size = sum("_mask" not in f.name for f in files), sum(f.stat().st_size for f in files)
        where = machine()

        def run(*words: str) -> None:
            convert("busi", root / "BUSI", root / "raw", "--classes", *PUBLISHED, *words)

        variants = {
            "two processes": lambda: run("--num-processes", "2"),
            "one process": lambda: run("--num-processes", "1"),
            "check and search only (--dry-run), two threads": lambda: run("--num-processes", "2", "--dry-run"),
            "search of 780 images of noise for near-duplicates": lambda: pairs(thumbnails),
            "start of the command (--help)": lambda: run("--help"),
        }
        seconds = medians(interleaved(variants, args.runs))
    whole = seconds["two processes"] * sum(PUBLISHED.values()) / count
    save(
        "busi_conversion",
        title=f"Converting {count} images of BUSI ({size / 1e6:.0f} MB)",
        command=f"python benchmarks/busi_conversion.py{' --source Dataset_BUSI_with_GT' if args.source else ''}",
        notes=[
            f"Medians of {args.runs} interleaved runs.",
            "",
            aim(f"seconds for all {sum(PUBLISHED.values())} images on two cores", whole, AIM),
        ],
        header=("run", "seconds", "images per second"),
        rows=[(n, f"{t:.3f}", f"{count / t:.0f}" if "process" in n else "") for n, t in seconds.items()],
        packages=("pillow", "numpy", "scipy"),
        where=where,
        runs=args.runs,
        images=count,
        bytes=size,
        seconds=seconds,
        seconds_for_all_on_two_cores=whole,
    )


if __name__ == "__main__":
    main()
