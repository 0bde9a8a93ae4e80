"""Plans for SAMUS and its family: every image squashed to 256x256, intensities in [0, 1], batch 4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
    NoNormalization,
    RescaleTo01Normalization,
    RGBTo01Normalization,
)
from PIL import Image

from nnunet_ext.preprocessing.resize import resize_slices

UNLIMITED_GB = 2.0**20  # nnU-Net shrinks patches to its memory target; infinity it cannot round
MODES_OF_8_BIT = {"L", "P", "RGB", "RGBA"}  # Pillow's names
# what channel names can ask for and SAMUS can take as it is
KEPT = {s.__name__ for s in (NoNormalization, RescaleTo01Normalization, RGBTo01Normalization)}


class SAMUSPlanner(ExperimentPlanner):
    """``nnUNetSAMUSPlans``: what SAMUS is trained on, for its family and for stock trainers alike.

    * Only ``2d``: patches of 256x256 that hold the whole image, batch 4; slices are always axial.
    * Every slice is resized to that size; probabilities are resampled by nnU-Net's own function to the shape that
      the image had, so that predictions, ``--npz`` included, come back at native size.
    * 8-bit images are divided by 255. Others are rescaled to [0, 1] by their extremes, unless the name of a channel
      asks for no normalisation.

    ``-gpu_memory_target`` changes nothing: the size is the network's, the batch part of the recipe. Another size is a
    subclass with its own `image_size` and `default_plans_name`.
    """

    default_plans_name = "nnUNetSAMUSPlans"
    image_size = 256  # pixels
    batch_size = 4

    def __init__(self, *args, plans_name: str | None = None, **kwargs) -> None:
        super().__init__(*args, plans_name=plans_name or self.default_plans_name, **kwargs)
        self.suppress_transpose = True  # axial slices whatever the spacing
        self.lowres_creation_threshold = 0  # nothing 3D is kept, see save_plans
        self.UNet_vram_target_GB = UNLIMITED_GB

    def determine_resampling(self, *args, **kwargs) -> tuple[Callable, dict, Callable, dict]:
        """The resize, for images and for segmentations."""
        size = [self.image_size] * 2
        return resize_slices, {"size": size, "is_seg": False}, resize_slices, {"size": size, "is_seg": True}

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """[0, 1] for every channel; the mask of nnU-Net's crop plays no part in it."""
        schemes, _ = super().determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        ours = (RGBTo01Normalization if self._images_are_8_bit() else RescaleTo01Normalization).__name__
        return [s if s in KEPT else ours for s in schemes], [False] * len(schemes)

    def _images_are_8_bit(self) -> bool:
        """Whether the first training image has 8 bits per channel, by its header.

        The fingerprint's intensities cannot tell: they are those of the foreground alone.
        """
        file = Path(next(iter(self.dataset.values()))["images"][0])
        if file.suffix.lower() not in NaturalImage2DIO.supported_file_endings:
            return False
        with Image.open(file) as image:
            return image.mode in MODES_OF_8_BIT

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray | Sequence[float],
        median_shape: np.ndarray | Sequence[int],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict,
    ) -> dict:
        """nnU-Net's plan, and network, for a square image of square pixels, whatever the spacing was."""
        if len(spacing) == 2:
            median_shape = [self.image_size] * 2
        plan = super().get_plans_for_configuration(
            np.ones(len(spacing)), median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        return {**plan, "spacing": spacing, "batch_size": self.batch_size}

    def save_plans(self, plans: dict) -> None:
        """Only the 2d configuration: SAMUS has no third dimension."""
        plans["configurations"] = {"2d": plans["configurations"]["2d"]}
        super().save_plans(plans)
