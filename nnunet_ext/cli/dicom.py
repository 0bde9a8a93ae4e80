"""Turn DICOM into images that nnU-Net predicts.

  nnunet_ext dicom read -i STUDIES -o imagesTs
  nnUNetv2_predict -i imagesTs -o predictions ...

read takes a file, a series or a folder of studies. A series with places in space becomes CASE_0000.nii.gz, ordered by
place, in HU where it is CT; one without, such as ultrasound, a picture per frame. CASE is the patient ID and the number
of the series; imagesTs/dicom.json says which files it was made of. Slices that are missing, twice there, tilted or
enhanced are refused. `nnunet_ext predict -i STUDIES` does the same on the way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import progress_bar
from nnunet_ext.common.text import count

HELP = "turn DICOM series into images for nnU-Net"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    read = actions.add_parser("read", help="write a series or a folder of studies as nnU-Net's images")
    read.add_argument("-i", type=Path, required=True, metavar="PATH", help="DICOM file, series or folder of studies")
    read.add_argument("-o", type=Path, required=True, metavar="DIR", help="folder of the images; empty or new")
    read.add_argument("--file-ending", default=".nii.gz", choices=(".nii.gz", ".nii", ".png"), help="default: .nii.gz")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.dicom.images import write_images

    if args.o.exists() and (not args.o.is_dir() or any(args.o.iterdir())):
        raise InputError(f"{args.o} is not an empty folder.", hint="Name another folder with -o.")
    args.o.mkdir(parents=True, exist_ok=True)
    written = write_images(args.i, args.o, args.file_ending, track=progress_bar)
    for note in written.notes:
        print(note)
    print(f"{args.o}: {count(len(written.cases), 'image')}")
    return 0
