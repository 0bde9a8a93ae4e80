"""The two files of a case: whether they fit together, by their headers, and their labels as arrays.

Headers are read without voxels, so that all that is wrong with sizes and positions is known before anything is
computed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.grids import Reordering, agree, greatest_shift, reordering
from nnunet_ext.common.known_labels import as_labels
from nnunet_ext.common.text import some
from nnunet_ext.evaluation.source import CaseFiles, Source
from nnunet_ext.evaluation.voxels import (
    NO_DEPTH,
    Header,
    Reader,
    header_reader,
    read_voxels,
    reorients,
    silence,
    unreadable,
)
from nnunet_ext.metrics.definitions import PHYSICAL, PIXELS, PLANAR, Units


class Segmentations(NamedTuple):
    """What was read of a case.

    Args:
        prediction, reference: labels (slices, height, width); equal shapes.
        spacing: of the reference, along each of these axes.
        units: of lengths and volumes.
    """

    prediction: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, ...]
    units: Units


@dataclass(frozen=True, kw_only=True)
class CaseReader:
    """Reads and checks the files of cases, all of them in the same way.

    Args:
        reader: nnU-Net's class that reads the files.
        known: all labels that a segmentation may hold.
        reorderings: case -> how its prediction's voxels come into the order of the reference's, where they need to.
        voxels: of all references, as far as headers tell.
    """

    reader: Reader
    known: frozenset[int]
    reorderings: Mapping[str, Reordering] = field(default_factory=dict)
    voxels: int = 0

    @classmethod
    def of(cls, source: Source) -> CaseReader:
        """Take nnU-Net's choice of a reader, which may depend on what can read the first reference.

        Raises:
            InputError: nnU-Net has no reader for files of this kind.
        """
        with silence():
            for file in (str(source.cases[0].reference), None):  # a broken one is named later, with all others
                with contextlib.suppress(RuntimeError):
                    reader = determine_reader_writer_from_dataset_json(source.dataset, file, verbose=False)
                    return cls(reader=reader, known=source.structures.known)
        raise InputError(
            f"nnU-Net has no reader for {source.dataset['file_ending']} files.",
            hint='Correct "file_ending" or "overwrite_image_reader_writer" in dataset.json.',
        )

    def with_headers(self, cases: Sequence[CaseFiles], *, geometry: bool = True) -> CaseReader:
        """Compare what headers say about sizes and, with `geometry`, about positions in space.

        Files whose voxels are the same ones in space, in another order, are brought into one order later.

        Returns:
            A reader that knows of these; this one if only reading files as a whole would show anything.

        Raises:
            InputError: headers that cannot be read or that differ, all of them.
        """
        read = header_reader(self.reader)
        if read is None:
            return self
        problems: list[str] = []
        found: dict[str, Reordering] = {}
        voxels, apart = 0, False
        for files in cases:
            prediction, reference = (_header(read, file, problems) for file in (files.prediction, files.reference))
            if prediction is None or reference is None:
                continue
            voxels += math.prod(reference.size)
            if not (difference := _differences(prediction, reference, geometry=geometry)):
                continue
            if geometry and (order := _reordering(prediction, reference)):
                found[files.case] = order
                continue
            problems.append(f"{files.case}: {difference} (prediction and reference).")
            apart |= prediction.size == reference.size
        if problems:
            hint = "Nothing has been computed."
            raise InputError(*problems, hint=f"{hint} --ignore-geometry compares by index." if apart else hint)
        return replace(self, reorderings={} if reorients(self.reader) else found, voxels=voxels)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to files, a sentence each."""
        by_order: dict[str, list[str]] = {}
        for case, order in self.reorderings.items():
            by_order.setdefault(str(order), []).append(case)
        return tuple(
            f"{some(cases)}: prediction and reference have the same voxels in space in another order; that of the "
            f"prediction was changed ({order})."
            for order, cases in by_order.items()
        )

    def read(self, files: CaseFiles) -> Segmentations:
        """Read both files of a case.

        Raises:
            InputError: files that cannot be read, that differ in shape, or that hold labels nobody knows.
        """
        found: list[tuple[np.ndarray, tuple[float, ...]]] = []
        problems: list[str] = []
        for file in (files.prediction, files.reference):
            try:
                voxels, spacing = read_voxels(file, self.reader)
                found.append((as_labels(voxels, self.known, file), spacing))
            except InputError as e:
                problems += e.problems
        if problems:
            raise InputError(*problems)
        (prediction, _), (reference, spacing) = found
        if order := self.reorderings.get(files.case):
            prediction = _reordered(prediction, order)
        if prediction.shape != reference.shape:
            raise InputError(f"{files.case}: prediction has shape {prediction.shape}, reference {reference.shape}.")
        return Segmentations(prediction, reference, spacing, self._units(reference.shape, spacing, files.reference))

    def _units(self, shape: Sequence[int], spacing: Sequence[float], file: Path) -> Units:
        """Return pixels where there is no spacing: for pictures, and for TIFF files without nnU-Net's JSON file.

        nnU-Net makes 2D images volumes of one slice, with a spacing there that means nothing. With pixels of 1 besides,
        which is what formats say that know none, nothing is known of their size.
        """
        if issubclass(self.reader, NaturalImage2DIO):
            return PIXELS
        if issubclass(self.reader, Tiff3DIO):
            return PHYSICAL if file.with_suffix(".json").is_file() else PIXELS
        depth, *sides = spacing
        if shape[0] == 1 and any(np.isclose(depth, none) for none in (NO_DEPTH, NO_DEPTH * max(sides))):
            return PIXELS if sides == [1, 1] else PLANAR
        return PHYSICAL


def _differences(one: Header, other: Header, *, geometry: bool) -> str:
    """Return in words what tells the two apart, their positions only with `geometry`; empty if nothing does."""
    if one.size != other.size:
        return "sizes differ, {} and {}".format(*("x".join(map(str, header.size)) for header in (one, other)))
    if not geometry or one.affine is None or other.affine is None or agree(one.affine, other.affine, one.size):
        return ""
    return f"positions in space differ, by up to {greatest_shift(one.affine, other.affine, one.size):.3g} mm"


def _reordering(one: Header, other: Header) -> Reordering | None:
    if one.affine is None or other.affine is None:
        return None
    return reordering(one.affine, one.size, other.affine, other.size)


def _reordered(array: np.ndarray, order: Reordering) -> np.ndarray:
    """Return an array (slices, height, width) in another order of voxels; the axes of an affine are x, y and z."""
    plane = array[0] if len(order.axes) == 2 else array
    moved = np.ascontiguousarray(order(plane.T).T)
    return moved[None] if len(order.axes) == 2 else moved


def _header(read: Callable[[Path], Header], file: Path, problems: list[str]) -> Header | None:
    try:
        return read(file)
    except Exception as e:  # noqa: BLE001  (five libraries, each with its own errors)
        problems.append(unreadable(file, e))
        return None
