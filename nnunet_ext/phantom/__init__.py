"""Synthetic datasets in the download layout of the real ones, for tests and demonstrations without a download.

`lits` draws abdominal CT like LiTS, `busi` breast ultrasound like BUSI. Nothing here comes from a patient: every case
is drawn from (seed, case number). Cases are written in parallel; files get their names only when complete, and real
data stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import check_writable, remove_leftovers, write_bytes, writing_to
from nnunet_ext.common.processes import Track, continuing, finished

MARK = "nnunet_ext phantom"  # begins the description in the header of every file


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One case to write.

    Attributes:
        files: where to.
        description: what the header of each file says about its origin: `MARK`, the model's version, all arguments.
        draw: returns the content of each file; picklable, as worker processes call it.
        read: reads the description of an existing file; "" where there is none.
        others: files that would be taken for part of the case; they are removed if they are phantoms.
    """

    files: Sequence[Path]
    description: str
    draw: Callable[[], Iterable[bytes]]
    read: Callable[[Path], str]
    others: Sequence[Path] = ()

    def is_phantom(self, path: Path) -> bool:
        """Return whether an existing file is one, and not somebody's data, nor a folder or a pipe."""
        return path.is_file() and self.read(path).startswith(MARK)

    def outdated(self) -> list[Path]:
        """Return phantoms of another draw that would be taken for part of this one."""
        return [path for path in self.others if self.is_phantom(path)]

    def done(self) -> bool:
        """Return whether all files are there and were made from these arguments."""
        return all(f.is_file() and self.read(f) == self.description for f in self.files) and not self.outdated()

    def write(self) -> None:
        contents = list(self.draw())
        for path in self.outdated():
            path.unlink()
        for path, content in zip(self.files, contents, strict=True):
            write_bytes(path, content)


def write_all(drawings: Sequence[Drawing], *, num_processes: int, track: Track) -> int:
    """Write what is not there yet; return how many cases that were.

    Raises:
        InputError: a folder cannot be written, or holds files of the same names that are not phantoms.
    """
    files = {path: drawing for drawing in drawings for path in drawing.files}
    foreign = [path for path, drawing in files.items() if path.exists() and not drawing.is_phantom(path)]
    if foreign:
        raise InputError(
            f"{foreign[0]} exists and is not a phantom ({len(foreign)} such files).",
            hint="Real data are never overwritten: choose an empty folder with --out.",
        )
    folders = sorted({path.parent for path in files})
    for path in files:
        check_writable(path, hint="Choose another folder with --out.")
    with writing_to(
        folders[0], hint="Free some space or choose another folder with --out; the same command continues."
    ):
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        waiting = [drawing for drawing in drawings if not drawing.done()]
        try:
            with continuing(), closing(finished(Drawing.write, waiting, min(num_processes, len(waiting)))) as written:
                for _ in track(written, total=len(waiting), what="phantom", unit="case"):
                    pass
        finally:
            for folder in folders:
                remove_leftovers(folder)
    return len(waiting)


def check_ranges(ranges: Mapping[str, tuple[int | None, int, int | None]], *others: str) -> None:
    """Raise InputError for options whose (value, lowest, highest) do not fit, and for other problems.

    None is no value, or no highest one.
    """
    problems = []
    for option, (value, lowest, highest) in ranges.items():
        if value is not None and not lowest <= value <= (value if highest is None else highest):
            limits = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
            problems.append(f"{option} must be {limits}, not {value}.")
    if problems := [*problems, *others]:
        raise InputError(*problems)
