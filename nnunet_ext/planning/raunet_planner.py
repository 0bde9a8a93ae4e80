"""Plans for the RA-U-Net paper: whole axial slices at native resolution, batch 2."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.preprocessing.resampling.no_resampling import no_resampling_hack

from nnunet_ext.architectures.memory import training_memory
from nnunet_ext.architectures.raunet import UNet, UNet3D
from nnunet_ext.preprocessing.liver_window import LiverWindowCLAHENormalization

logger = logging.getLogger(__name__)

PAPER_PATCH_SIZE = {2: (512, 512), 3: (64, 128, 128)}  # table 1's 2D rows; the 3D patch is ours, the paper names none
PAPER_BATCH_SIZE = 2
# the networks of table 1 that need most memory, so that one plan serves all rows
HUNGRIEST = {2: lambda **kw: UNet(block="double", gates=True, **kw), 3: UNet3D}


class RAUNetPlanner(ExperimentPlanner):
    """``nnUNetRAUNetPlans``: what Du & Wang 2025 train on, for their networks and for stock trainers alike.

    * ``2d``: patches of 512x512, or the padded image where images are smaller; no resampling; batch 2.
    * ``3d_fullres`` for the 3D U-Net row: patches of 64x128x128, stock resampling, batch 2; no low resolution stage.
    * CT channels get the paper's window, median and CLAHE, others nnU-Net's scheme; slices are always axial.

    Batch, then patch, shrink with a warning where a training step of the largest network of the paper would not fit
    ``-gpu_memory_target``; a larger target changes nothing, because the batch size is part of the recipe.
    """

    def __init__(self, *args, plans_name: str = "nnUNetRAUNetPlans", **kwargs) -> None:
        super().__init__(*args, plans_name=plans_name, **kwargs)
        self.lowres_creation_threshold = 0  # the paper has no low resolution stage

    def determine_transpose(self) -> tuple[list[int], list[int]]:
        """Axial slices whatever the spacing: nnU-Net would turn thin-slice CT to another plane."""
        return [0, 1, 2], [0, 1, 2]

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """The paper's chain in place of nnU-Net's CT scheme."""
        schemes, use_mask = super().determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        ours = {CTNormalization.__name__: LiverWindowCLAHENormalization.__name__}
        return [ours.get(s, s) for s in schemes], use_mask

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray | Sequence[float],
        median_shape: np.ndarray | Sequence[int],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict,
    ) -> dict:
        """nnU-Net's plan with the paper's patch, batch and (2d) native resolution."""
        dim = len(spacing)
        whole = np.max(self.dataset_fingerprint["shapes_after_crop"], axis=0)[1:] if dim == 2 else median_shape
        wanted = [min(int(np.ceil(i)), p) for i, p in zip(whole, PAPER_PATCH_SIZE[dim], strict=True)]
        plan = super().get_plans_for_configuration(
            spacing, wanted, data_identifier, approximate_n_voxels_dataset, _cache
        )
        plan["median_image_size_in_voxels"] = median_shape
        plan["batch_size"], topology = self._fit_to_memory(spacing, wanted)
        self._set_topology(plan, topology, dim)
        if dim == 2:
            for what in ("data", "seg", "probabilities"):
                plan[f"resampling_fn_{what}"] = no_resampling_hack.__name__
                plan[f"resampling_fn_{what}_kwargs"] = {}
        return plan

    def _fit_to_memory(self, spacing: Sequence[float], wanted: Sequence[int]) -> tuple[int, tuple]:
        """Batch size and nnU-Net's topology of the largest step within the memory target, at most the paper's."""
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
                "GiB; planned: batch %d, patch %s, about %.1f GiB. -gpu_memory_target plans for a larger GPU.",
                *(dim, PAPER_BATCH_SIZE, "x".join(map(str, wanted)), paper / 2**30, self.UNet_vram_target_GB),
                *(batch, "x".join(map(str, topology[3])), needed / 2**30),
            )
        return batch, topology

    def _topology(self, spacing: Sequence[float], size: Sequence[int]) -> tuple:
        """nnU-Net's (pools per axis, strides, kernel sizes, padded patch size, divisors) for a patch of `size`."""
        return get_pool_and_conv_props(spacing, size, self.UNet_featuremap_min_edge_length, 999999)

    def _training_memory(self, batch: int, patch: Sequence[int]) -> int:
        """Bytes of a training step of the hungriest network of the paper."""
        channels = len(self.dataset_json.get("channel_names", self.dataset_json.get("modality")))
        return training_memory(lambda: HUNGRIEST[len(patch)](in_channels=channels), (batch, channels, *patch))

    def _set_topology(self, plan: dict, topology: tuple, dim: int) -> None:
        """Patch size, and nnU-Net's own network for it: stock trainers train on these plans too."""
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
