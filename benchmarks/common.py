"""What benchmarks share: options, interleaved timing, memory, the machine, and results as JSON and as a table."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.common import provenance

if TYPE_CHECKING:
    import torch

RESULTS = Path(__file__).parent / "results"


def options(doc: str | None, *, runs: int | None = None, quick: str = "") -> argparse.ArgumentParser:
    """Return a parser with ``--runs`` (default `runs`) and ``--quick``, which does what `quick` says."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if runs:
        parser.add_argument(
            "--runs", type=int, default=runs, help="interleaved runs of each variant (default %(default)s)"
        )
    if quick:
        parser.add_argument("--quick", action="store_true", help=f"{quick}, nothing written")
    return parser


def interleaved(variants: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Return the seconds of every run of every variant, after one warm-up each.

    The variants take turns, and each round starts with another one, so that whatever else the machine does meets all.
    """
    for run in variants.values():
        run()
        give_memory_back()
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for i in range(runs):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            variants[name]()
            times[name].append(time.perf_counter() - start)
            give_memory_back()
    return times


def give_memory_back() -> None:
    """Return freed memory to the system: several networks in one process blow glibc's heap up to 22 GB."""
    gc.collect()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc's
            libc.malloc_trim(0)


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of every variant."""
    return {name: statistics.median(values) for name, values in times.items()}


def resident(field: str) -> int:
    """Return the bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at most since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """Return by how many bytes `run` raises the peak of this process, which does nothing else (CPU: Linux only)."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def saved_bytes(forward: Callable[[], object], net: torch.nn.Module) -> int:
    """Return what autograd holds after `forward`, each storage once, parameters and buffers of `net` left out."""
    from torch.autograd.graph import saved_tensors_hooks

    kept: set[object] = set()

    def keep(tensor: torch.Tensor) -> None:
        kept.add(tensor.untyped_storage())  # not the tensor: a node that keeps its own output would never be freed

    with saved_tensors_hooks(keep, lambda _: None):
        forward()
    own = {t.untyped_storage() for t in (*net.parameters(), *net.buffers())}
    return sum(storage.nbytes() for storage in kept - own)


def child_output(*arguments: object) -> str:
    """Return the last line that a new Python process with these arguments prints."""
    output = subprocess.check_output([sys.executable, *map(str, arguments)], text=True)
    return output.splitlines()[-1]


def printed_by_child(*arguments: object) -> int:
    """Return the number that a new Python process with these arguments prints last."""
    return int(child_output(*arguments).split()[-1])


def convert(dataset: str, source: Path, raw: Path, *words: str) -> None:
    """Run ``nnunet_ext convert DATASET`` into an empty nnUNet_raw."""
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir()
    environment = {**os.environ, "nnUNet_raw": str(raw)}
    environment.pop("nnUNet_preprocessed", None)
    command = [sys.executable, "-m", "nnunet_ext", "convert", dataset, "--source", source, *words]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def machine(**facts: object) -> dict[str, object]:
    """Return processor, cores, system and the load at this moment, and more `facts`; no name of the host."""
    known = provenance.machine()
    load = round(os.getloadavg()[0], 1)
    return {"cpu": known["cpu"], "cores": known["cores"], "system": platform.system(), "load": load, **facts}


def aim(text: str, reached: float, limit: float, *, at_least: bool = False) -> str:
    """Return a line for the notes: what was aimed at, what was reached, and whether that is enough."""
    met = reached >= limit if at_least else reached <= limit
    sign = "at least" if at_least else "at most"
    return f"- {text}: {reached:.2f}, aim {sign} {limit:g}: {'met' if met else 'MISSED'}"


def torch_facts(device: str, amp: bool) -> dict[str, object]:
    """Return what `machine` should add for benchmarks that run networks."""
    import torch

    facts: dict[str, object] = {"threads": torch.get_num_threads()}
    return facts | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}) | ({"amp": True} if amp else {})


def save(
    name: str,
    *,
    title: str,
    command: str,
    notes: Sequence[str],
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    packages: Sequence[str],
    where: dict[str, object],
    write: bool = True,
    **data: object,
) -> None:
    """Print the table and, unless `write` is off, write ``results/NAME.json`` and ``.md``.

    Args:
        name: of the two files.
        title, command, notes: what the table is about, what made it, and what one has to know to read it.
        header, rows: the table.
        packages: those whose versions matter.
        where: `machine()` from before the measurement.
        write: whether to write the files.
        data: everything else that goes into the JSON file.
    """
    versions = provenance.versions(*packages)
    extra = "".join(f", {k} {v}" for k, v in where.items() if k not in ("cpu", "cores", "system", "load"))
    table = [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]
    text = [
        f"# {title}",
        "",
        f"`{command}`: {where['cpu']}, {where['cores']} cores, {where['system']}{extra}, load {where['load']} from "
        f"other work at the start; {', '.join(f'{k} {v}' for k, v in versions.items())}.",
        "",
        *notes,
        "",
        *table,
    ]
    print("\n".join(text))
    if write:
        RESULTS.mkdir(exist_ok=True)
        content = {"command": command, "machine": where, "versions": versions, **data}
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
        (RESULTS / f"{name}.md").write_text("\n".join(text) + "\n")
