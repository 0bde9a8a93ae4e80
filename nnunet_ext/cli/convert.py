"""Convert a public dataset, as it was downloaded, into nnU-Net's raw format ($nnUNet_raw/DatasetNNN_NAME).

Nothing is written unless every case is fine (or --skip-bad leaves the others out). An interrupted conversion continues
when the same command is run again; a finished one is left as it is.
"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import TypeVar

from nnunet_ext.common.processes import cpus, progress_bar
from nnunet_ext.dataset_conversion import READERS
from nnunet_ext.dataset_conversion.splits import SPLITS
from nnunet_ext.dataset_conversion.types import Outcome, Reader, Settings

T = TypeVar("T")
HELP = "convert a downloaded dataset into nnU-Net's raw format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    for command, reader in READERS.items():
        text = inspect.cleandoc(reader.__doc__ or "")
        sub = commands.add_parser(
            command,
            help=text.splitlines()[0].removesuffix("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        reader.add_arguments(sub)
        _add_common_arguments(sub, reader)


def _add_common_arguments(parser: argparse.ArgumentParser, reader: type[Reader]) -> None:
    """Add what every dataset's conversion takes: the fields of `Settings`."""
    held_out, validated = reader.tenths
    paper = f"{10 - held_out - validated}:{validated}:{held_out} by {reader.unit}"
    about = "folder of the download" if reader.source is None else "what other folders and files are relative to"
    parser.add_argument(
        "--source", type=Path, required=reader.source is None, default=reader.source, metavar="DIR", help=about
    )
    parser.add_argument("--dataset-id", type=int, default=reader.dataset_id, metavar="N", help="default: %(default)s")
    parser.add_argument("--name", default=reader.dataset_name, help="default: %(default)s")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default=Settings.split,
        help=f"paper: {paper}, test cases held out (default); cv5: 5 folds over all cases",
    )
    parser.add_argument("--seed", type=int, default=Settings.seed, help="of the split, default: %(default)s")
    parser.add_argument(
        "--link",
        choices=("auto", "hard", "reflink", "symlink", "copy"),
        default=Settings.link,
        help="for files that need no change; auto (default): the first that works of reflink, hard "
        "link, symbolic link and copy, but labels are never hard or symbolic links. Hard and symbolic links share "
        "their bytes with the download, so that editing one edits the other; symbolic links need it to stay",
    )
    parser.add_argument("--checksum", action="store_true", help="record SHA-256 of all sources (reads every byte)")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad cases out instead of stopping")
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help="CSV of what no split may part: a column for images and one for groups or patients (docs/busi.md)",
    )
    parser.add_argument(
        "--exclude",
        nargs="+",
        default=Settings.exclude,
        metavar="PATTERN",
        help="leave out files and folders that are called so, for example 'preview*' '*.jpg'",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="convert N cases only, for a first try")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that is there already")
    parser.add_argument(
        "--overwrite-preprocessed",
        action="store_true",
        help="remove what nnUNet_preprocessed holds of the former conversion",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print what would be done, write nothing"
    )
    parser.add_argument("--num-processes", type=int, default=cpus(), metavar="N", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.dataset_conversion import engine

    reader = _made(READERS[args.dataset], args)
    outcome = engine.run(reader, _made(Settings, args), track=progress_bar)
    _report(outcome, " ".join(filter(None, (f"-d {args.dataset_id}", reader.planning))))
    return 0


def _made(kind: type[T], args: argparse.Namespace) -> T:
    """Return an object made of those arguments that are called as its fields."""
    return kind(**{name: getattr(args, name) for name in inspect.signature(kind).parameters if hasattr(args, name)})


def _report(outcome: Outcome, planning: str) -> None:
    """Print what was done; `planning` is how nnU-Net's planning is to go on."""
    if outcome.layout is None:
        print(f"{outcome.folder} is finished and nothing has changed: nothing to do.")
        return
    for line in outcome.layout.summary:
        print(line)
    remarks = {"repaired": outcome.layout.repairs, "note": outcome.layout.notes, "left out": outcome.skipped}
    for title, lines in remarks.items():
        for line in lines:
            print(f"{title}: {line}")
    for path in outcome.stale:
        print(f"{'would remove' if outcome.dry_run else 'removed'}: {path}")
    if outcome.dry_run:
        print(f"{outcome.folder} would be written. Nothing was.")
        return
    print(f"{outcome.folder}: {', '.join(f'{n} {_HOW[how]}' for how, n in sorted(outcome.made.items()))}")
    for how, stays in (("hard", ""), ("symlink", ", which has to stay where it is")):
        if n := outcome.made[how]:
            print(
                f"note: {n} {_HOW[how]} files share their bytes with the download{stays}; editing one edits the other"
            )
    print(f"next: nnUNetv2_plan_and_preprocess {planning} --verify_dataset_integrity")


_HOW = {
    "reflink": "cloned",
    "hard": "hard-linked",
    "symlink": "symbolically linked",
    "copy": "copied",
    "written": "written",
    "kept": "kept from an interrupted run",
}
