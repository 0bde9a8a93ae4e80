"""The ``nnunet_ext VERB`` command line: one file per verb.

A verb's module has ``HELP`` (one line), ``add_arguments(parser)`` and ``run(args) -> int``. Importing it must stay
cheap, so that ``--help`` answers at once: numpy, torch and nnU-Net are imported inside ``run``.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import reason
from nnunet_ext.common.processes import single_interrupt
from nnunet_ext.version import __version__

# what a system refuses whatever a program does: names that it cannot have, folders that are closed, a full disk
REFUSALS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
VERBS = {
    "demo": "demo",
    "convert": "convert",
    "phantom": "phantom",
    "dicom": "dicom",
    "predict": "predict",
    "prompt-curve": "prompt_curve",
    "click": "click",
    "evaluate": "evaluate",
    "compare": "compare",
    "benchmark": "benchmark",
    "weights": "weights",
    "list": "list_",
    "doctor": "doctor",
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnunet_ext", description="Dataset converters, checks and tools around the trainers of nnunet_ext."
    )
    parser.add_argument("--version", action="version", version=f"nnunet_ext {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, module_name in VERBS.items():
        module = importlib.import_module(f"nnunet_ext.cli.{module_name}")
        sub = verbs.add_parser(
            verb, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code.

    0: all is well; 1: a check failed; 2: the input is wrong. As in shells, 130: Ctrl-C was pressed; 141: nobody reads
    the output any more.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that a terminal cannot show is no reason to end
    args = build_parser().parse_args(argv)
    try:
        with single_interrupt():
            code = args.run(args)
            sys.stdout.flush()
            return code
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as e:
        print("; ".join(["interrupted", *e.args]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        return 141
    except OSError as e:
        if e.errno not in REFUSALS or e.filename is None:
            raise
        print(f"error: {e.filename}: {reason(e)}.", file=sys.stderr)
        return 2


def _reader_has_left() -> bool:
    """Return whether it is our output (``| head``) that broke, and keep Python from complaining about it at exit."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
