"""Write a synthetic dataset in the download layout of a real one, to try everything without a download.

  nnunet_ext phantom lits --cases 16 --size 128 --slices 24 --out phantom_lits
  nnunet_ext convert lits --source phantom_lits

  nnunet_ext phantom busi --benign 44 --malignant 21 --normal 13 --out phantom_busi

The images are drawn from a model of the anatomy and of the scanner; no patient is in them. Case N depends on --seed,
N and the sizes asked for alone. The same command continues an interrupted one and skips what is finished.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.common.processes import cpus, progress_bar
from nnunet_ext.common.text import count

HELP = "write a synthetic dataset, for a first try without a download"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    datasets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    lits = datasets.add_parser(
        "lits",
        help="abdominal CT with liver and liver tumours, like LiTS",
        description="Abdominal CT in Hounsfield units: volume-N, segmentation-N (1 liver, 2 tumour) and test-volume-N.",
    )
    lits.add_argument("--cases", type=int, required=True, metavar="N", help="labelled scans")
    lits.add_argument("--size", type=int, required=True, metavar="S", help="pixels per side, 32 to 1024; LiTS has 512")
    _add_common(lits, "patients")
    lits.add_argument(
        "--slices",
        type=int,
        metavar="K",
        help="slices per scan (default: varies with the slice thickness, 0.7 to 5 mm)",
    )
    lits.add_argument("--test-cases", type=int, default=0, metavar="M", help="further scans without labels (default 0)")
    lits.add_argument("--file-ending", default=".nii", metavar="END", help=".nii (default, as LiTS) or .nii.gz")

    busi = datasets.add_parser(
        "busi",
        help="breast ultrasound with benign and malignant lesions, like BUSI",
        description="B-mode ultrasound: 'benign/benign (N).png' with _mask.png, _mask_1.png; malignant; normal.",
    )
    for kind, about in (("benign", "benign lesions"), ("malignant", "malignant lesions"), ("normal", "no lesion")):
        busi.add_argument(f"--{kind}", type=int, required=True, metavar="N", help=f"pictures with {about}")
    busi.add_argument(
        "--size", type=int, metavar="S", help="pixels of the longer side, 64 to 1024 (default: varies as BUSI's does)"
    )
    _add_common(busi, "pictures")
    busi.add_argument(
        "--near-duplicates", action="store_true", help="every tenth picture repeats the one before, slightly changed"
    )


def _add_common(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help=f"another seed, other {what} (default 0)")
    parser.add_argument(
        "--num-processes",
        type=int,
        default=cpus(),
        metavar="P",
        help="cases written at the same time (default: one per core)",
    )


def run(args: argparse.Namespace) -> int:
    options = {name: value for name, value in vars(args).items() if name not in ("verb", "run", "dataset")}
    if args.dataset == "lits":
        from nnunet_ext.phantom.lits import write_lits

        new, total = write_lits(**options, track=progress_bar), args.cases + args.test_cases
    else:
        from nnunet_ext.phantom.busi import write_busi

        new, total = write_busi(**options, track=progress_bar), args.benign + args.malignant + args.normal
    print(f"{args.out}: {count(new, 'case')} written, {total - new} were there already")
    return 0
