"""Recomputation changes memory and time and nothing else; the estimate of memory is what a step holds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from shutil import which

import pytest
import test_raunet
import test_samus
import torch
from test_trainers import checkpoint, model_folder, train
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.architectures.memory import recomputed, set_recomputation, training_memory
from nnunet_ext.architectures.raunet import UNet3D
from nnunet_ext.architectures.samus.image_encoder import VIT_TINY
from nnunet_ext.architectures.samus.models import SAM, SAMUS, SAMUSHF
from nnunet_ext.architectures.samus.segmenter import PromptableSegmenter

RAUNET = {name: partial(row, features=test_raunet.SMALL) for name, row in test_raunet.ROWS.items()}
RAUNET["3D U-Net"] = partial(UNet3D, features=test_raunet.SMALL)
RAUNET["3D U-Net BN"] = partial(UNet3D, features=test_raunet.SMALL, norm="batch")
SAMS = {name: partial(test_samus.segmenter, name) for name in test_samus.MEMBERS}
MEMBERS: dict[str, Callable[[], nn.Module]] = RAUNET | SAMS

Outcome = tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]


def pair(member: str) -> tuple[nn.Module, nn.Module]:
    """The same network twice; the second one recomputes."""
    torch.manual_seed(0)
    net = MEMBERS[member]()
    other = copy.deepcopy(net)
    set_recomputation(other, True)
    return net, other


def outcome(net: nn.Module, forward: Callable | None = None, dtype: torch.dtype | None = None) -> Outcome:
    """Output, gradients, buffers and the state of random numbers after a training step."""
    generator = torch.Generator().manual_seed(0)
    size = (9, 10, 12) if isinstance(net, UNet3D) else (22, 17)
    image = torch.rand((2, 1, *size), generator=generator)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        out = (net if forward is None else forward)(image)
    (out.float() * torch.randn(out.shape, generator=generator)).sum().backward()
    gradients = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    return out.detach(), gradients, dict(net.named_buffers()), torch.get_rng_state()


def same(one: Outcome, other: Outcome) -> bool:
    """Bit for bit."""
    for a, b in zip(one[1:3], other[1:3], strict=True):
        assert a.keys() == b.keys()
        assert [n for n in a if not torch.equal(a[n], b[n])] == []
    return torch.equal(one[0], other[0]) and torch.equal(one[3], other[3])


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "autocast"])
def test_gradients_and_statistics_are_the_same(member: str, dtype: torch.dtype | None) -> None:
    net, other = pair(member)
    assert same(outcome(net, dtype=dtype), outcome(other, dtype=dtype))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own inductor
@pytest.mark.parametrize(
    ("member", "backend"),
    [
        ("RA-U-Net", "eager"),
        ("SAMUS", "eager"),
        ("RA-U-Net", "aot_eager"),
        ("U-Net BN", "aot_eager"),
        pytest.param("U-Net BN", "inductor", marks=pytest.mark.skipif(not which("g++"), reason="no C++ compiler")),
    ],
)
def test_compiled(member: str, backend: str) -> None:
    net, other = pair(member)
    compiled = torch.compile(other, backend=backend)
    for one, two in zip(outcome(net)[:3], outcome(other, compiled)[:3], strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_eager_backend_refuses_batch_norm() -> None:
    """It would count the statistics twice; docs/environment.md says so, and is to be corrected when this fails."""
    _, net = pair("U-Net BN")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outcome(net, torch.compile(net, backend="eager"))


@pytest.fixture
def process_group() -> Iterator[None]:
    """A distributed training of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("member", ["RA-U-Net", "U-Net BN", "SAMUS-HF", "literal gate"])
@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings("ignore:Grad strides do not match:UserWarning")  # maps are channels-last on CPUs alone
def test_distributed(member: str) -> None:
    net, other = pair(member)
    assert same(outcome(net), outcome(other, DistributedDataParallel(other)))


def test_gradients_accumulate_alike() -> None:
    net, other = pair("RA-U-Net")
    for _ in range(2):
        assert same(outcome(net), outcome(other))


