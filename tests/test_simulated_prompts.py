"""Clicks, boxes and corrections in a person's place: SAM's rules, pixel by pixel, and SAM's tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.modeling import PromptEncoder as SAMPromptEncoder

from nnunet_ext.architectures.samus.image_encoder import VIT_TINY
from nnunet_ext.architectures.samus.models import SAM
from nnunet_ext.architectures.samus.segmenter import PromptableSegmenter
from nnunet_ext.trainers.simulated_prompts import correcting_clicks, jittered_boxes, simulated_prompts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_boxes_are_around_the_foreground_with_sams_noise() -> None:
    maps = torch.zeros(2000, 2, 200, 300, dtype=torch.bool)
    maps[:, 0, 60:100, 80:140] = True  # 40 by 60 pixels
    maps[:, 0, 70, 90] = False
    corners, found = jittered_boxes(maps, generator())
    assert found[:, 0].all()
    assert not found[:, 1].any()
    tight = np.array([[80, 60], [139, 99]])
    noise = corners[:, 0].numpy() - tight
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.5)
    np.testing.assert_allclose(noise.std(0), np.full((2, 2), [6, 4]), rtol=0.06)
    assert torch.equal(corners, jittered_boxes(maps, generator())[0])
    assert not torch.equal(corners, jittered_boxes(maps, generator(1))[0])


def test_noise_is_at_most_20_pixels_and_boxes_stay_in_the_image() -> None:
    maps = torch.zeros(500, 1, 400, 500, dtype=torch.bool)
    maps[:, :, 50:350] = True
    corners, _ = jittered_boxes(maps, generator())
    upper, lower = corners[:, 0, 0], corners[:, 0, 1]
    assert (upper[:, 1] - 50).abs().max() == (lower[:, 1] - 349).abs().max() == 20
    assert upper[:, 0].min() == 0
    assert lower[:, 0].max() == 499
    dot = torch.zeros(50, 1, 8, 8, dtype=torch.bool)
    dot[..., 3, 7] = True
    corners, found = jittered_boxes(dot, generator())
    assert found.all()
    assert (corners[:, :, 0] <= corners[:, :, 1]).all()
    assert (corners - torch.tensor([7.0, 3.0])).abs().max() < 1


def test_corrections_are_on_errors_and_say_what_is_there() -> None:
    maps, masks = torch.zeros(3000, 2, 6, 7, dtype=torch.bool), torch.zeros(3000, 2, 6, 7, dtype=torch.bool)
    maps[:, 0, 2, 1:5] = True
    masks[:, 0, 2, 3:7] = True  # lacks (1, 2) and (2, 2), has (5, 2) and (6, 2) too much
    maps[:, 1, 0, 0] = masks[:, 1, 0, 0] = True  # right
    points, labels = correcting_clicks(masks, maps, maps[:, :1] | True, generator())
    places, counts = torch.cat([points[:, 0, 0], labels[:, 0].float()], -1).unique(dim=0, return_counts=True)
    assert places.tolist() == [[1, 2, 1], [2, 2, 1], [5, 2, 0], [6, 2, 0]]
    assert counts.min() > 600
    on_corner = (points[:, 1, 0] == 0).all(-1)
    assert torch.equal(labels[:, 1, 0].bool(), on_corner)
    valid = torch.ones(3000, 1, 6, 7, dtype=torch.bool)
    valid[..., 5:] = False
    points, labels = correcting_clicks(masks, maps, valid, generator())
    assert points[:, 0, 0, 0].max() == 2
    assert labels[:, 0].all()


def drawn(maps: torch.Tensor, *, masks: bool = False, seed: int = 0, **shares: float) -> dict:
    """The prompts of a batch whose first masks are all empty, or all full."""
    asked = {"clicked_share": 0.5, "box_share": 0.25, "correction_share": 0.25, **shares}

    def masks_of(chosen: torch.Tensor, points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.full_like(maps[chosen], masks)

    return simulated_prompts(maps, torch.ones_like(maps[:, :1]), generator(seed), masks_of=masks_of, **asked)


@pytest.fixture
def maps() -> torch.Tensor:
    """Two classes, the second of them absent from every other sample."""
    maps = torch.zeros(4000, 2, 12, 14, dtype=torch.bool)
    maps[:, 0, 3:8, 4:11] = True
    maps[::2, 1, 9:, 2:5] = True
    return maps


def test_shares_are_those_of_the_prompted_samples(maps: torch.Tensor) -> None:
    prompts = drawn(maps)
    labels, clicked, corrected = prompts["labels"], prompts["clicked"], prompts["corrected"]
    boxed = labels[..., 0] == 2
    assert clicked.float().mean() == pytest.approx(0.5, abs=0.03)
    assert boxed[:, 0].float().mean() == pytest.approx(0.25, abs=0.03)
    assert (corrected & ~clicked).sum() == 0
    assert corrected.sum() / clicked.sum() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(boxed[::2, 1], boxed[::2, 0])  # a sample has boxes or clicks
    assert not boxed[1::2, 1].any()  # but there is none around nothing
    kinds = {tuple(pair) for pair in labels.flatten(0, 1).tolist()}
    assert kinds == {(1, -1), (0, -1), (2, 3)}
    assert {tuple(p) for p in labels[1::2, 1].tolist()} == {(0, -1)}


def test_corrections_follow_the_masks_and_nothing_else_does(maps: torch.Tensor) -> None:
    empty, full = drawn(maps), drawn(maps, masks=True)
    for name in ("points", "labels", "clicked", "corrected"):
        assert torch.equal(empty[name], full[name])
    corrected = empty["corrected"]
    assert (empty["more_labels"][corrected][:, 0] == 1).all()  # something is lacking
    assert (full["more_labels"][corrected][:, 0] == 0).all()  # something is too much
    x, y = empty["more_points"][corrected][:, 0, 0].long().T
    assert maps[0, 0][y, x].all()
    assert torch.equal(drawn(maps)["more_points"], empty["more_points"])


def test_clicks_alone_are_drawn_as_before_there_were_boxes(maps: torch.Tensor) -> None:
    prompts = drawn(maps, clicked_share=1, box_share=0, correction_share=0)
    assert prompts.keys() == {"points", "labels", "clicked", "end"}
    assert prompts["clicked"].all()
    assert (prompts["labels"][..., 1] == -1).all()
    boxes = drawn(maps)  # whatever the shares, the clicks are the same
    clicks = boxes["labels"][..., 0] < 2
    assert torch.equal(prompts["points"][clicks], boxes["points"][clicks])


def test_every_sample_of_a_batch_is_answered_as_sam_would_answer_it_alone() -> None:
    """No prompt, a click, a box, and both of these corrected: each with the tokens of SAM's own prompt encoder."""
    torch.manual_seed(0)
    network = PromptableSegmenter(model=SAM(vit=VIT_TINY)).eval()
    with torch.no_grad():
        for embedding in network.model.prompt_encoder.point_embeddings:
            embedding.weight.normal_()
    image = torch.rand(5, 1, 256, 256)
    click, box, more = (torch.rand(1, 1, n, 2) * 255 for n in (1, 2, 1))
    none = torch.zeros_like(click)
    points = torch.cat([torch.cat([click, none], 2)] * 2 + [box] * 2 + [torch.cat([click, none], 2)])
    labels = torch.tensor([[1, -1], [0, -1], [2, 3], [2, 3], [1, -1]])[:, None]
    with torch.no_grad():
        found = network(
            image,
            points,
            labels,
            clicked=torch.tensor([False, True, True, True, True]),
            more_points=more.expand(5, -1, -1, -1),
            more_labels=torch.tensor([0, 0, 0, 0, 1])[:, None, None],
            corrected=torch.tensor([False, False, False, True, True]),
            end=False,
        )
        asked = [
            None,
            ((click[0], torch.tensor([[0]])), None),
            (None, box[0].view(1, 4)),
            ((more[0], torch.tensor([[0]])), box[0].view(1, 4)),
            ((torch.cat([click, more], 2)[0], torch.tensor([[1, 1]])), None),
        ]
        for i, question in enumerate(asked):
            if question is None:
                expected = network(image[i : i + 1])
            else:
                tokens, _ = SAMPromptEncoder.forward(network.model.prompt_encoder, *question, None)
                z = network.model.decode(network.embed(image[i : i + 1]), tokens[:, None])
                expected = network.emit(z, (256, 256))
            torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-4, atol=1e-5)
    assert all((found[0] - other).abs().max() > 1e-3 for other in found[1:])
