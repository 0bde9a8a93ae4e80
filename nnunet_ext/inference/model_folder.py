"""Trained model folders: their networks, and prediction of one preprocessed case from clicks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import nn

from nnunet_ext import registry
from nnunet_ext.architectures.click_channels import ClickChannels
from nnunet_ext.architectures.samus.segmenter import PromptableSegmenter
from nnunet_ext.common import host
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import DATASET, PLANS, Structures, check_trained, read_dataset
from nnunet_ext.inference.encoded_case import EncodedFolds
from nnunet_ext.inference.prompts import ForegroundMaps, Prompts
from nnunet_ext.weights import read_checkpoint


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
    return host.unwrapped(_predictor(Path(folder), (fold,), checkpoint, torch.device(device)).network).to(device).eval()


def _predictor(folder: Path, folds: Sequence[int | str], checkpoint: str, device: torch.device) -> nnUNetPredictor:
    """Return nnU-Net's predictor with the networks of some folds; raises as `load_model` does."""
    check_trained(folder)
    read_dataset(folder / DATASET)
    for fold in folds:
        read_checkpoint(folder / f"fold_{fold}" / checkpoint)  # nnU-Net itself would run what is in there
    with contextlib.redirect_stdout(None):  # which it writes to on the CPU, whatever it is asked for
        predictor = nnUNetPredictor(device=device, perform_everything_on_device=device.type == "cuda")
    with _by_nnunet(folder):
        predictor.initialize_from_trained_model_folder(str(folder), tuple(folds), checkpoint)
    return predictor


@contextlib.contextmanager
def _by_nnunet(folder: Path) -> Iterator[None]:
    """Report as an error of the model what nnU-Net stumbles over where it follows the model's plans."""
    try:
        yield
    except (InputError, OSError, MemoryError):
        raise
    except Exception as e:
        raise InputError(
            f"{folder}: nnU-Net cannot use this model ({type(e).__name__}: {e!s:.300}).",
            hint=f"{DATASET}, {PLANS} and the checkpoint must be those that one training left there.",
        ) from e


def _folds(folder: Path, folds: Sequence[int | str] | None, checkpoint: str) -> Sequence[int | str]:
    """Return the folds that were asked for, or all that are there."""
    there = [f.parent.name.removeprefix("fold_") for f in sorted(folder.glob(f"fold_*/{checkpoint}"))]
    numbered = [fold for fold in there if fold != "all"]  # nnU-Net's choice as well
    folds = folds or numbered or there
    absent = [str(f) for f in folds if not (folder / f"fold_{f}" / checkpoint).is_file()]
    if (absent or not folds) and (folder / PLANS).is_file():
        raise InputError(
            f"{folder}: no {checkpoint} of fold {', '.join(absent) or 'any'}.", hint="Choose another with -f or -chk."
        )
    return folds


