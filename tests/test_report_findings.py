"""What a report says was found: the head of the page, the primary metric, and many models."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from evaluations import evaluation, joined

from nnunet_ext.comparison import ModelRuns, compare
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.report import build_report
from nnunet_ext.report.context import headlines
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.figures import paired
from nnunet_ext.report.overview import mean_ranks, overview, undecided
from nnunet_ext.report.pictures import chosen_cases
from nnunet_ext.report.tables import summary

RANDOM = np.random.default_rng(0)
BASE = RANDOM.uniform(0.5, 0.9, 16)


def data_of(models: dict[str, list[Evaluation]], **options: object) -> ReportData:
    pooled = [ModelRuns(name=name, runs=runs) for name, runs in models.items()]
    return ReportData(models=pooled, comparison=compare(models, **options) if len(models) > 1 else None)


def of_gain(gain: float, noise: float = 0.01) -> list[Evaluation]:
    dice = BASE + gain + RANDOM.normal(0, noise, BASE.size)
    return [evaluation(dice, others={"hd95": 40 * (1 - dice)})]


@pytest.fixture(scope="module")
def many() -> dict[str, list[Evaluation]]:
    """Twelve models; the best are named last."""
    return {f"M{i:02}": of_gain(0) for i in range(10)} | {"good": of_gain(0.05), "best": of_gain(0.1)}


class TestInShort:
    def test_leads_with_what_was_found(self, many: dict[str, list[Evaluation]]) -> None:
        (head,) = headlines(data_of(many))
        sentences = head["verdicts"]
        assert len(sentences) <= 6 + 2
        assert all(re.match(r"(good|best) is better than", sentence) for sentence in sentences[:6])
        pairs = data_of(many).result("tumour", "dice").pairs
        p = {pair.verdict: pair.p_holm for pair in pairs}
        assert [p[sentence] for sentence in sentences[:6]] == sorted(p.values())[:6]
        found = sum(pair.differ for pair in pairs)
        assert sentences[6] == f"{found - 6} more pairs differ."
        assert sentences[7].startswith(f"No difference shown in {66 - found} of 66 pairs")

    def test_names_what_was_not_found_where_there_is_room(self) -> None:
        models = {name: of_gain(gain) for name, gain in (("A", 0), ("B", 0.1), ("C", 0))}
        (head,) = headlines(data_of(models))
        assert len(head["verdicts"]) == 3
        assert [sentence.split()[0] for sentence in head["verdicts"][:2]] == ["B", "B"]
        assert head["verdicts"][2].startswith("No difference between")

    def test_goes_by_the_primary_metric(self) -> None:
        data = data_of({"A": of_gain(0), "B": of_gain(0.1)}, primary="hd95")
        (head,) = headlines(data)
        assert head["metric"] == "HD95"
        assert head["verdicts"][0].startswith("B is better than A: -")


class TestPrimary:
    def test_the_worst_case_is_the_largest_distance(self) -> None:
        hd95 = np.array([5.0, 1.0, 9.0, 3.0, 2.0, 4.0])
        models = {name: [evaluation([0.5] * 6, others={"hd95": hd95 + i})] for i, name in enumerate("AB")}
        chosen = dict(map(reversed, chosen_cases(data_of(models, primary="hd95"), "tumour")))
        assert (chosen["best case"], chosen["worst case"]) == ("case_01", "case_02")

    @pytest.mark.parametrize(
        ("primary", "ends"), [("dice", ("← B better", "A better →")), ("hd95", ("← A better", "B better →"))]
    )
    def test_histograms_say_on_which_side_who_is_better(self, primary: str, ends: tuple[str, str]) -> None:
        data = data_of({"A": of_gain(0), "B": of_gain(0.1)}, primary=primary)
        *_, histogram = paired(data)["tumour"]
        assert [
            text for text in re.findall(r">([^<]+)</text>", histogram) if "better" in text and "differ" not in text
        ] == list(ends)
        assert "m1" in re.search(r'<g class="bars">(.*?)</g>', histogram)[1]
        assert "m0" not in re.search(r'<g class="bars">(.*?)</g>', histogram)[1]
        assert math.isfinite(data.summary("tumour", primary, "A").mean)


class TestOverview:
    def test_bars_join_what_is_undecided(self, many: dict[str, list[Evaluation]]) -> None:
        data = data_of(many)
        result = data.result("tumour", "dice")
        ranks = mean_ranks(result, data.names)
        order = list(ranks.index)
        assert order[:2] == ["best", "good"]
        assert ranks["best"] == 1
        apart = {frozenset((pair.a, pair.b)) for pair in result.pairs if pair.differ}
        runs = undecided(order, result.pairs)
        for i, j in runs:
            assert not any(frozenset(two) in apart for two in itertools.combinations(order[i : j + 1], 2))
        together = {frozenset(two) for i, j in runs for two in itertools.combinations(order[i : j + 1], 2)}
        neighbours = {frozenset(two) for two in itertools.pairwise(order)} - apart
        assert neighbours <= together

    def test_by_hand(self) -> None:
        # A and B, and B and C, are not told apart; A and C are
        base = np.linspace(0.5, 0.8, 6)
        models = {name: [evaluation(base + gain)] for name, gain in (("A", 0.2), ("B", 0.1), ("C", 0.0))}
        models["B"] = [evaluation(base + np.array([0.25, 0.21, 0.1, 0.05, -0.05, -0.03]))]
        result = compare(models, alpha=0.1).results["tumour", "dice"]
        assert {(p.a, p.b) for p in result.pairs if p.differ} == {("A", "C")}
        assert undecided(["A", "B", "C"], result.pairs) == [(0, 1), (1, 2)]
        assert mean_ranks(result, ["A", "B", "C"]).tolist() == [
            (1 * 4 + 2 * 2) / 6,
            (2 * 2 + 1 * 2 + 3 * 2) / 6,
            (3 * 4 + 2 * 2) / 6,
        ]

    def test_smaller_is_better(self, many: dict[str, list[Evaluation]]) -> None:
        data = data_of(many)
        assert next(iter(mean_ranks(data.result("tumour", "hd95"), data.names).index)) == "best"

    def test_is_left_out_where_not_all_were_compared(self, many: dict[str, list[Evaluation]]) -> None:
        for models, options in ((many, {"baseline": "best"}), (dict(list(many.items())[-2:]), {})):
            data = data_of(models, **options)
            result = data.result("tumour", "dice")
            assert overview(data, result, result.rankings[0]) is None

    def test_is_on_the_page(self, many: dict[str, list[Evaluation]], tmp_path: Path) -> None:
        build_report(many, tmp_path / "report.html", comparison=compare(many))
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert 'aria-label="Mean ranks by Dice: best 1.0, good 2.' in text


def test_landmarks_have_names_of_their_own(tmp_path: Path) -> None:
    """As axe's rule landmark-unique asks for: structures and prompts are told apart."""
    models = {
        name: [joined(evaluation(BASE + gain, structure="liver", prompts=source), evaluation(BASE - gain, labels=(2,)))]
        for name, gain, source in (("A", 0, "none"), ("B", 0.1, "none"), ("C", 0, "reference"), ("D", 0.1, "reference"))
    }
    for runs in models.values():
        runs[0].table.loc[[0, 20], ["tp", "fp", "fn"]] = 0
    build_report(models, tmp_path / "report.html", comparison=compare(models))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    names = re.findall(r'role="region" aria-label="([^"]*)"', text) + re.findall(r'<h2 id="[^"]*">([^<]*)</h2>', text)
    assert len(names) > 20
    assert [name for name in names if names.count(name) > 1] == []


