"""What nnUNet_preprocessed holds of a dataset that is converted anew, and nnU-Net would silently keep using."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nnunet_ext.common.files import writing_to
from nnunet_ext.dataset_conversion.raw_folder import RawFolder, nnunet_root

_STALE_FILES = ("dataset_fingerprint.json", "splits_final.json", "dataset.json")
_LABELS = "gt_segmentations"
_HIDDEN = ".replaced"


def stale_entries(dataset: str) -> list[Path]:
    """Return what nnU-Net would silently keep of a dataset that is about to change, as far as it is there.

    That is fingerprint, split, label copies, plans and their folders; nothing else counts.
    """
    root = nnunet_root("nnUNet_preprocessed")
    if root is None or not (root / dataset).is_dir():
        return []
    entries = sorted((root / dataset).iterdir())
    plans = {path: folders for path in entries if (folders := _identifiers(path)) is not None}
    names = {*_STALE_FILES, _LABELS}.union(*plans.values())
    return [path for path in entries if path.name in names or path in plans or _is_hidden(path) or _holds_cases(path)]


@contextmanager
def replaced(entries: Sequence[Path], folder: RawFolder) -> Iterator[None]:
    """Hide stale entries from nnU-Net while the block swaps the dataset, then delete them.

    They come back where it fails before the swap, and never after it. After a kill `recover` does the same.
    """
    hidden = {
        path: path if _is_hidden(path) else path.with_name(f".{path.name}.{os.getpid()}{_HIDDEN}") for path in entries
    }
    try:
        for path, aside in hidden.items():
            path.rename(aside)
        yield
    except (Exception, KeyboardInterrupt):
        _settle(hidden.values(), swapped=folder.swapped)
        raise
    _settle(hidden.values(), swapped=True)


def recover(folder: RawFolder) -> None:
    """Settle what a killed conversion of this dataset left, in nnUNet_raw and in nnUNet_preprocessed.

    InputError where another one is at work.
    """
    hidden = [path for path in stale_entries(folder.final.name) if _is_hidden(path)]
    if not hidden and not folder.work.is_dir():
        return
    with folder.locked(), writing_to(folder.work, hint="An earlier conversion was killed, and its remains are there."):
        folder.recover()
        _settle(hidden, swapped=folder.swapped)
        if folder.swapped:
            folder.clear()


def _settle(hidden: Iterable[Path], *, swapped: bool) -> None:
    """Delete hidden entries after a swap, and give them their names back before one."""
    for aside in hidden:
        path = aside.with_name(aside.name.removesuffix(_HIDDEN)[1:].rpartition(".")[0])
        if not os.path.lexists(aside):
            continue
        if not swapped and not os.path.lexists(path):
            aside.rename(path)
        elif aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(_HIDDEN)


def _identifiers(path: Path) -> set[str] | None:
    """Return the names of the folders that a plans file preprocesses to; None for any other file."""
    if path.suffix != ".json":
        return None
    try:
        content = json.loads(path.read_text())
        configurations = content["configurations"].values() if "plans_name" in content else None
        return None if configurations is None else {c.get("data_identifier") for c in configurations} - {None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _holds_cases(path: Path) -> bool:
    """Recognise preprocessed cases whose plans are gone: nnU-Net's arrays next to their properties."""
    return path.is_dir() and any(
        properties.with_suffix(ending).exists() for properties in path.glob("*.pkl") for ending in (".b2nd", ".npz")
    )
