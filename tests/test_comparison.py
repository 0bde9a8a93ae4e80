"""Models compared: pooling, refusals, verdicts, prompts, ranks, and the tables that come of it."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluations import evaluation, joined
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nnunet_ext import comparison as room
from nnunet_ext.common.errors import InputError
from nnunet_ext.comparison import (
    FILES,
    Comparison,
    Pair,
    Result,
    case_rows,
    model_rows,
    pair_rows,
    save,
    to_csv,
    to_json,
    to_latex,
    to_text,
)
from nnunet_ext.comparison.export import escape
from nnunet_ext.comparison.wording import digest, friedman_verdict, number, p_value, percent, shift_interval, size
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.metrics.definitions import BY_KEY, PIXELS

RANDOM = np.random.default_rng(0)
BASE = RANDOM.uniform(0.5, 0.9, 12)
NOISE = RANDOM.normal(0, 0.01, (6, 12))
A, B, C = BASE + 0.05 + NOISE[0], BASE + NOISE[1], BASE - 0.05 + NOISE[2]


Model = tuple[str, list[Evaluation]]


def model(name: str, *dice: Sequence[float] | np.ndarray | Evaluation, **options: object) -> Model:
    return name, [d if isinstance(d, Evaluation) else evaluation(d, **options) for d in dice]


def compare(models: Sequence[Model], **options: object) -> Comparison:
    return room.compare(dict(models), **options)


def three() -> list[Model]:
    return [model("A", A), model("B", B), model("C", C)]


def only(comparison: Comparison, key: str = "dice") -> Result:
    return comparison.results["tumour", key]


def pair_of(comparison: Comparison, a: str, b: str, key: str = "dice") -> Pair:
    return next(pair for pair in only(comparison, key).pairs if {pair.a, pair.b} == {a, b})


def with_distance(name: str, hd95: Sequence[float], **options: object) -> Model:
    return model(name, np.full(len(hd95), 0.5), others={"hd95": hd95}, **options)


def refusal(*args: object, **options: object) -> str:
    with pytest.raises(InputError) as e:
        compare(*args, **options)
    return str(e.value)


class TestNumbers:
    def test_by_hand(self) -> None:
        pair = only(compare([model("A", [0.9, 0.8, 0.7, 0.5]), model("B", [0.6, 0.6, 0.6, 0.6])])).pairs[0]
        assert pair.difference == pytest.approx((0.3 + 0.2 + 0.1 - 0.1) / 4)
        assert (pair.wins, pair.ties, pair.losses) == (3, 0, 1)
        assert pair.effect == pytest.approx((4 + 3 + 1.5 - 1.5) / 10)  # the two of 0.1 share ranks 1 and 2
        assert pair.p == pair.p_holm == 2 * 3 / 16  # sums of 0 and, twice, 1.5 are as small
        assert pair.attainable == 2 / 16

    def test_summary_by_hand(self) -> None:
        summary = only(compare([model("A", [0.2, 0.4, 0.9, math.nan]), model("B", [0.5] * 4)])).summaries["A"]
        assert (summary.n, summary.undefined) == (3, 1)
        assert summary.mean == pytest.approx(0.5)
        assert summary.median == pytest.approx(0.4)
        assert summary.sd == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))
        assert summary.low < summary.mean < summary.high
        assert summary.pooled == pytest.approx((200 + 400 + 900 + 0) / 4000)
        assert summary.repeat_means == pytest.approx((0.5,))
        assert math.isnan(summary.repeat_sd)

    def test_pairs_are_scipys(self) -> None:
        result = only(compare(three()))
        p = [stats.wilcoxon(x, y).pvalue for x, y in ((A, B), (A, C), (B, C))]
        assert [pair.p for pair in result.pairs] == pytest.approx(p)
        assert [pair.p_holm for pair in result.pairs] == pytest.approx(stats_holm(p))
        (ranking,) = result.rankings
        assert ranking.friedman.p == pytest.approx(stats.friedmanchisquare(A, B, C).pvalue)

    def test_with_a_baseline_only_its_pairs_are_corrected_for(self) -> None:
        pairs = only(compare(three(), baseline="B")).pairs
        assert [(pair.a, pair.b) for pair in pairs] == [("A", "B"), ("C", "B")]
        assert max(pair.p_holm / pair.p for pair in pairs) <= 2

    def test_smaller_is_better(self) -> None:
        near, far = np.arange(1.0, 9.0), np.arange(1.0, 9.0) + np.linspace(1, 2, 8)
        comparison = compare([with_distance("near", near), with_distance("far", far)], metrics=["hd95"])
        (pair,) = only(comparison, "hd95").pairs
        assert pair.difference == pytest.approx(-1.5)
        assert (pair.finding, pair.wins, pair.effect) == ("better", 8, 1)
        assert only(comparison, "hd95").rankings[0].ranks == {"near": 1, "far": 2}
        assert only(comparison, "hd95").best == {"near"}

    @pytest.mark.slow
    @settings(deadline=None, max_examples=10)
    @given(st.permutations(range(12)), st.permutations(["A", "B", "C"]))
    def test_no_order_matters(self, cases: list[int], names: list[str]) -> None:
        values = {"A": A, "B": np.round(B, 1), "C": C}
        shuffled = [model(n, values[n][cases], cases=[f"case_{i:02}" for i in cases]) for n in names]
        straight = [model(n, values[n]) for n in ("A", "B", "C")]
        one, other = only(compare(straight)), only(compare(shuffled))
        for pair in one.pairs:
            same = next(q for q in other.pairs if {q.a, q.b} == {pair.a, pair.b})
            if same.a != pair.a:
                assert same.difference == -pair.difference
                assert same.effect == -pair.effect
                assert (same.low, same.high) == pytest.approx((-pair.high, -pair.low), abs=1e-12)
                assert (same.wins, same.ties, same.losses) == (pair.losses, pair.ties, pair.wins)
            else:
                assert same.difference == pair.difference
                assert (same.low, same.high) == pytest.approx((pair.low, pair.high), abs=1e-12)
            assert (same.p, same.p_holm, same.verdict) == (pair.p, pair.p_holm, pair.verdict)
        assert one.rankings[0].ranks == other.rankings[0].ranks
        assert one.rankings[0].mean_rank == pytest.approx(other.rankings[0].mean_rank)
        assert one.rankings[0].tau == pytest.approx(other.rankings[0].tau)
        for name in names:
            assert one.summaries[name].mean == pytest.approx(other.summaries[name].mean)
            assert one.summaries[name].low == pytest.approx(other.summaries[name].low)


def stats_holm(p: Sequence[float]) -> list[float]:
    """Word for word: multiply the smallest by the number of tests, the next by one less, never less than before."""
    corrected, last = [0.0] * len(p), 0.0
    for step, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        last = corrected[i] = min(1.0, max(last, p[i] * (len(p) - step)))
    return corrected


class TestRuns:
    def test_folds_are_pooled_by_case(self) -> None:
        names = [f"case_{i:02}" for i in range(12)]
        folded = model("A", evaluation(A[7:], cases=names[7:]), evaluation(A[:7], cases=names[:7]))
        whole, pooled = compare(three()), compare([folded, *three()[1:]])
        assert only(whole).pairs == only(pooled).pairs
        assert repr(only(whole).summaries) == repr(only(pooled).summaries), "with NaN"
        assert only(pooled).values.equals(only(whole).values)
        assert "A: 2 folds pooled by case." in pooled.notes

    @pytest.mark.parametrize("times", [2, 3])
    def test_a_run_given_again_as_a_repeat_changes_nothing(self, times: int) -> None:
        once, again = compare(three()), compare([model("A", *[A] * times), model("B", *[B] * times), model("C", C)])
        for one, other in zip(only(once).pairs, only(again).pairs, strict=True):
            assert (one.n, one.p, one.p_holm, one.verdict) == (other.n, other.p, other.p_holm, other.verdict)
        assert only(again).summaries["A"].n == 12
        assert only(again).summaries["A"].repeat_sd == pytest.approx(0)
        assert "A: two repeats are equal in every number; is one named twice?" in again.notes

    def test_repeats_are_averaged_by_case(self) -> None:
        repeats = [A + NOISE[i] for i in (3, 4, 5)]
        result = only(compare([model("A", *repeats), model("B", B)]))
        assert result.values["A"].to_numpy() == pytest.approx(np.mean(repeats, axis=0))
        summary = result.summaries["A"]
        assert summary.repeat_means == pytest.approx([r.mean() for r in repeats])
        assert summary.repeat_sd == pytest.approx(np.std([r.mean() for r in repeats], ddof=1))
        assert result.pairs[0].p == stats.wilcoxon(np.mean(repeats, axis=0), B).pvalue
        assert "repeats have means with a standard deviation of" in to_text(
            compare([model("A", *repeats), model("B", B)])
        )

    def test_undefined_in_one_repeat_is_undefined(self) -> None:
        hole = A.copy()
        hole[3] = math.nan
        result = only(compare([model("A", A, hole), model("B", B)]))
        assert result.values["A"].isna().sum() == 1
        assert result.pairs[0].n == 11
        assert result.pairs[0].undefined == 1
        assert result.summaries["A"].undefined == 1
        assert result.summaries["A"].repeat_means == pytest.approx([np.delete(A, 3).mean()] * 2)

    def test_repeats_of_folds_are_matched_by_seed(self) -> None:
        names = [f"case_{i:02}" for i in range(12)]
        runs = [
            evaluation(A[:6], cases=names[:6], seed=1),
            evaluation(C[:6], cases=names[:6], seed=2),
            evaluation(C[6:], cases=names[6:], seed=2),
            evaluation(A[6:], cases=names[6:], seed=1),
        ]
        summary = only(compare([model("A", *runs), model("B", B)])).summaries["A"]
        assert summary.repeat_means == pytest.approx((A.mean(), C.mean()))

    def test_different_numbers_of_repeats_are_noted(self) -> None:
        assert "Models have different numbers of repeats" in "\n".join(compare([model("A", A, C), model("B", B)]).notes)


class TestRefusals:
    def test_partly_the_same_cases(self) -> None:
        first, second = (
            evaluation(A[:6], predictions="one"),
            evaluation(A[4:10], cases=[f"case_{i:02}" for i in range(4, 10)], predictions="two"),
        )
        message = refusal([model("A", first, second), model("B", B[:10])])
        assert message.startswith("A: one and two share case_04, case_05 but not all of their cases")

    def test_a_fold_without_its_repeat(self) -> None:
        names = [f"case_{i:02}" for i in range(12)]
        runs = [evaluation(A[:6], cases=names[:6])] * 2 + [evaluation(A[6:], cases=names[6:])]
        assert "A: not every fold has the same number of repeats (2 of 6 cases, 1 of 6 cases)." in refusal(
            [model("A", *runs), model("B", B)]
        )

    def test_everything_that_differs_in_one_message(self) -> None:
        others = {"hd95": np.ones(12), "nsd": np.ones(12)}
        one = evaluation(A, others=others, nsd_tolerance=2.0)
        other = evaluation(
            B[:10], others={k: v[:10] for k, v in others.items()}, units=PIXELS, nsd_tolerance=1.0, voxels=900
        )
        third = evaluation(C, structure="liver", labels=(2,))
        message = refusal([model("A", one), model("B", other), model("C", third)])
        assert message.startswith("7 problems:")
        assert "B lacks case_10, case_11 of 12 cases." in message
        assert "C lacks the structure tumour (label 1)." in message
        assert "A lacks the structure liver (label 2)." in message
        assert "The units differ: mm and ml (A); px and px (B)." in message
        assert "The NSD tolerances differ: 2.0 (A); 1.0 (B)." in message
        assert "The references of tumour differ in 10 of 12 cases: case_00 has 1000 voxels for A, 900 for B." in message
        assert "nnunet_ext evaluate" in message

    def test_only_one_reference_differs(self) -> None:
        other = evaluation(B)
        other.table.loc[5, "fn"] += 3
        assert "tumour differ in 1 of 12 cases: case_05 has 1000 voxels for A, 1003 for B." in refusal(
            [model("A", A), model("B", other)]
        )

    def test_references_of_repeats_are_compared_as_well(self) -> None:
        other = evaluation(A)
        other.table.loc[5, "fn"] += 3
        assert "case_05 has 1000 voxels for A, 1003 for A." in refusal([model("A", A, other), model("B", B)])

    def test_prompts_that_differ_within_a_model(self) -> None:
        runs = evaluation(A), evaluation(A, prompts="reference")
        assert "A: its runs have different prompts (none, reference)." in refusal([model("A", *runs), model("B", B)])

    def test_unknown_names(self) -> None:
        message = refusal(three()[:1], structures=["liver"], metrics=["dice", "hausdorf"], baseline="X")
        assert "It takes two models or more" in message
        assert "There is no structure liver; there are tumour." in message
        assert "There is no metric hausdorf; there are dice, iou," in message
        assert "There is no model X to compare with; there are A." in message

    def test_metric_without_a_value(self) -> None:
        models = [with_distance("A", [1, 2, 3]), model("B", [0.1, 0.2, 0.3])]
        assert compare(models, metrics=["hd95"]).results["tumour", "hd95"].pairs[0].finding == "undefined"
        assert "No HD of A, B." in refusal(models, metrics=["hd"])
        assert "No HD of A, B." not in refusal(models, metrics=["nsd"])

    def test_a_file_that_lacks_the_metric(self) -> None:
        plain = evaluation([0.1, 0.2, 0.3])
        plain = replace(plain, table=plain.table.drop(columns=["hd95_mm", "nsd"]))
        models = [with_distance("A", [1, 2, 3]), model("B", plain)]
        assert "No HD95 of B." in refusal(models, metrics=["hd95"])
        comparison = compare(models)
        assert {key for _, key in comparison.results} == {"dice", "iou"}
        assert "Left out, since B lacks it: HD95." in comparison.notes

    def test_a_fold_that_lacks_the_metric(self) -> None:
        """One fold has nnU-Net's summary.json, another metrics.json: what was not measured is not undefined."""
        full, names = with_distance("A", [1, 2, 3])[1][0], ["other_0", "other_1", "other_2"]
        plain = evaluation([0.1, 0.2, 0.3], cases=names)
        plain = replace(plain, table=plain.table.drop(columns=["hd95_mm", "nsd"]))
        whole = with_distance("B", [1, 2, 3, 4, 5, 6])[1][0]
        whole = replace(whole, table=whole.table.assign(case=[*full.cases, *names]))
        comparison = compare([model("A", full, plain), model("B", whole)])
        assert {key for _, key in comparison.results} == {"dice", "iou"}
        assert "Left out, since A lacks it: HD95." in comparison.notes

    def test_nothing_defined(self) -> None:
        assert "has a value in any model" in refusal([model("A", [math.nan] * 3), model("B", [math.nan] * 3)])

    def test_structures_are_matched_by_label(self) -> None:
        comparison = compare([model("A", A, structure="1"), model("B", B, structure="tumour")])
        assert comparison.structures == {"tumour": (1,)}
        assert only(comparison).pairs[0].n == 12

    def test_one_structure_may_be_shared_though_others_are_not(self) -> None:
        one, two = evaluation(A), evaluation(A, structure="liver", labels=(1, 2))
        both = replace(one, table=pd.concat([one.table, two.table]), structures={**one.structures, **two.structures})
        assert "B lacks the structure liver (labels 1, 2)." in refusal([model("A", both), model("B", B)])
        assert list(compare([model("A", both), model("B", B)], structures=["tumour"]).structures) == ["tumour"]


