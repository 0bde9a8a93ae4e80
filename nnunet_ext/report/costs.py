"""How the models were trained and what they cost: curves, parameters, operations, time, memory."""

from __future__ import annotations

import logging
import pydoc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from markupsafe import Markup

from nnunet_ext import registry
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json
from nnunet_ext.common.nnunet_files import DATASET, PLANS
from nnunet_ext.common.text import duration
from nnunet_ext.common.training_log import TrainingLog, read_training_log
from nnunet_ext.report import svg
from nnunet_ext.report.data import Cost, ReportData

PACKAGES = ("dynamic_network_architectures.", "torch.nn.")  # whose classes a plan may name


def training_curves(data: ReportData) -> list[Markup] | None:
    """Draw the losses of each model, and the pseudo Dice of all models, from nnU-Net's training logs."""
    trainings = {name: own for name in data.names if (own := trainings_of(data, name))}
    if not trainings:
        return None
    figures = [_losses(data, name, own) for name, own in trainings.items()]
    if any(t.dice for own in trainings.values() for t in own):
        figures.insert(0, _dice(data, trainings))
    return figures


def trainings_of(data: ReportData, name: str) -> list[TrainingLog]:
    """Return the logs of every fold and repeat that has one."""
    return [t for f in data.fold_folders(name) if (t := read_training_log(f)).train]


def _losses(data: ReportData, name: str, trainings: Sequence[TrainingLog]) -> Markup:
    colour = svg.colour(data.names.index(name))
    legend = [
        svg.tag("path", d="M238 30h22", class_=f"train {colour}"),
        svg.text("training", 266, 34, "t label"),
        svg.tag("path", d="M322 30h22", class_=f"val {colour}"),
        svg.text("validation", 350, 34, "t label"),
    ]
    curves = [(own, kind) for t in trainings for own, kind in ((t.train, "train"), (t.val, "val"))]
    domain = svg.outer((v for own, _ in curves for v in own.values()), zero=False)
    spoken = f"Training and validation loss of {name}, {len(trainings)} trainings"
    return _chart(f"{data.letter(name)}  {name}: loss", legend, domain, [(colour, curves)], spoken)


def _dice(data: ReportData, trainings: dict[str, list[TrainingLog]]) -> Markup:
    groups, legend = [], []
    for i, (name, own) in enumerate(trainings.items()):
        number = data.names.index(name)
        groups.append((svg.colour(number), [(t.dice, f"running r{number % 4}") for t in own]))
        head = svg.text(data.letter(name), 404 - 18 * (len(trainings) - 1 - i), 14, "t name", "end")
        legend.append(svg.tag("g", [head], class_=svg.colour(number)))
    spoken = f"Pseudo Dice during training of {', '.join(trainings)}"
    return _chart("Pseudo Dice of validation patches, all models", legend, (0.0, 1.0), groups, spoken)


def _chart(
    title: str,
    legend: Sequence[Markup],
    domain: tuple[float, float],
    groups: Sequence[tuple[str, Sequence[tuple[dict[int, float], str]]]],
    spoken: str,
) -> Markup:
    """Draw values by epoch.

    Args:
        groups: a colour and its curves, each with its class.
    """
    last = max(epoch for _, curves in groups for values, _ in curves for epoch in values)
    x, y = svg.Scale((0, float(last)), (48, 404)), svg.Scale(domain, (206, 40))

    def path(values: dict[int, float], class_: str) -> Markup:
        return svg.tag("path", d=svg.line((x(e), y(v)) for e, v in sorted(values.items())), class_=class_)

    drawn = [svg.tag("g", [path(*curve) for curve in curves], class_=f"curves {colour}") for colour, curves in groups]
    return svg.figure(
        [svg.text(title, 0, 14, "t title"), *legend, svg.x_axis(x, 40, 206, "epoch"), svg.y_axis(y, 48, 404), *drawn],
        244,
        f"{spoken}, {last + 1} epochs",
    )


