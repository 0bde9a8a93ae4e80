"""An image with prompts that come one by one: encoded once, answered at every click."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

from nnunet_ext.architectures.samus.segmenter import PromptableSegmenter
from nnunet_ext.common.errors import InputError, clicks_needed
from nnunet_ext.common.files import atomic, read_json, write_json
from nnunet_ext.common.nnunet_files import DATASET, PLANS, PROMPTS, Structures, used_prompts
from nnunet_ext.inference.inputs import read_case
from nnunet_ext.inference.model_folder import PromptedModelFolder
from nnunet_ext.inference.prompt_file import as_prompt
from nnunet_ext.inference.prompts import Prompts, to_preprocessed
from nnunet_ext.version import __version__

SHAPE_BEFORE_RESAMPLING = "shape_after_cropping_and_before_resampling"  # nnU-Net's key


class Session:
    """Segments one image after the other by points and boxes, with a trained model of SAM's family.

    The image is encoded once, slice by slice as they are needed; a prompt costs the small decoder. Masks are those of
    ``nnunet_ext predict --prompts`` with the same prompts. Without any prompt, ``nnUNetv2_predict`` averages over
    mirrored images besides, and a session does not.

    >>> session = Session("nnUNet_results/.../nnUNetTrainerSAMUSHF__nnUNetSAMUSPlans__2d")  # doctest: +SKIP
    >>> session.set_image("imagesTs/case_1_0000.png")  # doctest: +SKIP
    >>> session.add_point(120, 88)  # doctest: +SKIP
    >>> session.mask()  # doctest: +SKIP
    >>> Session("imagesTs")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ...
    nnunet_ext.common.errors.InputError: imagesTs is not a trained model: dataset.json and plans.json missing.

    Args:
        model_folder: nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION.
        folds: to average over; None: all that are there. One answers fastest.
        checkpoint: name of the file in each fold.
        device: where to compute.

    Raises:
        InputError: it is not a trained model of SAM's family.
    """

    def __init__(
        self,
        model_folder: str | PathLike[str],
        *,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = "checkpoint_best.pth",
        device: str | torch.device = "cpu",
    ) -> None:
        self._model = PromptedModelFolder(Path(model_folder), folds, checkpoint, torch.device(device))
        if not isinstance(self._model.network, PromptableSegmenter):
            raise InputError(
                f"{model_folder}: this network has no encoder of its own for images, which a session needs.",
                hint="Predict with nnunet_ext predict --prompts.",
            )
        self.structures = Structures.of(self._model.dataset).labels
        self.classes = list(self._model.classes)
        self.ending = self._model.ending
        self.needs_prompts = self._model.needs_clicks
        self._forget()

    def _forget(self) -> None:
        self._name = ""
        self._image: np.ndarray | None = None
        self._prompts: list[dict[str, Any]] = []

    @property
    def is_picture(self) -> bool:
        """Whether images are pictures: one slice, and places of two numbers."""
        return self._model.is_picture

    @property
    def shape(self) -> tuple[int, int, int]:
        """The size (z, y, x) of the image in pixels; a picture has one slice."""
        depth, height, width = self.image.shape[1:]
        return depth, height, width

    @property
    def image(self) -> np.ndarray:
        """The image (c, z, y, x) as nnU-Net reads it; places of prompts and masks are its pixels."""
        if self._image is None:
            raise InputError("This session has no image yet.", hint="Call set_image first.")
        return self._image

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """The distance of pixels (z, y, x) in mm; None for pictures, which do not say."""
        _ = self.image
        if self.is_picture:
            return None
        depth, height, width = map(float, self._properties["spacing"])
        return depth, height, width

    @property
    def progress(self) -> tuple[int, int]:
        """How many slices of the image are encoded, and how many there are."""
        return self._encoded.progress if self._image is not None else (0, 0)

    @property
    def prompts(self) -> list[dict[str, Any]]:
        """The prompts as a file of prompts has them, in the order in which they came."""
        return [dict(prompt) for prompt in self._prompts]

    def set_image(
        self,
        image: str | PathLike[str] | Sequence[str | PathLike[str]] | np.ndarray,
        *,
        name: str | None = None,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Begin with another image; prompts of the one before are forgotten.

        Args:
            image: a file, the files of the channels, or an array (y, x) or (z, y, x) of one channel, or (c, z, y, x).
            name: of the case, under which `save` writes; by default the first file's, without nnU-Net's ``_0000``.
            spacing: (z, y, x) in mm of an array.

        Raises:
            InputError: it cannot be read, or is not as the model was trained on; the image before stays.
        """
        model = self._model
        if isinstance(image, np.ndarray):
            array, properties = _array(image, spacing, model)
            name = "image" if name is None else name
        else:
            files = [str(image)] if isinstance(image, str | PathLike) else [str(file) for file in image]
            if not files or (missing := [file for file in files if not Path(file).is_file()]):
                raise InputError(f"{', '.join(missing) if files else 'Nothing'} is not the file of an image.")
            array, _, properties = read_case(model, files, None)
            name = Path(files[0]).name.removesuffix(model.ending).removesuffix("_0000") if name is None else name
        if not name or name != Path(name).name or name.startswith("."):
            raise InputError(f"{name!r} cannot name a case: it would not be a file of its folder.")
        data, _, noted = model.preprocess(array, None, properties)
        self._forget()
        self._name, self._image = name, array
        self._data_shape, self._properties = data.shape[1:], noted
        self._encoded = model.encoded(torch.from_numpy(data))

    def add_point(
        self, x: float, y: float, z: float = 0, *, foreground: bool = True, label: str | None = None, number: int = 1
    ) -> None:
        """Add a point, in pixels of the image counted from 0.

        Args:
            foreground: whether it is on the object.
            label: name of the class; may be left out where there is only one.
            number: of the object; the mask of a class is that of all its objects.

        Raises:
            InputError: it is outside of the image, or the class is unknown.
        """
        place = [x, y] if self.is_picture else [x, y, z]
        self._add({"point": place, "foreground": foreground, "class": label, "object": number})

    def add_box(
        self, x0: float, y0: float, x1: float, y1: float, z: float = 0, *, label: str | None = None, number: int = 1
    ) -> None:
        """Add a box by its left, top, right and bottom; it takes the place of the object's box in that slice.

        Arguments and errors are those of `add_point`.
        """
        place = [x0, y0, x1, y1] if self.is_picture else [x0, y0, x1, y1, z]
        self._add({"box": place, "class": label, "object": number})

    def _add(self, content: dict[str, Any]) -> None:
        self._place([*self._prompts, self._checked(content)])
        self._prompts.append(self._checked(content))

    def _checked(self, content: Mapping[str, Any]) -> dict[str, Any]:
        _ = self.shape
        return as_prompt(dict(content), "prompt", classes=self.classes, ndim=2 if self.is_picture else 3)

    def _place(self, entries: Sequence[Mapping[str, Any]]) -> Prompts:
        last = {}  # of several boxes of an object in a slice, the last
        for i, entry in enumerate(entries):
            key = (entry["class"], entry.get("object", 1), tuple(entry["box"][4:])) if "box" in entry else i
            last[key] = entry
        return to_preprocessed(
            list(last.values()),
            classes=self.classes,
            properties=self._properties,
            shape=self._data_shape,
            transpose_forward=self._model.plans.transpose_forward,
            name=self._name,
        )

    def undo(self) -> bool:
        """Take the last prompt back; returns whether there was one."""
        return bool(self._prompts and self._prompts.pop())

    def reset(self) -> None:
        """Take all prompts back."""
        self._prompts = []

    def load(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Take these prompts in place of those that are there; InputError as for `add_point`."""
        checked = [self._checked(entry) for entry in entries]
        self._place(checked)
        self._prompts = checked

    def mask(self, *, prompted: bool = True) -> np.ndarray:
        """Return nnU-Net's labels at the image's own size, (z, y, x), uint.

        Args:
            prompted: as the prompts say; False: as if there were none.

        Raises:
            InputError: the model needs prompts, and there are none.
        """
        mask: np.ndarray = self._native(prompted, probabilities=False)
        return mask

    def probability(self, *, prompted: bool = True) -> np.ndarray:
        """Return nnU-Net's probabilities at the image's own size, (classes or regions, z, y, x); else as `mask`."""
        _, probabilities = self._native(prompted, probabilities=True)
        return np.asarray(probabilities)

    def mask_of_slice(self, z: int, *, prompted: bool = True) -> np.ndarray:
        """Return slice z of `mask`, (y, x), without encoding the others where the model's slices are the image's.

        Arguments and errors are those of `mask`.
        """
        if not 0 <= z < self.shape[0]:
            raise InputError(f"There is no slice {z}: the image has {self.shape[0]}, counted from 0.")
        noted, model = self._properties, self._model
        (first, end), *bounds = noted["bbox_used_for_cropping"]
        if model.plans.transpose_forward[0] != 0 or self._data_shape[0] != end - first:
            return self.mask(prompted=prompted)[z]
        if not first <= z < end:  # nnU-Net leaves the empty margin out
            return np.zeros(self.shape[1:], np.uint8)
        alone: dict[str, Any] = {
            key: (1, *noted[key][1:]) for key in ("shape_before_cropping", SHAPE_BEFORE_RESAMPLING)
        }
        alone["bbox_used_for_cropping"] = [[0, 1], *bounds]
        mask: np.ndarray = self._to_native(self._logits(prompted, [z - first]), noted | alone, probabilities=False)
        return mask[0]

    def _logits(self, prompted: bool, slices: Sequence[int] | None = None) -> torch.Tensor:
        """Return the logits (channels, z, y, x) of some preprocessed slices, by default of all."""
        prompts = self._place(self._prompts) if prompted else {}
        wanted = range(self._encoded.depth) if slices is None else slices
        asked = {(z, k) for z in wanted for k in range(len(self.classes))}
        if self.needs_prompts and not asked <= set(prompts):
            raise clicks_needed()
        return self._encoded.logits(prompts, slices)

    def _native(self, prompted: bool, *, probabilities: bool) -> Any:
        _ = self.shape
        return self._to_native(self._logits(prompted), self._properties, probabilities=probabilities)

    def _to_native(self, logits: torch.Tensor, properties: Mapping[str, Any], *, probabilities: bool) -> Any:
        model = self._model
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            model.plans,
            model.plan,
            model.plans.get_label_manager(model.dataset),
            dict(properties),
            return_probabilities=probabilities,
            num_threads_torch=torch.get_num_threads(),
        )

    def saved_in(self, folder: str | PathLike[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the prompts of each case that sessions with this model have saved in a folder; none if it is new.

        Raises:
            InputError: somebody else's predictions are there.
        """
        out, model = Path(folder), self._model
        there = used_prompts(out) if out.is_dir() else None
        if there is None:
            foreign = [
                out / n
                for n in (DATASET, PLANS)
                if (out / n).exists() and (out / n).read_bytes() != (model.folder / n).read_bytes()
            ]
        else:
            record, head = read_json(out / PROMPTS), self._head()
            foreign = [] if {key: record.get(key) for key in head} == head else [out / PROMPTS]
        if foreign:
            raise _not_ours(*foreign)
        return {case: list(prompts) for case, prompts in there.cases.items()} if there is not None else {}

    def _head(self) -> dict[str, Any]:
        return {"source": "session", "from": "points and boxes in a session", **self._model.described()}

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write the mask as nnU-Net writes it, and the prompts into ``prompts_used.json``.

        Images of one session after another may go into one folder; a case that is there is replaced if a session has
        written it.

        Returns:
            the file of the mask.

        Raises:
            InputError: the folder or a file in it is not of a session with this model, and would be replaced.
        """
        out, model = Path(folder), self._model
        target = out / f"{self._name}{model.ending}"
        logits = self._logits(prompted=True)
        there = self.saved_in(out)
        if target.exists() and self._name not in there:
            raise _not_ours(target)
        out.mkdir(parents=True, exist_ok=True)
        for name in (DATASET, PLANS):
            shutil.copyfile(model.folder / name, out / name)
        cases = {**there, self._name: self.prompts}
        write_json(out / PROMPTS, {**self._head(), "nnunet_ext": __version__, "cases": cases})
        with atomic(target, ending=model.ending) as temporary:
            without = str(temporary).removesuffix(model.ending)
            model.export(logits, self._properties, Path(without), save_probabilities=False)
        return target


def _not_ours(*files: Path) -> InputError:
    return InputError(
        *(f"{file} was not written by a session with this model, and is not replaced." for file in files),
        hint="Save into another folder.",
    )


def _array(
    image: np.ndarray, spacing: Sequence[float], model: PromptedModelFolder
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return an array (c, z, y, x) and what a reader of nnU-Net's would note about it."""
    if image.ndim not in (2, 3, 4) or not image.size or not np.isfinite(image).all():
        raise InputError(f"An image of shape {image.shape} is not (y, x), (z, y, x) or (c, z, y, x) of finite numbers.")
    array = image.reshape((1,) * (4 - image.ndim) + image.shape).astype(np.float32)
    if len(array) != model.channels or (model.is_picture and array.shape[1] != 1):
        raise InputError(
            f"An image of shape {image.shape}: the model takes {model.channels} channels"
            + (" of one slice." if model.is_picture else ".")
        )
    if model.is_picture:
        return array, {"spacing": (999, 1, 1)}
    x_first = [float(mm) for mm in reversed(spacing)]
    stuff = {"spacing": x_first, "origin": [0.0] * 3, "direction": [1.0, 0, 0, 0, 1, 0, 0, 0, 1]}
    return array, {"sitk_stuff": stuff, "spacing": list(spacing)}
