"""What the ultrasound trainers share: prompts, SAM's weights, and the paper's way to choose a model."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own idiom)

from nnunet_ext import weights
from nnunet_ext.architectures.samus import checkpoint
from nnunet_ext.architectures.samus.image_encoder import VIT_B, ViT
from nnunet_ext.architectures.samus.models import kind_of
from nnunet_ext.architectures.samus.prompted_model import PromptedModel
from nnunet_ext.architectures.samus.segmenter import LearnedPrompts, PromptableSegmenter, check_channels
from nnunet_ext.common import environment, host
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import atomic, sha256
from nnunet_ext.common.nnunet_files import channel_names
from nnunet_ext.common.text import some
from nnunet_ext.inference.encoded_case import prompted_logits
from nnunet_ext.inference.prompts import ForegroundMaps, fixed_clicks
from nnunet_ext.planning import SAMUSPlanner, is_colour
from nnunet_ext.preprocessing import UNIT_RANGE
from nnunet_ext.trainers.paper_recipe import PaperRecipe
from nnunet_ext.trainers.samus_training import ForegroundLoss, dice_bce, dice_mse, samus_transforms
from nnunet_ext.trainers.simulated_prompts import seed_clicks, simulated_prompts
from nnunet_ext.trainers.validation import ordered_validation, validate_with_clicks

LOSSES = {"dice_mse": dice_mse, "dice_bce": dice_bce}


def rescales(plan: ConfigurationManager) -> bool:
    """Return whether samples must be brought to [0, 1] in the network, because the plan's normalisation does not."""
    return not set(plan.normalization_schemes) <= UNIT_RANGE