class PromptedModelFolder:
    """A trained model that takes prompts, behind nnU-Net's predictor.

    Args:
        folder: nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION.
        folds: to average over; None: all that are there.
        checkpoint: name of the file in each fold.
        device: where to compute.

    Raises:
        InputError: it is not a trained model, or not one that takes prompts.
    """

    def __init__(self, folder: Path, folds: Sequence[int | str] | None, checkpoint: str, device: torch.device) -> None:
        folds = _folds(folder, folds, checkpoint)
        self.folder = folder
        self.checkpoints = [folder / f"fold_{fold}" / checkpoint for fold in folds]
        self.predictor = _predictor(folder, folds, checkpoint, device)
        network = host.unwrapped(self.predictor.network)
        trainer = self.predictor.trainer_name
        entry = registry.get("trainer", trainer)
        if not isinstance(network, PromptableSegmenter | ClickChannels) or (
            entry is not None and entry.prompts == "none"
        ):
            raise InputError(f"{folder} takes no prompts ({trainer}).", hint="Predict with nnUNetv2_predict.")
        self.network = network
        learned = isinstance(network, PromptableSegmenter) and network.prompts is not None
        self.needs_clicks = not learned if entry is None else entry.prompts == "click"
        self.plans, self.plan = self.predictor.plans_manager, self.predictor.configuration_manager
        self.dataset, self.ending = self.predictor.dataset_json, self.predictor.dataset_json["file_ending"]
        structures = Structures.of(self.dataset)
        self.classes, self.known = list(structures.labels), structures.known
        with _by_nnunet(folder):
            self.is_picture = issubclass(self.plans.image_reader_writer_class, NaturalImage2DIO)
            self.channels = determine_num_input_channels(self.plans, self.plan, self.dataset)
            self.maps = ForegroundMaps.of(self.plans.get_label_manager(self.dataset))
            self._preprocessor = self.plan.preprocessor_class(verbose=False)

    def preprocess(self, image: np.ndarray, segmentation: np.ndarray | None, properties: dict) -> tuple:
        """Return a case as nnU-Net preprocesses it: image and segmentation (c, z, y, x), and properties.

        Without a segmentation, nnU-Net makes one of what it crops away.
        """
        with _by_nnunet(self.folder):
            return self._preprocessor.run_case_npy(
                image, segmentation, dict(properties), self.plans, self.plan, self.dataset
            )

    def answers(self, data: torch.Tensor) -> Callable[[Prompts], torch.Tensor]:
        """Return what makes logits of prompts for a preprocessed case (c, z, y, x), which is encoded once.

        They are averaged over the folds, as nnU-Net averages them; without prompts, by nnU-Net itself.
        """
        network = self.network
        if isinstance(network, ClickChannels):
            return lambda prompts: self._by_predictor(with_click_channels(network, data, prompts))
        encoded = self.encoded(data)
        return lambda prompts: encoded.logits(prompts) if prompts else self._by_predictor(data)

    def _by_predictor(self, data: torch.Tensor) -> torch.Tensor:
        return self.predictor.predict_logits_from_preprocessed_data(data).float()

    def segmentation(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the labels (z, y, x) that nnU-Net makes of logits (channels, z, y, x)."""
        return self.plans.get_label_manager(self.dataset).convert_logits_to_segmentation(logits)

    @property
    def takes_boxes(self) -> bool:
        """Whether boxes are understood as well as clicks."""
        return isinstance(self.network, PromptableSegmenter)

    def described(self) -> dict[str, Any]:
        """Return what a record says of the model and its checkpoints."""
        files = [(f"{f.parent.name}/{f.name}", f.stat()) for f in self.checkpoints]
        checkpoints = [{"file": n, "bytes": stat.st_size, "modified": stat.st_mtime_ns} for n, stat in files]
        return {"model": str(self.folder), "checkpoints": checkpoints}

    def encoded(self, data: torch.Tensor) -> EncodedFolds:
        """Return a preprocessed case (c, z, y, x) whose slices are encoded once, for SAM's family."""
        if not isinstance(self.network, PromptableSegmenter):
            raise InputError(f"{self.folder}: only SAM's family encodes images apart from prompts.")
        return EncodedFolds(
            self.network,
            self.predictor.list_of_parameters,
            data,
            patch_size=self.plan.patch_size,
            device=self.predictor.device,
        )

    def export(self, logits: torch.Tensor, properties: dict, out: Path, *, save_probabilities: bool) -> None:
        """Write a case as nnU-Net writes it, at its native size."""
        with _by_nnunet(self.folder):
            export_prediction_from_logits(
                logits.numpy(),
                properties,
                self.plan,
                self.plans,
                self.dataset,
                str(out),
                save_probabilities,
                num_threads_torch=torch.get_num_threads(),
            )


def with_click_channels(network: ClickChannels, data: torch.Tensor, prompts: Prompts) -> torch.Tensor:
    """Return a preprocessed case (c, z, y, x) with the clicks of every class behind its channels.

    A class that nobody clicked on in a slice has an empty channel there.

    Raises:
        InputError: there is a box among the clicks.
    """
    if any(prompt.has_box for of_class in prompts.values() for prompt in of_class):
        raise InputError("This network takes clicks, no boxes.", hint="Leave the boxes out of the prompts.")
    drawn = data.new_zeros(network.classes, *data.shape[1:])
    for (z, k), of_class in prompts.items():
        xy, labels = (torch.cat([getattr(prompt, name) for prompt in of_class]) for name in ("xy", "labels"))
        drawn[k, z] = network.channels(xy, labels, data.shape[2:])
    return torch.cat([data, drawn])