class TestVerdicts:
    def test_better(self) -> None:
        comparison = compare(three())
        verdict = pair_of(comparison, "A", "C").verdict
        assert re.fullmatch(r"A is better than C: \+0\.\d{3} Dice \[0\.\d{3}, 0\.\d{3}\], p = \.00\d\.", verdict)
        assert pair_of(compare(three()[::-1]), "A", "C").verdict == verdict

    def test_no_difference(self) -> None:
        wobble = BASE + np.array([1, -1] * 6) * np.linspace(0.01, 0.02, 12)
        pair = only(compare([model("A", BASE), model("B", wobble)])).pairs[0]
        assert pair.finding == "none"
        assert re.match(r"No difference between [AB] and [AB] shown: .* p = \.\d\d\.", pair.verdict)

    def test_too_few(self) -> None:
        pair = only(compare([model("A", [0.9, 0.8, 0.7, 0.6]), model("B", [0.1, 0.2, 0.3, 0.4])])).pairs[0]
        assert pair.finding == "too few"
        assert pair.verdict == "A and B: n = 4 is too small, no data could reach p < .05; it takes 6."

    def test_six_are_enough_for_one_pair_but_not_for_three(self) -> None:
        six = [model("A", A[:6]), model("B", B[:6]), model("C", C[:6])]
        assert only(compare(six[:2])).pairs[0].finding == "better"
        pairs = only(compare(six)).pairs
        assert {pair.finding for pair in pairs} == {"too few"}
        assert pairs[0].verdict == (
            "A and B: n = 6 is too small, no data could reach p < .05 after correction for 3 tests; it takes 7."
        )
        assert {pair.finding for pair in only(compare(six, alpha=0.2)).pairs} == {"better"}

    def test_too_few_that_differ(self) -> None:
        close = A.copy()
        close[:3] -= 0.1
        pair = only(compare([model("A", A), model("B", close)])).pairs[0]
        assert (pair.differing, pair.ties) == (3, 9)
        assert pair.verdict.startswith("A and B: only 3 of 12 cases differ, too few, no data could reach p < .05")

    def test_all_models_equal(self) -> None:
        comparison = compare([model("A", A), model("B", A), model("C", A)])
        result = only(comparison)
        assert {pair.verdict.partition(" are ")[2] for pair in result.pairs} == {"equal in all 12 cases."}
        assert [pair.p_holm for pair in result.pairs] == [1, 1, 1]
        (ranking,) = result.rankings
        assert set(ranking.ranks.values()) == {1}
        assert ranking.verdict == "All means are equal (n = 12)."
        assert math.isnan(ranking.tau)
        assert ranking.friedman.p == 1
        assert result.best == {"A", "B", "C"}

    def test_mean_and_ranks_disagree(self) -> None:
        a, b = BASE + np.linspace(0.010, 0.015, 12), BASE.copy()
        a[9] = b[9] - 0.4
        pair = only(compare([model("A", a), model("B", b)]), "dice").pairs[0]
        assert pair.p_holm < 0.05
        assert pair.difference < 0
        assert pair.finding == "mixed"
        assert pair.verdict.startswith("A is better than B by the signed ranks of the cases, but not by the mean, -0.0")
        assert pair.low > 0
        assert pair.verdict.partition(": ")[2].startswith("+0.012 Dice [0.01")

    def test_a_mean_that_reads_otherwise_is_explained(self) -> None:
        a, b = BASE + np.linspace(0.010, 0.015, 12), BASE.copy()
        a[9] = b[9] + 0.9
        pair = only(compare([model("A", a), model("B", b)]), "dice").pairs[0]
        assert pair.difference > pair.high
        assert pair.finding == "better"
        assert "; the mean difference is +0.086, since a few cases differ much more" in pair.verdict

    def test_an_end_that_is_left_out(self) -> None:
        a = BASE.copy()
        a[:6] += np.linspace(0.01, 0.02, 6)
        pair = only(compare([model("A", a), model("B", BASE)]), "dice").pairs[0]
        assert pair.finding == "better"
        assert (pair.ties, pair.low) == (6, 0)
        assert " Dice (0.000, 0.01" in pair.verdict

    def test_an_end_near_zero_has_the_digits_to_see_it(self) -> None:
        a = BASE + np.linspace(0.0001, 0.02, 12)
        pair = only(compare([model("A", a), model("B", BASE)]), "dice").pairs[0]
        assert 0 < pair.low < 0.01
        low = replace(pair, low=0.00004)
        assert shift_interval(low, BY_KEY["dice"]) == f"[0.00004, {pair.high:.3f}]"
        assert shift_interval(low, BY_KEY["dice"], sign=-1) == f"[-{pair.high:.3f}, -0.00004]"

    def test_undefined_everywhere(self) -> None:
        nan = math.nan
        pairs = only(
            compare([model("A", [0.5, 0.6, nan]), model("B", [nan, nan, 0.5]), model("C", [0.2, 0.3, 0.4])])
        ).pairs
        assert pairs[0].finding == "undefined"
        assert pairs[0].verdict == "A and B: no case in which both have a value."
        assert math.isnan(pairs[0].p)
        assert pairs[1].verdict.startswith(
            "A and C: n = 2 is too small, no data could reach p < .05 after correction for 2"
        )

    def test_undefined_in_one_model_is_noted(self) -> None:
        hd95 = np.arange(1.0, 13.0)
        comparison = compare([with_distance("A", hd95), with_distance("B", [math.nan, math.nan, *hd95[2:] + 1])])
        (note,) = (note for note in comparison.notes if "undefined" in note)
        assert note.startswith("tumour, HD95: undefined (either mask empty) for B in 2 of 12 cases.")
        (pair,) = only(comparison, "hd95").pairs
        assert (pair.n, pair.undefined) == (10, 2)
        assert pair.verdict == (
            "Exploratory: A is better than B: -1.0 mm HD95 [-1.0, -1.0], p = .002 (undefined in 2 of 12 cases)."
        )
        assert (only(comparison, "hd95").rankings[0].n, only(comparison, "hd95").rankings[0].undefined) == (10, 2)

    def test_nobody_is_best_by_finding_nothing_in_hard_cases(self) -> None:
        easy = np.arange(1.0, 11.0)
        found = with_distance("A", [50, 60, *easy])
        result = only(compare([found, with_distance("B", [math.nan, math.nan, *easy + 1])]), "hd95")
        assert result.summaries["B"].mean < result.summaries["A"].mean
        assert result.best == {"A"}
        assert next(iter(result.rankings[0].ranks)) == "A"

    def test_undefined_in_all_models_is_not(self) -> None:
        nan = math.nan
        comparison = compare([model("A", [nan, 0.5, 0.6]), model("B", [nan, 0.5, 0.6])])
        assert not [note for note in comparison.notes if "undefined" in note]

    def test_friedman(self) -> None:
        assert only(compare(three())).rankings[0].friedman.verdict == (
            "Not all 3 models are alike (Friedman, n = 12, p < .001)."
        )
        few = [model("A", A[:2]), model("B", B[:2]), model("C", C[:2])]
        assert (
            only(compare(few))
            .rankings[0]
            .friedman.verdict.startswith("n = 2 is too small for Friedman's test of 3 models")
        )
        assert only(compare(three()[:2])).rankings[0].friedman is None

    def test_friedman_and_pairs_that_say_otherwise_are_explained(self) -> None:
        rng = np.random.default_rng(0)
        models = [model(f"M{i}", BASE + rng.normal(0, 0.05, 12)) for i in range(5)]
        models.append(model("a little better", models[0][1][0].of("tumour")["dice"].to_numpy() + 0.001))
        comparison = compare(models)
        assert pair_of(comparison, "M0", "a little better").differ
        verdict = only(comparison).rankings[0].friedman.verdict
        assert verdict.startswith("No difference among the 6 models shown (Friedman, n = 12, p = ")
        assert verdict.endswith("; a pair can differ all the same, for this test asks about all at once.")
        assert friedman_verdict(0.01, 12, 3, 0.05, differ=False).endswith("; no pair by itself is, after correction.")

    def test_no_interval_at_a_corrected_level(self) -> None:
        wobble = np.array([1, -1] * 6) * np.linspace(0.01, 0.02, 12)
        short = np.where(np.arange(12) < 6, BASE + 0.02, math.nan)
        models = [model("base", BASE), model("A", BASE + wobble), model("B", BASE - wobble), model("C", short)]
        pair = pair_of(compare(models, baseline="base"), "C", "base")
        assert (pair.p, pair.finding) == (2 / 2**6, "none")
        assert math.isnan(pair.low)
        assert pair.verdict.startswith(
            "No difference between C and base shown: +0.020 Dice [too few cases for an interval], p = .094"
        )

    def test_one_case_has_no_stable_order(self) -> None:
        (ranking,) = only(compare([model("A", [0.9]), model("B", [0.1])])).rankings
        assert ranking.ranks == {"A": 1, "B": 2}
        assert ranking.verdict == "n = 1 is too small to say how firm the order is."
        assert ranking.shares.isna().all(axis=None)

    def test_few_cases_are_warned_of(self) -> None:
        (ranking,) = only(compare([model("A", A[:5]), model("B", B[:5])])).rankings
        assert ranking.verdict.endswith("So few cases make the bootstrap look firmer than it is.")


