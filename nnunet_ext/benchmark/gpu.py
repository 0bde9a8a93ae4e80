"""GPUs as nvidia-smi tells of them; where there is no nvidia-smi there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from types import TracebackType


def query(what: str, of: str = "gpu") -> list[list[str]]:
    """Rows of ``nvidia-smi --query-OF=WHAT``; [] where it cannot be asked."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-{of}={what}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (subprocess.SubprocessError, OSError):
        return []
    return [[field.strip() for field in line.split(",")] for line in told.stdout.splitlines() if line.strip()]


def visible() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to, one GPU each: its own items if it is set, else all."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [d.strip() for d in chosen.split(",") if d.strip()]
    return [index for (index,) in query("index")]


class Peak:
    """The largest memory that a session's processes were seen to hold on GPUs, looked at every few seconds.

    nvidia-smi counts CUDA's own context as well, a few hundred MB per process.
    """

    def __init__(self, session: int, *, enabled: bool, interval: float = 5.0) -> None:
        self.session, self.interval = session, interval
        self.bytes: int | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._enabled = enabled and shutil.which("nvidia-smi") is not None

    def __enter__(self) -> Peak:
        if self._enabled:
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        if self._enabled:
            self._thread.join(timeout=self.interval)

    def _watch(self) -> None:
        while not self._end.wait(self.interval):
            rows = query("pid,used_memory", of="compute-apps")
            used = sum(int(mb) * 2**20 for pid, mb in rows if mb.isdigit() and _session(pid) == self.session)
            if used:
                self.bytes = max(self.bytes or 0, used)


def _session(pid: str) -> int:
    try:
        return os.getsid(int(pid))
    except (ValueError, OSError):
        return -1
