"""The official checkpoint of SAM's ViT-B, which the ultrasound trainers start from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

URL = "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"
SIZE = 375_042_383  # bytes
SHA256 = "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
VARIABLE = "NNUNET_EXT_SAM_CHECKPOINT"
RANDOM = "random"  # as the value of the variable: go without


def location() -> Path | None:
    """Where the checkpoint is expected: `NNUNET_EXT_SAM_CHECKPOINT`, else the cache; None for ``random``.

    The file need not exist.
    """
    if path := os.environ.get(VARIABLE):
        return None if path == RANDOM else Path(path).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "nnunet_ext" / URL.rsplit("/", 1)[1]


def problem(path: Path) -> str | None:
    """What is wrong with a checkpoint file; None where it is the official one, byte for byte."""
    try:
        if not path.exists():
            return f"{path} does not exist"
        size = path.stat().st_size
        if size != SIZE:
            return f"{path} has {size:,} bytes, not {SIZE:,}"
        digest = sha256(path)
    except OSError as e:
        return f"{path} cannot be read: {e.strerror}"
    if digest != SHA256:
        return f"{path} has SHA-256 {digest}, not {SHA256}"
    return None


def sha256(path: Path) -> str:
    """The checksum of a file (`hashlib.file_digest` needs Python 3.11)."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
