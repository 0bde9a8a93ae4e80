"""The fast modules compute what the plain composition computes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from nnunet_ext.architectures.raunet import UNet, UNet3D, fast
from nnunet_ext.architectures.raunet.fast import accelerate

SMALL: dict[str, Any] = {"features": (16, 32, 64), "groups": 8}
VARIANTS = [
    pytest.param(UNet, {"block": block, "gates": gates, **SMALL}, id=f"{block}-{'gates' if gates else 'no gates'}")
    for block in ("double", "bottleneck")
    for gates in (False, True)
] + [
    pytest.param(UNet, {"num_3x3": 1, "in_channels": 2, "out_channels": 3, "binary": False, **SMALL}, id="3 classes"),
    pytest.param(UNet3D, SMALL, id="3d"),
]


@pytest.fixture(autouse=True)
def _small_maps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fast code on maps that would be left to plain code; one thread, since several only wait for each other."""
    monkeypatch.setattr(fast, "FEWEST_PIXELS", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pair(cls: type[nn.Module], options: dict[str, Any], dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """The same network, plain and fast."""
    torch.manual_seed(0)
    plain = cls(**options).to(dtype)
    for p in plain.parameters():  # norms that do something
        if p.dim() == 1:
            nn.init.normal_(p, 0.5, 0.5)
    return plain, accelerate(copy.deepcopy(plain))


def image(cls: type[nn.Module], options: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    size = (37, 42) if cls is UNet else (9, 10, 13)
    return torch.randn(2, options.get("in_channels", 1), *size, dtype=dtype)


def outcome(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output and the gradients of image and parameters."""
    x = x.clone().requires_grad_()
    y = net(x)
    net.zero_grad()
    (y * torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in net.parameters())]


def error(got: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Largest relative difference of a tensor.

    The gradients of the gates' convolution biases are zero but for rounding where each channel has a norm of its own.
    """
    pairs = list(zip(got, expected, strict=True))
    assert all(g.norm() < 1e-3 for g, e in pairs if e.norm() < 1e-9)
    return max(((g - e).norm() / e.norm()).item() for g, e in pairs if e.norm() >= 1e-9)


@pytest.mark.parametrize(("cls", "options"), VARIANTS)
def test_equals_plain_in_double(cls: type[nn.Module], options: dict[str, Any]) -> None:
    plain, quick = pair(cls, options, torch.double)
    x = image(cls, options, torch.double)
    assert error(outcome(quick, x), outcome(plain, x)) < 1e-9


@pytest.mark.parametrize(("cls", "options"), VARIANTS)
def test_rounds_no_worse_than_plain_in_single(cls: type[nn.Module], options: dict[str, Any]) -> None:
    plain, quick = pair(cls, options, torch.float)
    x = image(cls, options, torch.float)
    exact = [t.float() for t in outcome(copy.deepcopy(plain).double(), x.double())]
    got, expected = outcome(quick, x), outcome(plain, x)
    assert (got[0] - expected[0]).abs().max() <= 1e-5 * expected[0].abs().max()
    assert error(got, exact) <= max(3e-5, 3 * error(expected, exact))


def test_paper_widths() -> None:
    """Outputs in float32; gradients in float64.

    In float32 a ReLU whose input is zero but for rounding goes either way, which moves the gradients of deep layers by
    percents, also between torch's own two memory layouts.
    """
    torch.manual_seed(0)
    plain = UNet()
    quick = accelerate(copy.deepcopy(plain))
    x = torch.randn(2, 1, 32, 48)
    with torch.no_grad():
        got, expected = quick(x), plain(x)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    x = x.double()
    assert error(outcome(quick.double(), x), outcome(plain.double(), x)) < 1e-9


@pytest.mark.parametrize("block", ["double", "bottleneck"])
def test_gradcheck(block: str) -> None:
    torch.manual_seed(0)
    net = accelerate(UNet(block=block, features=(8, 16), groups=4).double())
    x = torch.randn(2, 1, 5, 6, dtype=torch.double, requires_grad=True)
    names, parameters = zip(*net.named_parameters(), strict=True)

    def function(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), x)

    values = [p.detach().requires_grad_() for p in parameters]
    assert torch.autograd.gradcheck(function, (x, *values), fast_mode=True)


def test_offset_far_larger_than_contrast() -> None:
    """An offset of a hundred times the contrast costs a hundredfold of precision, not more."""
    torch.manual_seed(0)
    plain = UNet(features=(16, 32), gates=False)
    quick = accelerate(copy.deepcopy(plain))
    x = torch.randn(1, 1, 32, 32) + 100
    exact = copy.deepcopy(plain).double()(x.double()).float()
    assert (quick(x) - exact).abs().max() <= 5e-4 * exact.abs().max()


def test_same_state_dict_and_back() -> None:
    plain, quick = pair(UNet, SMALL, torch.float)
    assert list(quick.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in quick.named_modules()] == [n for n, _ in plain.named_modules()]
    assert type(quick.encoder[0]) is fast.FastBottleneckResidual
    quick.load_state_dict(plain.state_dict())
    accelerate(quick, enabled=False)
    assert [type(m) for m in quick.modules()] == [type(m) for m in plain.modules()]


def test_backward_twice() -> None:
    _, quick = pair(UNet, SMALL, torch.double)
    y = quick(image(UNet, SMALL, torch.double)).sum()
    first = torch.autograd.grad(y, list(quick.parameters()), retain_graph=True)
    second = torch.autograd.grad(y, list(quick.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_frozen_parameters_stay_without_gradient() -> None:
    plain, quick = pair(UNet, SMALL, torch.double)
    x = image(UNet, SMALL, torch.double)
    for net in (plain, quick):
        net.encoder[0].requires_grad_(False)
        net.gates[0].psi.requires_grad_(False)
        net(x).sum().backward()
    assert [p.grad is None for p in quick.parameters()] == [p.grad is None for p in plain.parameters()]


def test_no_grad_eval_deepcopy_pickle() -> None:
    plain, quick = pair(UNet, SMALL, torch.double)
    x = image(UNet, SMALL, torch.double)
    with torch.no_grad():
        expected = plain.eval()(x)
        for net in (quick.eval(), copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
            torch.testing.assert_close(net(x), expected)


def test_batch_norm_runs_plain() -> None:
    options = {"norm": "batch", **SMALL}
    plain, quick = pair(UNet, options, torch.double)
    x = image(UNet, options, torch.double)
    assert error(outcome(quick, x), outcome(plain, x)) < 1e-9
    torch.testing.assert_close(quick.encoder[0].reduce.norm.running_mean, plain.encoder[0].reduce.norm.running_mean)


@pytest.mark.filterwarnings("ignore")
def test_whoever_transforms_code_sees_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    _, quick = pair(UNet, SMALL, torch.float)
    x = torch.randn(1, 1, 16, 16)
    expected = quick(x)
    for function in (fast.Block, fast.Gate, fast.Pool):
        monkeypatch.setattr(function, "apply", None)
    traced = torch.jit.trace(quick, x, check_trace=False)
    exported = torch.export.export(quick, (x,)).module()
    compiled = torch.compile(quick, backend="eager", fullgraph=True)
    for net in (traced, exported, compiled):
        torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("block", ["double", "bottleneck"])
def test_autocast(block: str) -> None:
    plain, quick = pair(UNet, {"block": block, **SMALL}, torch.float)
    x = image(UNet, SMALL, torch.float)
    exact = plain(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = quick(x)
        rough = plain(x)
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float and p.grad.isfinite().all() for p in quick.parameters())
    assert (y.float() - exact).norm() <= 2 * (rough.float() - exact).norm()


def held(net: nn.Module, x: torch.Tensor) -> int:
    """Bytes kept for the backward."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = net(x)
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    del y
    return sum(s.nbytes() for pointer, s in storages.items() if pointer not in own)


def test_keeps_less_than_seven_tenths() -> None:
    torch.manual_seed(0)
    plain = UNet(features=(16, 32, 64))
    x = torch.randn(2, 1, 128, 128)
    plain_bytes = held(plain, x)
    assert held(accelerate(plain), x) <= 0.7 * plain_bytes


def test_small_maps_are_left_to_plain_code(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, quick = pair(UNet, SMALL, torch.float)
    x = torch.rand(2, 1, 8, 8)
    for fewest, same in ((0, False), (2 * 8 * 8 + 1, True)):
        monkeypatch.setattr(fast, "FEWEST_PIXELS", fewest)
        names = [type(g[0]).__name__ for g in graph(quick(x).grad_fn)]
        assert any("BlockBackward" in n for n in names) != same
    torch.testing.assert_close(quick(x), plain(x))


@pytest.mark.parametrize("size", [64, 150])
def test_outputs_of_large_maps(size: int) -> None:
    """Sums over many pixels keep their digits, also on one thread."""
    torch.manual_seed(0)
    plain = UNet(features=(16, 32))
    quick = accelerate(copy.deepcopy(plain))
    x = torch.rand(1, 1, size, size)
    expected = plain(x)
    assert (quick(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def graph(node: object) -> Iterator[tuple]:
    """All nodes of an autograd graph."""
    seen, todo = set(), [node]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield (node,)
            todo += [n for n, _ in node.next_functions]
