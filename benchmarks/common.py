"""What every benchmark needs: interleaved timing, the machine, and results as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def interleaved(variants: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of every run of every variant, after one warm-up each.

    The variants take turns, each round starting with another one, so that whatever else the machine does meets all.
    """
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for i in range(runs):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            variants[name]()
            times[name].append(time.perf_counter() - start)
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """The median of every variant."""
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> dict[str, object]:
    """Processor, cores, system and the load at this moment; no name of the host."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 1),
    }


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
    **data: object,
) -> None:
    """Print the table and write ``results/NAME.json`` and ``.md``.

    Args:
        where: `machine()` from before the measurement.
        data: everything else that goes into the JSON file.
    """
    versions = {"python": platform.python_version(), **{p: version(p) for p in ("nnunet-ext", *packages)}}
    table = [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]
    text = [
        f"# {title}",
        "",
        f"`{command}`: {where['cpu']}, {where['cores']} cores, {where['system']}, load {where['load']} from other work "
        f"at the start; {', '.join(f'{k} {v}' for k, v in versions.items())}.",
        "",
        *notes,
        "",
        *table,
    ]
    RESULTS.mkdir(exist_ok=True)
    content = {"command": command, "machine": where, "versions": versions, **data}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))