class TestPrimary:
    """One metric is tested with one correction; findings by all others say that they are exploratory."""

    @staticmethod
    def two_structures() -> list[Model]:
        tables = {}
        for name, liver, tumour in (("A", A, A), ("B", B, B + 0.04), ("C", C, C + 0.08)):
            tables[name] = [joined(evaluation(liver, structure="liver"), evaluation(tumour, labels=(2,)))]
        return list(tables.items())

    def test_is_corrected_over_all_structures(self) -> None:
        comparison = compare(self.two_structures())
        by_metric = {
            key: [list(comparison.results[s, key].pairs) for s in comparison.structures] for key in ("dice", "iou")
        }
        first, second = by_metric["dice"]
        assert [p.p_holm for p in first + second] == pytest.approx(stats_holm([p.p for p in first + second]))
        for own in by_metric["iou"]:
            assert [p.p_holm for p in own] == pytest.approx(stats_holm([p.p for p in own]))

    def test_findings_by_other_metrics_are_exploratory(self) -> None:
        comparison = compare(three())
        assert comparison.primary == "dice"
        assert all(pair.verdict.startswith("Exploratory: ") for pair in only(comparison, "iou").pairs)
        assert not any(pair.verdict.startswith("Exploratory: ") for pair in only(comparison).pairs)
        assert "Dice (primary)" in to_text(comparison)
        assert "IoU (exploratory)" in to_text(comparison)
        content = to_json(comparison)
        assert (content["primary"], [r["primary"] for r in content["results"]]) == ("dice", [True, False])

    def test_can_be_named(self) -> None:
        comparison = compare(three(), primary="iou")
        assert [key for (_, key), result in comparison.results.items() if result.primary] == ["iou"]
        assert pair_of(comparison, "A", "C").verdict.startswith("Exploratory: A is better than C")
        assert any("Primary metric: IoU." in sentence for sentence in to_json(comparison)["method"])
        assert list(compare(three(), metrics=["dice"], primary="iou").of("tumour")) == ["dice", "iou"]

    def test_is_the_first_where_dice_is_left_out(self) -> None:
        assert compare([with_distance("A", A), with_distance("B", B)], metrics=["hd95"]).primary == "hd95"

    @pytest.mark.parametrize("key", ["volume_error", "hd_rows", "nothing"])
    def test_is_one_to_rank_by(self, key: str) -> None:
        assert f"{key} cannot be the primary metric; these can: dice, iou, " in refusal(three(), primary=key)

    def test_is_there(self) -> None:
        assert "No HD95 of A, B, C." in refusal(three(), primary="hd95")


