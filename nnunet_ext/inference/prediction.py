"""Predict a folder of images with clicks, and write down where they came from."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder
from torch import nn

from nnunet_ext import registry
from nnunet_ext.architectures.samus.segmenter import PromptableSegmenter
from nnunet_ext.common import host
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json, sha256, write_json
from nnunet_ext.common.progress import Track, untracked
from nnunet_ext.common.text import some
from nnunet_ext.inference.prompts import Prompts, clicks_from_reference, read_prompts, to_original, to_preprocessed
from nnunet_ext.losses import ForegroundMaps
from nnunet_ext.version import __version__
from nnunet_ext.weights import read_checkpoint

RECORD = "prompts_used.json"
MODEL_FILES = ("plans.json", "dataset.json")


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
    model = _Model(request)
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
    for name in MODEL_FILES:  # nnU-Net's ensembles and evaluation look for them among the predictions
        shutil.copyfile(request.model / name, request.out / name)
    done = 0
    for case, files in track(cases.items(), total=len(cases), what="predict", unit="case"):
        target = f"{case}{model.ending}"
        if (request.out / target).exists() and not request.overwrite and case in record.cases:
            continue
        data, seg, properties = model.preprocess(files, request.reference and request.reference / target)
        prompts: Prompts = {}
        if request.reference is not None:  # without one, nnU-Net's preprocessor makes a segmentation of the crop
            prompts = clicks_from_reference(torch.from_numpy(seg), model.maps, model.regions)
        elif given:
            prompts = to_preprocessed(
                given[case],
                classes=model.classes,
                properties=properties,
                shape=data.shape[1:],
                transpose_forward=model.plans.transpose_forward,
                name=case,
            )
        model.export(model.logits(torch.from_numpy(data), prompts), properties, request.out / case)
        record.add(case, prompts, properties, data.shape[1:])
        done += 1
    return done


def load_model(
    folder: str | PathLike[str],
    *,
    fold: int | str = 0,
    checkpoint: str = "checkpoint_final.pth",
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Return the network of a trained model, as nnU-Net builds it, in evaluation mode.

    It takes preprocessed images (B, C, *patch size) and returns logits (B, channels, *patch size), for softmax or, with
    regions, for the sigmoid. Nothing that is in the checkpoint is run while it is read.

    >>> import json, tempfile
    >>> from nnunet_ext.architectures.raunet import UNet
    >>> temporary = tempfile.TemporaryDirectory()
    >>> folder = Path(temporary.name)  # what nnUNetv2_train leaves behind, in short
    >>> dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}
    >>> (folder / "dataset.json").write_text(json.dumps(dataset)) > 0
    True
    >>> plan = {"patch_size": [64, 64], "architecture": {}}
    >>> plans = {"configurations": {"2d": plan}, "label_manager": "LabelManager"}
    >>> (folder / "plans.json").write_text(json.dumps(plans)) > 0
    True
    >>> (folder / "fold_0").mkdir()
    >>> content = {"network_weights": UNet().state_dict(), "trainer_name": "nnUNetTrainerRAUNet"}
    >>> content["init_args"] = {"configuration": "2d"}
    >>> torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    >>> network = load_model(folder)
    >>> network(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 2, 64, 64])
    >>> temporary.cleanup()

    Args:
        folder: nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION.
        fold: a number, or "all".
        checkpoint: the ultrasound trainers are meant to be used with "checkpoint_best.pth".
        device: where the network is to be.

    Raises:
        InputError: a file is missing, is not a checkpoint of nnU-Net's, or holds more than tensors and plain data.
    """
    _check_model(Path(folder))
    read_checkpoint(Path(folder) / f"fold_{fold}" / checkpoint)  # nnU-Net itself would run what is in there
    with contextlib.redirect_stdout(None):  # which it writes to on the CPU, whatever it is asked for
        predictor = nnUNetPredictor(device=torch.device(device), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(folder), (fold,), checkpoint)
    network: nn.Module = host.unwrapped(predictor.network)
    return network.to(device).eval()


def _check_model(folder: Path) -> None:
    missing = [str(folder / name) for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} is not a trained model: {' and '.join(missing)} missing.",
            hint="A model is a folder like nnUNet_results/Dataset030_BUSI/nnUNetTrainerSAMUSHF__nnUNetSAMUSPlans__2d.",
        )


