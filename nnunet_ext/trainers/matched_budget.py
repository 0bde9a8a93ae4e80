"""The baseline of a fair comparison: nnU-Net with the papers' budget."""

from nnunet_ext.trainers.pass_trainer import PassTrainer


class nnUNetTrainerMatchedBudget(PassTrainer):
    """Stock nnU-Net network and recipe for the liver paper's 50 passes, hence the same number of samples."""


class nnUNetTrainerMatchedBudget400(PassTrainer):
    """Stock nnU-Net network and recipe for the ultrasound paper's 400 passes."""

    num_passes = 400
    checkpoint_interval = 10
