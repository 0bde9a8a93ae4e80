"""The high-frequency image against the paper's listing, and the gates that use it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import common
from torch import nn

from nnunet_ext.architectures.samus.high_frequency import (
    HighFrequencyGate,
    HighFrequencyImage,
    HighFrequencyStem,
    MultiScaleAttentionGate,
)
from nnunet_ext.architectures.samus.image_encoder import LayerNorm2d

WAVELETS = pywt.wavelist(kind="discrete")


def listing(image: np.ndarray, wavelet: str = "haar") -> np.ndarray:
    """What the paper prints, in the precision of `image`, divided by 255."""

    def to_255(a: np.ndarray) -> np.ndarray:
        return (a - a.min()) / (a.max() - a.min()) * 255

    _, bands = pywt.dwt2(image, wavelet)
    merged = to_255(sum(to_255(band) for band in bands))
    return cv2.resize(merged, image.shape[::-1], interpolation=cv2.INTER_LINEAR) / 255


def high_frequency(image: np.ndarray, **options: str) -> np.ndarray:
    return HighFrequencyImage(**options)(torch.from_numpy(image)[None, None]).numpy()[0, 0]


def image(*shape: int, seed: int = 0, dtype: type = np.float64) -> np.ndarray:
    """Speckle over a gradient, in [0, 1]."""
    rng = np.random.default_rng(seed)
    smooth = np.add.outer(*(np.linspace(0, 1, n) for n in shape))
    return ((smooth + rng.rayleigh(size=shape)) / 8).astype(dtype)


@pytest.mark.parametrize("shape", [(256, 256), (64, 48), (17, 31), (255, 256), (2, 3), (200, 301)])
def test_haar_is_the_listing_in_double_precision(shape: tuple[int, int]) -> None:
    x = image(*shape)
    np.testing.assert_allclose(high_frequency(x), listing(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4", "bior3.5", "coif1", "dmey"])
def test_single_precision_at_the_size_of_the_network(wavelet: str) -> None:
    """Also on an image that is scaled and shifted, as a normalisation would."""
    x = image(256, 256, dtype=np.float32)
    expected = listing(x.astype(np.float64), wavelet)
    np.testing.assert_allclose(high_frequency(x, wavelet=wavelet), expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(high_frequency(3 * x - 7, wavelet=wavelet), expected, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=60)
@given(
    wavelet=st.sampled_from(WAVELETS), height=st.integers(4, 70), width=st.integers(4, 70), seed=st.integers(0, 1000)
)
def test_random_wavelets_and_sizes(wavelet: str, height: int, width: int, seed: int) -> None:
    x = image(height, width, seed=seed)
    np.testing.assert_allclose(high_frequency(x, wavelet=wavelet), listing(x, wavelet), atol=1e-12, rtol=0)


def test_intensity_scale_is_of_no_account() -> None:
    x = image(64, 64)
    np.testing.assert_allclose(high_frequency(x), high_frequency(x * 40 - 1000), atol=1e-11, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, 255.0, -1000.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wavelet", ["haar", "db4"])
@pytest.mark.parametrize("normalization", ["minmax", "percentile"])
def test_constant_images(value: float, dtype: type, wavelet: str, normalization: str) -> None:
    constant = np.full((33, 20), value, dtype=dtype)
    assert not high_frequency(constant, wavelet=wavelet, normalization=normalization).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bands_without_variation(dtype: type) -> None:
    """Stripes have one band; what rounding leaves in the other two must not be stretched to the whole range."""
    stripes = np.tile(image(1, 64, dtype=dtype) * 0.1 + 0.3, (64, 1))
    out = high_frequency(stripes, wavelet="db3")
    assert (np.ptp(out, axis=0) < 1e-4).all()
    assert np.ptp(out) > 0.5


def test_single_pixels_and_lines() -> None:
    for shape in ((1, 1), (1, 9), (9, 1)):
        assert np.isfinite(high_frequency(image(*shape))).all()


def test_images_of_a_batch_are_independent() -> None:
    batch = torch.stack([torch.from_numpy(image(32, 32, seed=s))[None] * 10**s for s in range(3)])
    net = HighFrequencyImage()
    torch.testing.assert_close(net(batch), torch.cat([net(x[None]) for x in batch]))


def test_percentiles_keep_contrast_beside_padding() -> None:
    """Bright tissue in a frame of zeros: min-max gives nearly the whole range to the frame's edge."""
    x = np.zeros((128, 128))
    x[9:-9, 9:-9] = 1 + image(110, 110) / 4
    inner = slice(20, -20), slice(20, -20)
    minmax, percentile = high_frequency(x)[inner], high_frequency(x, normalization="percentile")[inner]
    assert percentile.std() > 3 * minmax.std()
    np.testing.assert_allclose(high_frequency(x), listing(x), atol=1e-12, rtol=0)


