"""Subgroups of the cases from a CSV file, and cases that were asked for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluations import evaluation

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.comparison import ModelRuns, compare
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.report import Extras, build_report, read_subgroups
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.pictures import chosen_cases
from nnunet_ext.report.subgroups import in_order, subgroup_rows, subgroups

CASES = [f"case_{i:02}" for i in range(12)]
DICE = np.linspace(0.4, 0.95, 12)
KIND = ["malignant"] * 5 + ["benign"] * 7
SIZE = np.linspace(1, 12, 12)


def models() -> dict[str, list[Evaluation]]:
    return {"A": [evaluation(DICE)], "B": [evaluation(DICE - 0.05)]}


def table(tmp_path: Path, rows: dict[str, object] | str) -> Path:
    file = tmp_path / "groups.csv"
    file.write_text(rows if isinstance(rows, str) else pd.DataFrame(rows).to_csv(index=False))
    return file


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    return table(tmp_path, {"case": CASES, "class": KIND, "size": SIZE, "path": [f"/data/{c}.png" for c in CASES]})


class TestReading:
    def test_columns_are_groups(self, groups: Path) -> None:
        found = read_subgroups(groups, CASES)
        assert list(found) == ["class", "size"]  # a column with a name for every case is none
        assert found["class"] == dict(zip(CASES, KIND, strict=True))

    def test_numbers_are_cut_into_thirds(self, groups: Path) -> None:
        size = read_subgroups(groups, CASES)["size"]
        names = in_order(size)
        assert names == ["up to 4.67", "4.67 to 8.33", "over 8.33"]
        assert [list(size.values()).count(name) for name in names] == [4, 4, 4]

    def test_few_numbers_stay_as_they_are(self, tmp_path: Path) -> None:
        grades = [str(1 + i % 3) for i in range(12)]
        found = read_subgroups(table(tmp_path, {"case": CASES, "grade": grades}), CASES)
        assert in_order(found["grade"]) == ["1", "2", "3"]

    def test_what_is_not_stated(self, tmp_path: Path) -> None:
        found = read_subgroups(
            table(tmp_path, "case,site\ncase_00,x\ncase_01,y\ncase_02,\ncase_03,y\nother,z\n"), CASES
        )["site"]
        assert (found["case_00"], found["case_02"], found["case_11"]) == ("x", "not stated", "not stated")
        assert in_order(found) == ["x", "y", "not stated"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "cannot be read as CSV"),
            ("case\ncase_00\n", "has no column besides case"),
            ("case,site\nliver_1,x\n", "has none of the cases case_00, case_01"),
            ("case,site\ncase_00,x\ncase_00,y\ncase_01,y\n", "has more than one row for case_00"),
            ("case,site\ncase_00,x\ncase_01,x\n", "No column of"),
            ('case,site\n"case_00,x\n', "cannot be read as CSV"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(InputError, match=message) as e:
            read_subgroups(table(tmp_path, text), CASES)
        assert "groups.csv" in str(e.value)

    def test_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
        os.mkfifo(tmp_path / "pipe.csv")
        for name, message in (
            ("nothing.csv", "cannot be read"),
            ("", "is not a file"),
            ("pipe.csv", "is not a file"),
            ("binary.csv", "is not text in UTF-8"),
        ):
            with pytest.raises(InputError, match=rf"{message}[\s\S]*The first column names cases"):
                read_subgroups(tmp_path / name, CASES)


class TestReport:
    @pytest.fixture
    def data(self, groups: Path) -> ReportData:
        pooled = [ModelRuns(name=name, runs=runs) for name, runs in models().items()]
        extras = Extras(subgroups=read_subgroups(groups, CASES))
        return ReportData(models=pooled, comparison=compare(models()), extras=extras)

    def test_sums_are_those_of_the_groups(self, data: ReportData) -> None:
        by_class, _ = subgroups(data)["tumour"]
        assert [(name, n) for name, n, _ in by_class["rows"]] == [("benign", 7), ("malignant", 5)]
        (_, _, (a, b)), (_, _, (worse, _)) = by_class["rows"]
        assert (a.mean, b.mean) == pytest.approx((DICE[5:].mean(), DICE[5:].mean() - 0.05))
        assert worse.mean == pytest.approx(DICE[:5].mean())

    def test_every_case_is_drawn_in_its_group(self, data: ReportData) -> None:
        figure = subgroups(data)["tumour"][0]["figure"]
        rows = re.findall(r'<g class="dots" data-m="(\d)">(.*?)</g>', figure)
        assert [int(m) for m, _ in rows] == [0, 1, 0, 1]
        drawn = [sorted(map(int, re.findall(r'data-c="(\d+)"', dots))) for _, dots in rows]
        assert drawn == [list(range(5, 12))] * 2 + [list(range(5))] * 2

    def test_csv(self, data: ReportData) -> None:
        rows = subgroup_rows(data).set_index(["metric", "column", "group", "model"])
        assert rows.loc[("dice", "class", "malignant", "B"), "mean"] == pytest.approx(DICE[:5].mean() - 0.05)
        assert set(rows.index.get_level_values("metric")) == {"dice", "iou"}

    def test_without_groups_there_is_no_section(self) -> None:
        pooled = [ModelRuns(name=name, runs=runs) for name, runs in models().items()]
        assert subgroups(ReportData(models=pooled)) is None


class TestCases:
    def test_come_after_those_of_the_rule(self) -> None:
        pooled = [ModelRuns(name=name, runs=runs) for name, runs in models().items()]
        data = ReportData(models=pooled, extras=Extras(cases=["case_03", "case_11"]))
        assert chosen_cases(data, "tumour") == [
            ("case_11", "best case"),
            ("case_05", "median case"),
            ("case_00", "worst case"),
            ("case_03", "asked for"),
        ]

    def test_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"There is no case liver_9\.\n.*case_00, case_01"):
            build_report(models(), tmp_path / "report.html", extras=Extras(cases=["case_01", "liver_9"]))
        assert not (tmp_path / "report.html").exists()


class TestCommand:
    @pytest.fixture(autouse=True)
    def folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name, (run,) in models().items():
            run.save(Path(name))

    def test_compare(self, groups: Path) -> None:
        options = ["--report", "report.html", "--subgroups", str(groups), "--cases", "case_03"]
        assert main(["compare", "A=A", "B=B", *options]) == 0
        text = Path("report.html").read_text()
        assert '<section id="subgroups"' in text
        assert "subgroups.csv" in text

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--report", "report.html", "--cases", "nobody"], "There is no case nobody."),
            (["--report", "report.html", "--subgroups", "A"], "A is not a file"),
            (["--cases", "case_03"], "--cases and --subgroups are for the report."),
        ],
    )
    def test_nothing_is_written_if_anything_is_wrong(
        self, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["compare", "A=A", "B=B", *options]) == 2
        assert message in capsys.readouterr().err
        assert not Path("comparison").exists()
        assert not Path("report.html").exists()
