"""What a report can show beyond metrics: training, cost, commands, published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one model costs; None is unknown.

    Args:
        parameters, trained: numbers of the network, and those of them that training changes.
        flops: floating-point operations of one forward pass over one patch; a multiply-add counts as two.
        training_seconds, seconds_per_case: wall time of the whole training, and of predicting one case.
        peak_memory_bytes: of the training.
        device: what the times were measured on.
    """

    parameters: int | None = None
    trained: int | None = None
    flops: float | None = None
    training_seconds: float | None = None
    seconds_per_case: float | None = None
    peak_memory_bytes: int | None = None
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a paper states for a model.

    Args:
        model: the name of the model to stand next to.
        metrics: key of a metric -> the value as printed, ratios as fractions.
        source: where it is printed.
        differences: how the paper's protocol differs from this one.
        structure: that the values are of; default: the first.
    """

    model: str
    metrics: Mapping[str, float]
    source: str
    differences: str = ""
    structure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Everything here may be missing; the report leaves out what it is not told.

    Args:
        model_folders: model -> nnU-Net's fold folders (``.../TRAINER__PLANS__CONFIGURATION/fold_0``), for training
            curves, plans and times; default: what the predictions tell.
        costs: model -> what it costs; gaps are filled from the registry and from the training logs.
        commands: what was run, in order.
        manifests: model -> one mapping per run (commit, versions, host, device, seed, checksums, ...).
        published: rows to stand next to ours.
        differences: between the published figures' protocol and this one, for all of them.
        notes: sentences for the head of the report.
    """

    model_folders: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    commands: Sequence[str] = ()
    manifests: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    published: Sequence[Published] = ()
    differences: Sequence[str] = ()
    notes: Sequence[str] = ()
