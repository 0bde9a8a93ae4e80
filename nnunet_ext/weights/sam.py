"""SAM's official checkpoints, which the ultrasound trainers start from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from nnunet_ext.common.errors import InputError

VARIABLE = "NNUNET_EXT_SAM_CHECKPOINT"
RANDOM = "random"  # as the value of the variable: go without


class Checkpoint(NamedTuple):
    """One published file; `size` is in bytes."""

    name: str  # of the image encoder
    url: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]


def _official(name: str, file: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(name, f"https://dl.fbaipublicfiles.com/segment_anything/{file}", size, sha256)


VIT_B = _official(
    "vit_b",
    "sam_vit_b_01ec64.pth",
    375_042_383,
    "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
)
VIT_L = _official(
    "vit_l",
    "sam_vit_l_0b3195.pth",
    1_249_524_607,
    "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
)
VIT_H = _official(
    "vit_h",
    "sam_vit_h_4b8939.pth",
    2_564_550_879,
    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
)
CHECKPOINTS = {c.name: c for c in (VIT_B, VIT_L, VIT_H)}


def location(checkpoint: Checkpoint = VIT_B) -> Path | None:
    """Where a checkpoint is expected: `NNUNET_EXT_SAM_CHECKPOINT`, else the cache; None for ``random``.

    The file need not exist.
    """
    if path := os.environ.get(VARIABLE):
        return None if path == RANDOM else Path(path).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "nnunet_ext" / checkpoint.file


def require(checkpoint: Checkpoint = VIT_B) -> Path | None:
    """The checkpoint's file, verified; None for ``random``.

    Raises:
        InputError: there is none, or it is not the official one.
    """
    path = location(checkpoint)
    if path is not None and (fault := problem(path, checkpoint)):
        raise InputError(f"{fault}.", hint=hint(path, checkpoint))
    return path


def problem(path: Path, checkpoint: Checkpoint = VIT_B) -> str | None:
    """What is wrong with a checkpoint file; None where it is the official one, byte for byte."""
    try:
        if not path.exists():
            return f"{path} does not exist"
        size, digest = path.stat().st_size, sha256(path)
    except OSError as e:
        return f"{path} cannot be read: {e.strerror}"
    if digest == checkpoint.sha256:
        return None
    other = next((f"; it is the checkpoint of {c.name}" for c in CHECKPOINTS.values() if c.sha256 == digest), "")
    bytes_ = f"{size:,} bytes, not {checkpoint.size:,}, and " if size != checkpoint.size else ""
    return f"{path} has {bytes_}SHA-256 {digest}, not {checkpoint.sha256}{other}"


def hint(path: Path, checkpoint: Checkpoint = VIT_B) -> str:
    """What to do about a missing or wrong file; nothing that would overwrite a file of the user's own."""
    if os.environ.get(VARIABLE) and path.exists():
        return f"Unset {VARIABLE} or point it to the official file ({checkpoint.url})."
    command = f"nnunet_ext weights download {checkpoint.name}{' --overwrite' if path.exists() else ''}"
    return f"Run: {command} (or download {checkpoint.url} and put it there)."


def sha256(path: Path) -> str:
    """The checksum of a file (`hashlib.file_digest` needs Python 3.11)."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
