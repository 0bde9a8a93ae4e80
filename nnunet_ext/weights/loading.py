"""Read a checkpoint file without running anything that is in it."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nnunet_ext.common.errors import InputError

WRAPPERS = ("model", "state_dict")
PARALLEL = "module."  # what torch's (Distributed)DataParallel puts before every key


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, on the CPU.

    Takes a bare state dict or a training checkpoint that holds one as ``model`` or ``state_dict``, saved from a bare
    or a parallel module. Files of torch 1.6 and newer are mapped into memory, not copied: keep the file as it is while
    the tensors are in use.

    Raises:
        InputError: no file, no torch file, a truncated one, one with other objects than tensors and plain data, no
            state dict in it, or numbers that are not finite.
    """
    path = Path(path)
    tensors = _tensors(_unwrap(_load(path)), path)
    broken = [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise InputError(
            f"{path}: NaN or infinite numbers in {', '.join(broken[:3])}{more}.",
            hint="The training that saved it had diverged; take an earlier checkpoint.",
        )
    return tensors


def _load(path: Path) -> Any:
    try:
        path.open("rb").close()  # what the system says about the file; later errors are about its content
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}.") from e
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as e:
        if found := re.search(r"GLOBAL (\S+) was not an allowed|load unsupported GLOBAL (\S+)", str(e)):
            raise InputError(
                f"{path} holds more than tensors ({found[1] or found[2]}), and reading that can run any code: refused.",
                hint="If you trust it, load it with weights_only=False and save the state dict alone.",
            ) from e
        raise InputError(f"{path} is no torch checkpoint.") from e
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as e:
        raise InputError(f"{path} is no torch checkpoint, or a truncated one.", hint="Get it again.") from e


def _unwrap(content: Any) -> Any:
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                return content[key]
    return content


def _tensors(content: Any, path: Path) -> dict[str, torch.Tensor]:
    hint = f"A bare state dict is wanted, or one under {' or '.join(map(repr, WRAPPERS))}."
    if not isinstance(content, Mapping) or not content:
        found = "an empty dict" if content == {} else f"a {type(content).__name__}"
        raise InputError(f"{path} holds no state dict but {found}.", hint=hint)
    for key, value in content.items():
        if not isinstance(key, str):
            raise InputError(f"{path} holds no state dict: its key {key!r} is no name.", hint=hint)
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path} holds no state dict: {key!r} is no tensor but {value!r:.40}.", hint=hint)
    parallel = all(key.startswith(PARALLEL) for key in content)
    return {key.removeprefix(PARALLEL) if parallel else key: value for key, value in content.items()}
