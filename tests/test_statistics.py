"""Tests, corrections and bootstrap against scipy, scikit-posthocs, counting by hand, and their own properties."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nnunet_ext.comparison.statistics import (
    RankStability,
    bootstrap_means,
    differences,
    friedman,
    holm,
    holm_alphas,
    pairs_needed,
    rank_biserial,
    shift,
    signed_rank_p,
    smallest_friedman_p,
    smallest_p,
)
from nnunet_ext.evaluation.intervals import mean_interval

LATTICE = st.integers(-6, 6).map(lambda i: i / 8)  # ties and zeros
PS = st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=12)


def by_enumeration(d: np.ndarray) -> float:
    """The definition: twice the smaller tail among all choices of signs."""
    d = d[d != 0]
    ranks = stats.rankdata(np.abs(d))
    observed = ranks[d > 0].sum()
    sums = np.array([(ranks * signs).sum() for signs in product((0, 1), repeat=d.size)])
    return min(1.0, 2 * min((sums <= observed + 1e-9).mean(), (sums >= observed - 1e-9).mean()))


class TestSignedRank:
    @settings(deadline=None)
    @given(st.lists(st.floats(-1, 1).filter(bool), min_size=1, max_size=50, unique_by=abs))
    def test_is_scipys_exact_test_without_ties(self, d: list[float]) -> None:
        assert signed_rank_p(np.array(d)) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-9)

    @settings(deadline=None, max_examples=60)
    @given(st.lists(LATTICE, min_size=1, max_size=9))
    def test_is_exact_with_ties_and_zeros(self, d: list[float]) -> None:
        assert signed_rank_p(np.array(d)) == pytest.approx(by_enumeration(np.array(d)))

    @settings(deadline=None, max_examples=15)
    @given(st.lists(LATTICE.filter(bool), min_size=2, max_size=10))
    def test_is_scipys_permutation_test_with_ties(self, d: list[float]) -> None:
        reference = stats.wilcoxon(d, method=stats.PermutationMethod(n_resamples=np.inf)).pvalue
        assert signed_rank_p(np.array(d)) == pytest.approx(reference)

    def test_is_exact_with_ties_among_many(self) -> None:
        d = np.round(np.random.default_rng(3).normal(0.3, 1, 50), 1)
        d = d[d != 0]
        ranks = stats.rankdata(np.abs(d))
        ways = Counter({0.0: 1})
        for rank in ranks:
            ways = Counter(ways) + Counter({total + rank: n for total, n in ways.items()})
        observed = ranks[d > 0].sum()
        tail = min(sum(n for total, n in ways.items() if sign * (total - observed) >= 0) for sign in (1, -1))
        assert signed_rank_p(d) == pytest.approx(2 * tail / 2**d.size, rel=1e-12)
        assert signed_rank_p(d) != pytest.approx(stats.wilcoxon(d, method="asymptotic").pvalue, rel=1e-3)

    @pytest.mark.parametrize("rounded", [False, True])
    def test_is_scipys_approximation_for_many(self, rounded: bool) -> None:
        d = np.random.default_rng(1).normal(0.1, 1, 80)
        d = np.round(d, 1) if rounded else d
        d = d[d != 0]
        assert signed_rank_p(d) == pytest.approx(stats.wilcoxon(d, method="asymptotic").pvalue)

    def test_exact_and_approximate_meet(self) -> None:
        d = np.random.default_rng(2).normal(0.2, 1, 50)
        assert signed_rank_p(d) == pytest.approx(stats.wilcoxon(d, method="asymptotic").pvalue, abs=5e-3)

    def test_by_hand(self) -> None:
        # ranks 1 2 3 4 5, one negative of rank 1: sums 0 and 1 of 32 are as small, twice
        assert signed_rank_p(np.array([-0.1, 0.2, 0.3, 0.4, 0.5])) == 2 * 2 / 32

    @given(st.lists(LATTICE, max_size=40), st.randoms())
    def test_neither_order_nor_sign_nor_zeros_matter(self, d: list[float], random: object) -> None:
        p = signed_rank_p(np.array(d))
        shuffled = [*d, 0.0, 0.0]
        random.shuffle(shuffled)
        assert signed_rank_p(np.array(shuffled)) == p
        assert signed_rank_p(-np.array(d)) == p
        assert 0 < p <= 1

    @pytest.mark.parametrize("n", range(12))
    def test_no_data_of_this_size_give_less_than_the_smallest(self, n: int) -> None:
        assert smallest_p(n) == signed_rank_p(np.arange(1, n + 1)) == signed_rank_p(np.ones(n))
        random = np.random.default_rng(n)
        assert all(signed_rank_p(random.normal(2, 1, n)) >= smallest_p(n) for _ in range(20))

    def test_pairs_needed(self) -> None:
        assert pairs_needed(1, 0.05) == 6  # 2^-5 = 0.031, 2^-4 = 0.063
        assert pairs_needed(3, 0.05) == 7  # 3 x 2^-6 = 0.047
        assert pairs_needed(10, 0.05) == 9  # 10 x 2^-8 = 0.039
        assert pairs_needed(1, 0.01) == 8  # 2^-7 = 0.0078


class TestDifferences:
    def test_rounding_makes_no_difference(self) -> None:
        a, b = np.array([0.3, 0.1 + 0.2, 0.7]), np.array([0.1, 0.3, 0.5])
        assert a[1] != b[1]
        d = differences(a, b)
        assert d[1] == 0
        assert d[0] == d[2] != 0

    def test_a_mean_of_equal_values_is_equal(self) -> None:
        x = np.random.default_rng(0).random(1000)
        assert (np.mean([x, x, x], axis=0) != x).any()
        assert not differences(np.mean([x, x, x], axis=0), x).any()

    @given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=20))
    def test_antisymmetric_and_close(self, pairs: list[tuple[float, float]]) -> None:
        a, b = np.array(pairs).T
        d = differences(a, b)
        assert np.array_equal(d, -differences(b, a))
        assert np.allclose(d, a - b, rtol=0, atol=1e-11 * max(np.abs(pairs).max(), 1e-300))

    def test_undefined_stays_undefined(self) -> None:
        assert np.array_equal(
            differences([1.0, np.nan, 3.0], [0.5, 1.0, np.nan]), [0.5, np.nan, np.nan], equal_nan=True
        )


class TestHolm:
    def test_by_hand(self) -> None:
        assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])

    @given(PS)
    def test_is_the_correction_of_closed_testing(self, p: list[float]) -> None:
        """A hypothesis is rejected where Bonferroni rejects every subset that has it; here for its worst subsets."""
        defined = sorted(x for x in p if x == x)
        for x, corrected in zip(p, holm(p), strict=True):
            worst = [min(1, (len(defined) - i) * defined[i]) for i in range(len(defined)) if defined[i] <= x]
            assert (x != x and corrected != corrected) or corrected == pytest.approx(max(worst))

    @given(PS)
    def test_never_below_and_in_the_same_order(self, p: list[float]) -> None:
        corrected, p = holm(p), np.array(p)
        ordered = corrected[np.argsort(p)][: np.count_nonzero(~np.isnan(p))]
        assert (np.diff(ordered) >= 0).all()
        assert not (corrected < p).any()
        assert not (corrected > 1).any()
        assert np.array_equal(np.isnan(corrected), np.isnan(p))

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.data())
    def test_non_decreasing_in_every_p(self, p: list[float], data: st.DataObject) -> None:
        smaller = [data.draw(st.floats(0, x)) for x in p]
        assert (holm(smaller) <= holm(p) + 1e-12).all()

    @pytest.mark.parametrize("cases", [8, 40, 70])
    def test_with_wilcoxon_is_scikit_posthocs(self, cases: int) -> None:
        values = np.random.default_rng(cases).normal([0, 0.3, 0.5, 0.6], 1, (cases, 4))
        reference = scikit_posthocs.posthoc_wilcoxon(values.T, p_adjust="holm").to_numpy()
        i, j = np.triu_indices(4, 1)
        p = [signed_rank_p(values[:, a] - values[:, b]) for a, b in zip(i, j, strict=True)]
        assert holm(p) == pytest.approx(reference[i, j])


class TestRankBiserial:
    def test_by_hand(self) -> None:
        assert rank_biserial(np.array([1.0, -2.0, 3.0, 0.0])) == pytest.approx((1 - 2 + 3) / 6)

    @given(st.lists(LATTICE, max_size=20))
    def test_from_scipys_statistic(self, d: list[float]) -> None:
        d = np.array(d)
        n = np.count_nonzero(d)
        if n:
            plus = stats.wilcoxon(d, alternative="greater", method="asymptotic").statistic
            assert rank_biserial(d) == pytest.approx(2 * plus / (n * (n + 1) / 2) - 1)
        assert rank_biserial(-d) == -rank_biserial(d)

    def test_extremes(self) -> None:
        assert rank_biserial(np.array([0.1, 5.0])) == 1
        assert rank_biserial(np.array([-0.1, 0.0])) == -1
        assert rank_biserial(np.zeros(3)) == 0


class TestFriedman:
    @given(st.integers(0, 10_000))
    def test_is_scipys(self, seed: int) -> None:
        values = np.round(np.random.default_rng(seed).random((7, 4)), 1)
        reference = stats.friedmanchisquare(*values.T)
        assert friedman(values) == pytest.approx((reference.statistic, reference.pvalue))

    @given(st.permutations(range(9)), st.permutations(range(4)))
    def test_no_order_matters(self, cases: list[int], models: list[int]) -> None:
        values = np.random.default_rng(0).random((9, 4))
        assert friedman(values[cases][:, models]) == pytest.approx(friedman(values))

    def test_equal_models(self) -> None:
        assert friedman(np.repeat(np.random.default_rng(0).random((5, 1)), 3, axis=1)) == (0, 1)

    @pytest.mark.parametrize(("cases", "models"), [(2, 3), (5, 3), (12, 4)])
    def test_smallest(self, cases: int, models: int) -> None:
        same_order = np.random.default_rng(0).random((cases, 1)) + np.arange(models)
        assert friedman(same_order)[1] == pytest.approx(smallest_friedman_p(cases, models))


class TestMeanInterval:
    @given(st.lists(st.floats(-100, 100), min_size=2, max_size=15))
    def test_is_scipys(self, values: list[float]) -> None:
        x = np.array(values)
        low, high = mean_interval(x)
        if x.std():
            reference = stats.t.interval(0.95, x.size - 1, x.mean(), stats.sem(x))
            assert (low, high) == pytest.approx(reference)
        else:
            assert low == pytest.approx(high)

    @pytest.mark.parametrize("n", [3, 5, 10, 30])
    def test_holds_the_mean_as_often_as_promised(self, n: int) -> None:
        values = np.random.default_rng(n).normal(1, 2, (2000, n))
        held = [low < 1 < high for low, high in map(mean_interval, values)]
        assert 0.935 <= np.mean(held) <= 0.965

    def test_ends_where_values_end(self) -> None:
        assert mean_interval(np.array([0.7, 1.0, 1.0]), (0.0, 1.0))[1] == 1
        assert mean_interval(np.array([0.7, 1.0, 1.0]))[1] > 1

    def test_one_value_has_none(self) -> None:
        assert np.isnan(mean_interval(np.array([0.5]))).all()


DIFFERENCES = st.lists(st.one_of(LATTICE, st.floats(-1, 1)), min_size=1, max_size=30).map(np.array)


class TestShift:
    # Hollander & Wolfe, Nonparametric Statistical Methods, examples 3.1, 3.3 and 3.4: Hamilton's depression scale
    BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])

    def test_is_the_textbooks(self) -> None:
        assert shift(differences(self.BEFORE, self.AFTER), 0.040) == pytest.approx((0.46, 0.010, 0.786), abs=1e-9)

    @settings(deadline=None, max_examples=60)
    @given(st.integers(6, 60), st.sampled_from([0.05, 0.01, 0.2]), st.integers(0, 999))
    def test_is_what_the_test_accepts(self, n: int, alpha: float, seed: int) -> None:
        d = np.random.default_rng(seed).normal(0.5, 1, n)
        _, low, high = shift(d, alpha)
        if np.isnan(low):
            assert smallest_p(n) >= alpha
            return
        inside, outside = np.linspace(low + 1e-9, high - 1e-9, 7), (low - 1e-9, high + 1e-9, low - 1, high + 1)
        assert all(signed_rank_p(d - x) >= alpha for x in inside)
        assert all(signed_rank_p(d - x) < alpha for x in outside)

    @settings(deadline=None, max_examples=300)
    @given(DIFFERENCES, st.sampled_from([0.05, 0.01, 0.2]))
    def test_leaves_out_zero_where_and_only_where_the_test_rejects_it(self, d: np.ndarray, alpha: float) -> None:
        estimate, low, high = shift(d, alpha)
        rejected = signed_rank_p(d) < alpha
        assert not (rejected and np.isnan(low))
        if np.isnan(low):
            return
        assert low <= estimate <= high
        assert (low >= 0 or high <= 0) if rejected else low <= 0 <= high
        assert not rejected or np.sign(low + high) == np.sign(rank_biserial(d))

    @settings(deadline=None)
    @given(DIFFERENCES, st.sampled_from([0.05, 0.01]))
    def test_is_antisymmetric(self, d: np.ndarray, alpha: float) -> None:
        estimate, low, high = shift(d, alpha)
        assert shift(-d, alpha) == pytest.approx((-estimate, -high, -low), nan_ok=True)

    def test_many_equal_cases_do_not_contradict_the_test(self) -> None:
        d = np.array([0.0] * 14 + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        assert signed_rank_p(d) < 0.05
        assert shift(d, 0.05).low == 0  # and left out: the shifts just above it are accepted
        assert shift(d[:-1], 0.05).low < 0 or signed_rank_p(d[:-1]) >= 0.05

    @pytest.mark.parametrize("n", [6, 20, 60])
    def test_holds_the_typical_difference_where_few_cases_fail(self, n: int) -> None:
        rng = np.random.default_rng(n)
        d = rng.normal(0.01, 0.02, (400, n)) - 0.8 * (rng.random((400, n)) < 0.05)
        held = [low <= 0.0081 <= high for _, low, high in (shift(row, 0.05) for row in d)]
        assert np.mean(held) >= 0.92


class TestHolmAlphas:
    @given(PS, st.sampled_from([0.05, 0.01]))
    def test_a_test_is_below_its_level_where_its_corrected_p_is_below_alpha(self, p: list[float], alpha: float) -> None:
        corrected, own = holm(p), holm_alphas(p, alpha)
        clear = np.abs(corrected - alpha) > 1e-9
        assert ((np.array(p) < own) == (corrected < alpha))[clear].all()
        tests = np.count_nonzero(~np.isnan(p))
        defined = own[~np.isnan(p)]
        assert (defined <= alpha * (1 + 1e-9)).all()
        assert (defined >= alpha / max(tests, 1) * (1 - 1e-9)).all()

    def test_of_one_test_is_alpha(self) -> None:
        assert holm_alphas([0.3], 0.05) == pytest.approx([0.05])


class TestBootstrap:
    def test_samples_are_the_same_however_they_are_blocked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = np.random.default_rng(6).random((30, 2))
        whole = bootstrap_means(x, samples=500)
        monkeypatch.setattr("nnunet_ext.comparison.statistics._BLOCK", 30 * 7)
        assert bootstrap_means(x, samples=500) == pytest.approx(whole)
        monkeypatch.undo()
        assert not np.array_equal(bootstrap_means(x, samples=500, seed=1), whole)


class TestRankStability:
    VALUES = np.random.default_rng(7).normal([0.7, 0.72, 0.6, 0.72], 0.1, (25, 4))

    def test_is_ranking_every_sample(self) -> None:
        stability = RankStability.of(self.VALUES, 1, samples=200)
        means = bootstrap_means(self.VALUES, samples=200)
        ranks = stats.rankdata(-means, axis=1)
        assert stability.ranks.tolist() == stats.rankdata(-self.VALUES.mean(axis=0)).tolist()
        assert stability.shares[2, 3] == (ranks[:, 2] == 4).mean()
        assert stability.mean_rank == pytest.approx(ranks.mean(axis=0))
        taus = [stats.kendalltau(-self.VALUES.mean(axis=0), -m).statistic for m in means]
        assert stability.tau == pytest.approx(taus)

    def test_shares_add_up(self) -> None:
        shares = RankStability.of(self.VALUES, -1, samples=100).shares
        assert shares.sum(axis=1) == pytest.approx(1)
        assert shares.sum(axis=0) == pytest.approx(1)

    def test_smaller_is_better_turns_the_order_around(self) -> None:
        up, down = (RankStability.of(self.VALUES, better, samples=100) for better in (1, -1))
        assert (up.ranks + down.ranks == 5).all()
        assert np.array_equal(up.shares, down.shares[:, ::-1])
        assert up.tau == pytest.approx(down.tau)

    def test_equal_models_share_a_rank(self) -> None:
        values = np.column_stack([self.VALUES[:, 0], np.mean([self.VALUES[:, 0]] * 3, axis=0), self.VALUES[:, 2] - 1])
        stability = RankStability.of(values, 1, samples=50)
        assert stability.ranks.tolist() == [1, 1, 3]
        assert stability.shares.tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]
        assert stability.mean_rank.tolist() == [1.5, 1.5, 3]
        assert stability.tau == pytest.approx(1)

    def test_a_lead_of_one_case_is_lost_without_it(self) -> None:
        values = np.repeat(self.VALUES[:10, :1], 2, axis=1)
        values[3, 0] += 0.1
        stability = RankStability.of(values, 1)
        without = 0.9**10  # the part of samples that lack the case
        assert stability.ranks.tolist() == [1, 2]
        assert stability.shares[0, 0] == pytest.approx(1 - without / 2, abs=0.01)

    def test_without_any_difference_there_is_no_tau(self) -> None:
        stability = RankStability.of(np.repeat(self.VALUES[:, :1], 3, axis=1), 1, samples=10)
        assert stability.ranks.tolist() == [1, 1, 1]
        assert np.isnan(stability.tau).all()

    def test_tau_with_ties_is_scipys(self) -> None:
        values = np.round(self.VALUES[:6], 1)
        stability = RankStability.of(values, 1, samples=200)
        means = np.round(bootstrap_means(values, samples=200), 12)
        taus = [stats.kendalltau(np.round(values.mean(axis=0), 12), m).statistic for m in means]
        assert stability.tau == pytest.approx(taus, nan_ok=True)
