"""Predict a folder of images with clicks, and write down where they came from."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import PARTIAL, is_special, read_json, sha256, write_json
from nnunet_ext.common.nnunet_files import DATASET, PLANS, PROMPTS, used_prompts
from nnunet_ext.common.processes import Track, is_running, untracked
from nnunet_ext.common.text import some
from nnunet_ext.inference.inputs import read_case
from nnunet_ext.inference.model_folder import PromptedModelFolder
from nnunet_ext.inference.prompt_file import read_prompts
from nnunet_ext.inference.prompts import Prompts, to_original, to_preprocessed
from nnunet_ext.inference.reference_prompts import BOX, CENTRE, ReferenceRule
from nnunet_ext.version import __version__

ELSEWHERE = "Name another folder with -o, or add --overwrite."


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to predict; `prompts` is a file, `reference` a folder of segmentations, neither means learned prompts.

    `rule` says how prompts are made of a reference. With `require_prompts`, an image that the file has no prompts for
    is an error, and not asked for with the learned ones.
    """

    model: Path
    source: Path
    out: Path
    folds: tuple[int | str, ...] | None = None
    checkpoint: str = "checkpoint_best.pth"
    prompts: Path | None = None
    reference: Path | None = None
    rule: ReferenceRule = field(default_factory=ReferenceRule)
    require_prompts: bool = False
    save_probabilities: bool = False
    overwrite: bool = False
    device: str = "cpu"


def predict(request: Request, *, model: PromptedModelFolder | None = None, track: Track = untracked) -> int:
    """Write one segmentation per image, and ``prompts_used.json``: where each click came from and where it was.

    Cases that are there already are skipped unless `overwrite`, without which no file is replaced that is not ours.

    Args:
        model: that of the request, where it is loaded already.

    Returns:
        the number of cases that were predicted.

    Raises:
        InputError: before anything is written, everything that is wrong with model, folders, clicks, or with images
            and references, all of which are read first; later, a full disk.
    """
    _check_places(request)
    if model is None:
        model = PromptedModelFolder(request.model, request.folds, request.checkpoint, torch.device(request.device))
    cases = _cases(request, model.ending)
    names = [case.name for case in cases]
    if request.prompts is not None:
        ndim = 2 if model.is_picture else 3
        needed = request.require_prompts or model.needs_clicks
        given = read_prompts(request.prompts, cases=names, classes=model.classes, ndim=ndim, required=needed)
        cases = [replace(case, clicks=given[case.name]) for case in cases]
    if model.needs_clicks and request.prompts is None and request.reference is None:
        raise InputError(
            f"{request.model} was trained with clicks only.", hint="Add --prompts FILE or --from-reference DIR."
        )
    if request.reference is not None and request.rule.kind == BOX and not model.takes_boxes:
        raise InputError(f"{request.model} takes clicks, no boxes.", hint="Choose another --rule.")
    record = _Record(request, model, names)
    todo = [case for case in cases if not record.has(case.name)]
    record.check_foreign([case.name for case in todo])
    _check_cases(model, todo, track)
    try:
        request.out.mkdir(parents=True, exist_ok=True)
        for name in (DATASET, PLANS):  # nnU-Net's ensembles and evaluation look for them among the predictions
            shutil.copyfile(request.model / name, request.out / name)
        with _unfinished(request.out) as folder:
            for case in track(todo, total=len(todo), what="predict", unit="case"):
                data, reference, prompts, properties = case.preprocessed(model, *case.read(model))
                answer = model.answers(torch.from_numpy(data))
                if reference is not None:
                    segment = partial(_segmentation, model, answer)
                    seg = torch.from_numpy(reference)
                    prompts = request.rule.prompts(seg, model.maps, name=case.name, segment=segment)
                model.export(
                    answer(prompts), properties, folder / case.name, save_probabilities=request.save_probabilities
                )
                record.add(case.name, prompts, properties, data.shape[1:])
                target = f"{case.name}{model.ending}"
                for file in sorted(folder.iterdir(), key=lambda file: file.name == target):  # the segmentation last
                    file.replace(request.out / file.name)
    except OSError as e:
        raise InputError(
            f"{request.out} cannot be written: {e.strerror or e}.", hint="The same command continues."
        ) from e
    return len(todo)


