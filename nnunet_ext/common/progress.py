"""Progress of long work: a bar over items, which the command line draws and a library call does without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Hands items on one by one and may draw a bar over `total` of them."""

    def __call__(self, items: Iterable[T], *, total: int, what: str, unit: str = "file") -> Iterable[T]: ...


def untracked(items: Iterable[T], *, total: int, what: str, unit: str = "file") -> Iterable[T]:
    """Hand the items on and draw nothing."""
    return items


def progress_bar(items: Iterable[T], *, total: int, what: str, unit: str = "file") -> Iterable[T]:
    """Hand the items on with a bar on standard error, where that is a terminal and there is anything to do."""
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(items, total=total, desc=what, unit=unit, disable=None if total else True)
    return bar
