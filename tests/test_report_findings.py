"""What a report says was found: the head of the page, the primary metric, and many models."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from evaluations import evaluation

from nnunet_ext.comparison import ModelRuns, compare
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.report.context import headlines
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.figures import paired
from nnunet_ext.report.pictures import chosen_cases

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
