"""Which series lie in a folder of DICOM files, by their headers alone, and what the cases made of them are called."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import is_special
from nnunet_ext.common.text import count

INSTALL = "Install the extra: pip install 'nnunet_ext[dicom]'."
_MAGIC_AT, _MAGIC = 128, b"DICM"
_NO_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "KO", "SR", "REG", "DOC"}  # modalities


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series: its headers without pixels, by file, and the name of the case."""

    name: str
    uid: str
    headers: Mapping[Path, Any]

    @property
    def first(self) -> Any:
        """Return one of the headers, for what all have in common."""
        return next(iter(self.headers.values()))


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What was found: the series of images, and sentences on what was left aside."""

    series: tuple[Series, ...]
    notes: tuple[str, ...]


def is_dicom(path: Path) -> bool:
    """Tell whether a file begins as DICOM files do."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC


def files_of(source: Path) -> list[Path]:
    """Return the DICOM files below a folder, or the one that `source` is; links to folders are not followed."""
    paths = [source] if not source.is_dir() else sorted(source.rglob("*"))
    return [path for path in paths if not is_special(path) and path.name != "DICOMDIR" and is_dicom(path)]


def scan(source: Path) -> Scan:
    """Read the headers of all DICOM files in a folder of studies, or of one file.

    Files that are no images (reports, segmentations), localizers and second copies of an image are left aside, and
    notes say so.

    Raises:
        InputError: pydicom is missing, nothing is there, or headers cannot be read; all problems at once.
    """
    if not (files := files_of(source)):
        raise InputError(f"{source} holds no DICOM file.", hint="Name a file, a series or a folder of studies.")
    groups: dict[str, dict[Path, Any]] = defaultdict(dict)
    seen: dict[str, Path] = {}
    aside: Counter[str] = Counter()
    problems: list[str] = []
    for file in files:
        try:
            header = _header(file)
        except InputError as e:
            problems += e.problems
            continue
        uid, instance = str(header.SeriesInstanceUID), str(header.SOPInstanceUID)
        if str(header.get("Modality", "")) in _NO_IMAGES or "Rows" not in header:
            aside[f"without an image ({header.get('Modality') or 'no modality'})"] += 1
        elif "LOCALIZER" in (header.get("ImageType") or ()):
            aside["of localizers"] += 1
        elif instance in seen:
            aside["that repeat another one's SOP instance UID"] += 1
            if not _same_pixels(file, seen[instance]):
                problems.append(f"{file} and {seen[instance]} have one SOP instance UID and other contents.")
        else:
            seen[instance] = file
            groups[uid][file] = header
    if problems:
        raise InputError(*problems, hint="Export the series again.")
    if not groups:
        raise InputError(f"{source} holds no DICOM image, only files {', '.join(aside)}.")
    notes = [f"{source}: {count(n, 'file')} {what} left aside" for what, n in sorted(aside.items())]
    return Scan(series=_named(groups), notes=tuple(notes))


def _header(file: Path) -> Any:
    """Read what stands before the pixels; InputError where it cannot be read."""
    try:
        import pydicom
    except ImportError as e:
        raise InputError(f"{file} is DICOM, which needs the package pydicom.", hint=INSTALL) from e
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are longer than the standard has them, and such
            header = pydicom.dcmread(file, stop_before_pixels=True)
            _ = header.SeriesInstanceUID, header.SOPInstanceUID
    except Exception as e:  # whatever a damaged header brings about
        raise InputError(f"{file} cannot be read as DICOM ({str(e).strip() or type(e).__name__}).") from e
    return header


def _same_pixels(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def _named(groups: Mapping[str, Mapping[Path, Any]]) -> tuple[Series, ...]:
    """Name series by patient ID and series number, and by the end of their UID too where that is not enough."""
    names = {}
    for uid, headers in groups.items():
        first = next(iter(headers.values()))
        patient = re.sub(r"[^A-Za-z0-9-]+", "-", str(first.get("PatientID") or "")).strip("-")[:60] or "patient"
        names[uid] = f"{patient}_s{first.get('SeriesNumber') or 0}"
    shared = Counter(name.casefold() for name in names.values())
    made = []
    for uid, headers in groups.items():
        name = names[uid] if shared[names[uid].casefold()] == 1 else f"{names[uid]}_{uid.replace('.', '-')[-24:]}"
        made.append(Series(name=name, uid=uid, headers=headers))
    return tuple(sorted(made, key=lambda series: series.name))


def vector(header: Any, keyword: str, length: int) -> Sequence[float] | None:
    """Return the numbers of a header's element; None where there are none, or not as many."""
    value = header.get(keyword)
    try:
        numbers = [float(part) for part in value] if value is not None else []
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == length else None
