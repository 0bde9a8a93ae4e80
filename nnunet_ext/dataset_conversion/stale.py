"""What nnUNet_preprocessed holds of a dataset that is about to change: nnU-Net would silently keep it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nnunet_ext.dataset_conversion.raw_folder import nnunet_root

_FILES = ("dataset_fingerprint.json", "splits_final.json", "dataset.json")
_LABELS = "gt_segmentations"
_HIDDEN = ".replaced"


def unseen_note() -> str | None:
    """One sentence where nobody can look for stale data."""
    if nnunet_root("nnUNet_preprocessed"):
        return None
    return (
        "nnUNet_preprocessed is not set: what it may hold of an earlier conversion, which nnU-Net would silently keep "
        "using, could not be looked for."
    )


def stale_entries(dataset: str) -> list[Path]:
    """Fingerprint, split, label copies, plans and their folders, as far as they are there; nothing else counts."""
    root = nnunet_root("nnUNet_preprocessed")
    if root is None or not (root / dataset).is_dir():
        return []
    entries = sorted((root / dataset).iterdir())
    plans = {path: folders for path in entries if (folders := _identifiers(path)) is not None}
    names = {*_FILES, _LABELS}.union(*plans.values())
    return [path for path in entries if path.name in names or path in plans or _is_hidden(path) or _holds_cases(path)]


@contextmanager
def replaced(entries: Sequence[Path]) -> Iterator[None]:
    """Hide them from nnU-Net while the block runs, then delete them; where it fails they come back.

    After a kill they stay hidden, and `stale_entries` finds them again.
    """
    hidden = {
        path: path if _is_hidden(path) else path.with_name(f".{path.name}.{os.getpid()}{_HIDDEN}") for path in entries
    }
    try:
        for path, aside in hidden.items():
            path.rename(aside)
        yield
    except OSError:
        for path, aside in hidden.items():
            if os.path.lexists(aside):
                aside.rename(path)
        raise
    for aside in hidden.values():
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(_HIDDEN)


def _identifiers(path: Path) -> set[str] | None:
    """The names of the folders that a plans file preprocesses to; None for any other file."""
    if path.suffix != ".json":
        return None
    try:
        content = json.loads(path.read_text())
        configurations = content["configurations"].values() if "plans_name" in content else None
        return None if configurations is None else {c.get("data_identifier") for c in configurations} - {None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _holds_cases(path: Path) -> bool:
    """Preprocessed cases whose plans are gone: nnU-Net's arrays beside their properties."""
    return path.is_dir() and any(
        properties.with_suffix(ending).exists() for properties in path.glob("*.pkl") for ending in (".b2nd", ".npz")
    )
