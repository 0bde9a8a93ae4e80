"""DICOM files for tests: slices of a CT, and ultrasound with several frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

AXIAL = (1, 0, 0, 0, 1, 0)


def write(file: Path, pixels: np.ndarray, *, sop_class: str = CTImageStorage, **elements: Any) -> FileDataset:
    """Write pixels (y, x), (frames, y, x) or (..., y, x, 3) as one DICOM file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    made.SOPClassUID, made.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    made.Rows, made.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    made.BitsAllocated = made.BitsStored = 8 * pixels.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        made.PlanarConfiguration = 0
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "Doe^Jane", "P 1/2", "", "O"
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20260101", "120000", "1", ""
    made.ReferringPhysicianName, made.Manufacturer = "", "nobody"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    made.PixelData = pixels.tobytes()
    made.save_as(file, enforce_file_format=True)
    return made


def write_ct(
    folder: Path,
    volume: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (0.8, 0.7, 2.5),
    origin: tuple[float, float, float] = (-10, -20, 30),
    orientation: tuple[float, ...] = AXIAL,
    shear: tuple[float, float, float] = (0, 0, 0),
    **elements: Any,
) -> list[Path]:
    """Write HU (z, y, x) as a series whose file names run against the slices; `spacing` is that of x, y and z in mm."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = np.reshape(orientation, (2, 3)).astype(float)
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    files = []
    for i, pixels in enumerate(volume):
        files.append(folder / f"IM{len(volume) - i:04d}")
        place = np.array(origin) + i * (np.cross(x, y) * spacing[2] + np.array(shear))
        common = {
            "Modality": "CT",
            "SeriesNumber": 3,
            "InstanceNumber": i + 1,
            "ImageOrientationPatient": list(orientation),
            "ImagePositionPatient": place.tolist(),
            "PixelSpacing": [spacing[1], spacing[0]],
            "SliceThickness": spacing[2],
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
        }
        write(files[-1], (pixels + 1024).astype(np.int16), **uids, **common | elements)
    return files


def write_ultrasound(file: Path, frames: np.ndarray, **elements: Any) -> None:
    """Write frames (n, y, x) or (n, y, x, 3) of an examination without places in space."""
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    common = {"Modality": "US", "SeriesNumber": 1, "InstanceNumber": 1}
    if len(frames) > 1:
        common["NumberOfFrames"] = len(frames)
    kind = UltrasoundMultiFrameImageStorage if len(frames) > 1 else UltrasoundImageStorage
    write(file, frames, sop_class=kind, **uids, **common | elements)
