"""SAMUS at full size, the plain one and the fast one, against the official code's outputs: 3 GB and a minute each.

On the oracle's weights the decoder is known to few digits only (see `samus_weights`), so it is compared on calm weights
as well.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from samus_numbers import DEAD, gradient_errors, numbers, output_errors, thin
from samus_reference import ReferenceSAMUS, official_loss
from samus_weights import Batch, fill_, gradient_norms, intermediates
from torch import nn

from nnunet_ext.architectures.samus.models import SAMUS

pytestmark = pytest.mark.slow

NETWORKS = [  # the outputs of each are computed once
    pytest.param(ReferenceSAMUS, id="plain"),
    pytest.param(SAMUS, id="fast"),
]
LOGITS, GRADIENTS = 0.02, 0.1  # what is known of logits and gradient norms on the oracle's weights
Outputs = dict[str, torch.Tensor]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are taken in one order: on the oracle's weights, two threads move some gradient norms by 1.3 %."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=NETWORKS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    """On the oracle's weights."""
    return fill_(request.param(), oracle=True)


@pytest.fixture(scope="module")
def outputs(net: nn.Module) -> Outputs:
    """All intermediates."""
    return intermediates(net, Batch())


@pytest.fixture
def calm(net: nn.Module) -> Iterator[nn.Module]:
    """The network on calm weights, which are the oracle's but for the decoder's."""
    sharp = net.mask_decoder
    net.mask_decoder = fill_(copy.deepcopy(sharp), prefix="mask_decoder.")
    yield net
    net.mask_decoder = sharp


@torch.no_grad()
def logits(net: nn.Module, embedding: torch.Tensor) -> torch.Tensor:
    """The low-res logits of the batch, from the output of the image encoder."""
    encoder, batch = net.image_encoder, Batch()
    net.image_encoder = nn.Identity()
    low_res = net.predict_low_res(embedding, batch.points_xy, batch.point_labels)
    net.image_encoder = encoder
    return low_res


def check_official(errors: dict[str, float]) -> None:
    """All parts of the encoder and the logits are there and agree."""
    assert len(errors) == 17
    assert errors.pop("low_res_logits") < LOGITS
    assert max(errors.values()) < 1e-5


def test_samples(outputs: Outputs) -> None:
    """The small part of the official numbers that the repository holds."""
    check_official(output_errors(outputs, numbers("official")["outputs"]))


def test_all_outputs(outputs: Outputs, samus_oracle: Path) -> None:
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


def test_calm_logits(calm: nn.Module, outputs: Outputs) -> None:
    low_res = logits(calm, outputs["neck"])
    errors = output_errors(outputs | {"low_res_logits": low_res}, numbers("vit_b")["outputs"])
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize("net", NETWORKS[1:], indirect=True)
def test_calm_gradients(calm: nn.Module, outputs: Outputs) -> None:
    """Those of the plain network, whose outputs are the official ones."""
    expected = numbers("vit_b")["gradient_norms"]
    norms = gradient_norms(calm, Batch(), logits(calm, outputs["neck"]))
    assert norms.keys() == expected.keys()
    assert max(gradient_errors(norms, expected).values()) < 1e-3


@pytest.mark.parametrize("net", NETWORKS[:1], indirect=True)
def test_official_gradients(net: nn.Module, outputs: Outputs, samus_oracle: Path) -> None:
    """What the decoder hands to the encoder is uncertain by a factor; given that, the gradients agree."""
    official = json.loads((samus_oracle / "grad_norms.json").read_text())
    norms = gradient_norms(net, Batch(), outputs["low_res_logits"])
    assert norms.keys() == official.keys()
    ratios = np.array([norms[name] / known for name, known in official.items() if not name.endswith(DEAD)])
    assert np.median(ratios) == pytest.approx(1, abs=GRADIENTS)
    np.testing.assert_allclose(ratios / np.median(ratios), 1, atol=0.01)
    assert official == numbers("official")["gradient_norms"]
