"""A training step and a forward pass of every 2D network: time, activations kept in between, peak memory of a process.

    python benchmarks/training_step.py                          # 512 x 512, batch 2, on the CPU: the paper's slices
    python benchmarks/training_step.py --size 256 --repeats 3
    python benchmarks/training_step.py --device cuda --amp
    python benchmarks/training_step.py --quick                  # does it run? 64 x 64, nothing written

A step is forward, cross-entropy, backward, Adam. Every repeat of every network is a process of its own: the networks
take turns, so that a busy machine slows them alike, and the tables give medians of all steps after the first. CPU
seconds (user and system time of the process) are given next to wall seconds because they suffer less from neighbours.
Peak memory is by how much the first step raises that of the process (on the CPU this needs Linux).

"Plain" has maps in torch's own memory layout, without which a network of this package is on CPUs; "recomputed" is
NNUNET_EXT_RECOMPUTE=1. How far the outputs of the same weights are from the plain network's, relative to the largest,
is measured before anything is trained. nnU-Net's own network is the one that its default planner makes of a plan with
this patch: `PlainConvUNet`, features 32 to 512, two convolutions per stage, 7 stages at 256 and 8 at 512.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import (
    aim,
    child_output,
    give_memory_back,
    machine,
    options,
    peak_bytes,
    save,
    saved_bytes,
    torch_facts,
)  # fmt: skip
from torch import nn
from torch.nn import functional as F  # noqa: N812

from nnunet_ext.architectures.memory import set_recomputation
from nnunet_ext.architectures.raunet import UNet, UShape

PAPER_ROWS: dict[str, dict[str, Any]] = {
    "RA-U-Net": {"block": "bottleneck", "gates": True},
    "U-Net": {"block": "double", "gates": False},
    "U-Net + attention": {"block": "double", "gates": True},
    "U-Net + residual": {"block": "bottleneck", "gates": False},
}
BOTH_WAYS = ("RA-U-Net", "U-Net")  # rows that are also measured plain and recomputed
CLOCKS = ("forward", "forward_cpu", "step", "step_cpu")


def nnunet(size: int) -> nn.Module:
    """Return nnU-Net's 2d network for a plan of this patch size: pooling down to an edge of 4."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    stages = size.bit_length() - 2
    return PlainConvUNet(
        1, stages, [min(32 * 2**i, 512) for i in range(stages)], nn.Conv2d, 3, [1] + [2] * (stages - 1), 2, 2,
        [2] * (stages - 1), conv_bias=True, norm_op=nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip


def monai_attention_unet(_: int) -> nn.Module:
    """Return MONAI's AttentionUnet of the paper's widths."""
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(2, 1, 2, channels=(64, 128, 256, 512, 1024), strides=(2, 2, 2, 2))


def plain(net: UNet) -> UNet:
    """Return the network, in torch's own memory layout from now on."""
    net.forward = functools.partial(UShape.forward, net)
    return net


def recomputing(net: UNet) -> UNet:
    """Return the network, as with NNUNET_EXT_RECOMPUTE=1 from now on."""
    set_recomputation(net, True)
    return net


def builders() -> dict[str, Callable[[int], nn.Module]]:
    """Return what builds the network of a row, for an image size, by the row's name."""
    rows: dict[str, Callable[[int], nn.Module]] = {}
    for name, kind in PAPER_ROWS.items():
        rows[name] = lambda _, kind=kind: UNet(**kind)
        if name in BOTH_WAYS:
            rows[f"{name}, plain"] = lambda _, kind=kind: plain(UNet(**kind))
            rows[f"{name}, recomputed"] = lambda _, kind=kind: recomputing(UNet(**kind))
    return rows | {"nnU-Net 2d": nnunet, "MONAI AttentionUnet": monai_attention_unet}


class Training:
    """A network, its optimiser and what a step needs."""

    def __init__(self, net: nn.Module, size: int, *, device: str, amp: bool) -> None:
        self.net = net.to(device).train()
        self.device, self.amp = device, amp
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(2, 1, size, size, generator=generator).to(device)
        self.target = torch.randint(0, 2, (2, size, size), generator=generator).to(device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4)
        self.scaler = torch.amp.GradScaler(device, enabled=amp and device == "cuda")
        for p in self.net.parameters():  # the optimiser's state exists before anything is measured
            p.grad = torch.zeros_like(p)
        self.optimizer.step()

    def loss(self) -> torch.Tensor:
        with torch.autocast(self.device, enabled=self.amp):
            return F.cross_entropy(self.net(self.x), self.target)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(self.loss()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @torch.no_grad()
    def forward(self) -> None:
        with torch.autocast(self.device, enabled=self.amp):
            self.net(self.x)

    def seconds(self, run: Callable[[], object]) -> tuple[float, float]:
        """Return wall (on a GPU its own) seconds and CPU seconds of a run."""
        if self.device != "cuda":
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            return time.perf_counter() - wall, time.process_time() - cpu
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cpu = time.process_time()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000, time.process_time() - cpu


@torch.no_grad()
def difference_to_plain(net: nn.Module, size: int, device: str) -> float:
    """Return the largest difference to the plain network's outputs with the same weights, relative to the largest."""
    x = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(1)).to(device)
    found, expected = net.to(device)(x), UShape.forward(net, x)
    return ((found - expected).abs().max() / expected.abs().max()).item()


def figures(name: str, size: int, args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything about one network, for a child process that does nothing else."""
    torch.manual_seed(0)
    net = builders()[name](size)
    found: dict[str, Any] = {clock: [] for clock in CLOCKS}
    if isinstance(net, UNet):
        found["difference_to_plain"] = difference_to_plain(net, size, args.device)
    training = Training(net, size, device=args.device, amp=args.amp)
    found["saved_bytes"] = saved_bytes(training.loss, net)
    give_memory_back()
    found["peak_bytes"] = peak_bytes(training.step, args.device)  # also the warm-up
    for _ in range(args.steps):
        for clock, run in (("step", training.step), ("forward", training.forward)):
            wall, cpu = training.seconds(run)
            found[clock].append(wall)
            found[f"{clock}_cpu"].append(cpu)
    return found


def measure(size: int, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure all rows; every repeat of every network is a process of its own, in turns."""
    rows: dict[str, dict[str, Any]] = {name: {clock: [] for clock in CLOCKS} for name in builders()}
    words = ("--device", args.device, "--threads", args.threads, "--steps", args.steps, *["--amp"] * args.amp)
    for repeat in range(args.repeats):
        for name, row in rows.items():
            found = json.loads(child_output(__file__, *words, "--child", name, size))
            for clock in CLOCKS:
                row[clock] += found.pop(clock)
            row |= found
            print(f"{size} repeat {repeat + 1}/{args.repeats} {name}: {row['step'][-1]:.2f} s", flush=True)
    for row in rows.values():
        row |= {f"median_{clock}": statistics.median(row[clock]) for clock in CLOCKS}
    return rows


def aims(rows: dict[str, dict[str, Any]], device: str) -> list[str]:
    """Say what was aimed at and what was reached; times are ratios, of CPU seconds on the CPU."""
    cpu = "_cpu" if device == "cpu" else ""

    def ratio(what: str, one: str, other: str) -> float:
        return rows[one][what] / rows[other][what]

    step, forward = f"median_step{cpu}", f"median_forward{cpu}"
    lines = [
        aim("speed of RA-U-Net's step, as a multiple of the U-Net row's", ratio(step, "U-Net", "RA-U-Net"), 3,
            at_least=True),
        aim("RA-U-Net's step over that of nnU-Net's 2d network", ratio(step, "RA-U-Net", "nnU-Net 2d"), 1),
        aim("RA-U-Net's step over that of MONAI's AttentionUnet", ratio(step, "RA-U-Net", "MONAI AttentionUnet"), 1),
    ]  # fmt: skip
    for name in BOTH_WAYS:
        again = f"{name}, recomputed"
        lines += [
            aim(f"{again}: activations over those kept without", ratio("saved_bytes", again, name), 0.55),
            aim(f"{again}: step over that without", ratio(step, again, name), 1.35),
            f"- {again}: peak over that without: {ratio('peak_bytes', again, name):.2f}",
        ]
        if device == "cpu":  # elsewhere both are the same
            lines += [
                aim(f"{name}, channels-last: forward over plain", ratio(forward, name, f"{name}, plain"), 1),
                aim(f"{name}, channels-last: step over plain", ratio(step, name, f"{name}, plain"), 1.05),
            ]
    worst = max(row.get("difference_to_plain", 0) for row in rows.values())
    met = "met" if worst <= 1e-5 else "MISSED"
    return [*lines, f"- outputs to those of the plain network: {worst:.1e}, aim at most 1e-5: {met}"]


def report(size: int, rows: dict[str, dict[str, Any]], where: dict[str, object], args: argparse.Namespace) -> None:
    """Print one table, with ratios to the RA-U-Net row, and write it."""
    table = []
    for name, row in rows.items():
        seconds = [f"{row[f'median_{clock}']:.3f}" for clock in CLOCKS]
        mebibytes = [f"{row[kind] / 2**20:.0f}" for kind in ("saved_bytes", "peak_bytes")]
        over = f"{row['median_step'] / rows['RA-U-Net']['median_step']:.2f}"
        table.append([name, *seconds, *mebibytes, over])
    count = len(rows["RA-U-Net"]["step"])
    save(
        f"training_step_{size}" + f"_{args.device}" * (args.device != "cpu") + "_amp" * args.amp,
        title=f"One training step at {size} x {size}, batch 2",
        command=" ".join(["python benchmarks/training_step.py", *sys.argv[1:]]),
        notes=[f"Medians of {count} steps in {args.repeats} processes per network.", "", *aims(rows, args.device)],
        header=(
            "network",
            *("forward s", "forward CPU s", "step s", "step CPU s"),
            *("activations MiB", "peak MiB", "step / RA-U-Net's"),
        ),
        rows=table,
        packages=("torch", "dynamic-network-architectures", "monai"),
        where=where,
        write=not args.quick,
        networks=rows,
    )


def main() -> None:
    parser = options(__doc__, quick="64 x 64")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--amp", action="store_true", help="autocast: float16 on cuda, bfloat16 on the CPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", type=int, default=512, choices=(256, 512))
    parser.add_argument("--repeats", type=int, default=1, help="processes per network")
    parser.add_argument("--steps", type=int, default=1, help="steps that are timed in each, after a first one")
    parser.add_argument("--child", nargs=2, metavar=("NETWORK", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        print(json.dumps(figures(args.child[0], int(args.child[1]), args)))
        return
    size = 64 if args.quick else args.size
    where = machine(**torch_facts(args.device, args.amp))
    report(size, measure(size, args), where, args)


if __name__ == "__main__":
    main()
