"""What a result came from: software, machine, data, seeds, cost; one JSON file beside every result."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nnunet_ext
from nnunet_ext.benchmark import gpu
from nnunet_ext.benchmark.jobs import Job
from nnunet_ext.benchmark.state import Record, Store, write_json
from nnunet_ext.common.processes import cpus
from nnunet_ext.version import __version__

PACKAGES = (
    "nnunetv2",
    "torch",
    "dynamic-network-architectures",
    "batchgenerators",
    "batchgeneratorsv2",
    "numpy",
    "SimpleITK",
)
FORMAT = 1


def write(job: Job, record: Record, needed: list[Job], store: Store) -> None:
    """The manifest of a job that is done.

    Args:
        needed: all jobs that it needs, directly or not.
    """
    steps = {j.id: _step(j, store.record(j)) for j in needed if j.kind != "prepare"} | {job.id: _step(job, record)}
    paths = job.environment
    preprocessed = Path(paths.get("nnUNet_preprocessed", "")) / str(job.facts.get("dataset", ""))
    raw = Path(paths.get("nnUNet_raw", "")) / str(job.facts.get("dataset", ""))
    write_json(
        Path(job.manifest),
        {
            "format": FORMAT,
            **job.facts,
            "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": commit(),
            "versions": versions(),
            "machine": machine(),
            "sha256": {
                **(_trained_on(needed) or {file: sha256(preprocessed / file) for file in _read_by(job)}),
                "dataset.json": sha256(raw / "dataset.json"),
                "labelsTs": names_sha256(raw / "labelsTs"),
            },
            "hash": job.hash,
            "steps": steps,
        },
    )


def _read_by(job: Job) -> tuple[str, str]:
    """What a training reads of the preprocessed data, beside the cases."""
    return "splits_final.json", f"{job.facts.get('plans')}.json"


def _trained_on(needed: list[Job]) -> dict[str, str | None]:
    """Checksums as the training wrote them down, since the files may be others by now; empty without a training."""
    for job in needed:
        if job.kind == "train" and Path(job.manifest).is_file():
            written = json.loads(Path(job.manifest).read_text())["sha256"]
            return {file: written[file] for file in _read_by(job)}
    return {}


def _step(job: Job, record: Record) -> dict[str, Any]:
    """One command of the way to a result, and what it cost."""
    return {
        "kind": job.kind,
        "command": job.line(),
        "seconds": round(record.seconds, 3),
        "cpu_seconds": _total(record, "cpu_seconds"),
        "peak_bytes_of_largest_process": _largest(record, "peak_bytes"),
        "gpu_bytes_seen": _largest(record, "gpu_bytes"),
        "host": record.host,
        "attempts": len(record.attempts),
        "slurm": record.slurm or None,
    }


def _total(record: Record, key: str) -> float | None:
    values = [v for a in record.attempts if (v := getattr(a, key)) is not None]
    return round(sum(values), 3) if values else None


def _largest(record: Record, key: str) -> int | None:
    return max((v for a in record.attempts if (v := getattr(a, key)) is not None), default=None)


@functools.cache
def commit() -> str | None:
    """Of the checkout that the package runs from, "+changes" where it differs; None if it is installed."""
    folder = Path(nnunet_ext.__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--", "nnunet_ext") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    told = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=30)
    return told.stdout.strip()


def versions() -> dict[str, str]:
    """Of Python and of what decides a result."""
    found = {"python": platform.python_version(), "nnunet-ext": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Host, system, processor and GPUs."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if (info.exists())
        else []
    )
    return {
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": cpus(),
        "gpus": [", ".join(row) for row in gpu.query("name,driver_version,memory.total")],
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def sha256(file: Path) -> str | None:
    """Of a file's bytes; None where it is not there."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def names_sha256(folder: Path) -> str | None:
    """Of the sorted file names and their sizes: whether two results are of the same held-out cases."""
    if not folder.is_dir():
        return None
    files = sorted((f.name, f.stat().st_size) for f in folder.iterdir() if f.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()
