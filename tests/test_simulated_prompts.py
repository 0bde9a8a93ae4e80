"""Boxes and corrections in a person's place: SAM's rules, pixel by pixel."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_ext.trainers.simulated_prompts import correcting_clicks, jittered_boxes


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
