"""The plain SAMUS, and the weights on which it is compared: names, counts, blocks, numbers of a tiny one."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import pytest
import torch
from samus_numbers import gradient_errors, numbers, output_errors
from samus_reference import TINY, ReferenceSAMUS, WindowBlock, is_trained
from samus_weights import Batch, fill_, gradient_norms, intermediates, official_keys, tensor
from torch import nn


def test_parameters() -> None:
    with torch.device("meta"):
        net = ReferenceSAMUS()
    assert sum(p.numel() for p in net.parameters()) == 133_323_568
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 39_653_120


def test_official_names(samus_oracle: Path) -> None:
    with open(samus_oracle / "keys.tsv", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert official_keys() == {name: tuple(map(int, shape.split("x"))) for name, shape, _ in rows}
    assert all(is_trained(name) == (trained == "1") for name, _, trained in rows)


def test_tiny() -> None:
    net, batch, expected = fill_(ReferenceSAMUS(**TINY)), Batch(TINY["image_size"]), numbers("tiny")
    outputs = intermediates(net, batch)
    norms = gradient_norms(net, batch, outputs["low_res_logits"])
    assert max(output_errors(outputs, expected["outputs"]).values()) < 1e-5
    assert max(gradient_errors(norms, expected["gradient_norms"]).values()) < 1e-3
    assert norms.keys() == expected["gradient_norms"].keys()


def test_window_block_is_sams() -> None:
    """Relative positions and zero-padded windows as segment_anything has them."""
    from segment_anything.modeling.image_encoder import Block

    sams = Block(48, 2, norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=5, input_size=(5, 5))
    ours = fill_(WindowBlock(48, 2, window=5), prefix="image_encoder.blocks.0.")
    sams.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 8, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x, x)[0], sams(x))


def test_fill_keeps_what_it_is_not_asked_for() -> None:
    layer = nn.Linear(3, 2)
    before = layer.bias.clone()
    fill_(layer, prefix="neck.", keys=["neck.weight"])
    assert torch.equal(layer.bias, before)
    assert torch.equal(layer.weight, tensor("neck.weight", (2, 3)))
    with pytest.raises(KeyError):
        fill_(layer, keys=["neck.weight"])
