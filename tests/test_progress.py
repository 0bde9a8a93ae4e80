"""Progress lines within an epoch."""

from nnunet_ext.trainers import progress


def test_reports_at_intervals_with_an_estimate(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    lines: list[str] = []
    p = progress.Progress(100, lines.append, interval=60)
    for _ in range(25):
        now[0] += 10
        p.step(0.5)
    assert [line.split(",")[0] for line in lines] == [f"iteration {n}/100" for n in (6, 12, 18, 24)]
    assert lines[-1] == "iteration 24/100, loss 0.5000, 13 min left in this epoch"
