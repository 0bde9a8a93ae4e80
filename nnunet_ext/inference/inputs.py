"""Images and references of a prediction, read by nnU-Net's readers, with all that can be wrong with them in words."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_ext.common import grids
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.inflated import Inflated
from nnunet_ext.common.known_labels import as_labels
from nnunet_ext.dataset_conversion import picture_file, picture_format
from nnunet_ext.inference.model_folder import PromptedModelFolder

logger = logging.getLogger(__name__)


def read_case(
    model: PromptedModelFolder, files: Sequence[str], reference: Path | None
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """Read a case as the model was trained on it.

    Args:
        model: says which reader, how many channels and which labels.
        files: of the channels.
        reference: the segmentation, if there is one.

    Returns:
        Image (c, z, y, x), segmentation (1, z, y, x) in the image's grid or None, and the reader's properties.

    Raises:
        InputError: what is wrong with any of the files.
    """
    image, properties = _read(model, [Path(file) for file in files])
    if model.is_picture and len(files) == model.channels == 1 and len(image) > 1:
        image = _as_grey(Path(files[0]))
    if len(image) != model.channels:
        raise InputError(f"{', '.join(files)}: {len(image)} channels, and the model takes {model.channels}.")
    if reference is None:
        return image, None, properties
    segmentation, its_properties = _read(model, [reference])
    if len(segmentation) != 1:
        raise InputError(f"{reference} has {len(segmentation)} channels, and a segmentation has one.")
    segmentation = _in_grid(segmentation, its_properties, image.shape[1:], properties, reference)
    labels = as_labels(segmentation, model.known, reference)
    return image, labels.astype(np.float32), properties  # as nnU-Net has them, which marks what it crops off with -1


def _read(model: PromptedModelFolder, files: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
    reader = model.plans.image_reader_writer_class()
    for file in files:
        try:
            _check_whole(file)
        except Exception as e:
            raise _unreadable(str(file), e) from e
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return reader.read_images([str(file) for file in files])
    except Exception as e:  # five libraries, each with its own errors
        raise _unreadable(", ".join(map(str, files)), e) from e


def _unreadable(files: str, error: Exception) -> InputError:
    said = str(error).strip().splitlines()
    return InputError(f"{files} cannot be read ({said[-1].strip() if said else type(error).__name__}).")


def _check_whole(file: Path) -> None:
    """Raise what is wrong with a truncated or damaged file: readers fill up what is missing without a word."""
    if file.suffix == ".gz":
        with file.open("rb") as compressed:
            content = Inflated(compressed)
            while content.read(1 << 20):
                pass
    elif file.suffix == ".png":
        with Image.open(file) as picture:
            picture.verify()


def _as_grey(file: Path) -> np.ndarray:
    """Return a picture stored in colours as ``nnunet_ext convert`` makes it grey: (1, 1, height, width)."""
    picture = picture_file.read(file)
    if picture_format.has_colour(picture):
        logger.warning("%s: coloured pixels became grey, as nnunet_ext convert makes them", file)
    return np.asarray(picture_format.grey(picture), np.float32)[None, None]


def _in_grid(
    segmentation: np.ndarray,
    properties: Mapping[str, Any],
    shape: tuple[int, ...],
    image_properties: Mapping[str, Any],
    file: Path,
) -> np.ndarray:
    """Return a segmentation (1, z, y, x) with its voxels in the order of the image's, which has `shape` (z, y, x)."""
    affine, wanted = _affine(properties), _affine(image_properties)
    if affine is not None and wanted is not None and len(affine) == len(wanted):
        n = len(affine) - 1
        array = segmentation.reshape(segmentation.shape[-n:]).T  # the affine's axes
        found = grids.reordering(affine, array.shape, wanted, shape[-n:][::-1])
        if found is not None:
            return found(array).T.reshape(1, *shape)
    elif segmentation.shape[1:] == shape:
        return segmentation
    if segmentation.shape[1:] != shape:
        sizes = ("x".join(map(str, of[::-1])) for of in (segmentation.shape[1:], shape))
        raise InputError("{}: the reference has {} pixels or voxels, the image {}.".format(file, *sizes))
    raise InputError(f"{file}: reference and image lie in different places in space, so that clicks would miss.")


def _affine(properties: Mapping[str, Any]) -> np.ndarray | None:
    """Return what a reader says about indices and places in mm: (axes + 1, axes + 1); None for pictures."""
    if stuff := properties.get("sitk_stuff"):
        channels_are_an_axis = len(stuff["spacing"]) > 3
        return None if channels_are_an_axis else grids.affine(stuff["spacing"], stuff["direction"], stuff["origin"])
    if stuff := properties.get("nibabel_stuff"):
        return np.asarray(stuff.get("reoriented_affine", stuff["original_affine"]), float)
    return None