def _segmentation(
    model: PromptedModelFolder, answer: Callable[[Prompts], torch.Tensor], prompts: Prompts
) -> torch.Tensor:
    return model.segmentation(answer(prompts))


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One image: the files of its channels, and the reference or the clicks of a file, where there are any."""

    name: str
    files: Sequence[str]
    reference: Path | None = None
    clicks: Sequence[Mapping[str, Any]] | None = None

    def read(self, model: PromptedModelFolder) -> tuple:
        """Return image, segmentation or None, and properties; raises InputError."""
        return read_case(model, self.files, self.reference)

    def preprocessed(
        self, model: PromptedModelFolder, image: np.ndarray, segmentation: np.ndarray | None, properties: dict
    ) -> tuple[np.ndarray, np.ndarray | None, Prompts, dict]:
        """Return the preprocessed image, its reference or the prompts of a file in it, and nnU-Net's notes.

        Raises:
            InputError: a prompt is outside.
        """
        data, seg, properties = model.preprocess(image, segmentation, properties)
        prompts: Prompts = {}
        if self.clicks is not None:
            prompts = to_preprocessed(
                self.clicks,
                classes=model.classes,
                properties=properties,
                shape=data.shape[1:],
                transpose_forward=model.plans.transpose_forward,
                name=self.name,
            )
        return data, seg if segmentation is not None else None, prompts, properties


def _check_places(request: Request) -> None:
    """Raise InputError where the output would lie among the input."""
    out = request.out.resolve()
    inputs = {"the images": request.source, "the references": request.reference, "the model": request.model}
    problems = [
        f"-o {request.out} is the folder of {what}, or inside it."
        for what, folder in inputs.items()
        if folder is not None and folder.resolve() in (out, *out.parents)
    ]
    if request.out.exists() and not request.out.is_dir():
        problems.append(f"-o {request.out} is not a directory.")
    if problems:
        raise InputError(*problems, hint="Name a folder of its own with -o.")


def _check_cases(model: PromptedModelFolder, cases: Sequence[_Case], track: Track) -> None:
    """Read all images and references, and place all clicks of a file; InputError with all that is wrong."""
    problems: list[str] = []
    for case in track(cases, total=len(cases), what="check", unit="case"):
        try:
            found = case.read(model)
            if case.clicks is not None:
                case.preprocessed(model, *found)
        except InputError as e:
            problems += e.problems
    if problems:
        raise InputError(*problems, hint="Nothing has been predicted.")


@contextlib.contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """Hand out a hidden folder for the case at hand, and remove it at the end, with those of killed predictions."""
    start = ".predict."
    for folder in out.glob(f"{start}*{PARTIAL}"):
        process = folder.name.removeprefix(start).removesuffix(PARTIAL)
        if process.isdigit() and not is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
    folder = out / f"{start}{os.getpid()}{PARTIAL}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cases(request: Request, ending: str) -> list[_Case]:
    """Return the cases with their files; InputError for what is missing."""
    there = sorted(request.source.iterdir()) if request.source.is_dir() else []
    if special := [
        file for file in there if file.name.endswith(ending) and is_special(file)
    ]:  # nnU-Net leaves them out
        raise InputError(*(f"{file} is not a file, but a pipe or a device." for file in special))
    names = get_identifiers_from_splitted_dataset_folder(str(request.source), ending) if there else []
    if not len(names):
        raise InputError(
            f"{request.source} holds no image called CASE_0000{ending}.", hint="Name the folder of images with -i."
        )
    if request.reference is not None:
        missing = [name for name in names if not (request.reference / f"{name}{ending}").is_file()]
        if missing:
            raise InputError(
                f"{request.reference} lacks the reference of {some(missing, 5)}.",
                hint="Every image needs one to take clicks from.",
            )
    return [
        _Case(
            name=name,
            files=sorted(map(str, request.source.glob(f"{glob.escape(name)}_[0-9][0-9][0-9][0-9]{ending}"))),
            reference=request.reference and request.reference / f"{name}{ending}",
        )
        for name in names
    ]


class _Record:
    """``prompts_used.json``, written after every case, so that an interrupted prediction keeps what it has."""

    def __init__(self, request: Request, model: PromptedModelFolder, names: Sequence[str]) -> None:
        self.file, self.model, self.request = request.out / PROMPTS, model, request
        source = "reference" if request.reference else "file" if request.prompts else "none"
        self.head = {
            "source": source,
            "from": str(request.reference or request.prompts or "learned prompts"),
            **model.described(),
            "probabilities": request.save_probabilities,
            "nnunet_ext": __version__,
        }
        if request.prompts:
            self.head["sha256"] = sha256(request.prompts)
        if source == "reference":
            self.head["warning"] = "clicks were taken from the reference: not comparable with automatic methods"
            if request.rule.kind != CENTRE:
                self.head["rule"] = str(request.rule)
        self.cases: dict[str, Any] = {}
        if (there := used_prompts(request.out)) is None:
            return
        if {key: value for key, value in read_json(self.file).items() if key != "cases"} == self.head:
            self.cases = there.cases
        elif not request.overwrite:
            raise InputError(f"{request.out} holds predictions of another request.", hint=ELSEWHERE)
        elif mixed := [case for case in there.cases if case not in names and self._file_of(case).exists()]:
            raise InputError(
                f"{request.out} holds {some(mixed)} of another request, and no image to predict them again.",
                hint="Remove them, or name another folder with -o.",
            )

    def _file_of(self, case: str) -> Path:
        return self.file.parent / f"{case}{self.model.ending}"

    def has(self, case: str) -> bool:
        """Return whether a case has been predicted, and is to stay."""
        return not self.request.overwrite and case in self.cases and self._file_of(case).exists()

    def check_foreign(self, cases: Sequence[str]) -> None:
        """Raise InputError if files would be replaced that no record of ours names, unless that was asked for."""
        if self.request.overwrite:
            return
        out, endings = self.file.parent, [self.model.ending]
        endings += [".npz", ".pkl"] if self.request.save_probabilities else []
        files = [out / f"{case}{ending}" for case in cases if case not in self.cases for ending in endings]
        if not self.file.exists():
            files += [out / n for n in (DATASET, PLANS) if not _same_content(out / n, self.request.model / n)]
        if foreign := [file for file in files if file.exists()]:
            raise InputError(
                f"{some(foreign)}: not written by nnunet_ext predict, and not to be replaced.", hint=ELSEWHERE
            )

    def add(self, case: str, prompts: Prompts, properties: dict, shape: Sequence[int]) -> None:
        """Note the prompts of a case as a file for --prompts has them."""
        self.cases[case] = to_original(
            prompts,
            classes=self.model.classes,
            ndim=2 if self.model.is_picture else 3,
            properties=properties,
            shape=shape,
            transpose_backward=self.model.plans.transpose_backward,
        )
        write_json(self.file, {**self.head, "cases": self.cases})


def _same_content(file: Path, other: Path) -> bool:
    return file.is_file() and file.read_bytes() == other.read_bytes()
