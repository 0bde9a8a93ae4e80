"""What the models cost: parameters, operations, time, memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nnunet_ext import registry
from nnunet_ext.common.text import duration
from nnunet_ext.report.curves import trainings_of
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.extras import Cost
from nnunet_ext.report.network_size import network_size


def costs(data: ReportData) -> dict[str, Any] | None:
    """Parameters, operations, time and memory of every model; only columns in which something is known."""
    rows = {name: cost_of(data, name) for name in data.names}
    columns = [
        ("parameters", lambda c: f"{c.parameters:,}" if c.parameters else ""),
        ("of these trained", lambda c: f"{c.trained:,}" if c.trained else ""),
        ("GFLOPs per patch", lambda c: f"{c.flops / 1e9:,.1f}" if c.flops else ""),
        ("training", lambda c: duration(c.training_seconds)),
        ("one case", lambda c: duration(c.seconds_per_case)),
        ("peak memory", lambda c: f"{c.peak_memory_bytes / 2**30:.1f} GiB" if c.peak_memory_bytes else ""),
        ("on", lambda c: c.device),
    ]
    known = [(head, show) for head, show in columns if any(show(c) for c in rows.values())]
    if not known:
        return None
    return {
        "heads": [head for head, _ in known],
        "rows": [(name, [show(cost) or "unknown" for _, show in known]) for name, cost in rows.items()],
    }


def cost_of(data: ReportData, name: str) -> Cost:
    """What was told; where it was not, from the model's folder, the registry, manifests and training logs."""
    cost = data.extras.costs.get(name, Cost())
    entry = registry.get("trainer", data.trainer(name))
    steps = [s for m in data.extras.manifests.get(name, ()) for s in dict(m.get("steps") or {}).values()]
    trained = [s for s in steps if s.get("kind") == "train"]
    times = [sum(t.seconds.values()) for t in trainings_of(data, name)] or [
        s["seconds"] for s in trained if s.get("seconds")
    ]
    peaks = [s.get("gpu_bytes_seen") or s.get("peak_bytes_of_largest_process") for s in trained]
    size = next((s for fold in data.fold_folders(name) if (s := network_size(fold.parent))), None)
    found = {
        "parameters": size.parameters if size else entry.parameters if entry else None,
        "trained": size.trained if size else None,
        "flops": size.flops if size else None,
        "training_seconds": sum(times) / len(times) if times else None,
        "peak_memory_bytes": max((p for p in peaks if p), default=None),
    }
    gaps = {key: value for key, value in found.items() if getattr(cost, key) is None and value}
    return replace(cost, **gaps)
