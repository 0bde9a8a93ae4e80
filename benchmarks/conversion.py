"""Converting LiTS against `cp` of the same files: 20 volumes of 512x512x100 with their labels.

    python benchmarks/conversion.py [--runs 5] [--cases 20] [--slices 100]

Linked mode links images and labels (`--target liver-tumour`) and is bound by the check of every label voxel; writing
mode copies the images and writes the labels (`--link copy`). Every run is a command of its own, which includes Python's
start and imports; the start-up alone is measured too. Volumes are noise of CT's entropy in LiTS layout, since drawing
phantoms of this size would take longer than the measurement. gzip is reported apart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from common import aim, convert, interleaved, machine, medians, options, save

AIM = 0.5  # of cp's speed, where everything is written


def make_source(folder: Path, cases: int, slices: int) -> int:
    """Write volumes and labels in LiTS layout; return the bytes of all files."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    affine = np.diag([-0.7, -0.7, 2.5, 1])
    for n in range(cases):
        image = rng.normal(60, 30, (512, 512, slices)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[100:300, 150:350, : slices // 2] = 1
        label[150 : 180 + n, 200:240, 5:20] = 2
        nib.save(nib.Nifti1Image(image, affine), folder / f"volume-{n}.nii")
        nib.save(nib.Nifti1Image(label, affine), folder / f"segmentation-{n}.nii")
    return sum(f.stat().st_size for f in folder.iterdir())


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__, runs=5)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--slices", type=int, default=100)
    args, where = parser.parse_args(), machine()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = make_source(root / "LiTS", args.cases, args.slices)
        few = root / "few"
        few.mkdir()
        for n in range(min(args.cases, 5)):
            for kind in ("volume", "segmentation"):
                os.link(root / "LiTS" / f"{kind}-{n}.nii", few / f"{kind}-{n}.nii")

        def run(*words: str, source: Path = root / "LiTS") -> None:
            convert("lits", source, root / "raw", *words)

        def copy() -> None:
            shutil.rmtree(root / "copy", ignore_errors=True)
            subprocess.run(["cp", "-r", root / "LiTS", root / "copy"], check=True)

        variants = {
            "cp": copy,
            "linked images and labels (--target liver-tumour)": lambda: run("--target", "liver-tumour"),
            "linked images, written labels (the default)": run,
            "copied images, written labels (--link copy)": lambda: run("--link", "copy"),
            "start of the command (--help)": lambda: run("--help"),
            "start of the command and its imports (--dry-run, 5 cases)": lambda: run("--dry-run", source=few),
        }
        seconds = medians(interleaved(variants, args.runs))
        gzip = medians(interleaved({"5 cases to .nii.gz": lambda: run("--file-ending", ".nii.gz", source=few)}, 1))
    cp = seconds["cp"]
    writing = cp / seconds["copied images, written labels (--link copy)"]
    times = {**seconds, **gzip}
    save(
        "conversion",
        title=f"Converting {args.cases} volumes of 512x512x{args.slices} ({size / 1e9:.2f} GB)",
        command="python benchmarks/conversion.py",
        notes=[
            f"Medians of {args.runs} interleaved runs (gzip: one).",
            "",
            aim("speed of writing mode over that of cp", writing, AIM, at_least=True),
        ],
        header=("run", "seconds", "speed against cp"),
        rows=[(n, f"{t:.2f}", f"{cp / t:.2f}" if n in seconds and "start" not in n else "") for n, t in times.items()],
        packages=("nibabel", "SimpleITK", "numpy"),
        where=where,
        runs=args.runs,
        bytes=size,
        seconds=times,
        writing_mode_speed_against_cp=writing,
    )


if __name__ == "__main__":
    main()
