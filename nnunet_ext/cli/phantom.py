"""Write a synthetic dataset in the download layout of a real one, to try everything without a download.

  nnunet_ext phantom lits --cases 16 --size 128 --slices 24 --out phantom_lits
  nnunet_ext convert lits --source phantom_lits

The images are drawn from a model of the anatomy and of the scanner; no patient is in them. Case N depends on --seed,
N, --size and --slices alone. The same command continues an interrupted one and skips what is finished.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

HELP = "write a synthetic dataset, for a first try without a download"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command per dataset."""
    datasets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    lits = datasets.add_parser(
        "lits",
        help="abdominal CT with liver and liver tumours, like LiTS",
        description="Abdominal CT in Hounsfield units: volume-N, segmentation-N (1 liver, 2 tumour) and test-volume-N.",
    )
    lits.add_argument("--cases", type=int, required=True, metavar="N", help="labelled scans")
    lits.add_argument("--size", type=int, required=True, metavar="S", help="pixels per side, 32 to 1024; LiTS has 512")
    lits.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    lits.add_argument("--seed", type=int, default=0, help="another seed, other patients (default 0)")
    lits.add_argument(
        "--slices",
        type=int,
        metavar="K",
        help="slices per scan (default: varies with the slice thickness, 0.7 to 5 mm)",
    )
    lits.add_argument("--test-cases", type=int, default=0, metavar="M", help="further scans without labels (default 0)")
    lits.add_argument(
        "--num-processes",
        type=int,
        default=os.cpu_count() or 1,
        metavar="P",
        help="cases written at the same time (default: one per core)",
    )
    lits.add_argument("--file-ending", default=".nii", metavar="END", help=".nii (default, as LiTS) or .nii.gz")
    lits.set_defaults(write=_write_lits)


def run(args: argparse.Namespace) -> int:
    """Write the dataset that was asked for."""
    return args.write(args)


def _write_lits(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from nnunet_ext.dataset_conversion.phantom.lits import write_lits

    with tqdm(total=args.cases + args.test_cases, unit="case", desc="phantom lits", disable=None) as bar:
        new = write_lits(
            out=args.out,
            cases=args.cases,
            size=args.size,
            seed=args.seed,
            slices=args.slices,
            test_cases=args.test_cases,
            num_processes=args.num_processes,
            file_ending=args.file_ending,
            progress=lambda done, _total: bar.update(done - bar.n),
        )
    print(f"{args.out}: {new} cases written, {args.cases + args.test_cases - new} were there already")
    return 0
