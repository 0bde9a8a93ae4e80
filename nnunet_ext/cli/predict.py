"""Predict with clicks, for the trainers of the SAM family and for nnU-Net that was trained with clicks.

  nnunet_ext predict -m MODEL_FOLDER -i imagesTs -o OUT --prompts prompts.json
  nnunet_ext predict -m MODEL_FOLDER -i imagesTs -o OUT --from-reference labelsTs

prompts.json (or a CSV file, see docs/prompts.md) holds points and boxes by case, in pixels of the image counted from 0;
"foreground" is true unless given, "class" is needed with several classes, "object" (1 unless given) parts several
objects of a class, and in a volume the slice comes last: [x, y, z], [x0, y0, x1, y1, z]:

  {"case_1": [{"point": [120, 88]}, {"point": [10, 9], "foreground": false}], "case_2": [{"box": [3, 4, 50, 60]}]}

Images that the file does not name are predicted with the learned prompts, unless --require-prompts.

--from-reference clicks on the middle foreground pixel of every slice and class, as the papers do at test time: an upper
bound that no automatic method can be compared with. --rule has other ways: random, box, corrections:N, see
docs/prompts.md. Without either, the learned prompts are used, as nnUNetv2_predict does. OUT/prompts_used.json says
where the clicks came from and where they were. The same command continues.

All images and references are read and checked before the first is predicted. Without --overwrite, no segmentation is
replaced that prompts_used.json does not name; with it neither, where -o lies among the images, references or the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import continuing, progress_bar

HELP = "predict with clicks (SAM, SAMUS, SAMUS-HF, nnU-Net with clicks)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", type=Path, required=True, metavar="DIR", help="model: TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("-i", type=Path, required=True, metavar="DIR", help="images, as trained on, or DICOM")
    parser.add_argument("-o", type=Path, required=True, metavar="DIR", help="folder of the segmentations")
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds to average; default: all that are there")
    parser.add_argument("-chk", default="checkpoint_best.pth", metavar="FILE", help="default: %(default)s")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--prompts", type=Path, metavar="FILE", help="points and boxes, see above")
    prompts.add_argument("--from-reference", type=Path, metavar="DIR", help="segmentations to take clicks from")
    parser.add_argument("--rule", default="centre", metavar="RULE", help="with --from-reference; default: %(default)s")
    parser.add_argument("--require-prompts", action="store_true", help="refuse images that FILE has no prompts for")
    parser.add_argument("--npz", action="store_true", help="save probabilities as well, as nnU-Net does")
    parser.add_argument(
        "--dicom-seg",
        nargs="?",
        const="",
        choices=("", "liver", "breast"),
        metavar="REGION",
        help="with DICOM images: write DICOM-SEG as well; liver or breast: where tumours and lesions lie",
    )
    parser.add_argument("--overwrite", action="store_true", help="predict once more, and replace, what is there")
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from nnunet_ext.common.files import read_json
    from nnunet_ext.common.nnunet_files import DATASET
    from nnunet_ext.common.text import count
    from nnunet_ext.dicom.images import as_images
    from nnunet_ext.dicom.segmentation_object import Model, check, write_segmentations
    from nnunet_ext.inference.prediction import Request, predict
    from nnunet_ext.inference.reference_prompts import ReferenceRule

    if args.from_reference is None and args.rule != "centre":
        raise InputError("--rule is of --from-reference.", hint="Add --from-reference DIR, or leave --rule out.")

    request = Request(
        model=args.m,
        source=args.i,
        out=args.o,
        folds=tuple(args.f) if args.f else None,
        checkpoint=args.chk,
        prompts=args.prompts,
        reference=args.from_reference,
        rule=ReferenceRule.parse(args.rule),
        require_prompts=args.require_prompts,
        save_probabilities=args.npz,
        overwrite=args.overwrite,
        device=args.device,
    )
    ending = read_json(args.m / DATASET).get("file_ending", "") if (args.m / DATASET).is_file() else ""
    with continuing(), as_images(args.i, ending, out=args.o) as source:
        if args.dicom_seg is not None:
            check(source, args.m / DATASET)
        done = predict(replace(request, source=source), track=progress_bar)
        if args.dicom_seg is not None:
            write_segmentations(source, args.o, args.m / DATASET, Model(name=args.m.name, region=args.dicom_seg))
    print(f"{args.o}: {count(done, 'case')} predicted")
    return 0
