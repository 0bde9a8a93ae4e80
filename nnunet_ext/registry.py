"""The one list of classes that nnU-Net may ask for by name.

The start-up hook, ``nnunet_ext list``, the tables of the documentation and the tests all derive from it. It imports
neither torch nor nnU-Net.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

# the dotted root under which nnU-Net searches a kind of class
ROOTS = {
    "nnunetv2.training.nnUNetTrainer": "trainer",
    "nnunetv2.experiment_planning": "planner",
    "nnunetv2.preprocessing.normalization": "normalization",
    "nnunetv2.preprocessing.resampling": "resampling",
}


class Entry(NamedTuple):
    """One class (or resampling function) that plans, folders and command lines may name."""

    kind: str
    name: str
    module: str
    summary: str
    paper_row: str = ""  # the row of the paper's table that the trainer reproduces
    parameters: int | None = None  # one input channel, binary task
    configuration: str = ""  # the configuration a trainer is made for
    planner: str = ""  # the planner (-pl) that gives the paper's plans
    plans: str = ""  # the name (-p) of those plans

    def load(self) -> object:
        """Import and return the class."""
        return getattr(importlib.import_module(self.module), self.name)


def _raunet(name: str, summary: str, paper_row: str, parameters: int | None, configuration: str = "2d") -> Entry:
    return Entry(
        "trainer",
        name,
        "nnunet_ext.trainers.raunet",
        summary,
        paper_row,
        parameters,
        configuration,
        "RAUNetPlanner",
        "nnUNetRAUNetPlans",
    )


def _samus(name: str, summary: str, parameters: int, paper_row: str = "") -> Entry:
    return Entry(
        "trainer",
        name,
        "nnunet_ext.trainers.samus",
        summary,
        paper_row,
        parameters,
        "2d",
        "SAMUSPlanner",
        "nnUNetSAMUSPlans",
    )


ENTRIES = (
    _raunet("nnUNetTrainerRAUNet", "bottleneck residual blocks, attention gates, GroupNorm", "RA-U-Net", 7_294_133),
    _raunet("nnUNetTrainerUNet", "double 3x3 convolutions, GroupNorm", "U-Net", 31_036_481),
    _raunet("nnUNetTrainerAttentionUNet", "U-Net with attention gates", "U-Net+Attention", 31_388_005),
    _raunet("nnUNetTrainerResUNet", "U-Net with bottleneck residual blocks", "U-Net+Res-block", 6_942_609),
    _raunet("nnUNetTrainerUNet3D", "3D U-Net, base width 32", "3D U-Net", 4_769_457, "3d_fullres"),
    _raunet("nnUNetTrainerRAUNetLiteral", "RA-U-Net with one 3x3 in the bottleneck (the paper's text)", "", 6_311_157),
    _raunet("nnUNetTrainerUNetBN", "U-Net with batch norm instead of GroupNorm", "", 31_036_481),
    Entry(
        "trainer",
        "nnUNetTrainerMatchedBudget",
        "nnunet_ext.trainers.matched_budget",
        "stock nnU-Net network and recipe, the liver paper's 50 passes",
    ),
    _samus(
        "nnUNetTrainerSAMUSHF", "SAMUS with a wavelet's high frequencies in its CNN branch", 134_537_504, "SAMUS-HF"
    ),
    _samus("nnUNetTrainerSAMUS", "SAM's ViT-B with adapters and a CNN branch, at 256x256", 133_323_568, "SAMUS"),
    _samus("nnUNetTrainerSAM", "SAM's ViT-B at 256x256, mask decoder trained", 90_737_200, "SAM"),
    _samus(
        "nnUNetTrainerSAMUSHFControl",
        "SAMUS-HF that sees the plain image in place of its high frequencies",
        134_537_504,
    ),
    _samus("nnUNetTrainerSAMUSHFClick", "SAMUS-HF, clicks from the reference in training and validation", 134_537_504),
    _samus("nnUNetTrainerSAMUSClick", "SAMUS, clicks from the reference in training and validation", 133_323_568),
    _samus("nnUNetTrainerSAMClick", "SAM, clicks from the reference in training and validation", 90_737_200),
    _samus(
        "nnUNetTrainerSAMUSHFControlClick",
        "the control, clicks from the reference in training and validation",
        134_537_504,
    ),
    _samus("nnUNetTrainerSAMUSHFDiceBCE", "SAMUS-HF with the loss of SAMUS's code, 0.8 Dice + 0.2 BCE", 134_537_504),
    _samus("nnUNetTrainerSAMUSDiceBCE", "SAMUS with the loss of its code, 0.8 Dice + 0.2 BCE", 133_323_568),
    _samus("nnUNetTrainerSAMUSHFBestDice", "SAMUS-HF, checkpoint_best by validation Dice as in nnU-Net", 134_537_504),
    _samus("nnUNetTrainerSAMUSHFLiteralGate", "SAMUS-HF with CMU-Net's gate as published", 146_505_376),
    _samus(
        "nnUNetTrainerSAMUSHFInput", "SAMUS-HF with high frequencies as a fourth input channel, no gate", 133_324_144
    ),
    _samus("nnUNetTrainerSAM1024", "SAM at its own 1024x1024, mask decoder trained", 93_735_472),
    _samus(
        "nnUNetTrainerSAMUSHFTiny",
        "SAMUS-HF with a tiny transformer, random at first and trained as a whole",
        2_475_680,
    ),
    _samus("nnUNetTrainerSAMUSHFTinyClick", "the tiny SAMUS-HF, clicks in training and validation", 2_475_680),
    Entry(
        "trainer",
        "nnUNetTrainerMatchedBudget400",
        "nnunet_ext.trainers.matched_budget",
        "stock nnU-Net network and recipe, the ultrasound paper's 400 passes",
    ),
    Entry(
        "planner",
        "RAUNetPlanner",
        "nnunet_ext.planning.raunet_planner",
        "512x512 axial slices at native resolution, batch 2, window + median + CLAHE on CT",
        plans="nnUNetRAUNetPlans",
    ),
    Entry(
        "planner",
        "SAMUSPlanner",
        "nnunet_ext.planning.samus_planner",
        "every image resized to 256x256, intensities in [0, 1], batch 4",
        plans="nnUNetSAMUSPlans",
    ),
    Entry(
        "normalization",
        "LiverWindowCLAHENormalization",
        "nnunet_ext.preprocessing.liver_window",
        "window centre 60 HU, width 160 HU, 3x3 median, CLAHE, to [0, 1]",
    ),
    Entry(
        "normalization",
        "LiverWindowNormalization",
        "nnunet_ext.preprocessing.liver_window",
        "window centre 60 HU, width 160 HU, to [0, 1]",
    ),
    Entry(
        "resampling",
        "resize_slices",
        "nnunet_ext.preprocessing.resize",
        "every slice resized to one size, bilinear and antialiased; labels nearest",
    ),
)

_BY_KIND_AND_NAME = {(e.kind, e.name): e for e in ENTRIES}


def get(kind: str, name: str) -> Entry | None:
    """The entry of that kind and name; None if there is none."""
    return _BY_KIND_AND_NAME.get((kind, name))


def find(root: str, name: str) -> Entry | None:
    """The entry called `name` among the classes that nnU-Net looks for under `root`; None if it is not ours."""
    return get(ROOTS.get(root, ""), name)


def entries(kind: str) -> tuple[Entry, ...]:
    """All entries of one kind, in the order of this file."""
    return tuple(e for e in ENTRIES if e.kind == kind)