def costs(data: ReportData) -> dict[str, Any] | None:
    """Return parameters, operations, time and memory of every model; only columns in which something is known."""
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
    """Return what the extras say; gaps are filled from the model's folder or the registry, manifests, training logs.

    A manifest knows the whole time of a command, a training log that of its epochs alone.
    """
    manifests, entry = data.extras.manifests.get(name, ()), data.entry(name)
    steps = [step for manifest in manifests for step in dict(manifest.get("steps") or {}).values()]
    trained, predicted = ([s for s in steps if s.get("kind") == kind] for kind in ("train", "predict"))
    size = next((s for fold in data.fold_folders(name) if (s := network_size(fold.parent))), None)
    if size is None and entry and entry.parameters:
        size = NetworkSize(entry.parameters, entry.trained or entry.parameters, None)
    logged = [sum(t.seconds.values()) for t in trainings_of(data, name)]
    peaks = [s.get("gpu_bytes_seen") or s.get("peak_bytes_of_largest_process") for s in trained]
    per_case = _mean(s.get("seconds") for s in predicted)
    found: dict[str, Any] = {
        **(size._asdict() if size else {}),
        "training_seconds": _mean(s.get("seconds") for s in trained) or _mean(logged),
        "seconds_per_case": per_case and per_case / len(data.models[data.names.index(name)].runs[0].cases),
        "peak_memory_bytes": max((p for p in peaks if p), default=None),
    }
    cost = data.extras.costs.get(name, Cost())
    return replace(cost, **{key: value for key, value in found.items() if getattr(cost, key) is None})


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value]
    return fmean(known) if known else None


class NetworkSize(NamedTuple):
    """The size of the network that predicts.

    Args:
        parameters, trained: numbers of the network, and those of them that training changes.
        flops: floating-point operations of one forward pass over one patch of the plan, as torch counts them:
            convolutions, matrix products and attention, two for a multiply-add. None if it predicts with clicks only.
    """

    parameters: int
    trained: int
    flops: int | None


@cache
def network_size(model: Path) -> NetworkSize | None:
    """Build the network of a folder TRAINER__PLANS__CONFIGURATION, without weights and without computing anything.

    The folder may be anybody's, for a foreign metrics.json can name it: only classes of the registry, nnU-Net,
    dynamic-network-architectures and torch.nn are built, whatever else the folder names. Returns None where that does
    not lead to a network.
    """
    try:
        plans, dataset = (read_json(model / name) for name in (PLANS, DATASET))
        trainer_name, _, configuration = model.name.split("__")
    except ValueError:
        return None
    try:
        return _size(trainer_name, plans, configuration, dataset)
    except Exception as e:  # noqa: BLE001  (trainers of others may do anything; a report does without)
        logging.getLogger(__name__).info("%s: the network cannot be built (%s: %s)", model, type(e).__name__, e)
        return None


def _size(trainer_name: str, plans: dict[str, Any], configuration: str, dataset: dict[str, Any]) -> NetworkSize:
    import torch
    from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from torch.utils.flop_counter import FlopCounterMode

    manager = PlansManager({**plans, "label_manager": LabelManager.__name__})
    plan = manager.get_configuration(configuration)
    trainer = _trainer(trainer_name)
    _check_architecture(plan.network_arch_class_name, plan.network_arch_init_kwargs)
    channels = determine_num_input_channels(manager, plan, dataset)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    with torch.device("meta"), torch.no_grad():
        network = trainer.build_network_architecture(manager, plan, channels, heads, enable_deep_supervision=False)
        numbers = [(p.numel(), p.requires_grad) for p in network.parameters()]
        flops = None
        with FlopCounterMode(display=False) as counter:
            try:
                network.requires_grad_(False).eval()(torch.empty(1, channels, *plan.patch_size))
                flops = counter.get_total_flops()
            except InputError:
                pass  # it takes no image without a click
    return NetworkSize(sum(n for n, _ in numbers), sum(n for n, trained in numbers if trained), flops)


def _trainer(name: str) -> Any:
    """Return a trainer of the registry, or nnU-Net's own; never one from a folder that nnUNet_extTrainer names."""
    import nnunetv2
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    if entry := registry.get("trainer", name):
        return entry.load()
    root = Path(nnunetv2.__path__[0])
    found = recursive_find_python_class(
        str(root / "training" / "nnUNetTrainer"), name, "nnunetv2.training.nnUNetTrainer", str(root)
    )
    if not (isinstance(found, type) and issubclass(found, nnUNetTrainer)):
        raise LookupError(f"{name} is not a trainer of nnU-Net or of the registry")
    return found


def _check_architecture(network: str, arguments: object) -> None:
    """Check that a plan names no code but networks of dynamic-network-architectures, and their and torch's layers.

    Raises:
        LookupError: a name leads elsewhere. Every text among the arguments is a name, for nnU-Net's variants look up
            others than those that the plan says are to be looked up.
    """
    from torch.nn import Module

    for name, packages in ((network, PACKAGES[:1]), *((own, PACKAGES) for own in _texts(arguments))):
        found = pydoc.locate(name) if name.startswith(packages) else None
        # where a name is found is not where it is from: torch.nn.functional.torch.hub.load is a function of torch.hub
        if not (isinstance(found, type) and issubclass(found, Module) and found.__module__.startswith(packages)):
            raise LookupError(f"{name} is not built: it is not a class of {' or '.join(packages)}")


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a value as JSON has it, but the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
