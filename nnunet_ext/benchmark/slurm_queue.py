"""SLURM's queue, asked at most every few seconds."""

from __future__ import annotations

import subprocess
import time

_KEEP = 3.0  # seconds
_asked: tuple[float, dict[str, str]] = (float("-inf"), {})


def states(*, fresh: bool = False) -> dict[str, str]:
    """Number (``12``, or ``12_3`` in an array) -> state of every job of this user that has not ended.

    Args:
        fresh: ask now.

    Raises:
        OSError: squeue is not there, or does not answer.
    """
    global _asked
    if fresh or time.monotonic() - _asked[0] > _KEEP:
        told = subprocess.run(
            ["squeue", "--me", "--noheader", "--array", "--format=%i %T"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if told.returncode:
            raise OSError(told.stderr.strip() or "squeue failed")
        _asked = (time.monotonic(), dict(line.split(maxsplit=1) for line in told.stdout.splitlines() if line.strip()))
    return _asked[1]


def is_running(number: str) -> bool:
    """Whether a job has a node; not known to be otherwise where the queue cannot be asked."""
    try:
        return states().get(number, "") in ("RUNNING", "COMPLETING", "SUSPENDED")
    except (OSError, subprocess.SubprocessError):
        return True


def described(number: str) -> str:
    """A job in the queue as a few words; "" where it is not there, or the queue cannot be asked."""
    try:
        state = states().get(number, "")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"SLURM {number} {state.lower()}" if state else ""
