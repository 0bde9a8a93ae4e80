"""Write synthetic abdominal CT in the download layout of LiTS."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from nnunet_ext.dataset_conversion.phantom.abdomen import render
from nnunet_ext.errors import InputError

MODEL = 2  # raise whenever the same arguments give other voxels
MARK = "nnunet_ext phantom"
FILE_ENDINGS = (".nii", ".nii.gz")
SMALLEST, LARGEST, MOST_SLICES = 32, 1024, 400


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case to write; the arguments of `render`, and where to."""

    out: Path
    file_ending: str
    seed: int
    case: int
    size: int
    slices: int | None
    test: bool

    @property
    def files(self) -> list[Path]:
        """The volume and, unless it is a test case, its segmentation."""
        names = [f"test-volume-{self.case}"] if self.test else [f"volume-{self.case}", f"segmentation-{self.case}"]
        return [self.out / (name + self.file_ending) for name in names]

    @property
    def description(self) -> str:
        """What the header says about the origin; at most 79 characters, NIfTI's limit."""
        kind = "test" if self.test else "case"
        return f"{MARK} {MODEL}: {kind} {self.case}, seed {self.seed}, {self.size} x {self.slices}"

    def done(self) -> bool:
        """True if all files are there and were made from these arguments. They are moved into place when complete."""
        return all(description_of(path) == self.description for path in self.files)

    def write(self) -> None:
        """Render and write the case."""
        case = render(seed=self.seed, case=self.case, size=self.size, slices=self.slices, test=self.test)
        for path, voxels in zip(self.files, (case.hu, case.labels), strict=False):
            write_nifti(path=path, voxels=voxels, affine=case.affine, description=self.description)


def description_of(path: Path) -> str | None:
    """The header's description; None if the file is missing, an empty string if it is no NIfTI file."""
    if not path.is_file():
        return None
    try:
        return nib.load(path).header["descrip"].item().decode(errors="replace")
    except (ImageFileError, EOFError, OSError, KeyError):
        return ""


def write_nifti(*, path: Path, voxels: NDArray, affine: NDArray[np.float64], description: str) -> None:
    """Write under a temporary name, then move into place: a file that exists is complete. No time stamp inside."""
    image = nib.Nifti1Image(np.asfortranarray(voxels), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = description
    data = image.to_bytes()
    if path.name.endswith(".gz"):
        data = gzip.compress(data, compresslevel=3, mtime=0)
    partial_file = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial_file.write_bytes(data)
        os.replace(partial_file, path)
    finally:
        partial_file.unlink(missing_ok=True)


def check(job: Job, *, cases: int, test_cases: int, num_processes: int) -> None:
    """All that can be wrong with the arguments, before anything is written.

    Raises:
        InputError: naming every problem.
    """
    problems = [
        f"{name} must be at least {low}, not {value}."
        for name, value, low in (
            ("--cases", cases, 1),
            ("--test-cases", test_cases, 0),
            ("--num-processes", num_processes, 1),
            ("--seed", job.seed, 0),
        )
        if value < low
    ]
    if not SMALLEST <= job.size <= LARGEST:
        problems.append(f"--size must be {SMALLEST} to {LARGEST} pixels, not {job.size}.")
    if job.slices is not None and not 1 <= job.slices <= MOST_SLICES:
        problems.append(f"--slices must be 1 to {MOST_SLICES}, not {job.slices}.")
    if job.file_ending not in FILE_ENDINGS:
        problems.append(f"--file-ending must be {' or '.join(FILE_ENDINGS)}, not {job.file_ending}.")
    if problems:
        raise InputError(*problems)


def prepare_folder(out: Path, *, jobs: list[Job]) -> None:
    """Make the folder, and make sure that nothing but earlier phantoms would be replaced.

    Raises:
        InputError: if the folder cannot be written, or holds files of the same names from elsewhere.
    """
    probe = out / f".write-test.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise InputError(f"{out} cannot be written: {e.strerror}.", way_out="Choose another folder with --out.") from e
    found = {path: description_of(path) for job in jobs for path in job.files}
    foreign = [path for path, text in found.items() if text is not None and not text.startswith(MARK)]
    if foreign:
        raise InputError(
            f"{foreign[0]} exists and is not a phantom ({len(foreign)} such files).",
            way_out="Real data are never overwritten: choose an empty folder with --out.",
        )


def write_lits(
    *,
    out: Path,
    cases: int,
    size: int,
    seed: int = 0,
    slices: int | None = None,
    test_cases: int = 0,
    num_processes: int = 1,
    file_ending: str = ".nii",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write `cases` labelled and `test_cases` unlabelled scans of `size` x `size` pixels; return how many were new.

    volume-N holds int16 HU, segmentation-N uint8 labels (0 background, 1 liver, 2 tumour), test-volume-N has none.
    Without `slices` the number follows from a drawn slice thickness (0.7 to 5 mm) and scan length. Case N depends on
    (seed, N, size, slices) only. Finished cases are skipped, so that the same call continues an interrupted one.
    `progress` is told (done, all) after every case.

    Raises:
        InputError: for impossible arguments or an unusable folder.
    """
    first = Job(out=Path(out), file_ending=file_ending, seed=seed, case=0, size=size, slices=slices, test=False)
    check(first, cases=cases, test_cases=test_cases, num_processes=num_processes)
    jobs = [replace(first, case=i, test=test) for test, n in ((False, cases), (True, test_cases)) for i in range(n)]
    prepare_folder(first.out, jobs=jobs)
    waiting = [job for job in jobs if not job.done()]
    skipped = len(jobs) - len(waiting)
    for done, _ in enumerate(run(waiting, num_processes=num_processes), start=skipped + 1):
        if progress:
            progress(done, len(jobs))
    return len(waiting)


def run(jobs: list[Job], *, num_processes: int) -> Iterator[None]:
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
