"""Has a source file changed? Cheap by default, cryptographic on request."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

HEAD_BYTES = 4096


def fingerprint(path: Path, *, checksum: bool) -> dict[str, Any]:
    """Size plus SHA-256 of the content (`checksum`), or plus modification time and SHA-256 of the first 4 KiB.

    A file that cannot be read gets ``{"error": ...}``, so that finding out why is left to the check that names it.
    """
    try:
        status = path.stat()
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as stream:
            if not checksum:
                digest.update(stream.read(HEAD_BYTES))
                return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "head_sha256": digest.hexdigest()}
            while block := stream.read(1 << 20):
                digest.update(block)
        return {"bytes": status.st_size, "sha256": digest.hexdigest()}
    except OSError as e:
        return {"error": e.strerror or type(e).__name__}