class TestDigest:
    def test_the_firmest_comes_first(self) -> None:
        models = [*three(), model("D", C + NOISE[3] / 10)]
        pairs = only(compare(models)).pairs
        sentences = list(digest(pairs, 10, 0.05))
        assert len(sentences) == len(pairs)
        by_sentence = {pair.verdict: pair for pair in pairs}
        found = [by_sentence[sentence] for sentence in sentences]
        assert [pair.differ for pair in found] == sorted((pair.differ for pair in found), reverse=True)
        assert [p.p_holm for p in found if p.differ] == sorted(p.p_holm for p in found if p.differ)

    def test_many_models_are_one_sentence_per_finding(self) -> None:
        many = [model(f"M{i:02}", BASE + RANDOM.normal(0, 0.01, 12)) for i in range(9)]
        many.append(model("best", BASE + 0.1))
        comparison = compare(many)
        sentences = list(digest(only(comparison).pairs, 6, 0.05))
        assert len(sentences) == 6 + 2
        assert all("best" in sentence for sentence in sentences[:6])
        assert sentences[6] == "3 more pairs differ."
        assert re.fullmatch(r"No difference shown in 36 of 45 pairs; the least of their p-values: p .*", sentences[7])
        assert max(map(len, to_text(comparison).splitlines())) < 250

    def test_all_too_few(self) -> None:
        models = [model(f"M{i}", [0.5 + i / 100, 0.6, 0.7 + i / 100]) for i in range(5)]
        (sentence,) = digest(only(compare(models)).pairs, 6, 0.05)
        assert "too few" in sentence or "too small" in sentence
        assert sentence.endswith("The same of 10 pairs in all.")


