"""Write synthetic abdominal CT in the download layout of LiTS."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.progress import Track, untracked
from nnunet_ext.phantom.abdomen import render
from nnunet_ext.phantom.writing import MARK, Job, check_ranges, write_all

MODEL = 2  # raise whenever the same arguments give other voxels
FILE_ENDINGS = (".nii", ".nii.gz")


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
    track: Track = untracked,
) -> int:
    """Write `cases` labelled and `test_cases` unlabelled scans of `size` x `size` pixels; return how many were new.

    volume-N holds int16 HU, segmentation-N uint8 labels (0 background, 1 liver, 2 tumour), test-volume-N has none.
    Without `slices` the number follows from a drawn slice thickness (0.7 to 5 mm) and scan length. Case N depends on
    (seed, N, size, slices) only. Finished cases are skipped, so that the same call continues an interrupted one.

    Raises:
        InputError: for impossible arguments or an unusable folder.
    """
    problems = check_ranges(
        {
            "--cases": (cases, 1, None),
            "--test-cases": (test_cases, 0, None),
            "--num-processes": (num_processes, 1, None),
            "--seed": (seed, 0, None),
            "--size": (size, 32, 1024),
            "--slices": (slices, 1, 400),
        }
    )
    if file_ending not in FILE_ENDINGS:
        problems.append(f"--file-ending must be {' or '.join(FILE_ENDINGS)}, not {file_ending}.")
    if problems:
        raise InputError(*problems)
    jobs = []
    for case, test in [(case, False) for case in range(cases)] + [(case, True) for case in range(test_cases)]:
        names = [f"test-volume-{case}"] if test else [f"volume-{case}", f"segmentation-{case}"]
        files = [Path(out) / (name + file_ending) for name in names]
        # at most 79 characters, NIfTI's limit
        description = f"{MARK} {MODEL}: {'test' if test else 'case'} {case}, seed {seed}, {size} x {slices}"
        draw = partial(_draw, description, file_ending, seed=seed, case=case, size=size, slices=slices, test=test)
        jobs.append(Job(files=files, description=description, draw=draw, read=_description))
    return write_all(jobs, num_processes=num_processes, track=track)


def _draw(description: str, file_ending: str, *, test: bool, **arguments: int) -> Iterator[bytes]:
    """Yield the NIfTI files of a case: the volume and, unless it is a test case, its segmentation."""
    case = render(test=test, **arguments)
    for voxels in [case.hu] if test else [case.hu, case.labels]:
        image = nib.Nifti1Image(np.asfortranarray(voxels), case.affine)
        image.set_qform(case.affine, 1)
        image.set_sform(case.affine, 1)
        image.header.set_xyzt_units("mm", "sec")
        image.header["descrip"] = description
        content = image.to_bytes()
        yield gzip.compress(content, compresslevel=3, mtime=0) if file_ending.endswith(".gz") else content


def _description(path: Path) -> str:
    """Read the header's description; "" if this is not a NIfTI file."""
    try:
        return nib.load(path).header["descrip"].item().decode(errors="replace")
    except (ImageFileError, EOFError, OSError, KeyError):
        return ""
