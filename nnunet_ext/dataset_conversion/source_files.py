"""The files of a download."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def source_files(source: Path, onerror: Callable[[OSError], None]) -> Iterator[Path]:
    """All files below, through links to folders too, each folder once; hidden ones (macOS's ``._*``) left out."""
    seen = set()
    for folder, subfolders, names in os.walk(source, onerror=onerror, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s != "__MACOSX")
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))
