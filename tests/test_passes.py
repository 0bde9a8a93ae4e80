"""An epoch is a pass: how many iterations that is, and how far an epoch is."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from nnunet_ext.trainers import pass_trainer
from nnunet_ext.trainers.pass_trainer import Progress, iterations_per_pass, tiles


@pytest.mark.parametrize(
    ("shape", "patch", "expected"),
    [
        ((100, 512, 512), (512, 512), 100),  # a patch covers the slice: the slice count
        ((100, 300, 400), (512, 512), 100),
        ((100, 512, 513), (512, 512), 200),
        ((1, 471, 562), (256, 256), 6),
        ((100, 512, 512), (64, 128, 128), 2 * 4 * 4),
        ((6, 40, 36), (6, 40, 40), 1),
    ],
)
def test_tiles(shape: tuple[int, ...], patch: tuple[int, ...], expected: int) -> None:
    assert tiles(shape, patch) == expected


class Dataset:
    """Cases of given numbers of slices, as any of nnU-Net's dataset classes shows them."""

    def __init__(self, *slices: int) -> None:
        self.slices = dict(enumerate(slices))
        self.identifiers = list(self.slices)

    def load_case(self, k: int) -> tuple:
        return np.empty((2, self.slices[k], 32, 32)), None, None, {}


@pytest.mark.parametrize(("batch", "expected"), [(1, 35), (2, 18), (12, 3), (100, 1)])
def test_iterations(batch: int, expected: int) -> None:
    assert iterations_per_pass(Dataset(10, 20, 5), (32, 32), batch) == expected


def test_no_cases() -> None:
    assert iterations_per_pass(Dataset(), (32, 32), 2) == 1


def test_progress_is_reported_at_intervals_with_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pass_trainer, "monotonic", lambda: now[0])
    lines: list[str] = []
    p = Progress(100, lines.append, interval=60)
    for _ in range(25):
        now[0] += 10
        p.step(0.5)
    assert [line.split(",")[0] for line in lines] == [f"iteration {n}/100" for n in (6, 12, 18, 24)]
    assert lines[-1] == "iteration 24/100, loss 0.5000, 13 min left in this epoch"


class Multiplying:
    """A loader whose batches take more than one thread, where there is more than one."""

    def set_thread_id(self, number: int) -> None:
        self.number = number

    def __next__(self) -> dict:
        matrix = torch.ones(400, 400)
        return {"data": (matrix @ matrix).numpy()}


@pytest.mark.slow
def test_a_worker_does_not_wait_for_threads_that_it_does_not_have() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    loader = pass_trainer._seeded(Multiplying(), 1, (1, 2), torch.device("cpu"))
    watchdog = threading.Timer(40, lambda: [worker.kill() for worker in loader._processes])
    watchdog.start()
    try:
        torch.ones(400, 400) @ torch.ones(400, 400)  # which starts the threads of this one, which is forked below
        assert (next(loader)["data"] == 400).all()
    finally:
        watchdog.cancel()
        loader._finish()
        torch.set_num_threads(threads)
