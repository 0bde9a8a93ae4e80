"""Reports in a real browser: what overflows, fails to load, cannot be read or does not react."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import report_data
from evaluations import evaluation, joined

from nnunet_ext.comparison import compare
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.report import Cost, Extras, Published, build_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to show reports in"),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
DARK = "--blink-settings=preferredColorScheme=0"
PHONE, PAPER, DESKTOP = 390, 688, 1280  # pixels; paper is A4 without its margins
CATCH = """<script>window.failures = [];
addEventListener("error", e => failures.push(e.message || `${e.target.tagName} failed to load`), true);
addEventListener("unhandledrejection", e => failures.push(String(e.reason)));
console.error = console.warn = (...what) => failures.push(what.join(" "));</script>"""
FRAME = """<!doctype html><body style="margin:0"><script>
addEventListener("message", e => { document.documentElement.dataset.result = e.data; });</script>
<iframe src="%s" style="width:%dpx;height:900px;border:0"></iframe>"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def models(root: Path) -> dict[str, list[Evaluation]]:
    return report_data.study(root / "study")


@pytest.fixture(scope="module")
def report(root: Path, models: dict[str, list[Evaluation]]) -> Path:
    """With every section that ultrasound can have."""
    folders = {name: folder for name, (*_, folder) in report_data.MODELS.items()}
    first = next(iter(models))
    extras = Extras(
        model_folders={name: [report_data.fold_folder(root / "results", f)] for name, f in folders.items()},
        published=[Published(row=first, metrics={"dice": 0.86}, source="table 1", note="a long " * 30)],
        commands=["nnUNetv2_train " + "--a-long-option " * 30],
        notes=["averylongwordwithoutanyspace" * 6],
        subgroups={
            "kind of case, and more words": {case: case.partition("_")[0] * 9 for case in models[first][0].cases}
        },
    )
    comparison = compare(models)
    build_report(models, root / "report.html", comparison=comparison, extras=extras, title="averylongtitle" * 8)
    return root / "report.html"


