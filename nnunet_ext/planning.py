"""nnU-Net experiment planners that give the papers' plans."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
    CTNormalization,
    NoNormalization,
    RescaleTo01Normalization,
    RGBTo01Normalization,
)
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.preprocessing.resampling.no_resampling import no_resampling_hack
from PIL import Image
from torch import nn

from nnunet_ext.architectures.memory import set_recomputation, training_memory
from nnunet_ext.architectures.raunet import UNet, UNet3D
from nnunet_ext.architectures.samus.segmenter import check_channels
from nnunet_ext.common import environment
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import channel_names
from nnunet_ext.preprocessing import (
    UNIT_RANGE,
    WINDOW_CENTRE,
    WINDOW_WIDTH,
    LiverWindowCLAHENormalization,
    resize_slices,
)

logger = logging.getLogger(__name__)

PAPER_PATCH_SIZE = {2: (512, 512), 3: (64, 128, 128)}  # table 1's 2D rows; the 3D patch is ours, the paper names none
PAPER_BATCH_SIZE = 2
# the networks of table 1 that need most memory, so that one plan serves all rows
HUNGRIEST: dict[int, Callable[..., nn.Module]] = {2: lambda **kw: UNet(block="double", gates=True, **kw), 3: UNet3D}


@functools.cache
def _hungriest(shape: tuple[int, ...], recompute: bool) -> int:
    """Return the bytes of a training step of the hungriest network for an input of `shape`, batch first."""

    def build() -> nn.Module:
        network = HUNGRIEST[len(shape) - 2](in_channels=shape[1])
        set_recomputation(network, recompute)
        return network

    return training_memory(build, shape)


class PaperPlanner(ExperimentPlanner):
    """nnU-Net's planner with plans of another name, for axial slices whatever the spacing, without a low resolution."""

    default_plans_name: str

    def __init__(self, *args: Any, plans_name: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, plans_name=plans_name or self.default_plans_name, **kwargs)
        self.suppress_transpose = True  # nnU-Net would turn thin-slice CT to another plane
        self.lowres_creation_threshold = 0


