"""Names that nnU-Net will find: our registry's, and the classes in nnU-Net's own source, without importing torch."""

from __future__ import annotations

import importlib.util
import os
import re
from functools import cache
from pathlib import Path

from nnunet_ext import registry

_ROOTS = {"trainer": "training/nnUNetTrainer", "planner": "experiment_planning"}
_PREFIX = {"trainer": re.compile(r"nnUNetTrainer"), "planner": re.compile(r".*Plann|ResEncUNet")}


def known(kind: str) -> tuple[str, ...]:
    """All trainers or planners that nnU-Net finds by name: ours, its own, and those of ``nnUNet_extTrainer``.

    Args:
        kind: "trainer" or "planner".
    """
    return (*(e.name for e in registry.entries(kind)), *_in_source(kind, os.environ.get("nnUNet_extTrainer", "")))


@cache
def _in_source(kind: str, more: str) -> tuple[str, ...]:
    spec = importlib.util.find_spec("nnunetv2")
    places = [Path(p) / _ROOTS[kind] for p in (spec.submodule_search_locations or ())] if spec else []
    if kind == "trainer":
        places += [Path(p) for p in more.split(os.pathsep) if p]
    files = [f for place in places for f in sorted(place.rglob("*.py"))]
    found = (re.findall(r"^class\s+(\w+)", f.read_text(errors="replace"), re.MULTILINE) for f in files)
    return tuple(dict.fromkeys(name for names in found for name in names if _PREFIX[kind].match(name)))


def takes_budget_and_seed(trainer: str) -> bool:
    """Whether a trainer follows NNUNET_EXT_EPOCHS, ..._ITERATIONS and ..._SEED: all of ours do, no other does."""
    return registry.get("trainer", trainer) is not None


def takes_clicks(trainer: str) -> bool:
    """Whether ``nnunet_ext predict`` can click for it."""
    entry = registry.get("trainer", trainer)
    return entry is not None and entry.module == "nnunet_ext.trainers.samus"


def begins_with_sam(trainer: str) -> bool:
    """Whether a training starts from SAM's weights: all of that family but the tiny ones (a test compares)."""
    return takes_clicks(trainer) and "Tiny" not in trainer
