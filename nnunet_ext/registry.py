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
