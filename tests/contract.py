"""The contract that every network of this package keeps; a test class per family lists its members."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn

Build = Callable[..., nn.Module]


class NetworkContract:
    """Subclass, parametrise with `member`, and set `members`.

    `members` is {name: build(in_channels=, out_channels=, binary=)}, each small enough to be quick.
    """

    members: dict[str, Build]
    dim: int = 2
    sizes: tuple[tuple[int, ...], ...]

    @pytest.fixture
    def build(self, member: str) -> Build:
        """The member's constructor."""
        return self.members[member]

    def image(self, batch: int = 2, channels: int = 1, size: tuple[int, ...] | None = None) -> torch.Tensor:
        """A reproducible input."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand((batch, channels, *(size or self.sizes[0])), generator=generator)

    def test_any_size(self, build: Build) -> None:
        net = build()
        for size in self.sizes:
            assert net(self.image(size=size)).shape == (2, 2, *size)

    @pytest.mark.parametrize(
        ("channels", "heads", "binary"), [(1, 2, True), (1, 2, False), (3, 1, False), (3, 4, False)]
    )
    def test_channels_and_heads(self, build: Build, channels: int, heads: int, binary: bool) -> None:
        out = build(in_channels=channels, out_channels=heads, binary=binary)(self.image(channels=channels))
        assert out.shape == (2, heads, *self.sizes[0])
        assert bool((out[:, 0] == 0).all()) == binary  # the background logit of [0, z]

    def test_every_trainable_parameter_gets_a_gradient(self, build: Build) -> None:
        net = build()
        target = (self.image() > 0.5).float()
        nn.functional.binary_cross_entropy_with_logits(net(self.image())[:, 1:], target).backward()
        without = [n for n, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
        assert not without

    def test_state_dict_round_trip(self, build: Build) -> None:
        net, other = build().eval(), build().eval()
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(net(self.image()), other(self.image()))

    def test_evaluation_is_deterministic_and_fresh(self, build: Build) -> None:
        """nnU-Net adds mirrored predictions to the returned tensor in place."""
        net = build().eval()
        with torch.no_grad():
            first = net(self.image())
            expected = first.clone()
            first += 1
            assert torch.equal(net(self.image()), expected)

    def test_images_of_a_batch_do_not_see_each_other(self, build: Build) -> None:
        net = build().eval()
        with torch.no_grad():
            together = net(self.image(batch=3))
            alone = torch.cat([net(self.image(batch=3)[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)

    def test_autocast_keeps_the_output_finite(self, build: Build) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = build()(self.image())
        assert out.isfinite().all()

    @pytest.mark.slow
    def test_export(self, build: Build) -> None:
        net = build().eval()
        exported = torch.export.export(net, (self.image(),))
        torch.testing.assert_close(exported.module()(self.image()), net(self.image()), rtol=1e-4, atol=1e-5)

    def test_deepcopy(self, build: Build) -> None:
        net = build().eval()
        assert torch.equal(copy.deepcopy(net)(self.image()), net(self.image()))

    def test_segmentation_layer_is_what_transfer_leaves_out(self, build: Build) -> None:
        """nnU-Net's -pretrained_weights skips keys with `.seg_layers.`: all that depends on the number of classes."""
        few, many = build(out_channels=2, binary=False).state_dict(), build(out_channels=5, binary=False).state_dict()
        differing = {k for k in few if few[k].shape != many[k].shape}
        assert differing
        assert all(".seg_layers." in k for k in differing)
