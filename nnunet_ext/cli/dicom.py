"""Turn DICOM into images that nnU-Net predicts, and its predictions into DICOM-SEG.

  nnunet_ext dicom read -i STUDIES -o imagesTs
  nnUNetv2_predict -i imagesTs -o predictions ...
  nnunet_ext dicom write --pred predictions --images imagesTs

read takes a file, a series or a folder of studies. A series with places in space becomes CASE_0000.nii.gz, ordered by
place, in HU where it is CT; one without, such as ultrasound, a picture per frame. CASE is the patient ID and the number
of the series; imagesTs/dicom.json says which files it was made of. Slices that are missing, twice there, tilted or
enhanced are refused. `nnunet_ext predict -i STUDIES` does the same on the way.

write makes CASE.dcm next to each prediction: a DICOM-SEG that refers to the images, with SNOMED's codes for liver,
tumour (neoplasm) and lesion. --region says where tumours and lesions lie.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import PARTIAL
from nnunet_ext.common.processes import progress_bar
from nnunet_ext.common.text import count

HELP = "turn DICOM series into images for nnU-Net, and predictions into DICOM-SEG"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    read = actions.add_parser("read", help="write a series or a folder of studies as nnU-Net's images")
    read.add_argument("-i", type=Path, required=True, metavar="PATH", help="DICOM file, series or folder of studies")
    read.add_argument("-o", type=Path, required=True, metavar="DIR", help="folder of the images; empty or new")
    read.add_argument("--file-ending", default=".nii.gz", choices=(".nii.gz", ".nii", ".png"), help="default: .nii.gz")
    read.add_argument("--skip-bad", action="store_true", help="leave out series that are no such images, and say so")
    write = actions.add_parser("write", help="write predictions as DICOM-SEG")
    write.add_argument("--pred", type=Path, required=True, metavar="DIR", help="nnU-Net's predictions")
    write.add_argument("--images", type=Path, required=True, metavar="DIR", help="images that `dicom read` wrote")
    write.add_argument("--dataset-json", type=Path, metavar="FILE", help="labels; default: that of the predictions")
    write.add_argument("--model", metavar="NAME", help="of the algorithm; default: what lies next to the predictions")
    write.add_argument("--region", default="", choices=("liver", "breast"), help="where tumours and lesions lie")


def run(args: argparse.Namespace) -> int:
    return _write(args) if args.action == "write" else _read(args)


def _write(args: argparse.Namespace) -> int:
    from nnunet_ext.common.nnunet_files import DATASET
    from nnunet_ext.dicom.segmentation_object import Model, write_segmentations
    from nnunet_ext.evaluation.origin import origin

    known = origin(args.pred)
    name = args.model or " ".join(str(known[key]) for key in ("trainer", "plans", "dataset") if key in known)
    model = Model(name=name or "nnU-Net v2, model unknown", region=args.region)
    made = write_segmentations(args.images, args.pred, args.dataset_json or args.pred / DATASET, model)
    print(f"{args.pred}: {count(len(made), 'DICOM-SEG object')}")
    return 0


def _read(args: argparse.Namespace) -> int:
    from nnunet_ext.dicom.images import write_images

    if args.o.exists() and (not args.o.is_dir() or any(args.o.iterdir())):
        raise InputError(f"{args.o} is not an empty folder.", hint="Name another folder with -o.")
    args.o.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{args.o.name}.", suffix=PARTIAL, dir=args.o.parent) as folder:
        made = Path(folder, "images")  # with the usual permissions
        made.mkdir()
        written = write_images(args.i, made, args.file_ending, skip_bad=args.skip_bad, track=progress_bar)
        made.replace(args.o)
    for note in written.notes:
        print(note)
    print(f"{args.o}: {count(len(written.cases), 'image')}")
    return 0
