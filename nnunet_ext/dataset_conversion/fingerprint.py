"""Has a source file changed? Cheap by default, cryptographic on request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEAD_BYTES = 4096


def fingerprint(path: Path, *, checksum: bool) -> dict[str, Any]:
    """Size, modification time and SHA-256 of the first 4 KiB; with `checksum`, of the whole content too.

    A file that cannot be read gets ``{"error": ...}``, so that finding out why is left to the check that names it.
    """
    try:
        status = path.stat()
        with path.open("rb", buffering=0) as stream:
            digest = hashlib.sha256(stream.read(HEAD_BYTES))
            print_ = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "head_sha256": digest.hexdigest()}
            if not checksum:
                return print_
            while block := stream.read(1 << 20):
                digest.update(block)
        return {**print_, "sha256": digest.hexdigest()}
    except OSError as e:
        return {"error": e.strerror or type(e).__name__}


def same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two fingerprints are of the same bytes, whatever the time where both know the checksum."""
    if "sha256" in one and "sha256" in other:
        return one["sha256"] == other["sha256"]
    names = ("error", "bytes", "mtime_ns", "head_sha256")
    return all(one.get(name) == other.get(name) for name in names)
