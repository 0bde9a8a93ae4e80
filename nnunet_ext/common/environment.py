"""The environment variables of nnunet_ext: budget, seed, sources and memory, never the function of a network."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from nnunet_ext.common.errors import InputError

EPOCHS = "NNUNET_EXT_EPOCHS"
ITERATIONS = "NNUNET_EXT_ITERATIONS"
VAL_ITERATIONS = "NNUNET_EXT_VAL_ITERATIONS"
SEED = "NNUNET_EXT_SEED"
SLIM_CHECKPOINTS = "NNUNET_EXT_SLIM_CHECKPOINTS"
RECOMPUTE = "NNUNET_EXT_RECOMPUTE"
SAM_CHECKPOINT = "NNUNET_EXT_SAM_CHECKPOINT"
BENCHMARK_GPUS = "NNUNET_EXT_BENCHMARK_GPUS"

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")  # nnU-Net's own
PREFIX = "NNUNET_EXT_"
MEMORY = (SLIM_CHECKPOINTS, RECOMPUTE)  # how a result is computed and kept; all others decide what it is


def overlapping_folders() -> list[str]:
    """Return a sentence on each of nnU-Net's three folders that is another one of them, or inside it.

    Datasets, what is made of them and trained models have the same names there: replacing one would delete another.
    """
    folders = {name: Path(os.path.realpath(value)) for name in NNUNET_FOLDERS if (value := os.environ.get(name))}
    return [
        f"{inner}={folders[inner]} is {'also' if folders[inner] == folders[outer] else 'inside'} {outer}="
        f"{folders[outer]}: what one holds would be taken for the other's; give each a folder of its own."
        for inner, outer in itertools.permutations(folders, 2)
        if folders[inner].is_relative_to(folders[outer]) and (folders[inner] != folders[outer] or inner < outer)
    ]


def integer(name: str, minimum: int = 1) -> int | None:
    """Read the value of an environment variable; None where it is not set.

    Raises:
        InputError: not an integer, or below `minimum`.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise InputError(f"{name}={text!r} is not an integer of at least {minimum}.", hint="Correct or unset it.")
    return value


def switch(name: str) -> bool:
    """Tell whether an environment variable is 1; where it is 0 or not set, it is not.

    Raises:
        InputError: another value.
    """
    text = os.environ.get(name, "").strip()
    if text not in ("", "0", "1"):
        raise InputError(f"{name}={text!r} is neither 0 nor 1.", hint="Correct or unset it.")
    return text == "1"