class _Model:
    """A trained model folder behind nnU-Net's predictor, which takes prompts.

    Raises:
        InputError: it is not one, or not one that takes prompts.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        _check_model(request.model)
        folds = self._folds()
        self.checkpoints = [request.model / f"fold_{fold}" / request.checkpoint for fold in folds]
        device = torch.device(request.device)
        self.predictor = nnUNetPredictor(device=device, perform_everything_on_device=device.type == "cuda")
        self.predictor.initialize_from_trained_model_folder(str(request.model), folds, request.checkpoint)
        network = host.unwrapped(self.predictor.network)
        trainer = self.predictor.trainer_name
        entry = registry.get("trainer", trainer)
        if not isinstance(network, PromptableSegmenter) or (entry is not None and entry.prompts == "none"):
            raise InputError(f"{request.model} takes no prompts ({trainer}).", hint="Predict with nnUNetv2_predict.")
        self.network = network
        self.needs_clicks = network.prompts is None if entry is None else entry.prompts == "click"
        self.plans, self.plan = self.predictor.plans_manager, self.predictor.configuration_manager
        self.dataset, self.ending = self.predictor.dataset_json, self.predictor.dataset_json["file_ending"]
        self.is_picture = issubclass(self.plans.image_reader_writer_class, NaturalImage2DIO)
        labels = self.plans.get_label_manager(self.dataset)
        self.classes = class_names(self.dataset["labels"], labels.has_regions)
        self.regions = labels.foreground_regions if labels.has_regions else None
        self.maps = ForegroundMaps(
            labels=tuple(labels.foreground_labels), has_regions=labels.has_regions, ignore_label=labels.ignore_label
        )
        self._preprocessor = self.plan.preprocessor_class(verbose=False)

    def _folds(self) -> tuple[int | str, ...]:
        """Return the folds that were asked for, or all that are there."""
        model, checkpoint = self.request.model, self.request.checkpoint
        there = [f.parent.name.removeprefix("fold_") for f in sorted(model.glob(f"fold_*/{checkpoint}"))]
        numbered = [fold for fold in there if fold != "all"]  # nnU-Net's choice as well
        folds = self.request.folds or tuple(numbered or there)
        absent = [str(f) for f in folds if not (model / f"fold_{f}" / checkpoint).is_file()]
        if absent or not folds:
            raise InputError(
                f"{model}: no {checkpoint} of fold {', '.join(absent) or 'any'}.",
                hint="Choose another with -f or -chk.",
            )
        return folds

    def preprocess(self, files: list[str], segmentation: Path | None) -> tuple:
        """Return a case as nnU-Net preprocesses it: image and segmentation (c, z, y, x), and properties."""
        label = None if segmentation is None else str(segmentation)
        return self._preprocessor.run_case(files, label, self.plans, self.plan, self.dataset)

    def logits(self, data: torch.Tensor, prompts: Prompts) -> torch.Tensor:
        """Return logits averaged over the folds, as nnU-Net averages them; without clicks, by nnU-Net itself."""
        if not prompts:
            return self.predictor.predict_logits_from_preprocessed_data(data).float()
        total, folds = torch.zeros(()), self.predictor.list_of_parameters
        for parameters in folds:
            self.network.load_state_dict(parameters)
            self.network.to(self.predictor.device).eval()
            total = total + prompted_logits(
                self.network, data, prompts, patch_size=self.plan.patch_size, device=self.predictor.device
            )
        return total / len(folds)

    def export(self, logits: torch.Tensor, properties: dict, out: Path) -> None:
        """Write a case as nnU-Net writes it, at its native size."""
        export_prediction_from_logits(
            logits.numpy(),
            properties,
            self.plan,
            self.plans,
            self.dataset,
            str(out),
            self.request.save_probabilities,
            num_threads_torch=torch.get_num_threads(),
        )


def class_names(labels: dict, has_regions: bool) -> list[str]:
    """Return the names of the foreground in the order of the network's masks, which is nnU-Net's.

    Regions come as they are listed, classes by their values.
    """
    names = [name for name in labels if name not in ("background", "ignore")]
    return names if has_regions else sorted(names, key=labels.__getitem__)


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


@torch.inference_mode()
def prompted_logits(
    network: PromptableSegmenter,
    data: torch.Tensor,
    prompts: Prompts,
    *,
    patch_size: Sequence[int],
    device: torch.device,
) -> torch.Tensor:
    """Compute the logits of a preprocessed case from clicks, slice by slice.

    A class without clicks is asked for with the learned prompt. A click belongs to a whole image, which is therefore
    never cut into patches but resized by the network.

    Args:
        network: in evaluation mode, on `device`.
        data: preprocessed image (c, z, y, x).
        prompts: the clicks.
        patch_size: (H, W) of the plan; smaller images are padded to it, as nnU-Net does.
        device: where the network is.

    Returns:
        (channels, z, y, x), on the CPU.

    Raises:
        InputError: no click and no learned prompt.
    """
    padded, inner = pad_nd_image(data, list(patch_size), "constant", {"value": 0}, True)
    top, left = inner[-2].start, inner[-1].start
    size = tuple(padded.shape[-2:])
    out = []
    for z in range(padded.shape[1]):
        embedding = network.embed(padded[:, z][None].to(device))
        masks = []
        for k in range(network.classes):
            clicks = prompts.get((z, k))
            if clicks is None:
                tokens = network.learned(1)[:, k : k + 1]
            else:
                xy = clicks.xy.to(device) + torch.tensor([left, top], device=device)
                tokens = network.model.prompt_encoder.points(network.to_model(xy, size), clicks.labels.to(device))
                tokens = tokens[None, None]
            masks.append(network.model.decode(embedding, tokens))
        out.append(network.emit(torch.cat(masks, 1), size)[0].float().cpu())
    return torch.stack(out, 1)[(slice(None), *inner[1:])]


class _Record:
    """``prompts_used.json``, written after every case, so that an interrupted prediction keeps what it has."""

    def __init__(self, request: Request, model: _Model) -> None:
        self.file, self.model = request.out / RECORD, model
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