class TestPrompts:
    def test_are_never_ranked_together(self) -> None:
        comparison = compare([*three(), model("clicked", A + 0.1, prompts="reference")])
        result = only(comparison)
        assert comparison.prompts == {"none": ("A", "B", "C"), "reference": ("clicked",)}
        assert [list(ranking.ranks) for ranking in result.rankings] == [["A", "B", "C"]]
        assert result.best == {"A"}
        pair = pair_of(comparison, "A", "clicked")
        assert not pair.same_prompts
        assert pair.p_holm < 0.05
        assert pair.verdict.startswith("clicked and A differ: +0.1")
        assert pair.verdict.endswith(
            "Different prompts, not ranked (clicked: clicks from the reference, A: no prompts)."
        )
        assert "clicked is better" not in to_text(comparison)
        assert "models are ranked only among those with the same" in comparison.notes[0]

    def test_are_ranked_within_each_source(self) -> None:
        clicked = [model(n, v, prompts="reference") for n, v in (("D", B), ("E", A))]
        comparison = compare([*three(), *clicked])
        assert {r.prompts: list(r.ranks) for r in only(comparison).rankings} == {
            "none": ["A", "B", "C"],
            "reference": ["E", "D"],
        }
        assert only(comparison).best == {"A", "E"}
        assert "  Among models with clicks from the reference: E is first in" in to_text(comparison)

    def test_metrics_that_are_not_ranked_by(self) -> None:
        rows = {"hd_rows": np.arange(12.0)}
        models = [
            model("A", A, others=rows),
            model("B", B, others={"hd_rows": np.arange(12.0) + np.linspace(1, 2, 12)}),
        ]
        comparison = compare(models, metrics=["dice", "hd_rows"])
        result = only(comparison, "hd_rows")
        assert result.rankings == ()
        assert result.best == frozenset()
        assert result.pairs[0].p_holm < 0.05
        assert result.pairs[0].verdict.startswith("Exploratory: A and B differ: -1.5 hd_rows")
        assert result.pairs[0].verdict.endswith("Not a metric to rank by.")
        assert "hd_rows is not ranked by:" in comparison.notes[-1]

    def test_descriptions_are_not_tested(self) -> None:
        volumes = {"volume_reference": np.ones(12)}
        result = compare([model("A", A, others=volumes), model("B", B, others=volumes)], metrics=["volume_reference"])
        assert result.results["tumour", "volume_reference"].pairs == ()
        assert result.results["tumour", "volume_reference"].unit == "ml"


