"""Recomputation changes memory and time and nothing else; the estimate of memory is what autograd holds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import test_raunet
import test_samus
import torch
from test_trainers import checkpoint, model_folder, train
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.architectures.memory import recomputed, saved_activations, set_recomputation, training_memory
from nnunet_ext.architectures.raunet import UNet, UNet3D
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


@pytest.mark.parametrize(
    ("member", "backend"),
    [("RA-U-Net", "eager"), ("SAMUS", "eager"), ("RA-U-Net", "aot_eager"), ("U-Net BN", "aot_eager")],
)
def test_compiled(member: str, backend: str) -> None:
    net, other = pair(member)
    compiled = torch.compile(other, backend=backend)
    for one, two in zip(outcome(net)[:3], outcome(other, compiled)[:3], strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


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


def kept(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> float:
    """Activations with recomputation over those without."""
    with torch.device("meta"):
        net = build()
    whole = saved_activations(net, shape)
    set_recomputation(net, True)
    part = saved_activations(net, shape)
    assert part.kept + part.recomputed < whole.kept
    return part.kept / whole.kept


@pytest.mark.parametrize("row", test_raunet.ROWS)
def test_the_liver_papers_batch_keeps_half(row: str) -> None:
    assert kept(test_raunet.ROWS[row], (2, 1, 512, 512)) <= 0.55


def test_the_3d_batch_keeps_half() -> None:
    assert kept(UNet3D, (2, 1, 64, 128, 128)) <= 0.55


@pytest.mark.parametrize("model", [SAMUS, SAMUSHF])
def test_the_ultrasound_papers_batch_keeps_half(model: type[SAMUS]) -> None:
    assert kept(lambda: PromptableSegmenter(model=model()), (4, 1, 256, 256)) <= 0.55


def test_sam_keeps_next_to_nothing_anyway() -> None:
    """Its encoder is frozen: recomputing would spare what is not kept."""
    with torch.device("meta"):
        assert saved_activations(PromptableSegmenter(model=SAM()), (4, 1, 256, 256)).kept < 64 * 2**20


@pytest.mark.parametrize("member", ["RA-U-Net", "U-Net BN", "SAMUS-HF"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_meta_device_counts_as_a_real_one(member: str, recompute: bool) -> None:
    shape = (2, 1, 64, 64)
    net = MEMBERS[member]()
    set_recomputation(net, recompute)
    real = saved_activations(net, shape)
    estimate = saved_activations(copy.deepcopy(net).to("meta"), shape)
    assert estimate == pytest.approx(real, rel=0.02)
    assert (real.recomputed > 0) == recompute


def test_estimate_of_a_step() -> None:
    def build(recompute: bool) -> nn.Module:
        net = UNet(features=test_raunet.SMALL)
        set_recomputation(net, recompute)
        return net

    shape = (2, 1, 40, 40)
    for recompute in (False, True):
        net = build(recompute)
        expected = sum(saved_activations(net, shape)) + 16 * test_raunet.count(net)
        assert training_memory(lambda recompute=recompute: build(recompute), shape) == expected


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


def test_memory_of_the_paper_is_the_measured_one() -> None:
    """Saved activations of a batch of two 512x512 slices: 3.38 GiB for RA-U-Net."""
    with torch.device("meta"):
        assert saved_activations(UNet(), (2, 1, 512, 512)).kept / 2**30 == pytest.approx(3.38, abs=0.01)
