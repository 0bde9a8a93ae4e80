"""The files of an evaluation: there and back, nnU-Net's keys, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evaluations import boxes

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import without_nan, write_results
from nnunet_ext.evaluation.evaluation import TOUCH, Evaluation, columns, table_of
from nnunet_ext.metrics.definitions import COUNTS, METRICS, PHYSICAL, PIXELS, Units
from nnunet_ext.metrics.measure import Ruler, measure_segmentations

DATA = Path(__file__).resolve().parent / "data"


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
    there.save(tmp_path)
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    content = json.loads(text)
    assert set(content) == {"metric_per_case", "mean", "foreground_mean", "nnunet_ext"}
    first = content["metric_per_case"][0]
    assert first["prediction_file"] == "/p/001.nii.gz"
    assert set(first["metrics"]) == {"(1, 2)", "2"} == set(content["mean"])
    row = there.table.iloc[1]
    for theirs, value in {"Dice": row["dice"], "TP": row["tp"], "n_ref": row["tp"] + row["fn"]}.items():
        assert first["metrics"]["2"][theirs] == (None if np.isnan(value) else pytest.approx(value))
    definitions = content["nnunet_ext"]["definitions"]
    assert list(definitions) == [m.key for m in METRICS]
    assert definitions["hd95"].endswith("undefined: either mask empty")
    aggregates = content["nnunet_ext"]["aggregates"]["liver"]["metrics"]
    assert aggregates["dice"]["mean"] == pytest.approx(there.of("liver")["dice"].mean())
    assert aggregates["hd95"]["pooled"] is None


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
        ("{", "not valid JSON"),
        ("[]", "holds a list, not a dict"),
        ('{"metric_per_case": [], "mean": {}}', "no metrics of nnunet_ext"),
        ('{"nnunet_ext": {"format": 3}}', "has format 3"),
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


def edited(file: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change the metrics of every case and structure in a file."""
    content = json.loads(file.read_text())
    for case in content["metric_per_case"]:
        for metrics in case["metrics"].values():
            change(metrics)
    file.write_text(json.dumps(content))
    return file


def test_a_metric_that_a_file_lacks_is_undefined(tmp_path: Path) -> None:
    """As in a file of an earlier version, which did not have it yet."""
    there = evaluation()
    there.save(tmp_path)

    def older(metrics: dict[str, Any]) -> None:
        for key in ("hd95_mm", "Dice", "lesion_recall"):
            del metrics[key]

    back = Evaluation.load(edited(tmp_path / "metrics.json", older))
    lacking = ["dice", "hd95", "lesion_recall"]
    assert [m.key for m in METRICS if back.lacks(m.key)] == lacking
    for structure in there.structures:
        rows = back.of(structure)
        assert rows[lacking].isna().all(axis=None)
        expected = there.of(structure)
        pd.testing.assert_frame_equal(rows.drop(columns=lacking), expected.drop(columns=lacking))
        summary = back.summaries[structure].metrics
        assert (summary["hd95"].n, summary["hd95"].undefined) == (0, 2)
        expected = asdict(there.summaries[structure].metrics["iou"])
        assert asdict(summary["iou"]) == pytest.approx(expected, nan_ok=True)
        for key in ("lesion_recall", "lesion_f1"):  # not 0
            assert np.isnan(summary[key].pooled)
    assert back.notes == ()
    back.save(tmp_path / "again")
    again = Evaluation.load(tmp_path / "again")
    pd.testing.assert_frame_equal(again.table, back.table)


def test_a_metric_that_only_some_cases_lack(tmp_path: Path) -> None:
    evaluation().save(tmp_path)
    cases = iter([True, True, False, False])

    def some_cases(metrics: dict[str, Any]) -> None:
        if next(cases):
            del metrics["nsd"]

    back = Evaluation.load(edited(tmp_path / "metrics.json", some_cases))
    assert not back.lacks("nsd")
    assert np.isnan(back.of("liver")["nsd"]["001"])


def test_unknown_metrics_are_ignored_with_a_note(tmp_path: Path) -> None:
    """As in a file of a later version."""
    there = evaluation()
    there.save(tmp_path)
    file = edited(tmp_path / "metrics.json", lambda metrics: metrics.update(novelty=0.5, hd95_furlong=1))
    back = Evaluation.load(file)
    pd.testing.assert_frame_equal(back.table, there.table)
    (note,) = back.notes
    assert str(file) in note
    assert "does not know: hd95_furlong, novelty; ignored" in note