class PromptedRecipe(PaperRecipe):
    """A prompted model under nnU-Net's conventions: 256 x 256, batch 4, Adam at a constant 5e-4, 400 passes.

    With `prompts` = "mixed" (the default) half of the samples train with a click on each class, as SAMUS does, and
    the other half with trained tokens in its place, so that nnUNetv2_predict needs no click; validation uses the
    tokens. Of the samples with clicks, `box_share` have a box instead, and for `correction_share` the mask that click
    or box gives is corrected by a click, both as SAM was trained. With "click" all samples train and validate with
    clicks from the reference alone, as the papers do, and only ``nnunet_ext predict`` can predict.

    ``checkpoint_best`` is the epoch of the lowest validation loss, as the paper selects its model.
    """

    paper = "SAMUS-HF"
    learning_rate = 5e-4
    num_passes = 400
    checkpoint_interval = 10
    paper_patch_size = (SAMUSPlanner.image_size, SAMUSPlanner.image_size)
    paper_batch_size = SAMUSPlanner.batch_size

    network: Any  # nnU-Net's; while one of its steps runs, with prompts
    model: type[PromptedModel]
    vit: ViT = VIT_B
    image_size = SAMUSPlanner.image_size
    pretrained = "vit_b"  # SAM's checkpoint to begin with, by its name in `weights.CHECKPOINTS`; empty for none
    prompts: Literal["mixed", "click"] = "mixed"
    box_share = 0.25  # of the samples with clicks, where prompts are mixed
    correction_share = 0.25  # likewise
    loss_name: Literal["dice_mse", "dice_bce"] = "dice_mse"
    best_by: Literal["val_loss", "ema_dice"] = "val_loss"
    model_options: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _refuse_what_cannot_work(cls, configuration_manager: ConfigurationManager, configuration: str) -> None:
        """Raise InputError also for channels that SAM cannot take."""
        super()._refuse_what_cannot_work(configuration_manager, configuration)
        check_channels(len(configuration_manager.normalization_schemes), cls.__name__)

    @classmethod
    def build_model(cls) -> PromptedModel:
        """Build the paper's network."""
        return cls.model(vit=cls.vit, image_size=cls.image_size, **cls.model_options)

    @classmethod
    def build_network(
        cls, plan: ConfigurationManager, in_channels: int, out_channels: int, has_regions: bool
    ) -> nn.Module:
        """Build the model in a `PromptableSegmenter`; it rescales where the plan does not normalise to [0, 1]."""
        return PromptableSegmenter(
            model=cls.build_model(),
            in_channels=in_channels,
            out_channels=out_channels,
            has_regions=has_regions,
            learned_prompts=cls.prompts == "mixed",
            rescale=rescales(plan),
        )

    @property
    def segmenter(self) -> PromptableSegmenter:
        """The network without what DDP and compilation wrap around it."""
        return cast(PromptableSegmenter, host.unwrapped(self.network))

    def initialize(self) -> None:
        """Build, and take the weights of networks that lack what this one adds."""
        self.maps = ForegroundMaps.of(self.label_manager)
        self._click_generator = torch.Generator()
        super().initialize()
        self._additions: dict[str, torch.Tensor] = {}
        self.segmenter.register_state_dict_post_hook(
            partial(self._leave_additions_out)
        )  # torch marks a hook, no method
        self.segmenter.register_load_state_dict_pre_hook(self._put_additions_back)
        self.slim = SlimCheckpoints(self.segmenter, Path(self.output_folder))

    def _leave_additions_out(self, _module: nn.Module, state: dict, *_: object) -> None:
        """Keep nnU-Net from asking weights of SAMUS, by -pretrained_weights, for what SAMUS-HF adds to it."""
        if (found := host.pretrained_weights()) is None:
            return
        for pattern in self.segmenter.model.additions:
            added = [name for name in state if re.search(pattern, name)]
            if added and not any(name in found[1] for name in added):
                self._additions.update({name: state.pop(name) for name in added})
                self.print_to_log_file(f"{len(added)} tensors ({pattern}) are not in {found[0]}: they begin as always")

    def _put_additions_back(self, _module: nn.Module, state: dict, *_: object) -> None:
        state.update({name: tensor for name, tensor in self._additions.items() if name not in state})
        self._additions.clear()

    def _build_loss(self) -> nn.Module:
        return ForegroundLoss(criterion=LOSSES[self.loss_name], maps=self.maps)

    def on_train_start(self) -> None:
        """Begin with SAM's weights, unless a checkpoint has been loaded."""
        if not self.was_initialized:
            self.initialize()
        if not self._state_loaded:
            self._load_sam()
        elif self.current_epoch == 0 and self.segmenter.prompts is not None:  # -pretrained_weights leaves them out
            self.segmenter.prompts.reset(self.segmenter.model)
        super().on_train_start()

    def on_train_end(self) -> None:
        """Let nnU-Net remove checkpoint_latest; remove what was left out of it as well."""
        super().on_train_end()
        if self.local_rank == 0:
            self.slim.file.unlink(missing_ok=True)

    def get_dataloaders(self) -> tuple:
        """Return loaders whose validation samples are the same in every epoch: their loss chooses the model."""
        train, drawn = super().get_dataloaders()
        if not isinstance(drawn, SingleThreadedAugmenter):
            host.stop_workers(drawn)
        return train, ordered_validation(self)

    def on_validation_epoch_start(self) -> None:
        """Begin with the first validation case."""
        super().on_validation_epoch_start()
        self.dataloader_val.data_loader.restart()

    def _load_sam(self) -> None:
        if not self.pretrained:
            self.print_to_log_file(f"{type(self).__name__} begins with random weights: there are no pretrained ones.")
            return
        path = weights.require(official := weights.CHECKPOINTS[self.pretrained])
        if path is None:
            self.print_to_log_file(
                f"{environment.SAM_CHECKPOINT}={weights.RANDOM}: training begins with a RANDOM image encoder, most of "
                "which stays frozen. This tries the software; it does not reproduce the paper."
            )
            return
        state = weights.read_state_dict(path)
        checkpoint.load(self.segmenter.model, state, path)
        if self.segmenter.prompts is not None:
            self.segmenter.prompts.reset(self.segmenter.model)
        digest = sha256(path) if weights.is_own(path, official) else official.sha256  # which `require` has compared
        what = f"SAM's official {official.name}"
        if digest != official.sha256:
            what = f"tensors of {kind_of(state).__name__}, not {what}"
        self.begins_with = f"{path} ({what}; SHA-256 {digest})"
        self.print_to_log_file(f"Training begins with {self.begins_with}")
        if unused := state.keys() - self.segmenter.model.state_dict().keys():
            self.print_to_log_file(f"{len(unused)} of its tensors are not used, such as {some(sorted(unused))}")

    def plan_note(self) -> str:
        """Say also whether samples are rescaled, what channels are taken for, and where an image takes many passes."""
        note = super().plan_note()
        names = channel_names(self.dataset_json)
        if len(names) > 1 and not is_colour(names):
            note += f" The channels {', '.join(names)} are taken for red, green and blue, as SAM was trained."
        plan = self.configuration_manager
        size = [max(*n) for n in zip(plan.configuration["median_image_size_in_voxels"], plan.patch_size, strict=True)]
        passes = math.prod(map(len, compute_steps_for_sliding_window(tuple(size), tuple(plan.patch_size), 0.5)))
        if passes > 1:
            note += (
                f" An image of the median size takes {passes} passes of the encoder to predict, in patches that a "
                f"click or a lesion may lie across; on the plans of {SAMUSPlanner.__name__} it takes one."
            )
        if rescales(self.configuration_manager):
            schemes = ", ".join(sorted(set(self.configuration_manager.normalization_schemes)))
            note += f" The plan's {schemes} does not give [0, 1]: every sample is rescaled to it in the network."
        return note

    def _patch_follows_images(self) -> bool:
        """Return False: the planner resizes every image to the paper's patch."""
        return False

    def _network_without_prompts(self, channels: int) -> nn.Module:
        network: Any = super()._network_without_prompts(channels)
        if network.prompts is None:  # learned prompts cost what clicks cost
            network.prompts = LearnedPrompts(classes=network.classes, dim=network.model.prompt_encoder.embed_dim)
        return network

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        """Mirror neither in training nor at test time; draw patches as large as they are trained on."""
        self.inference_allowed_mirroring_axes = None
        return (0.0, 0.0), False, np.array(self.configuration_manager.patch_size), ()

    @classmethod
    def augmentation(
        cls, patch_size: Sequence[int], rotation: tuple[float, float], mirror_axes: Sequence[int], in_slices: bool
    ) -> list[BasicTransform]:
        """Return SAMUS's augmentation, which has ranges of its own."""
        return samus_transforms(patch_size)

    def on_train_epoch_start(self) -> None:
        """Seed the clicks as well, apart from everything else that is random."""
        super().on_train_epoch_start()
        seed_clicks(self._click_generator, self.seed, self.current_epoch, self.local_rank)

    def train_step(self, batch: dict) -> dict:
        """Do nnU-Net's step with clicks, boxes and corrections, and at the model's resolution."""
        mixed = self.prompts == "mixed"
        prompts = simulated_prompts(
            *self.maps(batch["target"]),
            self._click_generator,
            clicked_share=0.5 if mixed else 1,
            box_share=self.box_share if mixed else 0,
            correction_share=self.correction_share if mixed else 0,
            masks_of=partial(self._masks, batch["data"]),
        )
        with self._prompted(**prompts, low_res=True):
            return super().train_step(batch)

    @torch.no_grad()
    def _masks(
        self, image: torch.Tensor, chosen: torch.Tensor, points: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the masks (B, K, H, W), bool, that a person would see for the chosen samples of a batch."""
        network = self.segmenter.eval()
        on_device = (t[chosen].to(self.device) for t in (image, points, labels))
        with torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext():
            z = network(*on_device, end=False)
        network.train()
        return (z if network.has_regions else z[:, 1:]).cpu() > 0

    def validation_step(self, batch: dict) -> dict:
        """Do nnU-Net's step at the model's resolution, with fixed clicks where the network takes nothing else.

        SAMUS computes the loss that chooses the model where it computes that of training.
        """
        prompts: dict[str, torch.Tensor] = {}
        if self.prompts == "click":
            prompts["points"], prompts["labels"] = fixed_clicks(*self.maps(batch["target"]))
        small = F.interpolate(batch["target"].float(), self.segmenter.model.mask_size, mode="nearest")
        with self._prompted(**prompts, low_res=True):
            return super().validation_step({**batch, "target": small})

    @contextlib.contextmanager
    def _prompted(self, **prompts: Any) -> Iterator[None]:
        """Have nnU-Net's steps, which call the network with an image alone, pass prompts on to it."""
        network = self.network
        on_device = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in prompts.items()}
        self.network = _Prompted(network, on_device)
        try:
            yield
        finally:
            self.network = network

    def on_epoch_end(self) -> None:
        """Do what nnU-Net does, with `checkpoint_best` by validation loss."""
        if self.best_by == "ema_dice":
            super().on_epoch_end()
            return
        loss = self.logger.get_value("val_losses", step=-1)
        self._best_ema = np.inf  # nnU-Net's own choice never applies
        super().on_epoch_end()
        if -loss > self.best:
            self.best = -loss
            self.print_to_log_file(f"Lowest validation loss so far: {loss:.4f}")
            self.current_epoch -= 1  # as in nnU-Net, which saves before it counts
            self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_best.pth"))
            self.current_epoch += 1

    def ranked_by(self, logging: Mapping[str, Sequence[float]]) -> Sequence[float]:
        """Return the negated validation loss of each epoch, or nnU-Net's moving average."""
        if self.best_by == "ema_dice":
            return super().ranked_by(logging)
        return [-loss for loss in logging["val_losses"]]

    def save_checkpoint(self, filename: str) -> None:
        """Leave frozen tensors out of checkpoint_latest, if NNUNET_EXT_SLIM_CHECKPOINTS says so."""
        written = self.local_rank == 0 and not self.disable_checkpointing
        if written:
            self.set_former_aside()  # before a new checkpoint_frozen.pth is among it
        with self.slim.saving(filename) if written else contextlib.nullcontext():
            super().save_checkpoint(filename)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Do nnU-Net's; a network that needs clicks gets them from the reference, which is written down."""
        if self.prompts == "mixed":
            super().perform_actual_validation(save_probabilities)
        else:
            network = self.segmenter.eval()
            patch_size, device = self.configuration_manager.patch_size, self.device
            logits = partial(prompted_logits, network, patch_size=patch_size, device=device)
            validate_with_clicks(self, logits, self.maps, save_probabilities=save_probabilities)


