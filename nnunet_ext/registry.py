"""The one list of classes that nnU-Net may ask for by name.

The start-up hook, ``nnunet_ext list``, the tables of the documentation and the tests all derive from it. It imports
neither torch nor nnU-Net.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any, NamedTuple

# the dotted root under which nnU-Net searches a kind of class
ROOTS = {
    "nnunetv2.training.nnUNetTrainer": "trainer",
    "nnunetv2.experiment_planning": "planner",
    "nnunetv2.preprocessing.normalization": "normalization",
    "nnunetv2.preprocessing.resampling": "resampling",
}


class Entry(NamedTuple):
    """One class (or resampling function) that plans, folders and command lines may name, with every fact about it.

    Nothing else in the package decides anything by the name or the module of a class.

    Args:
        kind: "trainer", "planner", "normalization" or "resampling".
        name: what plans and command lines call it.
        module: where it is imported from, and then only.
        summary: one line for ``nnunet_ext list``.
        family: "raunet", "samus" (networks that take prompts) or "nnunet" (stock networks); empty for other kinds.
        paper: the heading in docs/deviations.md that lists where a trainer departs from its paper.
        paper_row: the row of the paper's table that a trainer reproduces.
        parameters: of the network for one input channel and a binary task; None where the plan decides.
        trained: those of them that training changes; None where it changes all.
        configuration: the configuration that a trainer is made for; empty for any.
        planner: the planner (-pl) that gives the paper's plans.
        plans: the name (-p) of those plans.
        prompts: what a network needs to predict: "none", "mixed" (nothing, or clicks) or "click" (clicks only).
        pretrained: SAM's checkpoint that a training begins with, by its name in `weights.CHECKPOINTS`; empty for none.
        best_checkpoint: whether predictions are meant to be made with checkpoint_best.
        follows_environment: whether a trainer takes its budget and seed from NNUNET_EXT_EPOCHS, ..._ITERATIONS
            and ..._SEED.
    """

    kind: str
    name: str
    module: str
    summary: str
    family: str = ""
    paper: str = ""
    paper_row: str = ""
    parameters: int | None = None
    trained: int | None = None
    configuration: str = ""
    planner: str = ""
    plans: str = ""
    prompts: str = "none"
    pretrained: str = ""
    best_checkpoint: bool = False
    follows_environment: bool = False

    def load(self) -> Any:
        """Import and return the class."""
        return getattr(importlib.import_module(self.module), self.name)


def _trainer(
    name: str, summary: str, size: int | tuple[int, int] | None = None, paper_row: str = "", **facts: Any
) -> Entry:
    """Return the entry of one of our trainers; `size` is how many parameters there are, and how many are trained."""
    parameters, trained = size if isinstance(size, tuple) else (size, None)
    return Entry(
        kind="trainer",
        name=name,
        summary=summary,
        parameters=parameters,
        trained=trained,
        paper_row=paper_row,
        follows_environment=True,
        **facts,
    )


_raunet = functools.partial(
    _trainer,
    module="nnunet_ext.trainers.raunet",
    family="raunet",
    paper="RA-U-Net (Du & Wang 2025)",
    configuration="2d",
    planner="RAUNetPlanner",
    plans="nnUNetRAUNetPlans",
)
_samus = functools.partial(
    _trainer,
    module="nnunet_ext.trainers.samus",
    family="samus",
    paper="SAMUS-HF and SAMUS (Lin et al., MICCAI 2024)",
    configuration="2d",
    planner="SAMUSPlanner",
    plans="nnUNetSAMUSPlans",
    prompts="mixed",
    pretrained="vit_b",
    best_checkpoint=True,
)
_matched_budget = functools.partial(_trainer, module="nnunet_ext.trainers.pass_trainer", family="nnunet")
_clicked = functools.partial(
    _trainer, module="nnunet_ext.trainers.clicked_baseline", family="nnunet", configuration="2d", prompts="click"
)

# parameters, and those that are trained
SAMUSHF, SAMUS, SAM = (134_537_504, 40_867_056), (133_323_568, 39_653_120), (90_737_200, 3_506_304)
TINY = (2_475_680, 2_363_896)

ENTRIES = (
    _raunet("nnUNetTrainerRAUNet", "bottleneck residual blocks, attention gates, GroupNorm", 7_294_133, "RA-U-Net"),
    _raunet("nnUNetTrainerUNet", "double 3x3 convolutions, GroupNorm", 31_036_481, "U-Net"),
    _raunet("nnUNetTrainerAttentionUNet", "U-Net with attention gates", 31_388_005, "U-Net+Attention"),
    _raunet("nnUNetTrainerResUNet", "U-Net with bottleneck residual blocks", 6_942_609, "U-Net+Res-block"),
    _raunet("nnUNetTrainerUNet3D", "3D U-Net, base width 32", 4_769_457, "3D U-Net", configuration="3d_fullres"),
    _raunet("nnUNetTrainerRAUNetLiteral", "RA-U-Net with one 3x3 in the bottleneck (the paper's text)", 6_311_157),
    _raunet("nnUNetTrainerUNetBN", "U-Net with batch norm instead of GroupNorm", 31_036_481),
    _matched_budget("nnUNetTrainerMatchedBudget", "stock nnU-Net network and recipe, the liver paper's 50 passes"),
    _samus("nnUNetTrainerSAMUSHF", "SAMUS with a wavelet's high frequencies in its CNN branch", SAMUSHF, "SAMUS-HF"),
    _samus("nnUNetTrainerSAMUS", "SAM's ViT-B with adapters and a CNN branch, at 256x256", SAMUS, "SAMUS"),
    _samus("nnUNetTrainerSAM", "SAM's ViT-B at 256x256, mask decoder trained", SAM, "SAM"),
    _samus(
        "nnUNetTrainerSAMUSHFControl", "SAMUS-HF that sees the plain image in place of its high frequencies", SAMUSHF
    ),
    _samus(
        "nnUNetTrainerSAMUSHFClick",
        "SAMUS-HF, clicks from the reference in training and validation",
        SAMUSHF,
        prompts="click",
    ),
    _samus(
        "nnUNetTrainerSAMUSClick", "SAMUS, clicks from the reference in training and validation", SAMUS, prompts="click"
    ),
    _samus("nnUNetTrainerSAMClick", "SAM, clicks from the reference in training and validation", SAM, prompts="click"),
    _samus(
        "nnUNetTrainerSAMUSHFControlClick",
        "the control, clicks from the reference in training and validation",
        SAMUSHF,
        prompts="click",
    ),
    _samus("nnUNetTrainerSAMUSHFDiceBCE", "SAMUS-HF with the loss of SAMUS's code, 0.8 Dice + 0.2 BCE", SAMUSHF),
    _samus("nnUNetTrainerSAMUSDiceBCE", "SAMUS with the loss of its code, 0.8 Dice + 0.2 BCE", SAMUS),
    _samus("nnUNetTrainerSAMUSHFBestDice", "SAMUS-HF, checkpoint_best by validation Dice as in nnU-Net", SAMUSHF),
    _samus("nnUNetTrainerSAMUSHFLiteralGate", "SAMUS-HF with CMU-Net's gate as published", (146_505_376, 52_834_928)),
    _samus(
        "nnUNetTrainerSAMUSHFInput",
        "SAMUS-HF with high frequencies as a fourth input channel, no gate",
        (133_324_144, 39_653_696),
    ),
    _samus("nnUNetTrainerSAMUSHFPercentile", "SAMUS-HF whose bands are stretched between percentiles", SAMUSHF),
    _samus("nnUNetTrainerSAMUSHFViTL", "SAMUS-HF on SAM's ViT-L", (383_038_560, 70_760_752), pretrained="vit_l"),
    _samus("nnUNetTrainerSAMUSHFViTH", "SAMUS-HF on SAM's ViT-H", (749_994_912, 108_985_584), pretrained="vit_h"),
    _samus("nnUNetTrainerSAM1024", "SAM at its own 1024x1024, mask decoder trained", (93_735_472, SAM[1])),
    _samus(
        "nnUNetTrainerSAMUSHFTiny",
        "SAMUS-HF with a tiny transformer, random at first and trained as a whole",
        TINY,
        pretrained="",
    ),
    _samus(
        "nnUNetTrainerSAMUSHFTiny128",
        "the tiny SAMUS-HF at 128x128, for demonstrations on a CPU",
        (2_472_608, 2_360_824),
        pretrained="",
    ),
    _samus(
        "nnUNetTrainerSAMUSHFTinyClick",
        "the tiny SAMUS-HF, clicks in training and validation",
        TINY,
        prompts="click",
        pretrained="",
    ),
    _matched_budget(
        "nnUNetTrainerMatchedBudget400", "stock nnU-Net network and recipe, the ultrasound paper's 400 passes"
    ),
    _clicked(
        "nnUNetTrainerMatchedBudgetClick", "nnU-Net with a channel per class for clicks, the liver paper's 50 passes"
    ),
    _clicked(
        "nnUNetTrainerMatchedBudget400Click",
        "nnU-Net with a channel per class for clicks, the ultrasound paper's 400 passes",
    ),
    Entry(
        "planner",
        "RAUNetPlanner",
        "nnunet_ext.planning",
        "512x512 axial slices at native resolution, batch 2, window + median + CLAHE on CT",
        plans="nnUNetRAUNetPlans",
    ),
    Entry(
        "planner",
        "SAMUSPlanner",
        "nnunet_ext.planning",
        "every image resized to 256x256, intensities in [0, 1], batch 4",
        plans="nnUNetSAMUSPlans",
    ),
    Entry(
        "normalization",
        "LiverWindowCLAHENormalization",
        "nnunet_ext.preprocessing",
        "window centre 60 HU, width 160 HU, 3x3 median, CLAHE, to [0, 1]",
    ),
    Entry(
        "normalization",
        "LiverWindowNormalization",
        "nnunet_ext.preprocessing",
        "window centre 60 HU, width 160 HU, to [0, 1]",
    ),
    Entry(
        "resampling",
        "resize_slices",
        "nnunet_ext.preprocessing",
        "every slice resized to one size, bilinear and antialiased; labels nearest",
    ),
)

GROUP = "nnunet_ext.classes"
"""Entry-point group by which other packages add classes: each names a sequence of `Entry` (or one)."""


def entries(kind: str = "") -> tuple[Entry, ...]:
    """Return all entries of one kind (of every kind by default): ours in the order of this file, then others'."""
    return tuple(e for e in (*ENTRIES, *_entries_of_others()) if not kind or e.kind == kind)


