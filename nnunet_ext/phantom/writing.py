"""What all phantoms share: cases written one by one, in parallel, under their final names only when complete."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from nnunet_ext.common.errors import InputError

MARK = "nnunet_ext phantom"


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """One case to write, and where to. Every file tells in its header how it was made."""

    out: Path
    seed: int

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """The files of the case."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What the headers say about the origin: `MARK`, the model's version, and all arguments."""

    @staticmethod
    @abstractmethod
    def description_of(path: Path) -> str | None:
        """The header's description; None if the file is missing, an empty string if it has none."""

    @abstractmethod
    def write(self) -> None:
        """Render the case and write its files."""

    def done(self) -> bool:
        """True if all files are there and were made from these arguments. They are moved into place when complete."""
        return all(self.description_of(path) == self.description for path in self.files)


def too_small(values: Mapping[str, tuple[int, int]]) -> list[str]:
    """One sentence for every option whose (value, lowest value) are the wrong way round."""
    return [f"{name} must be at least {low}, not {value}." for name, (value, low) in values.items() if value < low]


def prepare_folder(out: Path, *, jobs: Sequence[Job]) -> None:
    """Make sure that nothing but earlier phantoms would be replaced, and make the folders.

    Raises:
        InputError: if the folder cannot be written, or holds files of the same names from elsewhere.
    """
    found = {path: job.description_of(path) for job in jobs for path in job.files}
    foreign = [path for path, text in found.items() if text is not None and not text.startswith(MARK)]
    if foreign:
        raise InputError(
            f"{foreign[0]} exists and is not a phantom ({len(foreign)} such files).",
            hint="Real data are never overwritten: choose an empty folder with --out.",
        )
    probe = out / f".write-test.{os.getpid()}"
    try:
        for folder in {out, *(path.parent for path in found)}:
            folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise InputError(f"{out} cannot be written: {e.strerror}.", hint="Choose another folder with --out.") from e


def write_all(
    jobs: Sequence[Job], *, out: Path, num_processes: int, progress: Callable[[int, int], None] | None
) -> int:
    """Write what is not there yet; return how many cases that were. `progress` is told (done, all) after every case.

    Raises:
        InputError: for an unusable folder.
    """
    prepare_folder(out, jobs=jobs)
    waiting = [job for job in jobs if not job.done()]
    skipped = len(jobs) - len(waiting)
    for done, _ in enumerate(run(waiting, num_processes=num_processes), start=skipped + 1):
        if progress:
            progress(done, len(jobs))
    return len(waiting)


def run(jobs: Sequence[Job], *, num_processes: int) -> Iterator[None]:
    """Write all jobs, yielding after each."""
    if min(num_processes, len(jobs)) <= 1:
        for job in jobs:
            yield job.write()
        return
    with ProcessPoolExecutor(min(num_processes, len(jobs)), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(job.write) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_file(path: Path, data: bytes) -> None:
    """Write under a temporary name, then move into place: a file that exists is complete."""
    partial_file = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial_file.write_bytes(data)
        os.replace(partial_file, path)
    finally:
        partial_file.unlink(missing_ok=True)
