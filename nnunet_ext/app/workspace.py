"""What the page works on: cases one at a time, with a session that segments them or with segmentations to look at."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ext.app.cases import Case, Pixels, read_labels, read_pixels
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import DATASET, read_dataset
from nnunet_ext.inference.session import Session
from nnunet_ext.version import __version__

logger = logging.getLogger(__name__)


class Workspace:
    """Answers the page. Requests take their turn: there is one image in memory, and one session.

    Args:
        cases: the images.
        session: segments them; None: they are only looked at.
        out: where masks are saved; what is there is taken up again.
        layers: name -> folder of segmentations to look at.

    Raises:
        InputError: `out` is not a session's with this model, or a layer is not a folder, or has none of the cases.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        session: Session | None = None,
        out: Path | None = None,
        layers: Mapping[str, Path] | None = None,
    ) -> None:
        self.cases, self.session, self.out, self.layers = list(cases), session, out, dict(layers or {})
        self._turn = threading.Lock()
        self._open = -1
        self._pixels = Pixels(np.zeros((1, 1, 1, 1), np.uint8), None)
        self._masks: dict[str, np.ndarray] = {}
        self._saved = session.saved_in(out) if session is not None and out is not None else {}
        self._structures = self._known_structures()
        for folder in self.layers.values():
            if not folder.is_dir():
                raise InputError(f"{folder} is not a directory.", hint="Name a folder of segmentations.")
            names = {file.name.partition(".")[0] for file in folder.iterdir()}
            if not names & {case.name.partition(".")[0] for case in self.cases}:
                raise InputError(f"{folder} has no segmentation of any image.", hint="Files are called CASE.ENDING.")

    def _known_structures(self) -> dict[str, tuple[int, ...]]:
        if self.session is not None:
            return self.session.structures
        for folder in self.layers.values():
            for place in (folder, folder.parent):
                if (place / DATASET).is_file():
                    return read_dataset(place / DATASET)[1].labels
        return {}

    def state(self) -> dict[str, Any]:
        """Return what the page shows around an image."""
        session = self.session
        return {
            "version": __version__,
            "clicks": session is not None,
            "classes": session.classes if session is not None else [],
            "needs_prompts": session is not None and session.needs_prompts,
            "picture": session is not None and session.is_picture,
            "labels": self._names(),
            "layers": list(self.layers),
            "out": str(self.out) if self.out is not None else "",
            "cases": [{"name": case.name, "saved": case.name in self._saved} for case in self.cases],
        }

    def _names(self) -> dict[int, str]:
        """Return the name of each label: that of the smallest structure that has it."""
        by_size = sorted(self._structures.items(), key=lambda item: -len(item[1]))
        return {label: name for name, labels in by_size for label in labels}

    def open(self, number: int) -> dict[str, Any]:
        """Make a case the one that is worked on, and return what is known of it.

        Raises:
            InputError: its files cannot be read; the case before stays.
        """
        with self._turn:
            case = self._case(number)
            if self.session is not None:
                self.session.set_image([str(file) for file in case.files], name=case.name)
                self.session.load(self._saved.get(case.name, []))
                self._pixels = Pixels(self.session.image, self.session.spacing)
            else:
                pixels = read_pixels(case)
                masks = {name: read_labels(folder, case, pixels) for name, folder in self.layers.items()}
                self._pixels = pixels
                self._masks = {name: mask for name, mask in masks.items() if mask is not None}
            self._open = number
            array, spacing = self._pixels.array, self._pixels.spacing
            low, high = (float(v) for v in np.percentile(array, (0.5, 99.5)))
            return {
                "case": number,
                "shape": array.shape[1:],
                "spacing": spacing,
                "colour": self._pixels.is_colour,
                "bytes": self._pixels.is_bytes,
                "range": [low, high if high > low else low + 1],
                "limits": [float(array.min()), float(array.max())],
                "prompts": self.session.prompts if self.session is not None else [],
                "layers": list(self._masks),
                "slice": self._telling_slice(),
            }

    def _telling_slice(self) -> int:
        """Return the slice with most foreground, or the middle one."""
        for mask in self._masks.values():
            if mask.any():
                return int(np.argmax((mask > 0).sum(axis=(1, 2))))
        return int(self._pixels.array.shape[1] // 2)

    def pixels(self, number: int, z: int) -> bytes:
        """Return a slice: float32 or, where `open` says so, bytes; three per pixel of a picture in colours."""
        with self._turn:
            self._check(number, z)
            return self._pixels.plane(z)

    def mask(self, number: int, z: int, prompts: Sequence[Mapping[str, Any]], *, prompted: bool) -> bytes:
        """Return the labels of a slice, uint16 (y, x), as the prompts of the case say.

        Raises:
            InputError: something is wrong with the prompts; those before stay.
        """
        with self._turn:
            self._check(number, z)
            session = self._segmenting()
            session.load(prompts)
            return session.mask_of_slice(z, prompted=prompted).astype("<u2").tobytes()

    def layer(self, number: int, z: int, name: str) -> bytes:
        """Return the labels of a slice, uint16 (y, x), in a segmentation to look at."""
        with self._turn:
            self._check(number, z)
            if name not in self._masks:
                raise InputError("There is no such segmentation of this case.")
            return self._masks[name][z].astype("<u2").tobytes()

    def save(self, number: int, prompts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Write the mask of the case at its native size, and its prompts."""
        with self._turn:
            self._check(number, 0)
            session = self._segmenting()
            if self.out is None:
                raise InputError("This page has no folder to save into.")
            session.load(prompts)
            file = session.save(self.out)
            self._saved[self.cases[number].name] = session.prompts
            logger.info("saved %s", file)
            return {"file": str(file)}

    def progress(self) -> dict[str, int]:
        """Return how many slices of the image are encoded; answers while others wait."""
        done, total = self.session.progress if self.session is not None else (0, 0)
        return {"encoded": done, "slices": total}

    def _segmenting(self) -> Session:
        if self.session is None:
            raise InputError("This page has no model to segment with.")
        return self.session

    def _case(self, number: int) -> Case:
        if not 0 <= number < len(self.cases):
            raise InputError(f"There is no case {number}.")
        return self.cases[number]

    def _check(self, number: int, z: int) -> None:
        self._case(number)
        if number != self._open:
            raise InputError("Another case is open, perhaps in another window.", hint="Reload the page.")
        if not 0 <= z < self._pixels.array.shape[1]:
            raise InputError(f"There is no slice {z}.")