def test_means_of_slices_are_left_out_in_images() -> None:
    """A slice's mean is the slice's own; in volumes it says something else."""
    slices = {"dice_slices": BASE, "hd_rows": np.arange(BASE.size)}
    image = data_of({"A": [evaluation(BASE, others=slices)]})
    volume = data_of({"A": [evaluation(BASE, others={"dice_slices": BASE})]})
    labels = [[row["label"] for row in summary(data)[0]["described"]] for data in (image, volume)]
    assert ["Dice, mean of slices" in own for own in labels] == [False, True]


def test_histograms_are_of_the_firmest_findings(many: dict[str, list[Evaluation]]) -> None:
    data = data_of(many)
    titles = [re.search(r">([^<]*): difference in Dice<", figure) for figure in paired(data)["tumour"]]
    drawn = [tuple(title[1].split(" \N{MINUS SIGN} ")) for title in titles if title]
    p = {(data.letter(pair.a), data.letter(pair.b)): pair.p_holm for pair in data.result("tumour", "dice").pairs}
    assert len(drawn) == 6
    assert [p[pair] for pair in drawn] == sorted(p.values())[:6]


def test_two_orders_that_differ_are_explained(tmp_path: Path) -> None:
    """By ranks the first model wins, in all cases but one; by the mean it comes last."""
    first = BASE + 0.02
    first[:1] = 0.0
    models = {"A": [evaluation(first)], "B": [evaluation(BASE)], "C": [evaluation(BASE - 0.01)]}
    same = {"A": [evaluation(BASE + 0.02)], "B": models["B"], "C": models["C"]}
    for name, own, differs in (("other", models, True), ("same", same, False)):
        build_report(own, tmp_path / f"{name}.html", comparison=compare(own, metrics=["dice"]))
        text = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert ("the models have another order" in text) == differs
