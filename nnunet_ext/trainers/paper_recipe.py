"""What the trainers of both papers share: their own network under nnU-Net's conventions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_ext import registry
from nnunet_ext.architectures.memory import set_recomputation, training_memory
from nnunet_ext.common import environment
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import channel_names
from nnunet_ext.trainers.pass_trainer import CUDA, PassTrainer

PLANS_KEY = "nnunet_ext"  # what a plan carries for us to the prediction, where nnU-Net rebuilds the network from it


def note_regions(plans: PlansManager, labels: LabelManager) -> None:
    """Write into the plans whether the channels of the output are regions."""
    if labels.has_regions:
        plans.plans[PLANS_KEY] = {"has_regions": True}


def has_regions(plans: PlansManager) -> bool:
    """Return what `note_regions` wrote into the plans: whether the channels of the output are regions."""
    regions: bool = plans.plans.get(PLANS_KEY, {}).get("has_regions", False)
    return regions


class PaperRecipe(PassTrainer):
    """A network without deep supervision, Adam with a constant learning rate, and a word about the plan.

    Subclasses say which network (`build_network`), for which patches (`dim`), and what the paper trained on. They are
    classmethods and class attributes, because nnU-Net rebuilds the network at prediction from the class name and the
    plans alone.
    """

    paper: str
    dim: int = 2
    learning_rate: float
    paper_patch_size: tuple[int, ...]
    paper_batch_size: int
    paper_normalization: str = ""  # of CT channels; empty where the paper uses nnU-Net's

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = CUDA,
    ) -> None:
        self._refuse_what_cannot_work(PlansManager(plans).get_configuration(configuration), configuration)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False
        self.initial_lr = self.learning_rate
        self.weight_decay = 0
        note_regions(self.plans_manager, self.label_manager)

    @classmethod
    def _refuse_what_cannot_work(cls, configuration_manager: ConfigurationManager, configuration: str) -> None:
        """Raise InputError before nnU-Net creates its output folder."""
        dim, hint = len(configuration_manager.patch_size), f"Train it on {'2d' if cls.dim == 2 else '3d_fullres'}"
        if dim != cls.dim:
            raise InputError(
                f"{cls.__name__} is a {cls.dim}D network; configuration {configuration!r} has {dim}D patches.",
                hint=f"{hint}.",
            )
        if configuration_manager.previous_stage_name is not None:
            raise InputError(
                f"{cls.__name__} cannot be the second stage of a cascade ({configuration!r}).",
                hint=f"{hint}, or the cascade with nnUNetTrainer.",
            )

    @classmethod
    def build_network(
        cls, plan: ConfigurationManager, in_channels: int, out_channels: int, has_regions: bool
    ) -> nn.Module:
        """Build the paper's network, with nnU-Net's channels: regions, or classes with the background first."""
        raise NotImplementedError

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """Build the network for training and for prediction; the plan says whether the channels are regions."""
        regions = has_regions(plans_manager)
        network = cls.build_network(configuration_manager, num_input_channels, num_output_channels, regions)
        set_recomputation(network, environment.switch(environment.RECOMPUTE))
        return network

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Do nothing: there is none to switch."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Return Adam on whatever is trained, at a constant learning rate (a polynomial of degree 0)."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs, exponent=0)

    @classmethod
    def augmentation(
        cls, patch_size: Sequence[int], rotation: tuple[float, float], mirror_axes: Sequence[int], in_slices: bool
    ) -> list[BasicTransform]:
        """Return the paper's augmentation.

        Args:
            patch_size: of the training patches, two or three axes.
            rotation: the range of angles in radians.
            mirror_axes: the axes that may be flipped.
            in_slices: 3D patches are augmented within axial slices.
        """
        raise NotImplementedError

    @classmethod
    def get_training_transforms(
        cls,
        patch_size: Sequence[int],
        rotation_for_DA: tuple[float, float],  # noqa: N803  (nnU-Net's name)
        deep_supervision_scales: Sequence | None,
        mirror_axes: Sequence[int],
        do_dummy_2d_data_aug: bool,
        use_mask_for_norm: Sequence[bool] | None = None,
        is_cascaded: bool = False,
        foreground_labels: Sequence[int] | None = None,
        regions: Sequence | None = None,
        ignore_label: int | None = None,
    ) -> BasicTransform:
        """Return the paper's augmentation, then what nnU-Net does to every segmentation."""
        ours = cls.augmentation(patch_size, rotation_for_DA, mirror_axes, do_dummy_2d_data_aug)
        return ComposeTransforms([*ours, *segmentation_transforms(use_mask_for_norm, regions, ignore_label)])

    def on_train_start(self) -> None:
        """Say first where the plan differs from the paper."""
        self.print_to_log_file(self.plan_note())
        super().on_train_start()

    def plan_note(self) -> str:
        """Return one line: where the plan differs from the paper, the memory, and how to get the paper's plan."""
        plan = self.configuration_manager
        schemes = zip(channel_names(self.dataset_json), plan.normalization_schemes, strict=True)
        of_ct = ", ".join(sorted({scheme for name, scheme in schemes if name.casefold() == "ct"}))
        differences = {
            what: f"{what} {ours} (paper: {theirs})"
            for what, ours, theirs in (
                ("batch size", plan.batch_size, self.paper_batch_size),
                ("patch", "x".join(map(str, plan.patch_size)), "x".join(map(str, self.paper_patch_size))),
                ("normalisation", of_ct, self.paper_normalization if of_ct else ""),
            )
            if ours != theirs
        }
        note = f"{type(self).__name__} ({self.paper}): the plan {self.plans_manager.plans_name} "
        note += f"differs from the paper in {', '.join(differences.values())}. " if differences else "is the paper's. "
        recomputed = f", with {environment.RECOMPUTE}=1" if environment.switch(environment.RECOMPUTE) else ""
        note += f"A training step needs about {self._training_memory() / 2**30:.1f} GiB in fp32{recomputed}."
        entry = next((e for c in type(self).__mro__ if (e := registry.get("trainer", c.__name__))), None)
        by_planner = differences.keys() - ({"patch"} if self._patch_follows_images() else set())
        if by_planner and entry is not None and self.plans_manager.experiment_planner_name != entry.planner:
            dataset = self.plans_manager.dataset_name
            note += (
                f" The paper's plan: nnUNetv2_plan_and_preprocess -d {dataset} -c {self.configuration_name} "
                f"-pl {entry.planner}, then train with -p {entry.plans}."
            )
        return note

    def _patch_follows_images(self) -> bool:
        """Return whether the patch is smaller than the paper's because images are, as the paper's planner has it."""
        plan = self.configuration_manager
        sizes = plan.configuration.get("median_image_size_in_voxels", ())
        whole = zip(plan.patch_size, sizes, self.paper_patch_size, strict=False)
        return bool(sizes) and all(size <= ours <= theirs for ours, size, theirs in whole)

    def _training_memory(self) -> int:
        """Return the bytes of a training step with the plan's batch and patch."""
        channels = len(self.configuration_manager.normalization_schemes)
        shape = (self.configuration_manager.batch_size, channels, *self.configuration_manager.patch_size)
        return training_memory(lambda: self._network_without_prompts(channels), shape)

    def _network_without_prompts(self, channels: int) -> nn.Module:
        """Build a network that takes an image alone and costs what the trained one does."""
        heads = self.label_manager.num_segmentation_heads
        return self.build_network_architecture(self.plans_manager, self.configuration_manager, channels, heads)


def segmentation_transforms(
    use_mask_for_norm: Sequence[bool] | None, regions: Sequence | None, ignore_label: int | None
) -> list[BasicTransform]:
    """Return what nnU-Net's training transforms end with, whatever the augmentation.

    Zero outside the mask, padding (-1) to background, labels to regions: each where the dataset asks for it.
    """
    transforms: list[BasicTransform] = []
    if use_mask_for_norm is not None and any(use_mask_for_norm):
        channels = [i for i, masked in enumerate(use_mask_for_norm) if masked]
        transforms.append(MaskImageTransform(apply_to_channels=channels, channel_idx_in_seg=0, set_outside_to=0))
    transforms.append(RemoveLabelTansform(-1, 0))
    if regions is not None:
        ignored = [] if ignore_label is None else [ignore_label]
        transforms.append(ConvertSegmentationToRegionsTransform([*regions, *ignored], channel_in_seg=0))
    return transforms
