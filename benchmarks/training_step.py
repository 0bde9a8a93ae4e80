"""One training step of every 2D network: time, activations between forward and backward, peak memory of a process.

    python benchmarks/training_step.py             # both sizes, batch 2, on the CPU
    python benchmarks/training_step.py --device cuda --amp
    python benchmarks/training_step.py --quick     # does it run? narrow look at 64 x 64, nothing written

A step is forward, cross-entropy, backward, Adam. Every repeat of every network is a process of its own, in which one
step has warmed up; the networks take turns, so that a busy machine slows them alike, and the tables give medians. CPU
seconds (user and system time of the process) are given beside wall seconds because they suffer less from neighbours.
Peak memory is by how much the first step raises the process's (on the CPU this needs Linux).

nnU-Net's own network is the one its default planner makes of a plan with this patch: `PlainConvUNet`, features 32 to
512, two convolutions per stage, 7 stages at 256 and 8 at 512, trained with deep supervision (its default) and without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import child_output, give_memory_back, machine, peak_bytes, save, saved_bytes, torch_facts
from torch import nn
from torch.nn import functional as F  # noqa: N812

from nnunet_ext.architectures.raunet import UNet

PAPER_ROWS: dict[str, dict[str, Any]] = {
    "U-Net": {"block": "double", "gates": False},
    "U-Net + attention": {"block": "double", "gates": True},
    "U-Net + residual": {"block": "bottleneck", "gates": False},
    "RA-U-Net": {"block": "bottleneck", "gates": True},
}


def nnunet(size: int, *, deep_supervision: bool) -> nn.Module:
    """nnU-Net's 2d network for a plan of this patch size: pooling down to an edge of 4."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    stages = size.bit_length() - 2
    return PlainConvUNet(
        1, stages, [min(32 * 2**i, 512) for i in range(stages)], nn.Conv2d, 3, [1] + [2] * (stages - 1), 2, 2,
        [2] * (stages - 1), conv_bias=True, norm_op=nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=deep_supervision,
    )  # fmt: skip


def monai_attention_unet(size: int) -> nn.Module:
    """MONAI's AttentionUnet of the paper's widths."""
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(2, 1, 2, channels=(64, 128, 256, 512, 1024), strides=(2, 2, 2, 2))


def builders() -> dict[str, Callable[[int], nn.Module]]:
    """Name of a row -> network for an image size."""
    rows: dict[str, Callable[[int], nn.Module]] = {}
    for name, options in PAPER_ROWS.items():
        rows[name] = lambda size, options=options: UNet(**options)
    rows["nnU-Net 2d"] = lambda size: nnunet(size, deep_supervision=False)
    rows["nnU-Net 2d, deep supervision"] = lambda size: nnunet(size, deep_supervision=True)
    rows["MONAI AttentionUnet"] = monai_attention_unet
    return rows


