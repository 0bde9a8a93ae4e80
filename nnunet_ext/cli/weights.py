"""SAM's published checkpoints, which training of the ultrasound networks starts from. Prediction needs none of them.

The file is looked for where NNUNET_EXT_SAM_CHECKPOINT points to, else in the cache ($XDG_CACHE_HOME/nnunet_ext or
~/.cache/nnunet_ext). What is used is what was published: size and SHA-256 are checked.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nnunet_ext import weights
from nnunet_ext.common.environment import SAM_CHECKPOINT
from nnunet_ext.common.errors import InputError

HELP = "list, verify and download SAM's checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command per task; ``list`` is what runs where none is given."""
    parser.set_defaults(action=_list)
    actions = parser.add_subparsers(metavar="ACTION")
    actions.add_parser("list", help="every checkpoint, and whether it is here (default)").set_defaults(action=_list)
    for name, action, text in (
        ("path", _path, "print where a checkpoint is expected; 1 if it is not there"),
        ("verify", _verify, "compare a checkpoint with the published size and SHA-256"),
        ("download", _download, "fetch a checkpoint and verify it"),
    ):
        sub = actions.add_parser(name, help=text, description=text)
        sub.add_argument(
            "checkpoint",
            nargs="?",
            default=weights.DEFAULT,
            choices=tuple(weights.CHECKPOINTS),
            help="default: %(default)s",
        )
        sub.set_defaults(action=action)
    sub.add_argument("--url", help="of a mirror; the published SHA-256 is required all the same")
    sub.add_argument("--overwrite", action="store_true", help="replace a wrong file")


def run(args: argparse.Namespace) -> int:
    return args.action(args)


def _list(args: argparse.Namespace) -> int:
    if override := os.environ.get(SAM_CHECKPOINT):
        print(f"{SAM_CHECKPOINT}={override} takes the place of the cache")
    for checkpoint in weights.CHECKPOINTS.values():
        path = weights.location(checkpoint)
        print(f"{checkpoint.name}  {checkpoint.size / 1e6:>7,.0f} MB  {_state(path, checkpoint):<12}  {path or '-'}")
    return 0


def _state(path: Path | None, checkpoint: weights.Checkpoint) -> str:
    """Describe a file in two words, without reading it."""
    if path is None:
        return "not used"
    if not path.is_file():
        return "not here"
    return "here" if path.stat().st_size == checkpoint.size else "wrong size"


def _path(args: argparse.Namespace) -> int:
    checkpoint, path = _chosen(args)
    print(path)
    if path.is_file():
        return 0
    print(f"not there yet. {weights.hint(path, checkpoint)}", file=sys.stderr)
    return 1


def _verify(args: argparse.Namespace) -> int:
    checkpoint, path = _chosen(args)
    problem = weights.problem(path, checkpoint)
    if problem is None:
        print(f"ok   {path}: {checkpoint.size:,} bytes, SHA-256 {checkpoint.sha256}")
        return 0
    print(f"FAIL {problem}\n       -> {weights.hint(path, checkpoint)}")
    return 1


def _download(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    checkpoint, path = _chosen(args)
    if path.exists():
        problem = weights.problem(path, checkpoint)
        if problem is None:
            print(f"{path} is there and right: nothing to do.")
            return 0
        if os.environ.get(SAM_CHECKPOINT):  # a file of the user's own is never replaced
            raise InputError(f"{problem}.", hint=weights.hint(path, checkpoint))
        if not args.overwrite:
            raise InputError(f"{problem}.", hint="Add --overwrite to replace it.")
    with tqdm(total=checkpoint.size, desc=checkpoint.file, unit="B", unit_scale=True, disable=None) as bar:
        weights.download(checkpoint, path, url=args.url, track=lambda done: bar.update(done - bar.n))
    print(f"{path}: {checkpoint.size:,} bytes, SHA-256 {checkpoint.sha256}")
    return 0


def _chosen(args: argparse.Namespace) -> tuple[weights.Checkpoint, Path]:
    checkpoint = weights.CHECKPOINTS[args.checkpoint]
    path = weights.location(checkpoint)
    if path is None:
        raise InputError(f"{SAM_CHECKPOINT}={weights.RANDOM}: no checkpoint is used.", hint=f"Unset {SAM_CHECKPOINT}.")
    return checkpoint, path
