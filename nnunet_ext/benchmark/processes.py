"""Processes by number and start time: a number alone may have gone to another process since."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

GRACE = 20.0  # seconds between asking and killing


def start_time(pid: int) -> str:
    """When a process started, in whatever form the system tells it; "" where there is no such process."""
    stat = _stat(pid)
    if stat:
        return "" if stat[0] in "ZX" else stat[19]
    if Path("/proc/self/stat").exists():
        return ""
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip()


def alive(pid: int, started: str) -> bool:
    """Whether the process of that number is still the one that started then."""
    return bool(started) and start_time(pid) == started


def session_members(session: int, not_before: str) -> list[int]:
    """Processes of a session that a command was the leader of (Linux; elsewhere none are found).

    Args:
        session: the command's process number.
        not_before: its start time; older ones cannot be its own.
    """
    if not not_before.isdigit():
        return []
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        stat = _stat(int(entry.name))
        if stat and stat[0] not in "ZX" and int(stat[3]) == session and int(stat[19]) >= int(not_before):
            members.append(int(entry.name))
    return members


def stop_group(group: int, grace: float = GRACE, gone: Callable[[], bool] | None = None) -> None:
    """Ask every process of a group to end; kill those that have not after `grace` seconds.

    Args:
        group: its number, that of its first process.
        gone: whether that process, a child of ours, has ended (it stays in the table until we have looked).
    """
    end = time.monotonic() + grace
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        while number == signal.SIGTERM and time.monotonic() < end and _group_alive(group, gone):
            time.sleep(0.05)


def stop_all(pids: list[int]) -> None:
    """Kill processes that nobody waits for any more."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _group_alive(group: int, gone: Callable[[], bool] | None) -> bool:
    if gone is not None:
        gone()
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; [] where there are none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
