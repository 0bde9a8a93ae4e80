"""SAM's published checkpoints, which training of the ultrasound networks starts from. Prediction needs none of them.

The file is looked for where NNUNET_EXT_SAM_CHECKPOINT points to, else in the cache ($XDG_CACHE_HOME/nnunet_ext or
~/.cache/nnunet_ext). What is used is what was published: size and SHA-256 are checked.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.common.errors import InputError
from nnunet_ext.weights import sam

if TYPE_CHECKING:
    from nnunet_ext.weights.sam import Checkpoint

HELP = "list, verify and download SAM's checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command per task; ``list`` where none is given."""
    parser.set_defaults(action=_list)
    actions = parser.add_subparsers(metavar="ACTION")
    actions.add_parser("list", help="every checkpoint, and whether it is here (default)").set_defaults(action=_list)
    for name, action, text in (
        ("path", _path, "print where a checkpoint is expected; 1 if it is not there"),
        ("verify", _verify, "compare a checkpoint with the published size and SHA-256"),
        ("download", _download, "fetch a checkpoint; an interrupted download is continued"),
    ):
        sub = actions.add_parser(name, help=text, description=text)
        sub.add_argument(
            "checkpoint", nargs="?", default=sam.VIT_B.name, choices=tuple(sam.CHECKPOINTS), help="default: %(default)s"
        )
        sub.set_defaults(action=action)
    sub.add_argument("--url", help="of a mirror; the published SHA-256 is required all the same")
    sub.add_argument("--overwrite", action="store_true", help="replace a wrong file")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    return args.action(args)


def _list(args: argparse.Namespace) -> int:
    if override := os.environ.get(sam.VARIABLE):
        print(f"{sam.VARIABLE}={override} takes the place of the cache")
    for checkpoint in sam.CHECKPOINTS.values():
        path = sam.location(checkpoint)
        print(f"{checkpoint.name}  {checkpoint.size / 1e6:>7,.0f} MB  {_state(path, checkpoint):<12}  {path or '-'}")
    return 0


def _state(path: Path | None, checkpoint: Checkpoint) -> str:
    """In two words, without reading the file."""
    if path is None:
        return "not used"
    if path.is_file():
        return "here" if path.stat().st_size == checkpoint.size else "wrong size"
    part = path.with_name(f"{path.name}.part")
    return f"{part.stat().st_size / checkpoint.size:.0%} here" if part.is_file() else "not here"


def _path(args: argparse.Namespace) -> int:
    checkpoint, path = _chosen(args)
    print(path)
    if path.is_file():
        return 0
    print(f"not there yet. {sam.hint(path, checkpoint)}", file=sys.stderr)
    return 1


def _verify(args: argparse.Namespace) -> int:
    checkpoint, path = _chosen(args)
    problem = sam.problem(path, checkpoint)
    if problem is None:
        print(f"ok   {path}: {checkpoint.size:,} bytes, SHA-256 {checkpoint.sha256}")
        return 0
    print(f"FAIL {problem}\n       -> {sam.hint(path, checkpoint)}")
    return 1


def _download(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from nnunet_ext.weights.download import download

    checkpoint, path = _chosen(args)
    if path.exists():
        problem = sam.problem(path, checkpoint)
        if problem is None:
            print(f"{path} is there and right: nothing to do.")
            return 0
        if os.environ.get(sam.VARIABLE):  # a file of the user's own is never replaced
            raise InputError(f"{problem}.", hint=sam.hint(path, checkpoint))
        if not args.overwrite:
            raise InputError(f"{problem}.", hint="Add --overwrite to replace it.")
    with tqdm(total=checkpoint.size, desc=checkpoint.file, unit="B", unit_scale=True, disable=None) as bar:
        download(checkpoint, path, url=args.url, track=lambda done: bar.update(done - bar.n))
    print(f"{path}: {checkpoint.size:,} bytes, SHA-256 {checkpoint.sha256}")
    return 0


def _chosen(args: argparse.Namespace) -> tuple[Checkpoint, Path]:
    checkpoint = sam.CHECKPOINTS[args.checkpoint]
    path = sam.location(checkpoint)
    if path is None:
        raise InputError(f"{sam.VARIABLE}={sam.RANDOM}: no checkpoint is used.", hint=f"Unset {sam.VARIABLE}.")
    return checkpoint, path
