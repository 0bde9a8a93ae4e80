"""`nnunet_ext compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluations import evaluation

from nnunet_ext.cli import main
from nnunet_ext.comparison import FILES

A = np.linspace(0.6, 0.9, 10)
B = A - np.linspace(0.01, 0.02, 10)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders a, a2, b, and c with other cases; the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, dice in (("a", A), ("a2", A + 0.01), ("b", B)):
        evaluation(dice).save(Path(name))
    evaluation(A, cases=[f"other_{i}" for i in range(10)]).save(Path("c"))
    return tmp_path


def test_prints_and_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "RA-U-Net=a", "nnU-Net=b/metrics.json"]) == 0
    out = capsys.readouterr().out
    assert "RA-U-Net is better than nnU-Net: +0.015 Dice [" in out
    assert out.splitlines()[-1] == f"comparison: {', '.join(FILES)}"
    record = json.loads(Path("comparison/comparison.json").read_text())
    assert [result["metric"] for result in record["results"]] == ["dice", "iou"]
    assert main(["compare", "RA-U-Net=a", "nnU-Net=b"]) == 0, "its own files are replaced"


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--metrics iou --structure tumour --baseline B --alpha 0.01 --out there"
    assert main(["compare", "A=a", "A=a2", "B=b", *options.split()]) == 0
    record = json.loads(Path("there/comparison.json").read_text())
    assert record["alpha"] == 0.01
    assert record["baseline"] == "B"
    (result,) = record["results"]
    assert result["metric"] == "iou"
    assert [(pair["a"], pair["b"]) for pair in result["pairs"]] == [("A", "B")]
    assert len(result["models"]["A"]["repeat_means"]) == 2
    assert "A: 2 repeats" in capsys.readouterr().out


def test_another_primary_metric(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "A=a", "B=b", "--primary", "iou"]) == 0
    assert json.loads(Path("comparison/comparison.json").read_text())["primary"] == "iou"
    assert "Exploratory: A is better than B: +0.015 Dice" in capsys.readouterr().out


def test_the_report_gets_the_comparison(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("nnunet_ext.report.build_report", lambda *args, **options: calls.append((args, options)))
    Path("images").mkdir()
    assert main(["compare", "A=a", "B=b", "--report", "report.html", "--images", "images"]) == 0
    ((models, out), options) = calls[0]
    assert list(models) == ["A", "B"]
    assert out == Path("report.html")
    assert options["comparison"].results["tumour", "dice"].pairs[0].finding == "better"
    assert options["images"] == Path("images")
    assert capsys.readouterr().out.splitlines()[-1] == "report.html"


@pytest.mark.parametrize(
    ("argv", "messages"),
    [
        (["A=a", "B=c"], ["A lacks other_0, other_1, other_2 and 7 more of 20 cases.", "B lacks case_00"]),
        (["A=a"], ["two models or more"]),
        (["A=a", "B=nowhere", "C=elsewhere"], ["nowhere has no metrics.json", "elsewhere has no metrics.json"]),
        (["A=a", "B=b", "--images", "nowhere"], ["nowhere is not a directory"]),
        (["A=a", "B=b", "--out", "a/metrics.csv"], ["is not a writable directory"]),
        (["A=a", "B=b", "--out", "a/metrics.csv/below"], ["metrics.csv is not a writable directory"]),
        (["A=a", "B=b", "--report", "a/metrics.csv/report.html"], ["metrics.csv is not a writable directory"]),
        (["A=a", "B=b", "--report", "a"], ["a is a directory"]),
        (["A=a", "B=b", "--report", "a/metrics.csv"], ["a/metrics.csv: not written by the report of nnunet_ext"]),
        (["A=a", "B=broken.json"], ["broken.json"]),
    ],
)
def test_wrong_input_is_one_message(argv: list[str], messages: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.json").write_text("{")
    assert main(["compare", *argv]) == 2
    error = capsys.readouterr().err
    assert all(message in error for message in messages)
    assert not Path("comparison").exists()


@pytest.mark.parametrize("argv", [["a", "b"], ["=a", "B=b"], ["A=", "B=b"], ["A=a", "B=b", "--alpha", "5"]])
def test_wrong_command_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["compare", *argv])
    assert "is not" in capsys.readouterr().err
