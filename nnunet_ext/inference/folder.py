"""Predict a folder of images with clicks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder

from nnunet_ext.architectures.samus.promptable import PromptableSegmenter
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import sha256
from nnunet_ext.inference import prompt_file
from nnunet_ext.inference.prompted import clicks_from_reference, prompted_logits
from nnunet_ext.losses import ForegroundMaps
from nnunet_ext.version import __version__

RECORD = "prompts_used.json"
MODEL_FILES = ("plans.json", "dataset.json")
Track = Callable[..., Iterable]


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


def predict(request: Request, *, track: Track = lambda items, **_: items) -> int:
    """Write one segmentation per image, and ``prompts_used.json``: where each click came from and where it was.

    Cases that are there already are skipped unless `overwrite`.

    Returns:
        the number of cases that were predicted.

    Raises:
        InputError: before anything is written, everything that is wrong with model, folders and the file of clicks;
            later, a click outside of its image.
    """
    predictor = _load(request)
    network = segmenter(predictor)
    dataset, ending = predictor.dataset_json, predictor.dataset_json["file_ending"]
    cases = _cases(request, ending)
    labels = predictor.plans_manager.get_label_manager(dataset)
    names = _class_names(dataset["labels"], labels.has_regions)
    maps = ForegroundMaps(
        labels=tuple(labels.foreground_labels), has_regions=network.has_regions, ignore_label=labels.ignore_label
    )
    given = {}
    if request.prompts is not None:
        ndim = 2 if issubclass(predictor.plans_manager.image_reader_writer_class, NaturalImage2DIO) else 3
        given = prompt_file.read(request.prompts, cases=list(cases), classes=names, ndim=ndim)
    if network.prompts is None and request.prompts is None and request.reference is None:
        raise InputError(
            f"{request.model} was trained with clicks only.", hint="Add --prompts FILE or --from-reference DIR."
        )
    request.out.mkdir(parents=True, exist_ok=True)
    record = _Record(request, predictor)
    for name in MODEL_FILES:  # nnU-Net's ensembles and evaluation look for them among the predictions
        shutil.copyfile(request.model / name, request.out / name)
    plan = predictor.configuration_manager
    preprocessor = plan.preprocessor_class(verbose=False)
    done = 0
    for case, files in track(cases.items(), total=len(cases), what="predict", unit="case"):
        target = request.out / f"{case}{ending}"
        if target.exists() and not request.overwrite and case in record.cases:
            continue
        segmentation = str(request.reference / f"{case}{ending}") if request.reference else None
        data, seg, properties = preprocessor.run_case(files, segmentation, predictor.plans_manager, plan, dataset)
        prompts: dict = {}
        if request.reference is not None:
            regions = labels.foreground_regions if labels.has_regions else None
            prompts = clicks_from_reference(torch.from_numpy(seg), maps, regions)
        elif given:
            prompts = prompt_file.to_preprocessed(
                given[case],
                classes=names,
                properties=properties,
                shape=data.shape[1:],
                transpose_forward=predictor.plans_manager.transpose_forward,
                name=case,
            )
        logits = _ensemble(predictor, torch.from_numpy(data), prompts)
        export_prediction_from_logits(
            logits.numpy(),
            properties,
            plan,
            predictor.plans_manager,
            dataset,
            str(request.out / case),
            request.save_probabilities,
            num_threads_torch=torch.get_num_threads(),
        )
        record.add(case, prompts, names, properties, data.shape[1:])
        done += 1
    return done


def _class_names(labels: dict, has_regions: bool) -> list[str]:
    """In the order of the network's masks, which is nnU-Net's: regions as listed, classes by their values."""
    names = [name for name in labels if name not in ("background", "ignore")]
    return names if has_regions else sorted(names, key=labels.__getitem__)


def _load(request: Request) -> nnUNetPredictor:
    missing = [str(request.model / name) for name in MODEL_FILES if not (request.model / name).is_file()]
    if missing:
        raise InputError(
            f"{request.model} is no trained model: {' and '.join(missing)} missing.",
            hint="-m is a folder like nnUNet_results/Dataset030_BUSI/nnUNetTrainerSAMUSHF__nnUNetSAMUSPlans__2d.",
        )
    there = [f.parent.name.removeprefix("fold_") for f in sorted(request.model.glob(f"fold_*/{request.checkpoint}"))]
    numbered = [fold for fold in there if fold != "all"]  # nnU-Net's choice as well
    folds = request.folds or tuple(numbered or there)
    absent = [str(f) for f in folds if not (request.model / f"fold_{f}" / request.checkpoint).is_file()]
    if absent or not folds:
        raise InputError(
            f"{request.model}: no {request.checkpoint} of fold {', '.join(absent) or 'any'}.",
            hint="Choose another with -f or -chk.",
        )
    device = torch.device(request.device)
    predictor = nnUNetPredictor(device=device, perform_everything_on_device=device.type == "cuda")
    predictor.initialize_from_trained_model_folder(str(request.model), folds, request.checkpoint)
    predictor.used_checkpoints = [request.model / f"fold_{f}" / request.checkpoint for f in folds]
    if not isinstance(segmenter(predictor), PromptableSegmenter):
        raise InputError(
            f"{request.model} takes no prompts ({predictor.trainer_name}).", hint="Predict with nnUNetv2_predict."
        )
    return predictor


def segmenter(predictor: nnUNetPredictor) -> PromptableSegmenter:
    """The network without what compilation wraps around it."""
    return getattr(predictor.network, "_orig_mod", predictor.network)


def _cases(request: Request, ending: str) -> dict[str, list[str]]:
    """Case -> its channel files; InputError for what is missing."""
    names = get_identifiers_from_splitted_dataset_folder(str(request.source), ending) if request.source.is_dir() else []
    if not len(names):
        raise InputError(
            f"{request.source} holds no image called CASE_0000{ending}.", hint="Name the folder of images with -i."
        )
    if request.reference is not None:
        missing = [name for name in names if not (request.reference / f"{name}{ending}").is_file()]
        if missing:
            raise InputError(
                f"{request.reference} lacks the reference of {', '.join(missing[:5])}"
                + (f" and {len(missing) - 5} more." if len(missing) > 5 else "."),
                hint="Every image needs one to take clicks from.",
            )
    return {name: sorted(map(str, request.source.glob(f"{name}_[0-9][0-9][0-9][0-9]{ending}"))) for name in names}


def _ensemble(predictor: nnUNetPredictor, data: torch.Tensor, prompts: dict) -> torch.Tensor:
    """Logits averaged over the folds, as nnU-Net averages them; without clicks, by nnU-Net itself."""
    if not prompts:
        return predictor.predict_logits_from_preprocessed_data(data).float()
    network, total = segmenter(predictor), 0
    for parameters in predictor.list_of_parameters:
        network.load_state_dict(parameters)
        network.to(predictor.device).eval()
        patch_size = predictor.configuration_manager.patch_size
        total = total + prompted_logits(network, data, prompts, patch_size=patch_size, device=predictor.device)
    return total / len(predictor.list_of_parameters)


class _Record:
    """``prompts_used.json``, written after every case, so that an interrupted prediction keeps what it has."""

    def __init__(self, request: Request, predictor: nnUNetPredictor) -> None:
        self.file = request.out / RECORD
        self.backward = predictor.plans_manager.transpose_backward
        self.flat = issubclass(predictor.plans_manager.image_reader_writer_class, NaturalImage2DIO)
        source = "reference" if request.reference else "file" if request.prompts else "none"
        self.head = {
            "source": source,
            "from": str(request.reference or request.prompts or "learned prompts"),
            "model": str(request.model),
            "checkpoints": [
                {"file": f"{f.parent.name}/{f.name}", "bytes": f.stat().st_size, "modified": f.stat().st_mtime_ns}
                for f in predictor.used_checkpoints
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
            there = json.loads(self.file.read_text())
            if {k: v for k, v in there.items() if k != "cases"} != self.head:
                raise InputError(
                    f"{request.out} holds predictions of another request.",
                    hint="Name another folder with -o, or add --overwrite.",
                )
            self.cases = there["cases"]

    def add(self, case: str, prompts: dict, names: Sequence[str], properties: dict, shape: Sequence[int]) -> None:
        """Note the clicks of a case as a file for --prompts has them."""
        self.cases[case] = [
            {
                "class": names[k],
                "point": prompt_file.to_original(
                    xy, z, properties=properties, shape=shape, transpose_backward=self.backward
                )[: 2 if self.flat else 3],
                "foreground": bool(label),
            }
            for (z, k), clicks in prompts.items()
            for xy, label in zip(clicks.xy.tolist(), clicks.labels.tolist(), strict=True)
        ]
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps({**self.head, "cases": self.cases}, indent=1))
        partial.replace(self.file)
