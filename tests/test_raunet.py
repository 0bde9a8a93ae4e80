"""The networks of the liver paper."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from contract import Build, NetworkContract

from nnunet_ext.architectures.raunet import AttentionGate, BottleneckResidual, UNet, UNet3D, UShape, normalization

SMALL = (16, 32, 64)

ROWS = {
    "U-Net": partial(UNet, block="double", gates=False),
    "U-Net+Attention": partial(UNet, block="double", gates=True),
    "U-Net+Res-block": partial(UNet, gates=False),
    "RA-U-Net": UNet,
    "RA-U-Net literal": partial(UNet, num_3x3=1),
    "U-Net BN": partial(UNet, block="double", gates=False, norm="batch"),
    "RA-U-Net 8 groups": partial(UNet, groups=8),
}


class RAUNetContract(NetworkContract):
    """What holds for networks with a 1x1 convolution as head."""

    def test_binary_needs_two_channels(self, build: Build) -> None:
        with pytest.raises(ValueError, match="2 channels, not 3"):
            build(out_channels=3, binary=True)

    def test_any_number_of_channels(self, build: Build) -> None:
        net = build(in_channels=2, out_channels=4, binary=False)
        assert net(self.image(channels=2)).shape == (2, 4, *self.sizes[0])


@pytest.mark.parametrize("member", ROWS)
class TestContract2D(RAUNetContract):
    members = {name: partial(row, features=SMALL) for name, row in ROWS.items()}
    sizes = ((24, 20), (17, 31), (1, 9), (16, 16))


@pytest.mark.parametrize("member", ["3D U-Net"])
class TestContract3D(RAUNetContract):
    members = {"3D U-Net": partial(UNet3D, features=SMALL)}
    dim = 3
    sizes = ((8, 12, 12), (5, 9, 11), (1, 8, 8))


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("net", "parameters", "paper_millions"),
    [
        (ROWS["U-Net"], 31_036_481, 31.04),
        (ROWS["U-Net+Attention"], 31_388_005, 31.39),
        (ROWS["U-Net+Res-block"], 6_942_609, 6.94),
        (ROWS["RA-U-Net"], 7_294_133, 7.29),
        (ROWS["RA-U-Net literal"], 6_311_157, None),
        (partial(UNet, num_3x3=1, gates=False), 5_959_633, None),
        (UNet3D, 4_769_457, None),
        (partial(UNet3D, features=(64, 128, 256, 512)), 19_071_329, None),
    ],
)
def test_parameters(net, parameters: int, paper_millions: float | None) -> None:
    with torch.device("meta"):
        assert count(net()) == parameters
    if paper_millions is not None:
        assert round(parameters / 1e6, 2) == paper_millions


@pytest.mark.parametrize(("channels", "parameters"), [(512, 263_937), (256, 66_433), (128, 16_833), (64, 4_321)])
def test_gate_parameters(channels: int, parameters: int) -> None:
    assert count(AttentionGate(channels)) == parameters


@pytest.mark.parametrize(("i", "o", "parameters"), [(1, 64, 6_064), (512, 1024, 2_102_784), (128, 64, 16_224)])
def test_bottleneck_parameters(i: int, o: int, parameters: int) -> None:
    assert count(BottleneckResidual(i, o)) == parameters


def test_gate_is_the_formula() -> None:
    """x * sigmoid(psi(ReLU(norm(W_g g) + norm(W_x x)))), written out with matrix products."""
    torch.manual_seed(0)
    gate = AttentionGate(8)
    g, x = torch.randn(2, 2, 8, 5, 7)

    def linear(conv: torch.nn.Module, t: torch.Tensor) -> torch.Tensor:
        return torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], t) + conv.bias[None, :, None, None]

    def instance_norm(t: torch.Tensor) -> torch.Tensor:  # min(32, 4) groups of 4 channels: one channel a group
        centred = t - t.mean((2, 3), keepdim=True)
        return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()

    summed = instance_norm(linear(gate.gating.conv, g)) + instance_norm(linear(gate.skip.conv, x))
    expected = x * torch.sigmoid(linear(gate.psi, summed.clamp(min=0)))
    torch.testing.assert_close(gate(g, x), expected)


@pytest.mark.parametrize(("channels", "groups"), [(16, 16), (32, 32), (64, 32), (1024, 32)])
def test_groups(channels: int, groups: int) -> None:
    assert normalization("group", channels).num_groups == groups


def test_groups_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="divisible"):
        normalization("group", 48)


@pytest.mark.parametrize("row", ROWS)
def test_channels_last_is_the_same_function(row: str) -> None:
    """On CPUs maps are channels-last; neither the function nor the state dict knows."""
    net = ROWS[row](features=SMALL).double()
    image = torch.rand(2, 1, 24, 20, dtype=torch.double)
    seen: list[torch.Tensor] = []
    net.decoder[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    torch.testing.assert_close(net(image), UShape.forward(net, image))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert seen[1].is_contiguous()
    assert all(t.is_contiguous() for t in net.state_dict().values())