def test_percentiles_by_their_definition() -> None:
    x = image(64, 64)

    def stretch(a: np.ndarray) -> np.ndarray:
        low, high = np.percentile(a, [2, 98])
        return np.clip((a - low) / (high - low), 0, 1)

    merged = stretch(sum(stretch(band) for band in pywt.dwt2(x, "haar")[1]))
    expected = cv2.resize(merged, x.shape[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(high_frequency(x, normalization="percentile"), expected, atol=1e-12, rtol=0)


def test_autocast_and_half_precision_images() -> None:
    x = torch.from_numpy(image(64, 64, dtype=np.float32))[None, None].requires_grad_()
    net = HighFrequencyImage(wavelet="db2")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x)
    assert torch.equal(out, net(x))
    assert not out.requires_grad
    assert net(x.half()).dtype == torch.float32
    assert torch.equal(net(x.half()), net(x.half().float()))


@pytest.mark.parametrize("options", [{}, {"wavelet": "db4"}, {"normalization": "percentile"}])
def test_export(options: dict[str, str]) -> None:
    net, x = HighFrequencyImage(**options), torch.from_numpy(image(33, 40, dtype=np.float32))[None, None]
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x))


def test_state_dict_stays_empty() -> None:
    assert not HighFrequencyImage().state_dict()


@pytest.mark.parametrize("options", [{"wavelet": "morl"}, {"wavelet": "nothing"}, {"normalization": "zscore"}])
def test_unknown_options(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(options.values()))):
        HighFrequencyImage(**options)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_parameters() -> None:
    with torch.device("meta"):
        stem, gate = HighFrequencyStem(), HighFrequencyGate(channels=768, hidden=128, hf_channels=128)
        assert (count(stem), count(stem) + count(gate)) == (97_392, 1_213_936)


