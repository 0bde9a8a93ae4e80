"""A folder of nnU-Net's images from DICOM: a volume per series, and a picture per frame where frames have no place."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from PIL import Image

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import atomic, write_json
from nnunet_ext.common.processes import Track, untracked
from nnunet_ext.dicom.series import Header, Series, files_of, scan
from nnunet_ext.dicom.stack import decoded, has_places, read_volume

logger = logging.getLogger(__name__)
RECORD = "dicom.json"  # which files each case comes from
_PICTURES, _VOLUMES = (".png", ".bmp", ".tif"), (".nii.gz", ".nii", ".nrrd", ".mha")


@dataclass
class Written:
    """The files of each case in slice order, and sentences that a user should read."""

    cases: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def as_images(source: Path, ending: str, *, out: Path) -> Iterator[Path]:
    """Hand out a folder of nnU-Net's images: `source` itself, or a temporary one made from the DICOM that it holds.

    A folder that has images by nnU-Net's names is taken as it is.

    Raises:
        InputError: as `write_images`, or `out`, the folder of predictions, lies within the DICOM.
    """
    named = source.is_dir() and any(source.glob(f"*_[0-9][0-9][0-9][0-9]{ending}"))
    if named or not ending or not source.exists() or not files_of(source):
        yield source
        return
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"-o {out} lies within the DICOM files.", hint="Name a folder of its own with -o.")
    with tempfile.TemporaryDirectory(prefix="nnunet_ext_dicom_") as folder:
        for note in write_images(source, Path(folder), ending).notes:
            logger.warning("%s", note)
        yield Path(folder)


def write_images(source: Path, out: Path, ending: str, *, skip_bad: bool = False, track: Track = untracked) -> Written:
    """Write each series as CASE_0000 with an ending of nnU-Net's, and ``dicom.json``, which says where it is from.

    A series with places in space is a volume. One without (ultrasound, photographs) is a picture per frame: grey,
    with regions that are burnt in left as they are.

    Args:
        source: a DICOM file, a series or a folder of studies.
        out: an empty folder.
        skip_bad: leave out the series that are no such images, and say so in the notes.

    Raises:
        InputError: everything that is wrong; nothing is left in `out`.
    """
    if ending not in _PICTURES + _VOLUMES:
        raise InputError(f"DICOM is not written as {ending}.")
    found = scan(source)
    made = Written(notes=list(found.notes))
    problems: list[str] = []
    for series in track(found.series, total=len(found.series), what="read DICOM", unit="series"):
        try:
            _check_kind(series, ending)
            made.cases |= _write_series(series, out, ending, made.notes)
        except InputError as e:
            problems += e.problems
    if problems and not (skip_bad and made.cases):
        for case in made.cases:
            _target(out, case, ending).unlink(missing_ok=True)
        raise InputError(*problems, hint="Nothing was written; `nnunet_ext dicom read --skip-bad` reads what is sound.")
    made.notes += [f"left out: {problem}" for problem in problems]
    write_json(out / RECORD, {"cases": made.cases})
    return made


def _write_series(series: Series, out: Path, ending: str, notes: list[str]) -> dict[str, list[str]]:
    """Write the cases of a series, all or none; return the files of each."""
    cases: dict[str, list[str]] = {}
    try:
        for name, image, files in _volumes_or_pictures(series, notes):
            _write(_target(out, name, ending), image, ending)
            cases[name] = [str(file.absolute()) for file in files]
    except InputError:
        for case in cases:
            _target(out, case, ending).unlink(missing_ok=True)
        raise
    return cases


def _target(out: Path, case: str, ending: str) -> Path:
    return out / f"{case}_0000{ending}"


def _check_kind(series: Series, ending: str) -> None:
    """Raise InputError for a volume where pictures are wanted, and for slices that cannot be placed."""
    if has_places(series):
        if ending in _PICTURES:
            raise InputError(f"series {series.name} is a volume, and the model takes pictures ({ending}).")
        return
    for file, header in series.headers.items():
        if header.enhanced:
            raise InputError(f"{file} is an enhanced (multi-frame) image, which is not read; convert it by dcm2niix.")
        if header.modality in ("CT", "MR", "PT"):
            raise InputError(f"{file} is a slice that does not say where in the patient it lies.")


def _volumes_or_pictures(series: Series, notes: list[str]) -> Iterator[tuple[str, sitk.Image, list[Path]]]:
    """Yield the cases of a series: name, image, files."""
    if has_places(series):
        image, files = read_volume(series)
        yield series.name, image, files
        return
    by_number = sorted(series.headers.items(), key=lambda item: (item[1].number or 0, item[0]))
    for i, (file, header) in enumerate(by_number, start=1):
        frames = decoded(file, header)
        if header.photometric == "MONOCHROME1":
            notes.append(f"{file}: MONOCHROME1 was inverted, so that bright is high")
        if not _spacing(header):
            notes.append(f"{file}: does not say how large its pixels are; 1 mm is written where a format needs it")
        for j, frame in enumerate(frames, start=1):
            number = (f"_i{i:03d}" if len(by_number) > 1 else "") + (f"_f{j:03d}" if len(frames) > 1 else "")
            image = sitk.GetImageFromArray(_grey(frame, file, notes)[None])
            image.SetSpacing((*(_spacing(header) or (1.0, 1.0)), 1.0))
            yield series.name + number, image, [file]


def _grey(frame: np.ndarray, file: Path, notes: list[str]) -> np.ndarray:
    """Return a frame (y, x) without colours, which a note says where there were any."""
    if frame.ndim == 2:
        return frame
    note = f"{file}: coloured pixels became grey"
    if (frame != frame[..., :1]).any() and note not in notes:
        notes.append(note)
    return np.asarray(Image.fromarray(frame).convert("L"))


def _spacing(header: Header) -> tuple[float, float] | None:
    """Return mm per pixel in x and y, as the file says, in ultrasound by its only region."""
    if header.spacing and min(header.spacing) > 0:
        return header.spacing[1], header.spacing[0]
    return header.region


def _write(target: Path, image: sitk.Image, ending: str) -> None:
    if ending in _PICTURES:
        image = image[:, :, 0]
        if image.GetPixelID() != sitk.sitkUInt8:
            raise InputError(
                f"{target.name}: pixels of {image.GetPixelIDTypeAsString()} do not fit without a window of grey values."
            )
    try:
        with atomic(target, ending=ending) as temporary:
            sitk.WriteImage(image, temporary, useCompression=True)
    except RuntimeError as e:
        raise InputError(f"{target} cannot be written: {str(e).strip().splitlines()[-1]}.") from e
