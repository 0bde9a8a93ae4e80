"""The files of an evaluation: there and back, nnU-Net's keys, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nnunet_ext.common.errors import InputError
from nnunet_ext.evaluation.evaluation import Evaluation, columns, table_of
from nnunet_ext.metrics.definitions import COUNTS, METRICS, PHYSICAL, PIXELS, Units


def evaluation(units: Units = PHYSICAL, cases: tuple[str, ...] = ("001", "a b")) -> Evaluation:
    rng = np.random.default_rng(0)
    structures = {"liver": (1, 2), "tumour": (2,)}
    rows = [
        {"case": case, "structure": structure}
        | {key: int(rng.integers(100)) for key in COUNTS}
        | {units.column(m.key): float(rng.random()) if rng.random() < 0.7 else np.nan for m in METRICS}
        for case in cases
        for structure in structures
    ]
    info: dict[str, Any] = {
        "name": "mödel",
        "predictions": "/p",
        "references": "/r",
        "file_ending": ".nii.gz",
        "fold": 0,
    }
    return Evaluation(table=table_of(rows, units), units=units, structures=structures, info=info)


@pytest.mark.parametrize("units", [PHYSICAL, PIXELS])
def test_there_and_back(tmp_path: Path, units: Units) -> None:
    there = evaluation(units)
    assert there.table.isna().any(axis=None)
    there.save(tmp_path / "new" / "folder")
    for path in (tmp_path / "new" / "folder", tmp_path / "new" / "folder" / "metrics.json"):
        back = Evaluation.load(path)
        pd.testing.assert_frame_equal(back.table, there.table)
        assert (back.units, back.structures, back.info) == (there.units, there.structures, there.info)
    assert sorted(f.name for f in (tmp_path / "new" / "folder").iterdir()) == ["metrics.csv", "metrics.json"]
    table = pd.read_csv(tmp_path / "new" / "folder" / "metrics.csv", dtype={"case": str})
    pd.testing.assert_frame_equal(table, there.table, check_dtype=False)
    assert list(table.columns) == columns(units)


def test_json_has_nnunets_keys_and_no_nan(tmp_path: Path) -> None:
    there = evaluation()
    there.save(tmp_path, aggregates={"liver": {"dice": {"mean": float("nan")}}})
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    content = json.loads(text)
    assert set(content) == {"metric_per_case", "mean", "foreground_mean", "nnunet_ext"}
    first = content["metric_per_case"][0]
    assert first["prediction_file"] == "/p/001.nii.gz"
    assert set(first["metrics"]) == {"(1, 2)", "2"} == set(content["mean"])
    row = there.table.iloc[1]
    for theirs, value in {"Dice": row["dice"], "TP": row["tp"], "n_ref": row["tp"] + row["fn"]}.items():
        assert first["metrics"]["2"][theirs] == pytest.approx(value)
    definitions = content["nnunet_ext"]["definitions"]
    assert list(definitions) == [m.key for m in METRICS]
    assert definitions["hd95"].endswith("undefined: either mask empty")
    assert content["nnunet_ext"]["aggregates"] == {"liver": {"dice": {"mean": None}}}


def test_means_are_those_of_defined_values(tmp_path: Path) -> None:
    there = evaluation(cases=tuple("abcdefgh"))
    there.save(tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    for name, key in {"liver": "(1, 2)", "tumour": "2"}.items():
        values = there.of(name)["hd95"]
        assert 0 < values.isna().sum() < len(values)
        assert content["mean"][key]["hd95_mm"] == pytest.approx(np.nanmean(values))
    both = [content["mean"][key]["Dice"] for key in content["mean"]]
    assert content["foreground_mean"]["Dice"] == pytest.approx(np.mean(both))


def test_metrics_by_key_whatever_the_unit() -> None:
    for units in (PHYSICAL, PIXELS):
        assert {m.key for m in METRICS} <= set(evaluation(units).of("liver").columns)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "no metrics of nnunet_ext"),
        ("[]", "no metrics of nnunet_ext"),
        ('{"metric_per_case": [], "mean": {}}', "no metrics of nnunet_ext"),
        ('{"nnunet_ext": {"format": 2}}', "has format 2"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "metrics.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        Evaluation.load(tmp_path)
    assert str(file) in str(error.value)
    assert "nnunet_ext evaluate" in str(error.value)


def test_a_missing_metric_is_named(tmp_path: Path) -> None:
    evaluation().save(tmp_path)
    file = tmp_path / "metrics.json"
    file.write_text(file.read_text().replace("hd95_mm", "hd96_mm"))
    with pytest.raises(InputError, match="hd95_mm"):
        Evaluation.load(file)


def test_a_failing_write_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation().save(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}

    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        evaluation(PIXELS).save(tmp_path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
