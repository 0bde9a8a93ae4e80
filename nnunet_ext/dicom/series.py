"""Which series lie in a folder of DICOM files, by their headers alone, and what the cases made of them are called."""

from __future__ import annotations

import importlib.util
import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
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
class Header:
    """What a file says of its pixels, as plain values; None or nothing where it is silent. Lengths are in mm.

    Attributes:
        series: the series instance UID; `instance` is the SOP instance UID, `number` the instance number.
        frames: None for a file that has no frames to count.
        spacing: between rows and between columns, of which DICOM speaks in this order.
        region: pixel sizes (x, y) of the only calibrated region of an ultrasound image.
        enhanced: whether frames have functional groups, each with a place of its own.
        compression: the transfer syntax's name.
    """

    series: str
    instance: str
    modality: str
    patient: str
    series_number: int
    number: int | None
    rows: int
    columns: int
    samples: int
    bits: int
    frames: int | None
    photometric: str
    spacing: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    thickness: float
    region: tuple[float, float] | None
    enhanced: bool
    localizer: bool
    compression: str

    @classmethod
    def of(cls, dataset: Any) -> Header:
        """Take what a pydicom Dataset says; whatever error a damaged value brings about."""
        if dataset.get("Rows") and not (dataset.get("SeriesInstanceUID") and dataset.get("SOPInstanceUID")):
            raise ValueError("it lacks the UID of its series, or its own")
        number, frames = dataset.get("InstanceNumber"), dataset.get("NumberOfFrames")
        return cls(
            series=str(dataset.get("SeriesInstanceUID") or ""),
            instance=str(dataset.get("SOPInstanceUID") or ""),
            modality=str(dataset.get("Modality") or ""),
            patient=str(dataset.get("PatientID") or ""),
            series_number=int(dataset.get("SeriesNumber") or 0),
            number=None if number is None else int(number),
            rows=int(dataset.get("Rows") or 0),
            columns=int(dataset.get("Columns") or 0),
            samples=int(dataset.get("SamplesPerPixel") or 1),
            bits=int(dataset.get("BitsAllocated") or 0),
            frames=None if frames is None else int(frames),
            photometric=str(dataset.get("PhotometricInterpretation") or ""),
            spacing=_numbers(dataset, "PixelSpacing", 2),
            orientation=_numbers(dataset, "ImageOrientationPatient", 6),
            position=_numbers(dataset, "ImagePositionPatient", 3),
            thickness=float(dataset.get("SliceThickness") or 0),
            region=_region(dataset),
            enhanced="SharedFunctionalGroupsSequence" in dataset,
            localizer="LOCALIZER" in (dataset.get("ImageType") or ()),
            compression=str(dataset.file_meta.TransferSyntaxUID.name),
        )


def _numbers(dataset: Any, keyword: str, length: int) -> tuple[float, ...] | None:
    value = dataset.get(keyword)
    if not value:
        return None
    numbers = tuple(float(part) for part in value)
    if len(numbers) != length or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{keyword} is {value}")
    return numbers


def _region(dataset: Any) -> tuple[float, float] | None:
    regions = dataset.get("SequenceOfUltrasoundRegions") or ()
    sizes = {
        (abs(float(region.PhysicalDeltaX)) * 10, abs(float(region.PhysicalDeltaY)) * 10)
        for region in regions
        if region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == 3  # cm
    }
    return next(iter(sizes)) if len(sizes) == 1 and all(0 < side < math.inf for side in next(iter(sizes))) else None


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series: its headers by file, and the name of the case."""

    name: str
    headers: Mapping[Path, Header]

    @property
    def first(self) -> Header:
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
    files = _readable(source)
    groups: dict[str, dict[Path, Header]] = defaultdict(dict)
    seen: dict[str, Path] = {}
    aside: Counter[str] = Counter()
    problems: list[str] = []
    for file in files:
        try:
            header = read_header(file)
        except InputError as e:
            problems += e.problems
            continue
        if header.modality in _NO_IMAGES or not header.rows or not header.columns:
            aside[f"without an image ({header.modality or 'no modality'})"] += 1
        elif header.localizer:
            aside["of localizers"] += 1
        elif header.instance in seen:
            aside["that repeat another one's SOP instance UID"] += 1
            if not _same_pixels(file, seen[header.instance]):
                problems.append(f"{file} and {seen[header.instance]} have one SOP instance UID and other contents.")
        else:
            seen[header.instance] = file
            groups[header.series][file] = header
    if problems:
        raise InputError(*problems, hint="Export the series again.")
    if not groups:
        raise InputError(f"{source} holds no DICOM image, only files {', '.join(aside)}.")
    notes = [f"{source}: {count(n, 'file')} {what} left aside" for what, n in sorted(aside.items())]
    return Scan(series=_named(groups), notes=tuple(notes))


def _readable(source: Path) -> list[Path]:
    """Return the DICOM files in a folder; InputError where there are none, or nothing that reads them."""
    if not (files := files_of(source)):
        raise InputError(f"{source} holds no DICOM file.", hint="Name a file, a series or a folder of studies.")
    if importlib.util.find_spec("pydicom") is None:
        raise InputError(f"{source} holds DICOM, which needs the package pydicom.", hint=INSTALL)
    return files


def read_header(file: Path) -> Header:
    """Read what a file says of its pixels; InputError where that cannot be read."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are longer than the standard has them, and such
            return Header.of(pydicom.dcmread(file, stop_before_pixels=True))
    except Exception as e:  # whatever a damaged header brings about
        raise InputError(f"{file} cannot be read as DICOM ({str(e).strip() or type(e).__name__}).") from e


def _same_pixels(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def _named(groups: Mapping[str, Mapping[Path, Header]]) -> tuple[Series, ...]:
    """Name series by patient ID and series number, and by their UID too where that is not enough."""
    names = {}
    for uid, headers in groups.items():
        first = next(iter(headers.values()))
        patient = re.sub(r"[^A-Za-z0-9-]+", "-", first.patient).strip("-")[:60] or "patient"
        names[uid] = f"{patient}_s{first.series_number}"
    shared = Counter(name.casefold() for name in names.values())
    made = []
    for uid, headers in groups.items():
        name = names[uid] if shared[names[uid].casefold()] == 1 else f"{names[uid]}_{uid.replace('.', '-')}"
        made.append(Series(name=name, headers=headers))
    return tuple(sorted(made, key=lambda series: series.name))
