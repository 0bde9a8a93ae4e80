"""Write synthetic abdominal CT in the download layout of LiTS."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from nnunet_ext.common.errors import InputError
from nnunet_ext.phantom.abdomen import render
from nnunet_ext.phantom.writing import MARK, Job, too_small, write_all, write_file

MODEL = 2  # raise whenever the same arguments give other voxels
FILE_ENDINGS = (".nii", ".nii.gz")
SMALLEST, LARGEST, MOST_SLICES = 32, 1024, 400


@dataclass(frozen=True, kw_only=True)
class Scan(Job):
    """One scan to write; the arguments of `render`, and where to."""

    file_ending: str
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

    @staticmethod
    def description_of(path: Path) -> str | None:
        """The header's description; None if the file is missing, an empty string if it is no NIfTI file."""
        if not path.is_file():
            return None
        try:
            return nib.load(path).header["descrip"].item().decode(errors="replace")
        except (ImageFileError, EOFError, OSError, KeyError):
            return ""

    def write(self) -> None:
        """Render and write the case."""
        case = render(seed=self.seed, case=self.case, size=self.size, slices=self.slices, test=self.test)
        for path, voxels in zip(self.files, (case.hu, case.labels), strict=False):
            write_nifti(path=path, voxels=voxels, affine=case.affine, description=self.description)


def write_nifti(*, path: Path, voxels: NDArray, affine: NDArray[np.float64], description: str) -> None:
    """Write one NIfTI file, without a time stamp."""
    image = nib.Nifti1Image(np.asfortranarray(voxels), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = description
    data = image.to_bytes()
    if path.name.endswith(".gz"):
        data = gzip.compress(data, compresslevel=3, mtime=0)
    write_file(path, data)


def check(scan: Scan, *, cases: int, test_cases: int, num_processes: int) -> None:
    """All that can be wrong with the arguments, before anything is written.

    Raises:
        InputError: naming every problem.
    """
    problems = too_small(
        {
            "--cases": (cases, 1),
            "--test-cases": (test_cases, 0),
            "--num-processes": (num_processes, 1),
            "--seed": (scan.seed, 0),
        }
    )
    if not SMALLEST <= scan.size <= LARGEST:
        problems.append(f"--size must be {SMALLEST} to {LARGEST} pixels, not {scan.size}.")
    if scan.slices is not None and not 1 <= scan.slices <= MOST_SLICES:
        problems.append(f"--slices must be 1 to {MOST_SLICES}, not {scan.slices}.")
    if scan.file_ending not in FILE_ENDINGS:
        problems.append(f"--file-ending must be {' or '.join(FILE_ENDINGS)}, not {scan.file_ending}.")
    if problems:
        raise InputError(*problems)


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
    out = Path(out)
    first = Scan(out=out, file_ending=file_ending, seed=seed, case=0, size=size, slices=slices, test=False)
    check(first, cases=cases, test_cases=test_cases, num_processes=num_processes)
    scans = [replace(first, case=i, test=test) for test, n in ((False, cases), (True, test_cases)) for i in range(n)]
    return write_all(scans, out=out, num_processes=num_processes, progress=progress)