def test_random_numbers_are_those_of_the_first_run() -> None:
    x = torch.ones(1000, requires_grad=True)
    torch.manual_seed(0)
    out = recomputed(nn.Dropout(), x, enabled=True)
    out.sum().backward()
    assert torch.equal(out, x.grad)


def test_nothing_is_recomputed_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_ext.architectures.memory.checkpoint", None)
    _, net = pair("SAMUS")
    with torch.no_grad():
        net(torch.rand(1, 1, 24, 24))


GIB = 2**30


def memory(build: Callable[[], nn.Module], shape: tuple[int, ...], recompute: bool, device: str = "meta") -> int:
    """The estimate of a step, with or without recomputation."""

    def prepared() -> nn.Module:
        net = build()
        set_recomputation(net, recompute)
        return net

    return training_memory(prepared, shape, device)


@pytest.mark.parametrize(
    ("row", "limit"), [("RA-U-Net", 1.9), ("U-Net+Res-block", 1.9), ("U-Net", 2.3), ("U-Net+Attention", 2.3)]
)
def test_the_liver_papers_batch_fits_small_cards(row: str, limit: float) -> None:
    shape = (2, 1, 512, 512)
    part = memory(test_raunet.ROWS[row], shape, True)
    assert part < limit * GIB
    assert part < 0.75 * memory(test_raunet.ROWS[row], shape, False)


def test_the_3d_batch_needs_three_quarters() -> None:
    shape = (2, 1, 64, 128, 128)
    assert memory(UNet3D, shape, True) < 0.77 * memory(UNet3D, shape, False)


@pytest.mark.parametrize("model", [SAMUS, SAMUSHF])
def test_the_ultrasound_papers_batch_fits_small_cards(model: type[SAMUS]) -> None:
    assert memory(lambda: PromptableSegmenter(model=model()), (4, 1, 256, 256), True) < 1.9 * GIB


def test_sam_holds_little_but_its_weights() -> None:
    """Its encoder is frozen: recomputing would spare what is not kept."""
    with torch.device("meta"):
        parameters = [(p.numel(), p.requires_grad) for p in SAM().parameters()]
    weights = sum(n * (16 if trained else 4) for n, trained in parameters)
    assert memory(lambda: PromptableSegmenter(model=SAM()), (4, 1, 256, 256), False) < weights + 64 * 2**20


@pytest.mark.parametrize("member", ["RA-U-Net", "U-Net BN", "SAMUS-HF"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_meta_device_counts_as_a_real_one(member: str, recompute: bool) -> None:
    shape = (2, 1, 64, 64)
    tiny = lambda: PromptableSegmenter(model=SAMUSHF(vit=VIT_TINY, image_size=64))  # noqa: E731
    build = {**RAUNET, "SAMUS-HF": tiny}[member]
    assert memory(build, shape, recompute) == pytest.approx(memory(build, shape, recompute, "cpu"), rel=0.05)


def test_estimate_of_a_step_counted_by_hand() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 1, 1, bias=False))

    pixels = 2 * 32 * 32
    maps = 1 + 8 + 1 + 1 + 8 + 8  # when ReLU is derived: input, its output, logits, their gradient, its two gradients
    weights, gradients, moments = 72 + 8, 8, 2 * (72 + 8)
    assert training_memory(build, (2, 1, 32, 32)) == 4 * (maps * pixels + weights + gradients + moments)


@pytest.mark.slow
def test_a_training_with_it_is_the_same(
    datasets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("NNUNET_EXT_SEED", "1")
    weights = []
    for value in "01":
        monkeypatch.setenv("NNUNET_EXT_RECOMPUTE", value)
        train("nnUNetTrainerUNetBN")
        weights.append(checkpoint(model_folder(datasets, "nnUNetTrainerUNetBN"))["network_weights"])
        assert ("GiB in fp32, with NNUNET_EXT_RECOMPUTE=1." in capsys.readouterr().out) == (value == "1")
    assert all(torch.equal(t, weights[1][name]) for name, t in weights[0].items())