class _Prompted:
    """A network with its prompts, called as nnU-Net calls a network."""

    def __init__(self, network: nn.Module, prompts: dict[str, Any]) -> None:
        self._network, self._prompts = network, prompts
        self.parameters: Callable = network.parameters

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return self._network(image, **self._prompts)


class SlimCheckpoints:
    """Leaves frozen tensors out of ``checkpoint_latest.pth`` and puts them back when it is loaded.

    They are written once, to ``checkpoint_frozen.pth`` in the same folder. Of SAMUS 375 MB stay out of every
    checkpoint_latest; the best and the final one, which are predicted with, are always whole. Off unless
    NNUNET_EXT_SLIM_CHECKPOINTS is 1.

    Args:
        network: whose state dict nnU-Net saves and loads.
        folder: of the checkpoints.
    """

    def __init__(self, network: nn.Module, folder: Path) -> None:
        self.network, self.file = network, folder / "checkpoint_frozen.pth"
        self.enabled = environment.switch(environment.SLIM_CHECKPOINTS)
        self._written = False
        network.register_load_state_dict_pre_hook(self._complete)

    @contextlib.contextmanager
    def saving(self, filename: str) -> Iterator[None]:
        """Keep frozen tensors out of what is saved to `filename` meanwhile, if that is checkpoint_latest."""
        if not (self.enabled and Path(filename).name == "checkpoint_latest.pth"):
            yield
            return
        frozen = self._frozen()
        if not self._written:
            with atomic(self.file, sync=True) as partial:
                torch.save(frozen, partial)
            self._written = True

        def drop(_module: nn.Module, state: dict, _prefix: str, _metadata: dict) -> None:
            for name in frozen:
                del state[name]

        handle = self.network.register_state_dict_post_hook(drop)
        try:
            yield
        finally:
            handle.remove()

    def _frozen(self) -> dict[str, torch.Tensor]:
        """Return the frozen parameters. Buffers count as trained: those of a batch norm change."""
        frozen = {name for name, p in self.network.named_parameters() if not p.requires_grad}
        return {name: t for name, t in self.network.state_dict().items() if name in frozen}

    def _complete(self, _module: nn.Module, state: dict, *_: object) -> None:
        """Put the frozen tensors back into a state dict that lacks all of them."""
        missing = [name for name in self._frozen() if name not in state]
        if not missing or len(missing) < len(self._frozen()):
            return  # whole, or not one of ours
        if not self.file.is_file():
            raise InputError(
                f"checkpoint_latest.pth was written without the frozen weights, and {self.file} is gone.",
                hint="Put it back into the checkpoint's folder, or train anew.",
            )
        state.update(torch.load(self.file, map_location="cpu", weights_only=True))