class TestWording:
    @pytest.mark.parametrize(
        ("p", "text"),
        [
            (0.00001, "p < .001"),
            (0.0009, "p < .001"),
            (0.004, "p = .004"),
            (0.0123, "p = .012"),
            (0.0496, "p = .0496"),
            (0.0504, "p = .050"),
            (0.05, "p = .050"),
            (0.41, "p = .41"),
            (0.999, "p > .99"),
            (1.0, "p > .99"),
            (math.nan, "p n/a"),
        ],
    )
    def test_p(self, p: float, text: str) -> None:
        assert p_value(p, 0.05) == text

    def test_numbers(self) -> None:
        dice, hd95 = BY_KEY["dice"], BY_KEY["hd95"]
        assert number(0.81249, dice) == "0.812"
        assert number(-0.00004, dice, sign=True) == "+0.000"
        assert number(12.345, hd95) == "12.3"
        assert number(math.nan, hd95) == "n/a"

    def test_sizes(self) -> None:
        assert [size(v) for v in (0.01234, 4.5678, 999.4, 12345.6)] == ["0.0123", "4.57", "999", "12,346"]
        assert [size(v, sign=True) for v in (4.5678, -12345.6)] == ["+4.57", "-12,346"]

    def test_shares_promise_nothing(self) -> None:
        assert [percent(s) for s in (0, 0.0001, 0.5, 0.9999, 1)] == ["0 %", "under 1 %", "50 %", "over 99 %", "100 %"]