def loss_of(output: torch.Tensor | list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy; with deep supervision each coarser output counts half, against the thinned-out target."""
    outputs = output if isinstance(output, list | tuple) else [output]
    strides = [target.shape[-1] // o.shape[-1] for o in outputs]
    return sum(F.cross_entropy(o, target[:, ::s, ::s]) / s for o, s in zip(outputs, strides, strict=True))


class Training:
    """A network, its optimiser and what a step needs."""

    def __init__(self, net: nn.Module, *, device: str, amp: bool) -> None:
        self.net = net.to(device).train()
        self.device, self.amp = device, amp
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4)
        self.scaler = torch.amp.GradScaler(device, enabled=amp and device == "cuda")
        for p in self.net.parameters():  # the optimiser's state exists before anything is measured
            p.grad = torch.zeros_like(p)
        self.optimizer.step()

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device, enabled=self.amp):
            return loss_of(self.net(x), target)

    def step(self, x: torch.Tensor, target: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(self.forward(x, target)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def timed_step(self, x: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
        """(wall or device seconds, CPU seconds)."""
        cpu, wall = time.process_time(), time.perf_counter()
        if self.device != "cuda":
            self.step(x, target)
            return time.perf_counter() - wall, time.process_time() - cpu
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self.step(x, target)
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000, time.process_time() - cpu


def batch(size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, size, size, generator=generator)
    return x.to(device), torch.randint(0, 2, (2, size, size), generator=generator).to(device)


def figures(name: str, size: int, device: str, amp: bool) -> dict[str, float]:
    """Everything about one network at one size, for a child process that does nothing else."""
    torch.manual_seed(0)
    net = builders()[name](size)
    x, target = batch(size, device)
    found: dict[str, float] = {}
    if name.endswith(", fast"):
        plain = builders()[name.removesuffix(", fast")](size)
        net.load_state_dict(plain.state_dict())
        found["difference_to_plain"] = difference(plain.to(device), net.to(device), x[:1])
        del plain
    training = Training(net, device=device, amp=amp)
    found["saved_bytes"] = saved_bytes(lambda: training.forward(x, target), net)
    give_memory_back()
    found["peak_bytes"] = peak_bytes(lambda: training.step(x, target), device)  # also the warm-up
    found["wall"], found["cpu"] = training.timed_step(x, target)
    return found


def measure(size: int, repeats: int, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All rows at one image size; every repeat of every network is a process of its own, in turns."""
    rows: dict[str, dict[str, Any]] = {name: {"wall": [], "cpu": []} for name in builders()}
    child = (__file__, "--device", args.device, "--threads", args.threads, *["--amp"] * args.amp, "--child")
    for repeat in range(repeats):
        for name, row in rows.items():
            found = json.loads(child_output(*child, name, size))
            for clock in ("wall", "cpu"):
                row[clock].append(found.pop(clock))
            row |= found
            print(f"{size} repeat {repeat + 1}/{repeats} {name}: {row['wall'][-1]:.2f} s", flush=True)
    for row in rows.values():
        row |= {f"median_{clock}": statistics.median(row[clock]) for clock in ("wall", "cpu")}
    return rows


@torch.no_grad()
def difference(plain: nn.Module, fast: nn.Module, x: torch.Tensor) -> float:
    """Largest difference of the outputs of two networks with the same weights, relative to the largest output."""
    expected = plain(x)
    return ((fast(x) - expected).abs().max() / expected.abs().max()).item()


def report(
    sizes: dict[str, dict[str, Any]], where: dict[str, object], args: argparse.Namespace, *, write: bool
) -> None:
    """One table of all sizes, ratios against the RA-U-Net row."""
    notes, table = [], []
    for size, rows in sizes.items():
        repeats = len(rows["RA-U-Net"]["wall"])
        notes += [f"{size} x {size}, median of {repeats} interleaved repeats:", "", *aims(rows), ""]
        reference = rows["RA-U-Net, fast"]["median_wall"]
        for name, row in rows.items():
            seconds = [f"{row['median_wall']:.3f}", f"{row['median_cpu']:.3f}"]
            mebibytes = [f"{row[kind] / 2**20:.0f}" for kind in ("saved_bytes", "peak_bytes")]
            table.append([size, name, *seconds, *mebibytes, f"{row['median_wall'] / reference:.2f}"])
    save(
        "training_step" + f"_{args.device}" * (args.device != "cpu") + "_amp" * args.amp,
        title="One training step, batch 2",
        command=" ".join(["python benchmarks/training_step.py", *sys.argv[1:]]),
        notes=notes[:-1],
        header=("size", "network", "wall s", "CPU s", "activations MiB", "peak MiB", "wall / RA-U-Net fast"),
        rows=table,
        packages=("torch", "dynamic-network-architectures", "monai"),
        where=where,
        write=write,
        sizes=sizes,
    )


def aims(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The aims for RA-U-Net, each with what was reached."""
    fast, plain = rows["RA-U-Net, fast"], rows["RA-U-Net"]

    def ratio(name: str) -> str:
        times = [f"{rows[name][f'median_{c}'] / fast[f'median_{c}']:.2f}" for c in ("wall", "cpu")]
        return f"{times[0]} (CPU seconds: {times[1]})"

    return [
        f"- aim 1.3 x faster than plain: {ratio('RA-U-Net')}",
        f"- aim 0.7 of plain's activations: {fast['saved_bytes'] / plain['saved_bytes']:.2f}"
        f" (peak: {fast['peak_bytes'] / plain['peak_bytes']:.2f})",
        f"- aim 3 x faster than the U-Net row: {ratio('U-Net')}; against that row's fast form {ratio('U-Net, fast')}",
        f"- aim no slower than nnU-Net's 2d network: {ratio('nnU-Net 2d')}"
        f"; with deep supervision {ratio('nnU-Net 2d, deep supervision')}",
        f"- MONAI's AttentionUnet: {ratio('MONAI AttentionUnet')}",
        f"- aim outputs within 1e-5 of plain, relative: {fast['difference_to_plain']:.1e}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--amp", action="store_true", help="autocast: float16 on cuda, bfloat16 on the CPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, nargs=2, default=(3, 2), help="at 256 and at 512; 0 leaves a size out")
    parser.add_argument("--quick", action="store_true", help="64 x 64 once, nothing written")
    parser.add_argument("--child", nargs=2, metavar=("NETWORK", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        print(json.dumps(figures(args.child[0], int(args.child[1]), args.device, args.amp)))
        return
    sizes = {64: 1} if args.quick else dict(zip((256, 512), args.repeats, strict=True))
    where, results = machine(**torch_facts(args.device, args.amp)), {}
    for size, repeats in sizes.items():
        if repeats:
            results[str(size)] = measure(size, repeats, args)
            report(results, where, args, write=not args.quick)  # after every size, since the second takes long


if __name__ == "__main__":
    main()
