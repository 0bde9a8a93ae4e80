"""Small variations of classes that nnU-Net or nnunet_ext have."""

from nnunetv2.preprocessing.normalization.default_normalization_schemes import RescaleTo01Normalization

from nnunet_ext.planning import SAMUSPlanner
from nnunet_ext.preprocessing import resize_slices
from nnunet_ext.trainers.samus import nnUNetTrainerSAMUSHFTinyClick


class nnUNetTrainerExample(nnUNetTrainerSAMUSHFTinyClick):
    """A prompted network with a loss of its own, whose name says nothing about prompts."""

    loss_name = "dice_bce"


class ExamplePlanner(SAMUSPlanner):
    """Plans of another size."""

    default_plans_name = "nnUNetExamplePlans"
    image_size = 128


class ExampleNormalization(RescaleTo01Normalization):
    """[0, 1], upside down."""

    def run(self, image, seg=None):
        return 1 - super().run(image, seg)


def example_resize(data, new_shape, current_spacing, new_spacing, *, is_seg):
    """Resize every slice to 64x64."""
    return resize_slices(data, new_shape, current_spacing, new_spacing, size=(64, 64), is_seg=is_seg)
