"""What is in a report, without a browser."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_data
from evaluations import evaluation

from nnunet_ext import registry
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import untracked
from nnunet_ext.comparison import ModelRuns, compare, to_latex
from nnunet_ext.comparison.wording import number
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.metrics.definitions import BY_KEY
from nnunet_ext.report import Cost, Extras, Published, build_report
from nnunet_ext.report.context import deviations, deviations_text
from nnunet_ext.report.costs import training_curves
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.figures import LEFT, RIGHT, distributions
from nnunet_ext.report.pictures import chosen_cases, high_frequency, qualitative
from nnunet_ext.report.svg import Scale, line, tag
from nnunet_ext.report.tables import cases, published, summary

FIRST, SECOND = report_data.MODELS
COMPARING = {"significance", "paired"}
VOID = {"meta", "link", "br", "input", "img"}


class Page(HTMLParser):
    """Tags with their attributes, the text of each section, and whether tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, str] = {}
        self.section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if not (self.open and self.open[-1] in ("style", "script")):
            self.texts[self.section] = self.texts.get(self.section, "") + data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and all(a.get(k.rstrip("_")) == v for k, v in attributes.items())]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def models(root: Path) -> dict[str, list[Evaluation]]:
    return report_data.study(root / "study")


def data_of(models: dict[str, list[Evaluation]], **more: object) -> ReportData:
    return ReportData(models=[ModelRuns(name=name, runs=runs) for name, runs in models.items()], **more)


def compared(models: dict[str, list[Evaluation]]):
    return compare(models)


@pytest.fixture(scope="module")
def extras(root: Path) -> Extras:
    return Extras(
        model_folders={
            name: [report_data.fold_folder(root / "results", folder)]
            for name, (*_, folder) in report_data.MODELS.items()
        },
        costs={FIRST: Cost(flops=1.25e11, seconds_per_case=0.42, device="a <machine>")},
        commands=["nnUNetv2_train 30 2d 0 -tr X > log && echo done"],
        manifests={FIRST: [{"commit": "abc1234", "machine": {"gpu": None, "cores": 2}, "steps": {}}]},
        published=[Published(row=FIRST, metrics={"dice": 0.8638}, source="table 1", note="one split")],
        differences=["clicks at test time"],
        notes=["Phantoms, not <patients>."],
    )


@pytest.fixture(scope="module")
def text(root: Path, models: dict[str, list[Evaluation]], extras: Extras) -> str:
    file = root / "out" / "report.html"
    build_report(models, file, comparison=compared(models), extras=extras, title="A <b>title</b> & more")
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def alone(root: Path, models: dict[str, list[Evaluation]]) -> Page:
    file = root / "one.html"
    build_report({FIRST: models[FIRST]}, file)
    return Page(file.read_text(encoding="utf-8"))