class RAUNetPlanner(PaperPlanner):
    """``nnUNetRAUNetPlans``: what Du & Wang 2025 train on, for their networks and for stock trainers alike.

    * ``2d``: patches of 512x512, or the padded image where images are smaller; no resampling unless a target spacing
      is given (``-overwrite_target_spacing``); batch 2.
    * ``3d_fullres`` for the 3D U-Net row: patches of 64x128x128, stock resampling, batch 2; no low resolution stage.
    * CT channels get the paper's window, median and CLAHE, others nnU-Net's scheme; slices are always axial.

    Batch, then patch, shrink with a warning where a training step of the largest network of the paper would not fit
    ``-gpu_memory_target``; a larger target changes nothing, because the batch size is part of the recipe.
    With NNUNET_EXT_RECOMPUTE=1 the step is that of a training with it.
    """

    default_plans_name = "nnUNetRAUNetPlans"

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """Put the paper's chain in the place of nnU-Net's CT scheme."""
        schemes, use_mask = super().determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        for channel, scheme in enumerate(schemes):
            if scheme == CTNormalization.__name__:
                self._warn_of_window(channel)
        ours = {CTNormalization.__name__: LiverWindowCLAHENormalization.__name__}
        return [ours.get(s, s) for s in schemes], use_mask

    def _warn_of_window(self, channel: int) -> None:
        """Say where half of the foreground and more lies outside of the paper's window, as nothing is seen of it."""
        median = self.dataset_fingerprint["foreground_intensity_properties_per_channel"][str(channel)]["median"]
        low, high = WINDOW_CENTRE - WINDOW_WIDTH / 2, WINDOW_CENTRE + WINDOW_WIDTH / 2
        if not low <= median <= high:
            logger.warning(
                "channel %d: the median of the foreground is %.0f, outside of the paper's window of %.0f to %.0f HU, "
                "so that most of it becomes black or white. Are the values Hounsfield units (some files have 1024 "
                "added), and is the target of the liver's density? ExperimentPlanner plans for any.",
                *(channel, median, low, high),
            )

    def get_plans_for_configuration(self, spacing: Sequence[float], median_shape: Sequence[int], *others: Any) -> dict:
        """Return nnU-Net's plan with the paper's patch, batch and (2d) native resolution."""
        dim = len(spacing)
        whole = np.max(self._slice_shapes(spacing), axis=0) if dim == 2 else median_shape
        wanted = [min(int(np.ceil(i)), p) for i, p in zip(whole, PAPER_PATCH_SIZE[dim], strict=True)]
        plan = super().get_plans_for_configuration(spacing, wanted, *others)
        plan["median_image_size_in_voxels"] = median_shape
        plan["batch_size"], topology = self._fit_to_memory(spacing, wanted)
        self._set_topology(plan, topology, dim)
        if dim == 2 and self.overwrite_target_spacing is None:
            for what in ("data", "seg", "probabilities"):
                plan[f"resampling_fn_{what}"] = no_resampling_hack.__name__
                plan[f"resampling_fn_{what}_kwargs"] = {}
        return plan

    def _slice_shapes(self, spacing: Sequence[float]) -> list[Sequence[int]]:
        """Return (height, width) of every case's slices, in the spacing (y, x) that a user asks for if there is one."""
        shapes = [shape[1:] for shape in self.dataset_fingerprint["shapes_after_crop"]]
        if self.overwrite_target_spacing is None:
            return shapes
        found = [s[1:] for s in self.dataset_fingerprint["spacings"]]
        return [compute_new_shape(shape, own, spacing) for shape, own in zip(shapes, found, strict=True)]

    def _fit_to_memory(self, spacing: np.ndarray | Sequence[float], wanted: Sequence[int]) -> tuple[int, tuple]:
        """Return batch size and topology of the largest step within the memory target, at most the paper's."""
        dim, batch, size = len(spacing), PAPER_BATCH_SIZE, list(wanted)
        topology = self._topology(spacing, size)
        needed = paper = self._training_memory(batch, topology[3])
        while needed > self.UNet_vram_target_GB * 2**30:
            if batch > 1:
                batch -= 1
            else:
                *_, patch, divisible_by = topology
                axis = int(np.argmax(np.array(patch) / divisible_by))
                if patch[axis] <= divisible_by[axis]:
                    break
                size = list(patch)
                size[axis] -= divisible_by[axis]
                topology = self._topology(spacing, size)
            needed = self._training_memory(batch, topology[3])
        if needed != paper:
            logger.warning(
                "%dd: the paper's batch of %d patches of %s needs about %.1f GiB in fp32, more than the target of %s "
                "GiB; planned: batch %d, patch %s, about %.1f GiB. -gpu_memory_target plans for a larger GPU, %s=1 "
                "(here and in training) for a step that needs less memory and more time.",
                *(dim, PAPER_BATCH_SIZE, "x".join(map(str, wanted)), paper / 2**30, self.UNet_vram_target_GB),
                *(batch, "x".join(map(str, topology[3])), needed / 2**30, environment.RECOMPUTE),
            )
        return batch, topology

    def _topology(self, spacing: np.ndarray | Sequence[float], size: Sequence[int]) -> tuple:
        """Return (pools per axis, strides, kernel sizes, padded patch size, divisors) of a patch of `size`."""
        return get_pool_and_conv_props(spacing, size, self.UNet_featuremap_min_edge_length, 999999)

    def _training_memory(self, batch: int, patch: Sequence[int]) -> int:
        """Return the bytes of a training step of the hungriest network of the paper."""
        channels = len(channel_names(self.dataset_json))
        return _hungriest((batch, channels, *map(int, patch)), environment.switch(environment.RECOMPUTE))

    def _set_topology(self, plan: dict, topology: tuple, dim: int) -> None:
        """Set the patch size and nnU-Net's own network for it: stock trainers train on these plans too."""
        _, strides, kernel_sizes, patch, _ = topology
        plan["patch_size"] = patch
        n = len(strides)
        maximum = self.UNet_max_features_2d if dim == 2 else self.UNet_max_features_3d
        plan["architecture"] = deepcopy(plan["architecture"])
        plan["architecture"]["arch_kwargs"].update(
            n_stages=n,
            kernel_sizes=kernel_sizes,
            strides=strides,
            features_per_stage=tuple(min(maximum, self.UNet_base_num_features * 2**i) for i in range(n)),
            n_conv_per_stage=self.UNet_blocks_per_stage_encoder[:n],
            n_conv_per_stage_decoder=self.UNet_blocks_per_stage_decoder[: n - 1],
        )


