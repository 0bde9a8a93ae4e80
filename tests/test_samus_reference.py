"""The plain SAMUS against the official code: names, counts, outputs, gradients."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from samus_numbers import DEAD, gradient_errors, numbers, output_errors, thin
from samus_reference import TINY, ReferenceSAMUS, WindowBlock, is_trained, official_loss
from samus_weights import Batch, fill_, gradient_norms, intermediates, official_keys, tensor
from torch import nn

pytestmark = pytest.mark.xdist_group("samus_reference")  # the outputs at full size are computed once
# On the oracle's weights the decoder is known no better than this (see `samus_weights`).
LOGITS, GRADIENTS = 0.02, 0.1


@pytest.fixture(scope="module")
def vit_b() -> ReferenceSAMUS:
    """At full size on the oracle's weights."""
    return fill_(ReferenceSAMUS(), oracle=True)


@pytest.fixture(scope="module")
def outputs(vit_b: ReferenceSAMUS) -> dict[str, torch.Tensor]:
    """All intermediates: 1.5 GB and 15 seconds of one core."""
    return intermediates(vit_b, Batch())


def check_official(errors: dict[str, float]) -> None:
    """All parts of the encoder and the logits are there and agree."""
    assert len(errors) == 17
    assert errors.pop("low_res_logits") < LOGITS
    assert max(errors.values()) < 1e-5


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


def test_samples_of_official_outputs(outputs: dict[str, torch.Tensor]) -> None:
    """The small part of the official numbers that the repository holds."""
    check_official(output_errors(outputs, numbers("official")["outputs"]))


def test_official_outputs(outputs: dict[str, torch.Tensor], samus_oracle: Path) -> None:
    """All values that the official code's run left behind, and what it was run on."""
    arrays, batch = np.load(samus_oracle / "outputs.npz"), Batch()
    names = ("image", "click_xy", "click_label", "low_res_mask")
    for name, ours in zip(names, (batch.image, batch.points_xy, batch.point_labels, batch.mask), strict=True):
        np.testing.assert_array_equal(arrays[name], ours)
    errors = {}
    for part, t in outputs.items():
        known = arrays[part if part in arrays else f"at_{part}"]
        errors[part] = np.abs(thin(part, t).numpy() - known).max() / np.abs(known).max()
    check_official(errors)
    loss = official_loss(torch.from_numpy(arrays["low_res_logits"]), batch.mask)
    assert loss.item() == pytest.approx(float(arrays["loss"]), rel=1e-6)


def test_official_gradients(vit_b: ReferenceSAMUS, outputs: dict[str, torch.Tensor], samus_oracle: Path) -> None:
    """What the decoder hands to the encoder is uncertain by a factor; given that, the gradients agree."""
    official = json.loads((samus_oracle / "grad_norms.json").read_text())
    norms = gradient_norms(vit_b, Batch(), outputs["low_res_logits"])
    assert norms.keys() == official.keys()
    ratios = np.array([norms[name] / known for name, known in official.items() if not name.endswith(DEAD)])
    assert np.median(ratios) == pytest.approx(1, abs=GRADIENTS)
    np.testing.assert_allclose(ratios / np.median(ratios), 1, atol=0.01)
    assert official == numbers("official")["gradient_norms"]


def test_full_size_on_calm_weights(outputs: dict[str, torch.Tensor]) -> None:
    """The encoder's weights are the oracle's, so only the decoder needs to run again."""
    decoder, batch = fill_(ReferenceSAMUS(depth=0)), Batch()
    decoder.image_encoder = nn.Identity()
    low_res = decoder.predict_low_res(outputs["neck"], batch.points_xy, batch.point_labels)
    assert max(output_errors(outputs | {"low_res_logits": low_res}, numbers("vit_b")["outputs"]).values()) < 1e-5


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
