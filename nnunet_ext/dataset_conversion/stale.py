"""What nnUNet_preprocessed holds of a dataset that is about to change: nnU-Net would silently keep it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nnunet_ext.dataset_conversion.raw_folder import nnunet_root

_FILES = ("dataset_fingerprint.json", "splits_final.json", "dataset.json")
_LABELS = "gt_segmentations"


def stale_entries(dataset: str) -> list[Path]:
    """Fingerprint, split, label copies, plans and their folders, as far as they are there; nothing else counts."""
    root = nnunet_root("nnUNet_preprocessed")
    if root is None or not (root / dataset).is_dir():
        return []
    entries = sorted((root / dataset).iterdir())
    plans = [path for path in entries if path.suffix == ".json" and _is_plans(path)]
    return [path for path in entries if path.name in (*_FILES, _LABELS) or path in plans or _belongs(path, plans)]


def remove(entries: list[Path]) -> None:
    """Delete them, folders with their content."""
    for path in entries:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_plans(path: Path) -> bool:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "plans_name" in content and "configurations" in content


def _belongs(path: Path, plans: list[Path]) -> bool:
    """Preprocessed cases: a folder named after its plans, or one that holds nnU-Net's arrays."""
    if not path.is_dir():
        return False
    return any(path.name.startswith(f"{plan.stem}_") for plan in plans) or next(path.glob("*.pkl"), None) is not None