class TestTables:
    NAMES = ("50 %_net", "A&B #1 {x}", "~a^b\\c", "$<d>$")

    def test_latex_escapes(self) -> None:
        assert escape("a_b & 50 % #1 $x$ {y}") == r"a\_b \& 50 \% \#1 \$x\$ \{y\}"
        assert escape("~^\\<>") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}"
        assert escape("[2pt] x") == "{[}2pt] x"
        latex = to_latex(compare([model(name, A + i / 50) for i, name in enumerate(self.NAMES)]))
        for name in self.NAMES:
            assert escape(name) in latex
        unescaped = re.sub(r"\\[&%$#_{}]", "", latex.partition("\n")[2])
        assert "_" not in unescaped
        assert "#" not in unescaped
        assert unescaped.count("{") == unescaped.count("}")
        assert unescaped.count("$") % 2 == 0

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex (Debian: texlive-latex-recommended)")
    def test_latex_compiles(self, tmp_path: Path) -> None:
        models = [model(n, A + i / 50, prompts="none" if i < 2 else "file") for i, n in enumerate(self.NAMES)]
        latex = to_latex(compare([*models, model("[2pt]", [math.nan, *A[1:]])]))
        document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{latex}\end{{document}}"
        (tmp_path / "tables.tex").write_text(document.replace("{document}%", "{document}\n%"))
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout[-2000:]
        assert (tmp_path / "tables.pdf").stat().st_size > 1000

    def test_latex_rows(self) -> None:
        latex = to_latex(compare([*three(), model("D", A, prompts="reference")]))
        assert f"A & \\textbf{{{A.mean():.3f}}} $[" in latex
        assert f"B & ${B.mean():.3f}$ $[" in latex
        assert f"D & ${A.mean():.3f}$ $[" in latex
        assert r"\multicolumn{3}{l}{\emph{clicks from the reference}} \\" in latex
        assert r"Dice $\uparrow$" in latex
        assert r"A -- C &" in latex
        assert latex.count(r"\begin{tabular}") == latex.count(r"\toprule") == latex.count(r"\bottomrule") == 2

    def test_best_reads_the_same(self) -> None:
        comparison = compare([model("A", A), model("B", A + 1e-5), model("C", C)])
        assert only(comparison).best == {"A", "B"}

    def test_csv_gives_the_numbers_back(self) -> None:
        comparison = compare([model("A", A), model("B", [math.nan, *B[1:]])], metrics=["dice"])
        models = pd.read_csv(StringIO(to_csv(model_rows(comparison)))).set_index("model")
        assert models.loc["B", "undefined"] == 1
        assert models.loc["A", "mean"] == A.mean()
        assert models["rank"].to_dict() == {"A": 1, "B": 2}
        pairs = pd.read_csv(StringIO(to_csv(pair_rows(comparison))))
        assert pairs["p_holm"].tolist() == [pair.p_holm for pair in only(comparison).pairs]
        cases = pd.read_csv(StringIO(to_csv(case_rows(comparison))))
        assert cases[cases.model == "A"]["value"].to_numpy() == pytest.approx(A)
        assert len(cases) == 24
        assert cases["value"].isna().sum() == 1

    def test_json_has_everything(self) -> None:
        comparison = compare([model("A", A, seed=1), model("B", [math.nan, *B[1:]])])
        content = json.loads(json.dumps(to_json(comparison), allow_nan=False))
        result = content["results"][0]
        assert result["pairs"][0]["verdict"] == only(comparison).pairs[0].verdict
        assert result["models"]["A"]["repeat_sd"] is None
        assert result["rankings"][0]["shares"]["A"] == only(comparison).rankings[0].shares.loc["A"].tolist()
        assert content["models"][0]["runs"] == [{"prompts": "none", "seed": 1}]
        assert content["cases"] == list(comparison.cases)
        assert any("Holm" in sentence for sentence in content["method"])

    def test_text(self) -> None:
        text = to_text(compare([*three(), model("clicked", A, prompts="reference")], metrics=["dice"]))
        lines = text.splitlines()
        assert lines[0] == "tumour: 12 cases; mean [95 % interval]"
        (row,) = (line for line in lines if line.startswith("A "))
        assert f"{A.mean():.3f}* [" in row
        assert "(clicks from the reference)" in lines
        assert max(map(len, lines[:9])) < 60


