"""Files that appear when they are whole, and JSON without NaN, which it does not know."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from nnunet_ext.common.errors import InputError


def check_file(file: Path, hint: str) -> None:
    """Whether a file may be written, to be asked before the work that goes into it.

    Raises:
        InputError: it is a folder, or where it shall be nothing can be written.
    """
    if file.is_dir():
        raise InputError(f"{file} is a folder.", hint=hint)
    above = next(folder for folder in file.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{file} cannot be written: {above} is no folder to write to.", hint=hint)


def write_text(file: Path, text: str) -> None:
    """Write under a temporary name beside it, then rename."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def without_nan(content: Any) -> Any:
    """The same with None for every number that is not finite, and lists for tuples."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
