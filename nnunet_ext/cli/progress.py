"""The progress bar of long commands."""

from __future__ import annotations

from collections.abc import Iterable


def progress_bar(items: Iterable, *, total: int, what: str, unit: str = "file") -> Iterable:
    """`items` with a bar on standard error, where that is a terminal and there is anything to do."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=what, unit=unit, disable=None if total else True)