@settings(deadline=None, max_examples=40)
@given(st.integers(6, 30), st.integers(2, 4), st.integers(0, 2), st.integers(0, 999))
def test_no_sentence_contradicts_its_interval(n: int, models: int, digits: int, seed: int) -> None:
    """Zero is outside of an interval where, and only where, a difference is found; also after rounding."""
    random = np.random.default_rng(seed)
    values = np.clip(
        random.uniform(0.2, 0.8, (n, 1)) + random.normal(0.02 * np.arange(models), 0.05, (n, models)), 0, 1
    )
    values[random.random(n) < 0.05, 0] = 0
    comparison = compare([model(f"M{i}", np.round(values[:, i], digits + 1)) for i in range(models)], metrics=["dice"])
    for pair in only(comparison).pairs:
        if not math.isfinite(pair.low):
            assert not pair.differ
            continue
        opening, low, high, closing = re.fullmatch(
            r"([\[(])(-?[\d.]+), (-?[\d.]+)([\])])", shift_interval(pair, BY_KEY["dice"])
        ).groups()
        above = float(low) > 0 or (float(low) == 0 and opening == "(")
        below = float(high) < 0 or (float(high) == 0 and closing == ")")
        assert (above or below) == pair.differ
        assert pair.low <= pair.typical <= pair.high
        if pair.finding in ("better", "worse"):
            assert above == (pair.finding == "better")


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_whatever_is_undefined(data: st.DataObject) -> None:
    """Any values at all give a comparison, and files that can be read."""
    n, models = data.draw(st.integers(1, 7)), data.draw(st.integers(2, 4))
    value = st.one_of(st.just(math.nan), st.integers(0, 4).map(lambda i: i / 4), st.floats(0, 1))
    values = [data.draw(st.lists(value, min_size=n, max_size=n)) for _ in range(models)]
    values[0][0] = 0.5
    prompts = [data.draw(st.sampled_from(["none", "reference"])) for _ in range(models)]
    comparison = compare([model(f"M{i}", values[i], prompts=prompts[i]) for i in range(models)], metrics=["dice"])
    result = only(comparison)
    for pair in result.pairs:
        assert pair.verdict.endswith(".")
        assert "nan" not in pair.verdict
        assert pair.n + pair.undefined == n
        assert pair.wins + pair.ties + pair.losses == pair.n
        assert not pair.p_holm < pair.p
        assert not pair.p_holm < pair.attainable - 1e-12
    assert "nan" not in to_latex(comparison) + to_text(comparison)
    json.dumps(to_json(comparison), allow_nan=False)
    assert len(case_rows(comparison)) == n * models


class TestFolder:
    def test_is_written_and_replaced(self, tmp_path: Path) -> None:
        save(compare(three()), tmp_path / "out")
        assert sorted(f.name for f in (tmp_path / "out").iterdir()) == sorted(FILES)
        before = (tmp_path / "out" / "comparison.csv").read_text()
        save(compare(three()[:2]), tmp_path / "out")
        assert (tmp_path / "out" / "comparison.csv").read_text() != before

    @pytest.mark.parametrize("name", FILES)
    def test_foreign_files_are_left_alone(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("{}")
        with pytest.raises(InputError, match=re.escape(f"{tmp_path / name}: not written by nnunet_ext compare")):
            save(compare(three()), tmp_path)
        assert [f.name for f in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_text() == "{}"

    def test_a_record_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "comparison.json").write_text(json.dumps({"made_by": "me", "files": FILES}))
        with pytest.raises(InputError, match="not written by nnunet_ext compare"):
            save(compare(three()), tmp_path)

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(InputError, match="is not a writable directory"):
            save(compare(three()), tmp_path / "out")


def test_evaluate_and_compare_say_the_same_of_one_model() -> None:
    run = evaluation([math.nan, *A[1:]], others={"hd95": 30 * (1 - A)})
    alone = run.summaries["tumour"].metrics
    comparison = compare([model("A", run), model("B", B, others={"hd95": 30 * (1 - B)})])
    for key in ("dice", "iou", "hd95"):
        together = asdict(comparison.results["tumour", key].summaries["A"])
        expected = asdict(alone[key])
        assert {name: together[name] for name in expected} == pytest.approx(expected, nan_ok=True)