UNLIMITED_GB = 2.0**20  # nnU-Net shrinks patches to its memory target; infinity it cannot round
MODES_OF_8_BIT = {"L", "P", "RGB", "RGBA"}  # Pillow's names
KEPT = {NoNormalization.__name__, *UNIT_RANGE}  # what channel names can ask for and SAMUS can take as it is
COLOURS = (["r", "g", "b"], ["red", "green", "blue"])


def is_colour(names: Iterable[str]) -> bool:
    """Return whether channels are called red, green and blue."""
    return [name.casefold() for name in names] in COLOURS


class SAMUSPlanner(PaperPlanner):
    """``nnUNetSAMUSPlans``: what SAMUS is trained on, for its family and for stock trainers alike.

    * Only ``2d``: patches of 256x256 that hold the whole image, batch 4; slices are always axial.
    * Every slice is resized to that size; probabilities are resampled by nnU-Net's own function to the shape that
      the image had, so that predictions, ``--npz`` included, come back at native size.
    * 8-bit images are divided by 255. Others are rescaled to [0, 1] by their extremes, unless the name of a channel
      asks for no normalisation.

    One grey channel or three of colour, and no target spacing, or it is an error.
    ``-gpu_memory_target`` changes nothing: the size is the network's, the batch part of the recipe. Another size is a
    subclass with its own `image_size` and `default_plans_name`.
    """

    default_plans_name = "nnUNetSAMUSPlans"
    image_size = 256  # pixels
    batch_size = 4

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.UNet_vram_target_GB = UNLIMITED_GB
        names = channel_names(self.dataset_json)
        check_channels(len(names), "SAM's family")
        if self.overwrite_target_spacing is not None:
            raise InputError(
                f"-overwrite_target_spacing: {type(self).__name__} resizes every slice to {self.image_size} pixels a "
                "side, whatever its spacing.",
                hint="Leave it out, or plan with another planner.",
            )
        if len(names) > 1 and not is_colour(names):
            logger.warning("The channels %s are taken for red, green and blue, as SAM was trained.", ", ".join(names))

    def determine_resampling(self, *args: Any, **kwargs: Any) -> tuple[Callable, dict, Callable, dict]:
        """Return the resize, for images and for segmentations."""
        size = [self.image_size] * 2
        return resize_slices, {"size": size, "is_seg": False}, resize_slices, {"size": size, "is_seg": True}

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """Bring every channel to [0, 1]; the mask of nnU-Net's crop plays no part in it."""
        schemes, _ = super().determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        ours = (RGBTo01Normalization if self._images_are_8_bit() else RescaleTo01Normalization).__name__
        return [s if s in KEPT else ours for s in schemes], [False] * len(schemes)

    def _images_are_8_bit(self) -> bool:
        """Return whether the first training image has 8 bits per channel, by its header.

        The fingerprint's intensities cannot tell: they are those of the foreground alone.
        """
        file = Path(next(iter(self.dataset.values()))["images"][0])
        if file.suffix.lower() not in NaturalImage2DIO.supported_file_endings:
            return False
        with Image.open(file) as image:
            return image.mode in MODES_OF_8_BIT

    def get_plans_for_configuration(self, spacing: Sequence[float], median_shape: Sequence[int], *others: Any) -> dict:
        """Return nnU-Net's plan, and network, for a square image of square pixels, whatever the spacing was."""
        if len(spacing) == 2:
            median_shape = [self.image_size] * 2
        plan = super().get_plans_for_configuration(np.ones(len(spacing)), median_shape, *others)
        return {**plan, "spacing": spacing, "batch_size": self.batch_size}

    def save_plans(self, plans: dict) -> None:
        """Keep only the 2d configuration: SAMUS has no third dimension."""
        plans["configurations"] = {"2d": plans["configurations"]["2d"]}
        super().save_plans(plans)