def chromium(tmp_path: Path, *arguments: str) -> str:
    """What it prints, in a profile of its own."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return result.stdout


def probe(report: Path, tmp_path: Path, width: int, *flags: str, paper: bool = False) -> dict:
    """What the probe finds in a page of that width."""
    text = report.read_text(encoding="utf-8")
    if paper:
        text = text.replace("@media screen", "@media not all").replace("@media print", "@media all")
    script = Path(__file__).with_name("report_probe.js").read_text()
    text = text.replace("<head>", f"<head>{CATCH}", 1).replace("</body>", f"<script>{script}</script></body>")
    (tmp_path / "probed.html").write_text(text, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME % ("probed.html", width))
    dom = chromium(
        tmp_path, *flags, "--virtual-time-budget=8000", "--window-size=1400,1000", "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    )  # fmt: skip
    found = re.search(r'data-result="([^"]*)"', dom)
    assert found, f"the probe did not finish: {dom[:500]}"
    result = json.loads(html.unescape(found[1]))
    assert result["width"] == width
    return result


def sound(result: dict) -> None:
    """Nothing that a reader would stumble over."""
    assert result["errors"] == []
    assert [name for name in result["loads"] if not name.startswith("file:")] == []
    assert result["overflow"] <= 0
    assert result["outside"] == []
    assert result["clipped"] == []
    assert result["faint"] == []


@pytest.mark.parametrize("width", [PHONE, 800, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_or_fails(report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    result = probe(report, tmp_path, width, *([DARK] if scheme == "dark" else []))
    assert result["dark"] == (scheme == "dark")
    sound(result)


def test_pictures_are_seen(report: Path, tmp_path: Path) -> None:
    areas = probe(report, tmp_path, DESKTOP)["images"]
    assert len(areas) == 2 * 4 + 2  # input and crop of four cases, and what SAMUS-HF sees
    assert min(areas) > 1000


def test_on_paper(report: Path, tmp_path: Path) -> None:
    result = probe(report, tmp_path, PAPER, paper=True)
    assert result["errors"] == []
    assert result["overflow"] <= 0
    assert result["outside"] == []


def test_pdf(report: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.pdf"
    chromium(tmp_path, f"--print-to-pdf={file}", "--no-pdf-header-footer", report.as_uri())
    pages = re.findall(rb"/Type\s*/Page\b", file.read_bytes())
    assert 5 < len(pages) < 30


def test_one_model(models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
    name = next(iter(models))
    build_report({name: models[name]}, tmp_path / "one.html")
    sound(probe(tmp_path / "one.html", tmp_path, PHONE))


def test_many_models(models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
    runs = next(iter(models.values()))
    many = {f"a model with a long name, number {i}": runs for i in range(9)}
    build_report(many, tmp_path / "many.html", comparison=compare(many))
    for width in (PHONE, DESKTOP):
        sound(probe(tmp_path / "many.html", tmp_path, width))


def test_long_names(tmp_path: Path) -> None:
    """Of models, cases, structures and folders, without a place to break them."""
    rng = np.random.default_rng(0)
    cases = [f"{'case' * 30}_{i}" for i in range(12)]
    cases[0] = "x" * 250
    models = {}
    for i in range(9):
        dice = [np.clip(rng.normal(0.8, 0.1, 12), 0, 1) for _ in range(2)]
        sizes = {"volume_reference": np.arange(1, 13), "hd95": 40 * (1 - dice[0])}
        parts = [
            evaluation(d, cases=cases, structure=f"{'structure' * 9}{k}", labels=(k,), others=sizes, dataset="d" * 99)
            for k, d in enumerate(dice, 1)
        ]
        models[f"{'model' * 30}{i}"] = [joined(*parts)]
    extras = Extras(costs={name: Cost(parameters=1) for name in models})
    build_report(models, tmp_path / "long.html", comparison=compare(models), extras=extras)
    for width in (PHONE, DESKTOP):
        sound(probe(tmp_path / "long.html", tmp_path, width))
    printed = probe(tmp_path / "long.html", tmp_path, PAPER, paper=True)
    assert (printed["errors"], printed["overflow"]) == ([], 0)


@pytest.mark.parametrize("empty", [False, True])
def test_no_heading_is_printed_without_content(tmp_path: Path, empty: bool) -> None:
    dice = np.linspace(0.5, 0.9, 8)
    run = evaluation(dice, others={"volume_prediction": dice})
    if empty:
        run.table.loc[:1, ["tp", "fp", "fn"]] = 0
    build_report({"A": [run]}, tmp_path / "report.html")
    result = probe(tmp_path / "report.html", tmp_path, PAPER, paper=True)
    assert len(result["headings"]) > 4
    assert [name for name, content in result["headings"] if not content] == []


@pytest.fixture(scope="module")
def result(report: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return probe(report, tmp_path_factory.mktemp("script"), DESKTOP)


class TestScript:
    def test_table_is_there(self, result: dict, models: dict[str, list[Evaluation]]) -> None:
        dice = next(iter(models.values()))[0].of("lesion")["dice"]
        assert [row[0] for row in result["rows"]] == sorted(dice.index)
        assert [row[2] for row in result["rows"]] == [f"{v:.3f}" if v == v else "n/a" for v in dice.sort_index()]

    def test_sorting_keeps_undefined_last(self, result: dict) -> None:
        for order, sign in (("ascending", 1), ("descending", -1)):
            values = result[order]
            defined = [sign * float(v) for v in values if v != "n/a"]
            assert defined == sorted(defined)
            assert values[len(defined) :] == ["n/a"] * (len(values) - len(defined))
            assert 0 < len(defined) < len(values)
        assert result["ascending"] != result["descending"]
        assert result["sorted"] == "descending"

    def test_filter(self, result: dict) -> None:
        assert sorted(result["filtered"]) == ["normal_1", "normal_2"]

    def test_metric(self, result: dict, models: dict[str, list[Evaluation]]) -> None:
        values = next(iter(models.values()))[0].of("lesion")["hd95"].dropna()
        assert values.size
        for case, value in values.items():
            assert float(result["hd95"][case]) == pytest.approx(value, abs=0.05)

    def test_a_case_is_shown_in_all_figures(self, result: dict) -> None:
        assert result["hot"] > 5


class TestPointing:
    """Whatever lies on top, and however close cases are, every dot says its case and value."""

    @pytest.fixture
    def crowd(self) -> dict[str, list[Evaluation]]:
        """Three models whose values are close together on eighty cases."""
        rng = np.random.default_rng(0)
        dice = [np.clip(rng.normal(0.9, 0.02, 80), 0, 1) for _ in range(3)]
        size = {"volume_reference": np.exp(rng.normal(2, 0.3, 80))}
        others = [
            {"hd95": 40 * (1 - d), "precision": d, "recall": d, "nsd": d, "assd": 9 * (1 - d), **size} for d in dice
        ]
        return {f"M{i}": [evaluation(d, others=own)] for i, (d, own) in enumerate(zip(dice, others, strict=True))}

    def test_every_dot_can_be_pointed_at(self, crowd: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        build_report(crowd, tmp_path / "crowd.html", comparison=compare(crowd))
        dots = probe(tmp_path / "crowd.html", tmp_path, DESKTOP)["dots"]
        assert len(dots) >= 3 * 80 * 6
        for dot in dots:
            table = crowd[f"M{dot['m']}"][0].of(dot["s"])
            case = table.index[dot["c"]]
            own = re.search(rf"^{case}: .*{'ABC'[dot['m']]} (-?[\d.]+)", dot["tip"], re.MULTILINE)
            assert own, dot
            assert float(own[1]) == pytest.approx(table[dot["k"]].iloc[dot["c"]], abs=0.051)