@pytest.mark.parametrize(
    ("channels", "parameters"), [(64, 90_880), (128, 361_984), (256, 1_444_864), (768, 12_985_344)]
)
def test_parameters_of_the_literal_gate(channels: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(MultiScaleAttentionGate(channels)) == parameters


def test_layer_norm_is_that_of_segment_anything() -> None:
    torch.manual_seed(0)
    ours, theirs = LayerNorm2d(12), common.LayerNorm2d(12)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs.load_state_dict(ours.state_dict())
    assert ours.eps == theirs.eps
    x = torch.randn(2, 12, 5, 7) * 3 + 1
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(ours(x.to(memory_format=memory_format)), theirs(x), rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(x)
    gradients = [torch.autograd.grad((net(x) * weights).sum(), net.parameters()) for net in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_stem_arrives_at_an_eighth() -> None:
    assert HighFrequencyStem(features=(2, 3, 4, 5))(torch.rand(2, 1, 40, 27)).shape == (2, 5, 5, 3)


@pytest.fixture
def gate() -> HighFrequencyGate:
    torch.manual_seed(0)
    return HighFrequencyGate(channels=24, hidden=8, hf_channels=6)


def maps(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """(c, h) for `gate`."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 24, 9, 7, generator=generator), torch.randn(batch, 6, 9, 7, generator=generator)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gate_begins_as_the_identity(gate: HighFrequencyGate, memory_format: torch.memory_format) -> None:
    c, h = (x.to(memory_format=memory_format) for x in maps())
    assert torch.equal(gate(c, h), c)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gate(c, h), c)


def test_gradients_of_the_first_step(gate: HighFrequencyGate) -> None:
    """Vote and injection learn from the first step on; what lies before them follows in the second."""
    c, h = maps()
    h.requires_grad_()
    optimizer = torch.optim.SGD(gate.parameters(), lr=0.1)
    (gate(c, h) * torch.randn_like(c)).sum().backward()
    zero_initialised = {f"{name}.{kind}" for name in ("vote", "inject") for kind in ("weight", "bias")}
    assert {name for name, p in gate.named_parameters() if p.grad.any()} == zero_initialised
    assert not h.grad.any()
    optimizer.step()
    gate(c, h).square().sum().backward()
    assert all(p.grad.any() for p in gate.parameters())
    assert h.grad.any()


def test_gate_suppresses_and_enhances(gate: HighFrequencyGate) -> None:
    c, h = maps()
    for bias, factor in ((-30.0, 0.0), (30.0, 2.0)):
        nn.init.constant_(gate.vote.bias, bias)
        torch.testing.assert_close(gate(c, h), factor * c)


def test_gate_is_the_formula(gate: HighFrequencyGate) -> None:
    for parameter in gate.parameters():
        nn.init.normal_(parameter, std=0.2)
    c, h = maps()
    f = torch.cat([nn.functional.conv2d(c, gate.reduce.weight, gate.reduce.bias), h], dim=1)
    branches = []
    for (conv, norm, _), (padding, dilation) in zip(gate.branches, ((0, 1), (1, 1), (2, 2)), strict=True):
        y = nn.functional.conv2d(f, conv.weight, padding=padding, dilation=dilation)
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        y = y * norm.weight[:, None, None] + norm.bias[:, None, None]
        branches.append(0.5 * y * (1 + torch.erf(y / 2**0.5)))
    vote = nn.functional.conv2d(torch.cat(branches, dim=1), gate.vote.weight, gate.vote.bias)
    expected = c * 2 / (1 + torch.exp(-vote)) + nn.functional.conv2d(h, gate.inject.weight, gate.inject.bias)
    torch.testing.assert_close(gate(c, h), expected)


def test_literal_gate_is_the_formula() -> None:
    torch.manual_seed(0)
    gate, x = MultiScaleAttentionGate(4), torch.randn(2, 4, 6, 5)

    def norm(t: torch.Tensor) -> torch.Tensor:
        centred = t - t.mean((0, 2, 3), keepdim=True)
        return centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()

    branches = [
        norm(nn.functional.conv2d(x, conv.weight, conv.bias, padding=padding, dilation=dilation))
        for (conv, _), (padding, dilation) in zip(gate.branches, ((0, 1), (1, 1), (2, 2)), strict=True)
    ]
    conv = gate.vote[1]
    w = torch.sigmoid(norm(nn.functional.conv2d(torch.cat(branches, 1).clamp(min=0), conv.weight, conv.bias)))
    torch.testing.assert_close(gate(x), x + x * w)


@pytest.mark.parametrize("literal", [False, True])
def test_gates_export_and_autocast(gate: HighFrequencyGate, literal: bool) -> None:
    c, h = maps()
    net, arguments = (MultiScaleAttentionGate(24).eval(), (c,)) if literal else (gate.eval(), (c, h))
    exported = torch.export.export(net, arguments).module()
    torch.testing.assert_close(exported(*arguments), net(*arguments))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(*arguments).isfinite().all()
