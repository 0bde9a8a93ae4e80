"""Files that need no change are not written again: clone, hard link, symbolic link, and a copy only at last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from nnunet_ext.common.errors import InputError

LINK_MODES = ("auto", "hard", "reflink", "symlink", "copy")
_FICLONE = 0x40049409  # linux/fs.h; Python has no name for it


def link(source: Path, target: Path, mode: str, *, share: bool = True) -> str | None:
    """Make `target` stand for `source` without copying bytes: the method used, or None where only a copy is left.

    `auto` tries, in this order, a reflink (independent of the source) and, where the two may `share` their bytes, a
    hard link (same device, link permitted) and a symbolic link. InputError when the one method asked for does not work
    here.
    """
    if mode == "copy":
        return None
    source = Path(os.path.realpath(source))  # a hard link to a link would be a link
    automatic = _METHODS if share else ("reflink",)
    for method in automatic if mode == "auto" else (mode,):
        try:
            _METHODS[method](source, target)
            return method
        except OSError as e:
            target.unlink(missing_ok=True)
            if mode != "auto":
                raise InputError(
                    f"{source}: no {mode} link to it can be made in {target.parent} ({e.strerror or e}).",
                    hint="Use --link auto, which takes what works, or --link copy.",
                ) from e
    return None


def copy(source: Path, target: Path) -> None:
    """Copy the bytes, in the kernel where the system can."""
    shutil.copyfile(os.path.realpath(source), target)


def _reflink(source: Path, target: Path) -> None:
    try:
        import fcntl
    except ImportError as e:  # Windows
        raise OSError("reflinks are not available on this system") from e
    with source.open("rb") as old, target.open("xb") as new:
        fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())


def _hard(source: Path, target: Path) -> None:
    os.link(source, target)


def _symlink(source: Path, target: Path) -> None:
    target.symlink_to(source)


_METHODS: dict[str, Callable[[Path, Path], None]] = {"reflink": _reflink, "hard": _hard, "symlink": _symlink}
