"""Segmentations as DICOM-SEG objects that refer to the images they were predicted from, written by highdicom."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import atomic, read_json
from nnunet_ext.common.grids import reordering
from nnunet_ext.common.known_labels import as_labels
from nnunet_ext.common.nnunet_files import Structures, read_dataset
from nnunet_ext.common.text import some
from nnunet_ext.dicom.images import RECORD
from nnunet_ext.dicom.series import INSTALL, Series, is_dicom, read_header
from nnunet_ext.dicom.stack import has_places, ordered
from nnunet_ext.version import __version__

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

logger = logging.getLogger(__name__)
PRODUCT = "nnunet_ext"
REGIONS = {"liver": "Liver", "breast": "Breast"}  # pydicom's names of SNOMED's codes
_STRUCTURE, _MORPHOLOGY = "AnatomicalStructure", "MorphologicallyAbnormalStructure"
_TYPES = {  # the names of labels that our converters write, and their other spellings: category and type
    "liver": (_STRUCTURE, "Liver"),
    "tumour": (_MORPHOLOGY, "Neoplasm"),
    "tumor": (_MORPHOLOGY, "Neoplasm"),
    "cancer": (_MORPHOLOGY, "Neoplasm"),
    "neoplasm": (_MORPHOLOGY, "Neoplasm"),
    "lesion": (_MORPHOLOGY, "Lesion"),
    "benign": (_MORPHOLOGY, "Lesion"),
    "malignant": (_MORPHOLOGY, "Lesion"),
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a DICOM-SEG says of its origin: the model's name, and the part of the body that it was trained on."""

    name: str
    region: str = ""


def check(source: Path, dataset_json: Path) -> None:
    """Raise InputError where no DICOM-SEG could be written of images in `source` with the labels of a dataset.json."""
    _highdicom()
    if not (source / RECORD).is_file():
        raise InputError(
            f"{source} does not say which DICOM its images come from.", hint="DICOM-SEG needs images from DICOM."
        )
    _check_labels(read_dataset(dataset_json)[1], dataset_json)


def write_segmentations(source: Path, predictions: Path, dataset_json: Path, model: Model) -> list[Path]:
    """Write CASE.dcm next to each prediction of a case in ``source/dicom.json``.

    A frame of a multi-frame file is left aside with a warning, since such an object refers to whole images.

    Args:
        source: folder of images that `write_images` made.
        predictions: folder of nnU-Net's segmentations.
        dataset_json: says what their labels mean.

    Returns:
        the files.

    Raises:
        InputError: a label has no code, a file is missing, is not ours to replace, or has changed its grid.
    """
    check(source, dataset_json)
    dataset, structures = read_dataset(dataset_json)
    made: list[Path] = []
    problems: list[str] = []
    for case, files in read_json(source / RECORD)["cases"].items():
        prediction = predictions / f"{case}{dataset['file_ending']}"
        try:
            if gone := [file for file in files if not is_dicom(Path(file))]:
                raise InputError(f"{some(gone)}: not there any more, and DICOM-SEG refers to it.")
            series = Series(name=case, headers={Path(file): read_header(Path(file)) for file in files})
            if series.first.frames is not None:
                logger.warning("%s is a frame of a multi-frame file: no DICOM-SEG was written", case)
                continue
            target = predictions / f"{case}.dcm"
            _check_ours(target)
            masks = _masks(prediction, series, structures)
            made.append(_write(target, files, masks, model))
        except InputError as e:
            problems += e.problems
    if problems:
        raise InputError(*problems)
    return made


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as e:
        raise InputError("DICOM-SEG needs the package highdicom.", hint=INSTALL) from e
    return highdicom


def _check_labels(structures: Structures, file: Path) -> None:
    if unknown := [name for name in structures.labels if name.casefold() not in _TYPES]:
        raise InputError(
            f"{file}: no SNOMED code is known for {some(unknown)}.", hint=f"Labels with codes: {', '.join(_TYPES)}."
        )


def _check_ours(target: Path) -> None:
    """Raise InputError where a file is in the way that is none of ours."""
    import pydicom

    if target.exists():
        header: Any = pydicom.dcmread(target, stop_before_pixels=True) if is_dicom(target) else {}
        if header.get("ManufacturerModelName") != PRODUCT or header.get("Modality") != "SEG":
            raise InputError(f"{target}: not written by nnunet_ext, and not to be replaced.")


def _masks(prediction: Path, series: Series, structures: Structures) -> dict[str, np.ndarray]:
    """Return what is marked of each structure: bool (slices, rows, columns), as the files have them."""
    if not prediction.is_file():
        raise InputError(f"{prediction} is missing.")
    try:
        image = sitk.ReadImage(prediction)
    except RuntimeError as e:
        raise InputError(f"{prediction} cannot be read.") from e
    array, first = sitk.GetArrayFromImage(image), series.first
    shape = (len(series.headers), first.rows, first.columns)
    if has_places(series):
        spacing = np.array(image.GetSpacing())
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * spacing
        affine[:3, 3] = image.GetOrigin()
        order = reordering(affine, image.GetSize(), ordered(series)[1], shape[::-1])
        if order is None:
            raise InputError(f"{prediction} does not lie where the DICOM series does.")
        array = order(array.T).T
    elif array.size != np.prod(shape) or array.shape[-2:] != shape[-2:]:
        raise InputError(f"{prediction} has other pixels than its DICOM file.")
    labels = as_labels(array.reshape(shape), structures.known, prediction)
    return {name: np.isin(labels, values) for name, values in structures.labels.items()}


def _write(target: Path, files: Sequence[str], masks: Mapping[str, np.ndarray], model: Model) -> Path:
    hd = _highdicom()
    from pydicom import dcmread
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    sct: Any = codes.SCT
    algorithm = hd.AlgorithmIdentificationSequence(
        name=model.name[:64], family=codes.DCM.ArtificialIntelligence, version=__version__, source=PRODUCT
    )
    regions: list[Code] = [getattr(sct, REGIONS[model.region])] if model.region else []
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=getattr(sct, _TYPES[name.casefold()][0]),
            segmented_property_type=getattr(sct, _TYPES[name.casefold()][1]),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            anatomic_regions=regions if regions and _TYPES[name.casefold()][0] == _MORPHOLOGY else None,
        )
        for number, name in enumerate(masks, start=1)
    ]
    stacked = np.stack(list(masks.values()), axis=-1).astype(np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the image's own values, and of patients' names
            headers = [dcmread(file, stop_before_pixels=True) for file in files]
            made = hd.seg.Segmentation(
                source_images=headers,
                pixel_array=stacked,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=descriptions,
                series_instance_uid=generate_uid(),
                series_number=int(headers[0].get("SeriesNumber") or 0) + 1000,
                sop_instance_uid=generate_uid(),
                instance_number=1,
                manufacturer=PRODUCT,
                manufacturer_model_name=PRODUCT,
                software_versions=__version__,
                device_serial_number="0",
                content_label="SEGMENTATION",
                content_description=f"Prediction of {PRODUCT}",
                series_description=f"{PRODUCT} segmentation",
                omit_empty_frames=bool(stacked.any()),
            )
            if "ImageOrientationPatient" not in headers[0]:  # the standard wants to hear that it is unknown
                made.PatientOrientation = headers[0].get("PatientOrientation")
            with atomic(target) as temporary:
                made.save_as(temporary)
    except (AttributeError, ValueError, TypeError, KeyError) as e:
        raise InputError(f"{target}: no DICOM-SEG can be written of such images ({e}).") from e
    return target
