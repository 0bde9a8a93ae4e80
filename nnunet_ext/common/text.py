"""Words that several rooms print: lists that are cut short, counts and times."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence


def some(names: Iterable[object], shown: int | None = 3) -> str:
    """Return the first names (all for None) and how many more there are: "a, b, c and 4 more"."""
    words = [str(name) for name in names]
    more = len(words[shown:]) if shown is not None else 0
    return ", ".join(words[:shown]) + (f" and {more} more" if more else "")


def meant(word: str, known: Iterable[str]) -> str:
    """Return a guess at what a misspelt word should be, to stand behind it in a message; empty without one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows of cells as lines of text, in columns as wide as their widest cell; rows may end early."""
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(max(map(len, rows)))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 case", "1,234 cases"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clock(seconds: float | None) -> str:
    """Return a time that runs as "7 s", "4:05" or "1:02:03"; "?" if it is unknown."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def duration(seconds: float | None) -> str:
    """Return a time that was measured, rounded for a table: "0.42 s", "12 s", "3.5 min", "14.2 h"; "" if unknown."""
    if not seconds:
        return ""
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(number: float) -> str:
    """Return a number of bytes in decimal units: "812 kB", "3.4 MB", "1.25 GB"."""
    for unit, factor, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 0)):
        if number >= factor:
            return f"{number / factor:.{digits}f} {unit}"
    return f"{number:.0f} bytes"
