"""The environment variables of nnunet_ext: they change budget, seed and sources, never the function of a network."""

from __future__ import annotations

import os

from nnunet_ext.common.errors import InputError

EPOCHS = "NNUNET_EXT_EPOCHS"
ITERATIONS = "NNUNET_EXT_ITERATIONS"
VAL_ITERATIONS = "NNUNET_EXT_VAL_ITERATIONS"
SEED = "NNUNET_EXT_SEED"
SLIM_CHECKPOINTS = "NNUNET_EXT_SLIM_CHECKPOINTS"
SAM_CHECKPOINT = "NNUNET_EXT_SAM_CHECKPOINT"


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
