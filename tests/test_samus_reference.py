"""The plain SAMUS against the official code: names, counts, outputs, gradients."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from samus_numbers import gradient_errors, numbers, output_errors, thin
from samus_reference import TINY, ReferenceSAMUS, WindowBlock, is_trained, official_loss
from samus_weights import Batch, fill_, gradient_norms, intermediates, official_keys, tensor
from torch import nn

pytestmark = pytest.mark.xdist_group("samus_reference")  # the outputs at full size are computed once
Results = tuple[dict[str, torch.Tensor], dict[str, float]]


def results(net: nn.Module, batch: Batch) -> Results:
    """Intermediates and gradient norms on deterministic weights."""
    outputs = intermediates(fill_(net), batch)
    return outputs, gradient_norms(net, batch, outputs["low_res_logits"])


@pytest.fixture(scope="module")
def vit_b() -> Results:
    """At full size: 3 GB and about half a minute."""
    return results(ReferenceSAMUS(), Batch())


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
    outputs, norms = results(ReferenceSAMUS(**TINY), Batch(TINY["image_size"]))
    expected = numbers("tiny")
    assert max(output_errors(outputs, expected["outputs"]).values()) < 1e-5
    assert max(gradient_errors(norms, expected["gradient_norms"]).values()) < 1e-3
    assert norms.keys() == expected["gradient_norms"].keys()


def test_official_samples(vit_b: Results) -> None:
    """The small part of the official numbers that the repository holds."""
    outputs, norms = vit_b
    expected = numbers("vit_b")
    assert max(output_errors(outputs, expected["outputs"]).values()) < 1e-5
    assert max(gradient_errors(norms, expected["gradient_norms"]).values()) < 1e-3
    assert norms.keys() == expected["gradient_norms"].keys()


def test_official_outputs(vit_b: Results, samus_oracle: Path) -> None:
    """All values that the official code's run left behind."""
    outputs, _ = vit_b
    arrays, batch = np.load(samus_oracle / "outputs.npz"), Batch()
    names = ("image", "click_xy", "click_label", "low_res_mask")
    for name, ours in zip(names, (batch.image, batch.points_xy, batch.point_labels, batch.mask), strict=True):
        np.testing.assert_array_equal(arrays[name], ours)
    errors = {}
    for part, t in outputs.items():
        known = arrays[part if part in arrays else f"at_{part}"]
        errors[part] = np.abs(thin(part, t).numpy() - known).max() / np.abs(known).max()
    assert len(errors) == 17
    assert max(errors.values()) < 1e-5
    assert official_loss(outputs["low_res_logits"], batch.mask).item() == pytest.approx(float(arrays["loss"]), rel=1e-5)
    assert json.loads((samus_oracle / "grad_norms.json").read_text()) == numbers("vit_b")["gradient_norms"]


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
