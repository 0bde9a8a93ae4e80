"""What a result came from: the versions of the software, the commit, and the machine with its GPUs."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nnunet_ext
from nnunet_ext.common.processes import cpus
from nnunet_ext.version import __version__

PACKAGES = (
    "nnunetv2",
    "torch",
    "dynamic-network-architectures",
    "batchgenerators",
    "batchgeneratorsv2",
    "numpy",
    "scipy",
    "SimpleITK",
)


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, of this package and of those that decide a result (`PACKAGES` by default)."""
    found = {"python": platform.python_version(), "nnunet-ext": __version__}
    for package in packages or PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@functools.cache
def commit() -> str | None:
    """Return the commit of the checkout that the package runs from, "+changes" appended where it was changed.

    None stands for an installed package, or one whose checkout git cannot read.
    """
    folder = Path(nnunet_ext.__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--", "nnunet_ext") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def machine() -> dict[str, Any]:
    """Return host, system, processor, cores and GPUs of this machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": cpus(),
        "gpus": [", ".join(row) for row in nvidia_smi("name,driver_version,memory.total")],
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def nvidia_smi(query: str, of: str = "gpu") -> list[list[str]]:
    """Return the rows of ``nvidia-smi --query-OF=QUERY``; no rows where there is no GPU or no such program."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-{of}={query}", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    return [[field.strip() for field in line.split(",")] for line in output.splitlines() if line.strip()]