def get(kind: str, name: str) -> Entry | None:
    """Return the entry of that kind and name; None if there is none."""
    if (kind, name) in _OURS:  # without a look at other packages
        return _OURS[kind, name]
    return next((e for e in _entries_of_others() if (e.kind, e.name) == (kind, name)), None)


def find(root: str | None, name: str) -> Entry | None:
    """Return the entry called `name` among the classes that nnU-Net looks for under `root`; None if there is none."""
    kind = ROOTS.get(root or "")
    return get(kind, name) if kind else None


_OURS = {(e.kind, e.name): e for e in ENTRIES}


@functools.cache
def _entries_of_others() -> tuple[Entry, ...]:
    """Return the entries of other packages; a package whose entries cannot be taken is named and left out."""
    taken = dict(_OURS)
    for point in entry_points(group=GROUP):
        try:
            value = point.load()
            found = _checked([value] if isinstance(value, Entry) else value, taken)
        except Exception as e:  # noqa: BLE001  (whatever is wrong with one package, the others' classes are found)
            if sys.stderr is not None:
                sys.stderr.write(f"nnunet_ext: the classes of {point.name} = {point.value} are ignored: {e!r}\n")
        else:
            taken.update(found)
    return tuple(e for key, e in taken.items() if key not in _OURS)


def _checked(values: Iterable[object], taken: dict[tuple[str, str], Entry]) -> dict[tuple[str, str], Entry]:
    """Return entries by kind and name; raise an error for what is not an entry, or has a name that is taken."""
    found: dict[tuple[str, str], Entry] = {}
    for value in values:
        if not isinstance(value, Entry) or value.kind not in ROOTS.values():
            raise TypeError(f"{value!r} is not an nnunet_ext.registry.Entry of kind {', '.join(ROOTS.values())}")
        if other := taken.get((value.kind, value.name)):
            raise ValueError(f"{value.name} is the name of a {value.kind} of {other.module}")
        found[value.kind, value.name] = value
    return found