def test_counts_cannot_be_lacking(tmp_path: Path) -> None:
    evaluation().save(tmp_path)
    with pytest.raises(InputError, match="holds no metrics of nnunet_ext"):
        Evaluation.load(edited(tmp_path / "metrics.json", lambda metrics: metrics.pop("FN")))


def test_the_command_compares_files_of_other_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What one file lacks is left out, what it has too much is ignored, and both are said."""
    for name in ("new", "old"):
        evaluation().save(tmp_path / name)

    def other(metrics: dict[str, Any]) -> None:
        del metrics["hd95_mm"]
        metrics["novelty"] = 0.5

    file = edited(tmp_path / "old" / "metrics.json", other)
    assert main(["compare", f"new={tmp_path / 'new'}", f"old={file}", "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Left out, since old lacks it: HD95." in printed
    assert f"{file} holds metrics that this version of nnunet_ext does not know: novelty; ignored." in printed


def test_a_case_is_there_once(tmp_path: Path) -> None:
    evaluation().save(tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    content["metric_per_case"].append(content["metric_per_case"][0])
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"metrics\.json has cases more than once: 001\."):
        Evaluation.load(tmp_path)


def test_a_file_of_commit_a5e75ff() -> None:
    """Written by its nnunet_ext evaluate for masks as below; numbers but intervals are today's, by today's names."""
    file = DATA / "a5e75ff" / "metrics.json"
    stored = Evaluation.load(file)
    assert [note.split(": ")[1] for note in stored.notes] == [
        "an earlier version found lesions by touch, so that its lesion metrics are those called (touch)."
    ]
    assert stored.structures == {"liver": (1, 2), "tumour": (2,)}
    assert stored.info["name"] == "by a5e75ff"
    rows = []
    for k, case in enumerate(stored.cases):
        prediction, reference = boxes(k, 2), boxes(k + 100, 2)
        if k == 2:
            prediction[prediction == 2] = 1
        scale = Ruler((3, 0.8, 0.7), stored.units, stored.info["nsd_tolerance"])
        for name, metrics in measure_segmentations(prediction, reference, stored.structures, scale).items():
            named = {key if key in COUNTS else stored.units.column(key): v for key, v in metrics.items()}
            rows.append({"case": case, "structure": name, **named})
    made = table_of(rows, stored.units)[stored.table.columns]  # metrics may have been added since
    pd.testing.assert_frame_equal(made, stored.table, rtol=1e-6)
    aggregates = json.loads(file.read_text())["nnunet_ext"]["aggregates"]
    for name, summary in stored.summaries.items():
        old = {f"{key}_touch" if key in TOUCH else key: own for key, own in aggregates[name]["metrics"].items()}
        del old["nsd"]  # it was undefined where the prediction is empty
        for key, values in old.items():
            new = without_nan(asdict(summary.metrics[key]))
            ends = {"low": new["low"], "high": new["high"]}  # were of a percentile bootstrap
            assert new == pytest.approx(values | ends)


def test_a_failing_write_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation().save(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    write = Path.write_bytes
    for name in ("metrics.csv", "metrics.json"):  # the two appear together or not at all

        def full(self: Path, content: bytes, name: str = name) -> int:
            if name in self.name:
                raise OSError(28, "No space left on device")
            return write(self, content)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match=f"{name} cannot be written: No space"):
            evaluation(PIXELS).save(tmp_path)
        assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    for name in (".metrics.csv.4194303.partial", ".metrics.json.4194303.partial", ".other.json.4194303.partial"):
        (tmp_path / name).touch()
    evaluation().save(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [".other.json.4194303.partial", "metrics.csv", "metrics.json"]


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        evaluation().save(tmp_path / ("x" * 256))
    long = tmp_path / ("x" * 255)  # as long as names may be, also while it is written
    write_results({long: "text"})
    assert long.read_text() == "text"
    evaluation(cases=("x" * 256,)).save(tmp_path)
    with pytest.raises(InputError, match=r"case x{9}.* has a name that no file can have"):
        Evaluation.load(tmp_path)