class TestPage:
    def test_needs_nothing_else(self, text: str, page: Page) -> None:
        for name, attributes in page.tags:
            for key in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
                value = attributes.get(key) or "#"
                assert value.startswith(("#", "data:")), f"<{name} {key}={value[:60]}>"
        assert not re.findall(r"@import|url\((?!['\"]?data:)|//cdn|https?://", text)

    def test_names_are_escaped(self, text: str, page: Page) -> None:
        assert page.all("b") == [a for a in page.all("b") if a == {}]
        assert "A <b>title</b>" not in text
        assert "<2d>" not in text
        assert "<patients>" not in text
        assert "<machine>" not in text
        assert "A <b>title</b> & more" in page.texts[""]
        assert SECOND in page.texts[""]

    def test_data_of_the_script_cannot_end_it(self, models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        nasty = "</script><script>alert(1)//"
        table = models[FIRST][0].table.replace({"case": {"normal_1": nasty}})
        build_report({nasty: [replace(models[FIRST][0], table=table)]}, tmp_path / "r.html")
        page = Page((tmp_path / "r.html").read_text())
        assert len(page.all("script")) == 2
        assert nasty in page.texts["cases"]

    def test_ids_are_unique_and_links_lead_somewhere(self, page: Page) -> None:
        ids = [a["id"] for _, a in page.tags if "id" in a]
        assert len(ids) == len(set(ids))
        targets = {a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")}
        assert targets <= set(ids)

    def test_can_be_read_aloud(self, page: Page) -> None:
        levels = [int(t[1]) for t, _ in page.tags if re.fullmatch("h[1-6]", t)]
        assert levels[0] == 1
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
        assert page.all("html") == [{"lang": "en"}]
        assert all(a.get("aria-label") for a in page.all("svg"))
        assert all(a.get("scope") in ("col", "row", "rowgroup") for a in page.all("th"))
        assert all(a.get("aria-label") for _, a in page.tags if a.get("role") == "region")

    def test_the_same_again(self, root: Path, models: dict[str, list[Evaluation]], extras: Extras, text: str) -> None:
        build_report(
            models, root / "again.html", comparison=compared(models), extras=extras, title="A <b>title</b> & more"
        )
        assert (root / "again.html").read_text(encoding="utf-8") == text

    def test_nothing_half_written_remains(self, root: Path) -> None:
        assert [f.name for f in (root / "out").iterdir()] == ["report.html"]


class TestSections:
    def test_all_there(self, page: Page) -> None:
        shown = {a["id"] for a in page.all("section")}
        assert shown >= {"summary", "significance", "distributions", "paired", "profiles", "qualitative", "curves"}
        assert shown >= {"high-frequency", "costs", "published", "cases", "downloads", "definitions", "commands"}
        assert "deviations" in shown

    def test_one_model_is_not_compared(self, alone: Page) -> None:
        shown = {a["id"] for a in alone.all("section")}
        assert not shown & COMPARING
        assert "best" not in {a.get("class") for a in alone.all("td")}
        assert "nnunet_ext compare A=DIR B=DIR" in alone.texts["left-out"]

    def test_left_out_or_shown(self, page: Page, alone: Page) -> None:
        for one in (page, alone):
            shown = {a["id"] for a in one.all("section")}
            for id_, title in (("preprocessing", "Before and after preprocessing"), ("curves", "Training")):
                assert (title in one.texts["left-out"]) == (id_ not in shown)
        assert "curves" not in {a["id"] for a in alone.all("section")}

    def test_what_was_told(self, page: Page) -> None:
        assert "nnUNetv2_train 30 2d 0 -tr X > log && echo done" in page.texts["commands"]
        assert "abc1234" in page.texts["commands"]
        assert "machine.cores" in page.texts["commands"]
        assert "machine.gpu" not in page.texts["commands"]
        assert "nnunet_ext evaluate --pred" in page.texts["commands"]
        assert "0.864" in page.texts["published"]
        assert "one split" in page.texts["published"]
        assert "clicks at test time" in page.texts["published"]
        assert "Phantoms, not <patients>." in page.texts[""]

    def test_costs_are_filled_from_registry_and_logs(self, page: Page) -> None:
        shown = page.texts["costs"]
        assert "134,537,504" in shown
        assert "125.0" in shown
        assert "0.42 s" in shown
        assert re.search(r"6\.\d min", shown)  # 30 epochs of 12 to 13 s

    def test_a_figure_of_a_structure_or_model_that_is_not_there_stands_alone(
        self, models: dict[str, list[Evaluation]], tmp_path: Path
    ) -> None:
        stated = {"metrics": {"dice": 0.8638}, "source": "table 1"}
        entries = [Published(row=FIRST, structure="cyst", **stated), Published(row="not finished", **stated)]
        extras = Extras(published=entries)
        assert [row["ours"] for row in published(data_of(models, extras=extras))["rows"]] == [None, None]
        build_report(models, tmp_path / "r.html", extras=extras)
        shown = Page((tmp_path / "r.html").read_text(encoding="utf-8")).texts["published"]
        assert "not finished" in shown
        assert "cyst" in shown

    def test_deviations_of_the_papers_involved_only(self, page: Page) -> None:
        assert "SAMUS-HF and SAMUS" in page.texts["deviations"]
        assert "Bottleneck" not in page.texts["deviations"]
        rows = re.search(r"^## SAMUS-HF.*?(?=^## |\Z)", deviations_text(), re.M | re.S)[0]
        assert f"{len(re.findall(r'^[|] [0-9]+ [|]', rows, re.M))} rows" in page.texts["deviations"]

    def test_metrics_are_drawn_that_say_so(self, page: Page, models: dict[str, list[Evaluation]]) -> None:
        drawn = {a["data-k"] for a in page.all("svg") if a.get("data-k")}
        figures = {m.key for m in data_of(models).metrics("lesion") if m.shown == "figure"}
        assert drawn == figures | {"volume_error"}  # in the figure of agreement

    def test_definitions_of_what_is_shown(self, page: Page) -> None:
        shown = page.texts["definitions"]
        for key in ("dice", "hd95", "nsd", "lesion_f1", "hd_rows"):
            assert BY_KEY[key].definition in shown

    def test_warns(self, page: Page, alone: Page) -> None:
        assert "hd_rows is not a distance" in page.texts[""]
        assert "undefined" in page.texts[""]
        assert "either mask empty" in alone.texts[""]

    def test_few_cases_and_clicks(self, models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        run = models[FIRST][0]
        few = replace(
            run,
            table=run.table[run.table["case"].isin(run.cases[:4])],
            info={**run.info, "prompts": "reference"},
        )
        build_report({"clicked": [few]}, tmp_path / "few.html")
        head = Page((tmp_path / "few.html").read_text()).texts[""]
        assert "Only 4 cases" in head
        assert "clicked: clicks from the reference, an upper bound" in head


def test_intervals_of_few_cases_end_within_their_figure() -> None:
    """Of three cases, Student's interval is wider than the values are apart."""
    others = {"hd95": [8.0, 22.0, 25.0]}
    figures = distributions(data_of({"A": [evaluation([0.4, 0.7, 0.75], others=others)]}))
    assert figures is not None
    intervals = re.findall(r'd="M([-\d.]+) [\d.]+H([-\d.]+)" class="interval"', "".join(figures["tumour"]))
    assert len(intervals) >= 2
    assert all(LEFT <= float(low) < float(high) <= RIGHT for low, high in intervals)


class TestSummary:
    def test_best_follows_the_direction(self, models: dict[str, list[Evaluation]]) -> None:
        rows = summary(data_of(models))[0]
        for row in rows["ranked"]:
            means = [float(number(s.mean, row["metric"])) for s, _ in row["cells"]]
            best = max(means) if row["metric"].better == 1 else min(means)
            assert [marked for _, marked in row["cells"]] == [m == best for m in means], row["label"]
        assert {r["label"] for r in rows["ranked"]} >= {"Dice", "HD95 (px)"}

    def test_descriptions_have_no_best(self, models: dict[str, list[Evaluation]]) -> None:
        rows = summary(data_of(models))[0]["described"]
        assert "hd_rows" in {r["label"] for r in rows}
        assert not any(marked for r in rows for _, marked in r["cells"])

    def test_prompts_are_not_ranked_together(self, models: dict[str, list[Evaluation]]) -> None:
        clicked = replace(models[FIRST][0], info={**models[FIRST][0].info, "prompts": "reference"})
        rows = summary(data_of({FIRST: [clicked], SECOND: models[SECOND]}))[0]["ranked"]
        assert not any(marked for r in rows for _, marked in r["cells"])

    def test_undefined_is_counted(self, page: Page, models: dict[str, list[Evaluation]]) -> None:
        row = next(r for r in summary(data_of(models))[0]["ranked"] if r["label"] == "Dice")
        undefined = int(models[FIRST][0].of("lesion")["dice"].isna().sum())
        assert undefined == 2
        assert (row["cells"][0][0].n, row["cells"][0][0].undefined) == (8, 2)
        assert "n 8, 2 undefined" in page.texts["summary"]

    def test_pooled_values_come_from_summed_counts(self, page: Page, models: dict[str, list[Evaluation]]) -> None:
        tp, fp, fn = models[FIRST][0].of("lesion")[["tp", "fp", "fn"]].sum()
        assert f"pooled {2 * tp / (2 * tp + fp + fn):.3f}" in page.texts["summary"]

    def test_a_metric_that_one_model_lacks(self, models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        poor = replace(models[SECOND][0], table=models[SECOND][0].table.drop(columns=["hd95_px", "precision"]))
        rows = summary(data_of({FIRST: models[FIRST], SECOND: [poor]}))[0]["ranked"]
        cell = next(r for r in rows if r["label"] == "HD95 (px)")["cells"][1]
        assert cell == (None, False)
        build_report({FIRST: models[FIRST], SECOND: [poor]}, tmp_path / "r.html")
        assert "not measured" in Page((tmp_path / "r.html").read_text()).texts["summary"]


class TestSignificance:
    def test_matrix_is_antisymmetric(self, page: Page, models: dict[str, list[Evaluation]]) -> None:
        found = [a["class"] for a in page.all("td") if (a.get("class") or "").startswith("f-")]
        assert found
        assert found.count("f-better") == found.count("f-worse")

    def test_p_values_follow_alpha(self, tmp_path: Path) -> None:
        """One digit more where rounding would hide on which side of alpha a p-value is, here 2 / 2^7."""
        ours, theirs = np.linspace(0.6, 0.9, 7), np.linspace(0.5, 0.7, 7)
        models = {"ours": [evaluation(ours)], "theirs": [evaluation(theirs)]}
        for alpha, shown, hidden in ((0.05, "p = .016", ".0156"), (0.0157, "p = .0156", "p = .016")):
            build_report(models, tmp_path / "r.html", comparison=compare(models, alpha=alpha))
            text = Page((tmp_path / "r.html").read_text(encoding="utf-8")).texts["significance"]
            assert shown in text
            assert hidden not in text

    def test_verdicts_are_printed(self, page: Page, models: dict[str, list[Evaluation]]) -> None:
        for result in compared(models).results.values():
            for pair in result.pairs:
                assert pair.verdict in page.texts["significance"]


class TestCases:
    def test_script_data(self, text: str, models: dict[str, list[Evaluation]]) -> None:
        data = json.loads(re.search(r'<script type="application/json" id="case-data">(.*?)</script>', text, re.S)[1])
        own = models[FIRST][0].of("lesion")["dice"]
        values = data["structures"]["lesion"]["metrics"]["dice"]
        assert data["cases"] == sorted(own.index)
        for case, row in zip(data["cases"], values, strict=True):
            assert row[0] == (None if np.isnan(own[case]) else pytest.approx(own[case], rel=1e-4))

    def test_cases_without_the_structure_stand_apart(self, models: dict[str, list[Evaluation]]) -> None:
        absent = cases(data_of(models))["absent"][0]
        assert [case for case, _ in absent["rows"]] == ["normal_1", "normal_2"]
        volumes = models[SECOND][0].of("lesion").loc[["normal_1", "normal_2"], "volume_prediction"]
        assert absent["found"] == (volumes > 0).sum() > 0

    def test_csv_has_every_value(self, page: Page, models: dict[str, list[Evaluation]]) -> None:
        files = {a["download"]: a["href"] for a in page.all("a") if "download" in a}
        assert list(files) == ["cases.csv", "models.csv", "pairs.csv"]
        content = base64.b64decode(files["cases.csv"].removeprefix("data:text/csv;charset=utf-8;base64,"))
        table = pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""])
        own = table[table["model"] == SECOND].drop(columns=["model", "run"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(own, models[SECOND][0].table, check_dtype=False, rtol=1e-6)

    def test_latex(self, page: Page, models: dict[str, list[Evaluation]]) -> None:
        assert to_latex(compared(models)) in page.texts["downloads"]


class TestPooling:
    """Folds have other cases, repeats the same again."""

    @pytest.fixture
    def folds(self, models: dict[str, list[Evaluation]]) -> list[Evaluation]:
        run = models[FIRST][0]
        halves = run.cases[::2], run.cases[1::2]
        return [replace(run, table=run.table[run.table["case"].isin(half)]) for half in halves]

    def test_folds_are_one_model(
        self, models: dict[str, list[Evaluation]], folds: list[Evaluation], tmp_path: Path
    ) -> None:
        split, whole = (data_of({FIRST: runs}) for runs in (folds, models[FIRST]))
        assert repr(summary(split)) == repr(summary(whole)), "with NaN"
        assert chosen_cases(split, "lesion") == chosen_cases(whole, "lesion")
        build_report({FIRST: folds}, tmp_path / "r.html")
        assert "2 folds" in Page((tmp_path / "r.html").read_text()).texts[""]

    def test_repeats_are_averaged_by_case(self, models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        runs = [models[FIRST][0], models[SECOND][0]]
        values = data_of({"both": runs}).values("lesion", "dice")["both"]
        expected = np.mean([r.of("lesion")["dice"] for r in runs], axis=0)
        np.testing.assert_array_equal(values[runs[0].cases], expected)
        build_report({"both": runs}, tmp_path / "r.html")
        assert "sd of repeats" in (tmp_path / "r.html").read_text()


class TestPictures:
    def test_rule(self, models: dict[str, list[Evaluation]]) -> None:
        data = data_of(models)
        mean = (
            pd.concat([runs[0].of("lesion")["dice"] for runs in models.values()], axis=1)
            .drop(["normal_1", "normal_2"])
            .mean(axis=1)
        )
        found = {why: case for case, why in chosen_cases(data, "lesion")}
        assert mean[found["best case"]] == mean.max()
        assert mean[found["worst case"]] == mean.min()
        assert (mean < mean[found["median case"]]).sum() == 3  # of eight, the lower of the two in the middle
        assert found["largest false alarm: the reference is empty"].startswith("normal")

    def test_contour_encloses_the_mask(self, models: dict[str, list[Evaluation]], root: Path) -> None:
        import SimpleITK as sitk  # noqa: N813

        rows = qualitative(data_of(models), untracked).rows["lesion"]
        row = next(r for r in rows if r.why == "best case")
        path = re.search(r'<path d="([^"]+)" class="outline reference"', row.pictures[1].drawing)[1]
        x, y = np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path), dtype=float).T
        area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
        mask = sitk.GetArrayFromImage(sitk.ReadImage(root / "study" / "labelsTs" / f"{row.case}.png"))
        assert area == pytest.approx(mask.sum(), rel=0.03)

    def test_columns(self, models: dict[str, list[Evaluation]]) -> None:
        for row in qualitative(data_of(models), untracked).rows["lesion"]:
            assert [p.title for p in row.pictures] == ["input", "reference", f"A  {FIRST}", f"B  {SECOND}"]

    def test_images_that_cannot_be_read(self, models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        (tmp_path / "broken").mkdir()
        for case in models[FIRST][0].cases:
            (tmp_path / "broken" / f"{case}_0000.png").write_bytes(b"no image")
        assert qualitative(data_of(models, images=tmp_path / "broken"), untracked) is None

    def test_an_image_that_is_missing_is_named(
        self, models: dict[str, list[Evaluation]], root: Path, tmp_path: Path
    ) -> None:
        images = Path(shutil.copytree(root / "study" / "imagesTs", tmp_path / "images"))
        case, why = chosen_cases(data_of(models), "lesion")[0]
        (images / f"{case}_0000.png").unlink()
        (tmp_path / "truth").symlink_to(root / "study" / "labelsTs")  # no imagesTs in its folder
        places = {"images": str(images), "references": str(tmp_path / "truth")}
        runs = {name: [replace(r, info={**r.info, **places}) for r in own] for name, own in models.items()}
        gallery = qualitative(data_of(runs), untracked)
        assert gallery.missing == [f"{case} (lesion, {why})"]
        build_report(runs, tmp_path / "r.html")
        assert f"has another shape: {case}" in Page((tmp_path / "r.html").read_text()).texts["qualitative"]

    def test_scans_show_the_slice_of_the_largest_reference(self, tmp_path: Path) -> None:
        import SimpleITK as sitk  # noqa: N813

        root = report_data.scans(tmp_path / "scans", cases=2, size=48, slices=8)
        folder = "nnUNetTrainerRAUNet__nnUNetRAUNetPlans__2d"
        out = report_data.predict(root, folder, error=0.2, seed=2, ending=".nii.gz")
        models = {"RA": [report_data.evaluation(root, out, trainer="nnUNetTrainerRAUNet")]}
        fold, scheme = report_data.fold_folder(tmp_path / "results", folder), "LiverWindowCLAHENormalization"
        extras = Extras(model_folders={"RA": [fold]})
        rows = qualitative(data_of(models), untracked).rows
        assert set(rows) == {"liver", "tumour"}
        for structure, wanted in (("liver", (1, 2)), ("tumour", (2,))):
            for row in rows[structure]:
                file = root / "labelsTs" / f"{row.case}.nii.gz"
                mask = np.isin(sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(file), "LPS")), wanted)
                assert row.about.startswith(f"slice {int(np.argmax(mask.sum((1, 2)))) + 1} of 8")
        build_report(models, tmp_path / "r.html", extras=extras)
        page = Page((tmp_path / "r.html").read_text())
        for title in ("-160 to 240 HU", "-20 to 140 HU", registry.get("normalization", scheme).summary):
            assert title in page.texts["preprocessing"]
        assert "Bottleneck" in page.texts["deviations"]


class TestHighFrequencies:
    def shown(self, models: dict[str, list[Evaluation]], trainer: str) -> dict | None:
        runs = [replace(run, info={**run.info, "trainer": trainer}) for run in models[FIRST]]
        return high_frequency(data_of({FIRST: runs}))

    def test_are_those_of_the_models_own_wavelet(
        self, models: dict[str, list[Evaluation]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        papers = self.shown(models, "nnUNetTrainerSAMUSHF")
        assert (papers["wavelet"], papers["normalization"]) == ("haar", "minmax")
        options = {"wavelet": "db2", "normalization": "percentile"}
        monkeypatch.setattr("nnunet_ext.trainers.samus.nnUNetTrainerSAMUSHF.model_options", options)
        own = self.shown(models, "nnUNetTrainerSAMUSHF")
        assert {key: own[key] for key in options} == options
        assert own["pictures"][0] == papers["pictures"][0]
        assert own["pictures"][1] != papers["pictures"][1]
        build_report({FIRST: models[FIRST]}, tmp_path / "r.html")
        shown = Page((tmp_path / "r.html").read_text(encoding="utf-8")).texts["high-frequency"]
        assert "the percentile-normalised bands HL, LH and HH of a Db2 wavelet" in shown

    @pytest.mark.parametrize(
        ("trainer", "has"),
        [("SAMUSHFInput", True), ("SAMUSHFTiny", True), ("SAMUSHFControl", False), ("SAMUS", False), ("RAUNet", False)],
    )
    def test_belong_to_networks_that_make_them(
        self, models: dict[str, list[Evaluation]], trainer: str, has: bool
    ) -> None:
        assert (self.shown(models, f"nnUNetTrainer{trainer}") is not None) == has

    def test_a_trainer_of_another_package_is_known_by_its_entry(
        self, models: dict[str, list[Evaluation]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours = registry.get("trainer", "nnUNetTrainerSAMUSHF")
        theirs = ours._replace(name="Theirs", module=__name__)
        monkeypatch.setattr(sys.modules[__name__], "Theirs", ours.load(), raising=False)
        monkeypatch.setattr(registry, "get", lambda kind, name: theirs if name == "Theirs" else None)
        assert self.shown(models, "Theirs")
        run = replace(models[FIRST][0], info={"trainer": "Theirs"})
        assert [paper["title"] for paper in deviations(data_of({FIRST: [run]}))] == [ours.paper]

    def test_a_trainer_of_others_cannot_cost_a_report(
        self, models: dict[str, list[Evaluation]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nnunet_ext.trainers.samus.nnUNetTrainerSAMUSHF.build_model", lambda: 1 / 0)
        assert self.shown(models, "nnUNetTrainerSAMUSHF") is None


class TestCurves:
    @pytest.mark.parametrize("record", ["validation", "clicks"])
    def test_found_from_the_predictions(self, models: dict[str, list[Evaluation]], tmp_path: Path, record: str) -> None:
        fold = report_data.fold_folder(tmp_path, "nnUNetTrainerRAUNet__nnUNetRAUNetPlans__2d", epochs=3)
        predictions = fold / "validation" if record == "validation" else tmp_path / "predictions"
        predictions.mkdir()
        if record == "clicks":
            content = {
                "source": "file",
                "model": str(fold.parent),
                "checkpoints": [{"file": "fold_0/checkpoint_best.pth"}],
            }
            (predictions / "prompts_used.json").write_text(json.dumps(content))
        run = replace(models[FIRST][0], info={"predictions": str(predictions)})
        data = data_of({"model": [run]})
        assert [f.resolve() for f in data.fold_folders("model")] == [fold.resolve()]
        assert data.entry("model").name == "nnUNetTrainerRAUNet"
        assert data.record("model", "plans.json")["configurations"]["2d"]["normalization_schemes"]
        assert training_curves(data)


class TestDrawing:
    def test_scale(self) -> None:
        assert Scale((0, 10), (100, 200))(2.5) == 125
        assert Scale((1, 100), (0, 200), log=True)(10) == pytest.approx(100)
        assert Scale((0, 1), (0, 1)).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
        assert Scale((3, 3), (0, 100))(3) == 50

    def test_lines_break_at_undefined(self) -> None:
        assert line([(0, 0), (1, 1), (2, float("nan")), (3, 3)]) == "M0 0L1 1M3 3"

    def test_escapes(self) -> None:
        assert tag("text", "<&>", aria_label='"x"') == '<text aria-label="&#34;x&#34;">&lt;&amp;&gt;</text>'


class TestErrors:
    def test_nothing_to_report(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="at least one evaluation"):
            build_report({"model": []}, tmp_path / "r.html")

    def test_not_one_model(self, models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        run = models[FIRST][0]
        part = replace(run, table=run.table[run.table["case"].isin(run.cases[:4])])
        with pytest.raises(InputError, match="folds have no case in common"):
            build_report({"model": [run, part]}, tmp_path / "r.html")
        assert not (tmp_path / "r.html").exists()

    def test_nothing_in_common(self, models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        table = models[SECOND][0].table.assign(structure="cyst")
        other = replace(models[SECOND][0], structures={"cyst": (2,)}, table=table)
        with pytest.raises(InputError, match="no structure in common"):
            build_report({FIRST: models[FIRST], SECOND: [other]}, tmp_path / "r.html")

    def test_of_an_earlier_version_is_replaced_and_nothing_else(
        self, models: dict[str, list[Evaluation]], tmp_path: Path
    ) -> None:
        out = tmp_path / "report.html"
        out.write_text("<!doctype html>\n<html><dt>Made with</dt><dd>nnunet_ext 0.1.0</dd></html>")
        build_report({FIRST: models[FIRST]}, out)
        (tmp_path / "empty").touch()
        for file in (tmp_path / "empty", Path("/dev/null")):
            with pytest.raises(InputError, match="not written by the report of nnunet_ext"):
                build_report({FIRST: models[FIRST]}, file)

    def test_no_place(self, models: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="cannot be written"):
            build_report({FIRST: models[FIRST]}, tmp_path / "file" / "r.html")
