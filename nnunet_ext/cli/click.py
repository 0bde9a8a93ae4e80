"""Segment images by clicks and boxes on a page in the browser, or look at segmentations there.

  nnunet_ext click -m MODEL_FOLDER -i FOLDER_OR_FILE -o OUT     a model of SAM's family answers every click
  nnunet_ext click --show PREDICTIONS -i imagesTs --reference labelsTs     any model's predictions, slice by slice
  nnunet_ext click --demo      a tiny model, trained within two minutes on phantoms, and phantoms to click on

The page is served to this computer alone, at the address that is printed; nothing leaves it. Images are PNG, JPEG, BMP,
TIFF, NIfTI, MHA, NRRD or DICOM. OUT gets masks as nnU-Net writes them and prompts_used.json, both at every "Save" and
on the way to another case; the same command goes on where they are missing. Ctrl-C ends the server.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import continuing, progress_bar

if TYPE_CHECKING:
    from nnunet_ext.app.workspace import Workspace

HELP = "a page in the browser: click to segment (SAM, SAMUS, SAMUS-HF), or look at predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("-m", type=Path, metavar="DIR", help="model: TRAINER__PLANS__CONFIGURATION")
    kind.add_argument("--show", type=Path, metavar="DIR", help="predictions to look at, of any model")
    kind.add_argument("--demo", action="store_true", help="train a tiny model on phantoms, and click on phantoms")
    parser.add_argument("-i", type=Path, metavar="PATH", help="images: a folder or a file, or DICOM")
    parser.add_argument("-o", type=Path, metavar="DIR", help="folder of masks and clicks; default: clicked")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="with --show: segmentations to draw as contours")
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds to average; default: all that are there")
    parser.add_argument("-chk", default="checkpoint_best.pth", metavar="FILE", help="default: %(default)s")
    parser.add_argument("-device", default="cpu", choices=("cuda", "cpu", "mps"), help="default: %(default)s")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="default: any that is free")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")


def run(args: argparse.Namespace) -> int:
    import webbrowser

    from nnunet_ext.app.server import PageServer

    with _workspace(args) as workspace, PageServer(workspace, args.port) as server:
        print(f"{server.url}\nOpen this address in a browser on this computer. Ctrl-C ends it.", flush=True)
        if not args.no_browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended; what was saved is there")
    return 0


@contextmanager
def _workspace(args: argparse.Namespace) -> Iterator[Workspace]:
    """Prepare what the page works on; DICOM becomes temporary files."""
    from nnunet_ext.app.cases import find_cases
    from nnunet_ext.app.workspace import Workspace
    from nnunet_ext.dicom.images import as_images
    from nnunet_ext.inference.session import Session

    if args.demo:
        from nnunet_ext.app.demo import prepare

        if args.i is not None:
            raise InputError("--demo brings its own images.", hint="Leave -i out.")
        with continuing():
            args.m, args.i = prepare(args.o or Path("click_demo"), track=progress_bar)
        args.o = (args.o or Path("click_demo")) / "clicked"
    elif args.i is None:
        raise InputError("Which images? None are named.", hint="Name a folder or a file with -i.")
    if args.show is not None:
        layers = {"prediction": args.show, **({"reference": args.reference} if args.reference else {})}
        with as_images(args.i, ".nii.gz", out=args.show) as source:
            yield Workspace(find_cases(source), layers=layers)
        return
    if args.reference is not None:
        raise InputError("--reference is of --show.", hint="Leave it out, or name predictions with --show.")
    out = args.o or Path("clicked")
    session = Session(args.m, folds=args.f, checkpoint=args.chk, device=args.device)
    with as_images(args.i, session.ending, out=out) as source:
        yield Workspace(find_cases(source), session=session, out=out)
