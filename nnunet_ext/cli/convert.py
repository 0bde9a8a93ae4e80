"""Convert a public dataset, as it was downloaded, into nnU-Net's raw format ($nnUNet_raw/DatasetNNN_NAME).

Nothing is written unless every case is fine (or --skip-bad leaves the others out). An interrupted conversion continues
when the same command is run again; a finished one is left as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.common.processes import cpus
from nnunet_ext.common.progress import progress_bar

if TYPE_CHECKING:
    from nnunet_ext.dataset_conversion.types import Outcome, Reader

HELP = "convert a downloaded dataset into nnU-Net's raw format"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset on the command line: `add_arguments` adds its own options, `reader` makes its reader of them."""

    help: str
    description: str
    dataset_id: int
    name: str
    paper_split: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    reader: Callable[[argparse.Namespace], Reader]


def _add_lits_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        choices=("tumour", "liver-tumour", "regions"),
        default="tumour",
        help="tumour: tumour against all else (default); liver-tumour: liver 1, tumour 2; "
        "regions: liver with tumour and tumour, overlapping",
    )
    parser.add_argument(
        "--file-ending", choices=(".nii", ".nii.gz"), help="of all files; default: that of most image bytes"
    )


def _lits_reader(args: argparse.Namespace) -> Reader:
    from nnunet_ext.dataset_conversion.lits import LitsReader

    return LitsReader(target=args.target)


def _add_busi_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--classes",
        nargs="+",
        choices=("benign", "malignant", "normal"),
        default=("benign", "malignant"),
        metavar="CLASS",
        help="of benign, malignant and normal; default: benign malignant",
    )
    parser.add_argument(
        "--target",
        choices=("lesion", "class"),
        default="lesion",
        help="lesion: lesion against all else (default); class: benign 1, malignant 2",
    )
    parser.set_defaults(duplicates="group")
    duplicates = parser.add_mutually_exclusive_group()
    duplicates.add_argument(
        "--drop-duplicates",
        dest="duplicates",
        action="store_const",
        const="drop",
        help="keep one image of each group of near-duplicates: that of most pixels, of equal ones the first",
    )
    duplicates.add_argument(
        "--ignore-duplicates",
        dest="duplicates",
        action="store_const",
        const="ignore",
        help="split image by image, as published random splits do; near-duplicates are only reported",
    )


def _busi_reader(args: argparse.Namespace) -> Reader:
    from nnunet_ext.dataset_conversion.busi import BusiReader

    return BusiReader(classes=tuple(args.classes), target=args.target, duplicates=args.duplicates)


DATASETS = {
    "lits": Dataset(
        help="liver tumours in CT (CodaLab, Kaggle, Decathlon Task03_Liver)",
        description="""LiTS liver tumours in CT, from CodaLab, Kaggle or the Medical Segmentation Decathlon.

Reads volume-N.nii[.gz] with segmentation-N.nii[.gz], and test-volume-N.nii[.gz], in any sub-folders of DIR, or
Task03_Liver as it is or as nnU-Net converts it. Images keep their HU values and are linked, not copied, where their
bytes are right already.
""",
        dataset_id=29,
        name="LiTS",
        paper_split="8:1:1 by patient",
        add_arguments=_add_lits_arguments,
        reader=_lits_reader,
    ),
    "busi": Dataset(
        help="lesions in breast ultrasound (as published, or flattened)",
        description="""BUSI lesions in breast ultrasound, as published or flattened.

Reads benign/benign (1).png with benign (1)_mask.png, _mask_1.png and so on, or images/NAME.png with masks/0/NAME.png,
masks/1/NAME.png and so on, in any sub-folders of DIR. Images become one 8-bit channel at their own size, the masks of
an image one label map. BUSI holds images more than once, some under two classes: near-duplicates are found and each
group of them is kept on one side of every split.
""",
        dataset_id=30,
        name="BUSI",
        paper_split="7:1:2 by group of near-duplicates",
        add_arguments=_add_busi_arguments,
        reader=_busi_reader,
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command per dataset."""
    commands = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    for command, dataset in DATASETS.items():
        sub = commands.add_parser(
            command,
            help=dataset.help,
            description=dataset.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        dataset.add_arguments(sub)
        _add_common_arguments(sub, dataset)


def _add_common_arguments(parser: argparse.ArgumentParser, dataset: Dataset) -> None:
    """Add what every dataset's conversion takes: the fields of `Settings`."""
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="folder of the download")
    parser.add_argument("--dataset-id", type=int, default=dataset.dataset_id, metavar="N", help="default: %(default)s")
    parser.add_argument("--name", default=dataset.name, help="default: %(default)s")
    parser.add_argument(
        "--split",
        choices=("paper", "cv5"),
        default="paper",
        help=f"paper: {dataset.paper_split}, test cases held out (default); cv5: 5 folds over all cases",
    )
    parser.add_argument("--seed", type=int, default=12345, help="of the split, default: %(default)s")
    parser.add_argument(
        "--link",
        choices=("auto", "hard", "reflink", "symlink", "copy"),
        default="auto",
        help="for files that need no change; auto (default): the first that works of reflink, hard "
        "link, symbolic link and copy, but labels are never hard or symbolic links. Hard and symbolic links share "
        "their bytes with the download, so that editing one edits the other; symbolic links need it to stay",
    )
    parser.add_argument("--checksum", action="store_true", help="record SHA-256 of all sources (reads every byte)")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad cases out instead of stopping")
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
    from nnunet_ext.dataset_conversion.types import Settings

    reader = DATASETS[args.dataset].reader(args)
    settings = Settings(**{f.name: getattr(args, f.name) for f in fields(Settings) if hasattr(args, f.name)})
    outcome = engine.run(reader, settings, track=progress_bar)
    _report(outcome, f"-d {args.dataset_id} -c 2d -pl {reader.planner}")
    return 0


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
    for how in ("hard", "symlink"):
        if outcome.made[how]:
            print(f"note: {outcome.made[how]} {_HOW[how]} files share their bytes with the download{_SHARED[how]}")
    print(f"next: nnUNetv2_plan_and_preprocess {planning} --verify_dataset_integrity")


_HOW = {
    "reflink": "cloned",
    "hard": "hard-linked",
    "symlink": "symbolically linked",
    "copy": "copied",
    "written": "written",
    "kept": "kept from an interrupted run",
}

_SHARED = {
    "hard": "; editing one edits the other",
    "symlink": ", which has to stay where it is; editing one edits the other",
}
