"""The official checkpoint of SAM's ViT-B, which the ultrasound trainers start from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

URL = "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"
SIZE = 375_042_383  # bytes
SHA256 = "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
VARIABLE = "NNUNET_EXT_SAM_CHECKPOINT"


def location() -> Path:
    """Where the checkpoint is expected: `NNUNET_EXT_SAM_CHECKPOINT`, else the cache. The file need not exist."""
    if path := os.environ.get(VARIABLE):
        return Path(path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "nnunet_ext" / URL.rsplit("/", 1)[1]


def problem(path: Path) -> str | None:
    """What is wrong with a checkpoint file; None where it is the official one, byte for byte."""
    if not path.is_file():
        return f"{path} does not exist"
    if (size := path.stat().st_size) != SIZE:
        return f"{path} has {size:,} bytes, not {SIZE:,}"
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256") if hasattr(hashlib, "file_digest") else _sha256(f)
    if digest.hexdigest() != SHA256:
        return f"{path} has SHA-256 {digest.hexdigest()}, not {SHA256}"
    return None


def _sha256(f) -> hashlib._Hash:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    for block in iter(lambda: f.read(1 << 20), b""):
        digest.update(block)
    return digest
