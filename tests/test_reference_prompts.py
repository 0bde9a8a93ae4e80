"""Prompts made of references by rule: where they are, and that they are recorded and kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ONE_ITERATION, folders
from test_predict import PLANS, model, predict, raw, read, record, trained
from training import train

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.nnunet_files import used_prompts
from nnunet_ext.comparison.wording import prompt_words
from nnunet_ext.evaluation.origin import origin
from nnunet_ext.inference.prompts import ForegroundMaps, Prompts
from nnunet_ext.inference.reference_prompts import ReferenceRule

__all__ = ["trained"]  # the fixture
MAPS = ForegroundMaps(classes=[1, 2])


def reference() -> torch.Tensor:
    """Two slices: a 6x4 block of class 1 in the first, nothing of class 2, and an empty second one."""
    seg = torch.zeros(1, 2, 20, 24)
    seg[0, 0, 5:9, 10:16] = 1
    seg[0, 0, :, :2] = -1
    return seg


def prompts(rule: str, segment: object = None, name: str = "case") -> Prompts:
    return ReferenceRule.parse(rule).prompts(reference(), MAPS, name=name, segment=segment)


def test_box_is_tight_and_what_is_not_there_gets_a_background_click() -> None:
    found = prompts("box")
    assert found[0, 0][0].xy.tolist() == [[10, 5], [15, 8]]
    assert found[0, 0][0].labels.tolist() == [2, 3]
    centre = prompts("centre")
    for key in ((0, 1), (1, 0), (1, 1)):
        assert found[key][0].labels.tolist() == [0]
        assert torch.equal(found[key][0].xy, centre[key][0].xy)


def test_random_is_on_the_foreground_and_the_same_every_time() -> None:
    places = set()
    for i in range(20):
        one, again = (prompts("random", name=f"case_{i}")[0, 0][0] for _ in range(2))
        assert torch.equal(one.xy, again.xy)
        x, y = one.xy[0].int().tolist()
        assert reference()[0, 0, y, x] == 1
        places.add((x, y))
    assert len(places) > 5


def test_corrections_are_in_the_middle_of_the_largest_error_and_end_when_the_mask_is_right() -> None:
    answers = [np.zeros((2, 20, 24)) for _ in range(3)]
    answers[0][0, 12:19, 3:10] = 1  # 49 pixels too many, next to 24 that are missing
    answers[1][0, 5:9, 10:13] = 1  # the right half of the block is missing
    answers[2][0, 5:9, 10:16] = 1  # right
    asked: list[Prompts] = []

    def segment(given: Prompts) -> np.ndarray:
        asked.append(given)
        return answers[len(asked) - 1]

    [block] = prompts("corrections:9", segment)[0, 0]
    assert len(asked) == 3
    assert block.labels.tolist() == [1, 0, 1]
    assert block.xy[1].tolist() == [6, 15]
    assert block.xy[2].tolist() in ([14, 6], [14, 7])
    assert [len(given[0, 0][0].labels) for given in asked] == [1, 2, 3]


def test_errors_outside_of_the_image_and_below_the_ignore_label_count_for_nothing() -> None:
    seg = reference()
    seg[0, 0, 15:, 15:] = 3
    wrong = np.where(seg[0] == 3, 1, 0) + (seg[0].numpy() == 1)
    wrong[0, :, :2] = 1
    maps = ForegroundMaps(classes=[1, 2], ignore_label=3)
    found = ReferenceRule.parse("corrections:4").prompts(seg, maps, name="case", segment=lambda _: wrong)
    assert [len(p.labels) for of_class in found.values() for p in of_class] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "text", ["", "middle", "box:2", "corrections", "corrections:0", "corrections:101", "corrections:²"]
)
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="is not a rule"):
        ReferenceRule.parse(text)


@pytest.mark.parametrize("rule", ["random", "box", "corrections:3"])
def test_prediction_records_its_rule_and_continues_with_no_other(
    rule: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    labels = raw(trained, "labelsTr")
    predict(trained, tmp_path / "out", "--from-reference", labels, "--rule", rule)
    assert record(tmp_path / "out")["rule"] == rule
    assert origin(tmp_path / "out")["prompts"] == f"reference, {rule}"
    assert "from the reference" in prompt_words(f"reference, {rule}")
    given = record(tmp_path / "out")["cases"]
    assert len(given) == 4
    for case, of_case in given.items():
        assert ("box" in of_case[0]) == (rule == "box")
        assert len(of_case) <= (3 if rule == "corrections:3" else 1)
        if rule == "box":
            x0, y0, x1, y1 = of_case[0]["box"]
            y, x = np.nonzero(read(labels / f"{case}.png"))
            assert np.allclose([x0, y0, x1, y1], [x.min(), y.min(), x.max(), y.max()], atol=1)
    assert predict(trained, tmp_path / "out", "--from-reference", labels) == 2
    assert "another request" in capsys.readouterr().err
    (tmp_path / "again.json").write_text(json.dumps(given))  # what is recorded is a file of prompts
    predict(trained, tmp_path / "file", "--prompts", tmp_path / "again.json")
    for case in given:
        different = read(tmp_path / "out" / f"{case}.png") != read(tmp_path / "file" / f"{case}.png")
        assert different.mean() < 0.01  # the record rounds to a hundredth of a pixel


def test_a_rule_needs_a_reference_and_a_record_a_known_rule(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert predict(trained, tmp_path / "out", "--rule", "box") == 2
    assert "--rule is of --from-reference" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "prompts_used.json").write_text('{"source": "reference", "rule": "guess"}')
    with pytest.raises(InputError, match="rule"):
        used_prompts(tmp_path)


@pytest.mark.slow
def test_boxes_are_nothing_for_a_network_of_clicks(
    trained: Path, tmp_path: Path, fork_pools: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name, value in {**folders(trained), **ONE_ITERATION, "nnUNet_n_proc_DA": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer, labels = "nnUNetTrainerMatchedBudgetClick", raw(trained, "labelsTr")
    train(trainer, 35, plans=PLANS)
    where = {"trainer": trainer}
    assert predict(trained, tmp_path / "box", "--from-reference", labels, "--rule", "box", **where) == 2
    assert "takes clicks, no boxes" in capsys.readouterr().err
    assert not (tmp_path / "box").exists()
    assert predict(trained, tmp_path / "out", "--from-reference", labels, "--rule", "corrections:2", **where) == 0
    assert all(1 <= len(given) <= 2 for given in record(tmp_path / "out")["cases"].values())


def test_the_curve_of_one_checkpoint(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    where = ["-m", model(trained), "-i", raw(trained, "imagesTr"), "--ref", raw(trained, "labelsTr")]
    command = [*map(str, ("prompt-curve", *where, "-o", tmp_path / "curve", "-device", "cpu"))]
    assert main([*command, "--report", str(tmp_path / "curve.html")]) == 0
    report = (tmp_path / "curve.html").read_text()
    assert "Dice of tumour against clicks: 0 clicks: " in report
    assert "; 5 clicks: " in report
    assert "with a box" in report
    curve = pd.read_csv(tmp_path / "curve" / "prompt_curve.csv")
    assert list(curve.prompts) == ["none", "clicks_1", "clicks_2", "clicks_3", "clicks_5", "box"]
    assert list(curve.clicks[:5]) == [0, 1, 2, 3, 5]
    assert curve.clicks.isna()[5]
    for _, row in curve.iterrows():
        metrics = pd.read_csv(tmp_path / "curve" / row.prompts / "metrics.csv")
        assert metrics.dice.mean() == pytest.approx(row.dice, abs=1e-4)
    assert "(3 corrective clicks from the reference)" in capsys.readouterr().out
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "curve").rglob("*.png")}
    assert main(command) == 0  # which continues
    assert before == {f: f.stat().st_mtime_ns for f in (tmp_path / "curve").rglob("*.png")}
    assert main([*command[:-4], "-o", str(raw(trained, "imagesTr")), "-device", "cpu"]) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "prompt_curve.csv").write_text("a user's")
    assert main([*command[:-4], "-o", str(tmp_path / "other"), "-device", "cpu"]) == 2
    assert "not written by nnunet_ext prompt-curve" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["prompt_curve.csv"]
