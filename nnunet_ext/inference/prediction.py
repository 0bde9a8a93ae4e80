"""Predict a folder of images with clicks, and write down where they came from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json, sha256, write_json
from nnunet_ext.common.nnunet_files import DATASET, PLANS, PROMPTS
from nnunet_ext.common.processes import Track, untracked
from nnunet_ext.common.text import some
from nnunet_ext.inference.model_folder import PromptedModelFolder
from nnunet_ext.inference.prompts import Prompts, clicks_from_reference, read_prompts, to_original, to_preprocessed
from nnunet_ext.version import __version__


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to predict; `prompts` is a file, `reference` a folder of segmentations, neither means learned prompts."""

    model: Path
    source: Path
    out: Path
    folds: tuple[int | str, ...] | None = None
    checkpoint: str = "checkpoint_best.pth"
    prompts: Path | None = None
    reference: Path | None = None
    save_probabilities: bool = False
    overwrite: bool = False
    device: str = "cpu"


def predict(request: Request, *, track: Track = untracked) -> int:
    """Write one segmentation per image, and ``prompts_used.json``: where each click came from and where it was.

    Cases that are there already are skipped unless `overwrite`.

    Returns:
        the number of cases that were predicted.

    Raises:
        InputError: before anything is written, everything that is wrong with model, folders and the file of clicks;
            later, a click outside of its image.
    """
    model = PromptedModelFolder(request.model, request.folds, request.checkpoint, torch.device(request.device))
    cases = _cases(request, model.ending)
    given = {}
    if request.prompts is not None:
        given = read_prompts(
            request.prompts, cases=list(cases), classes=model.classes, ndim=2 if model.is_picture else 3
        )
    if model.needs_clicks and request.prompts is None and request.reference is None:
        raise InputError(
            f"{request.model} was trained with clicks only.", hint="Add --prompts FILE or --from-reference DIR."
        )
    request.out.mkdir(parents=True, exist_ok=True)
    record = _Record(request, model)
    for name in (DATASET, PLANS):  # nnU-Net's ensembles and evaluation look for them among the predictions
        shutil.copyfile(request.model / name, request.out / name)
    done = 0
    for case, files in track(cases.items(), total=len(cases), what="predict", unit="case"):
        target = f"{case}{model.ending}"
        if (request.out / target).exists() and not request.overwrite and case in record.cases:
            continue
        data, seg, properties = model.preprocess(files, request.reference and request.reference / target)
        prompts: Prompts = {}
        if request.reference is not None:  # without one, nnU-Net's preprocessor makes a segmentation of the crop
            prompts = clicks_from_reference(torch.from_numpy(seg), model.maps)
        elif given:
            prompts = to_preprocessed(
                given[case],
                classes=model.classes,
                properties=properties,
                shape=data.shape[1:],
                transpose_forward=model.plans.transpose_forward,
                name=case,
            )
        logits = model.logits(torch.from_numpy(data), prompts)
        model.export(logits, properties, request.out / case, save_probabilities=request.save_probabilities)
        record.add(case, prompts, properties, data.shape[1:])
        done += 1
    return done


def _cases(request: Request, ending: str) -> dict[str, list[str]]:
    """Return the channel files of every case; InputError for what is missing."""
    names = get_identifiers_from_splitted_dataset_folder(str(request.source), ending) if request.source.is_dir() else []
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
    return {name: sorted(map(str, request.source.glob(f"{name}_[0-9][0-9][0-9][0-9]{ending}"))) for name in names}


class _Record:
    """``prompts_used.json``, written after every case, so that an interrupted prediction keeps what it has."""

    def __init__(self, request: Request, model: PromptedModelFolder) -> None:
        self.file, self.model = request.out / PROMPTS, model
        source = "reference" if request.reference else "file" if request.prompts else "none"
        self.head = {
            "source": source,
            "from": str(request.reference or request.prompts or "learned prompts"),
            "model": str(request.model),
            "checkpoints": [
                {"file": f"{f.parent.name}/{f.name}", "bytes": f.stat().st_size, "modified": f.stat().st_mtime_ns}
                for f in model.checkpoints
            ],
            "probabilities": request.save_probabilities,
            "nnunet_ext": __version__,
        }
        if request.prompts:
            self.head["sha256"] = sha256(request.prompts)
        if source == "reference":
            self.head["warning"] = "clicks were taken from the reference: not comparable with automatic methods"
        self.cases: dict[str, Any] = {}
        if self.file.is_file() and not request.overwrite:
            there = read_json(self.file, hint="Name another folder with -o, or add --overwrite.")
            self.cases = there.pop("cases", {})
            if there != self.head:
                raise InputError(
                    f"{request.out} holds predictions of another request.",
                    hint="Name another folder with -o, or add --overwrite.",
                )

    def add(self, case: str, prompts: Prompts, properties: dict, shape: Sequence[int]) -> None:
        """Note the clicks of a case as a file for --prompts has them."""
        where = {"properties": properties, "shape": shape, "transpose_backward": self.model.plans.transpose_backward}
        self.cases[case] = [
            {
                "class": self.model.classes[k],
                "point": to_original(xy, z, **where)[: 2 if self.model.is_picture else 3],
                "foreground": bool(label),
            }
            for (z, k), clicks in prompts.items()
            for xy, label in zip(clicks.xy.tolist(), clicks.labels.tolist(), strict=True)
        ]
        write_json(self.file, {**self.head, "cases": self.cases})
