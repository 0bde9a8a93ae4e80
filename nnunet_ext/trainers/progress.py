"""Progress inside an epoch: a pass over LiTS is tens of thousands of iterations."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class Progress:
    """Reports at most every `interval` seconds how far an epoch is.

    Args:
        total: iterations of the epoch.
        report: takes one line of text.
        interval: seconds between two lines.
    """

    def __init__(self, total: int, report: Callable[[str], None], interval: float = 60) -> None:
        self.total, self.report, self.interval = total, report, interval
        self.done = 0
        self.start = self.last = monotonic()

    def step(self, loss: float) -> None:
        """One iteration is done."""
        self.done += 1
        now = monotonic()
        if now - self.last >= self.interval:
            self.last = now
            left = (now - self.start) / self.done * (self.total - self.done)
            self.report(f"iteration {self.done}/{self.total}, loss {loss:.4f}, {left / 60:.0f} min left in this epoch")
