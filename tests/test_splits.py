"""Splits are by patient, seeded, always five folds, and nobody is on two sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.dataset_conversion.splits import FOLDS, make_split


def patients(count: int) -> dict[str, list[str]]:
    return {f"lits_{n:03d}": [f"lits_{n:03d}"] for n in range(count)}


def test_paper_split_of_lits_is_105_13_13() -> None:
    split = make_split(patients(131), kind="paper", seed=12345)
    train, val = split.folds[0]
    assert (len(train), len(val), len(split.test)) == (105, 13, 13)
    assert not split.notes


def test_known_split_stays_the_same() -> None:
    split = make_split(patients(12), kind="paper", seed=12345)
    assert split.test == ("lits_001",)
    assert [val[0][5:] for _, val in split.folds] == ["000", "002", "003", "011", "006"]


@given(count=st.integers(1, 60), seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["paper", "cv5"]))
def test_every_split_is_usable(count: int, seed: int, kind: str) -> None:
    everyone = set(patients(count))
    split = make_split(patients(count), kind=kind, seed=seed)
    assert len(split.folds) == FOLDS
    rest = everyone - set(split.test)
    for train, val in split.folds:
        assert train
        assert val
        assert set(train) | set(val) == rest
        assert len(rest) == 1 or not set(train) & set(val)
    validated = [case for _, val in split.folds for case in val]
    if len(rest) >= FOLDS:
        assert len(validated) == len(set(validated))
        assert not split.notes
    else:
        assert split.notes
    assert kind == "paper" or set(validated) == everyone


@pytest.mark.parametrize("seed", [0, 12345])
def test_a_missing_patient_does_not_reshuffle_the_others(seed: int) -> None:
    everyone = patients(131)
    before = set(make_split(everyone, kind="paper", seed=seed).test)
    for missing in everyone:
        rest = {patient: cases for patient, cases in everyone.items() if patient != missing}
        assert before - {missing} <= set(make_split(rest, kind="paper", seed=seed).test)


@given(st.randoms())
def test_order_of_patients_does_not_matter(random) -> None:
    shuffled = list(patients(20).items())
    random.shuffle(shuffled)
    assert make_split(dict(shuffled), kind="paper", seed=3) == make_split(patients(20), kind="paper", seed=3)


def test_seed_matters() -> None:
    assert make_split(patients(20), kind="paper", seed=1) != make_split(patients(20), kind="paper", seed=2)


def test_cases_of_one_patient_stay_together() -> None:
    groups = {f"p{n}": [f"p{n}_a", f"p{n}_b"] for n in range(13)}
    split = make_split(groups, kind="cv5", seed=0)
    for train, val in split.folds:
        assert not {case[:-2] for case in train} & {case[:-2] for case in val}


def test_three_patients_give_one_each() -> None:
    split = make_split(patients(3), kind="paper", seed=0)
    assert [len(split.test), *map(len, split.folds[0])] == [1, 1, 1]


@pytest.mark.parametrize(("count", "kind"), [(0, "paper"), (5, "loocv")])
def test_nonsense_is_refused(count: int, kind: str) -> None:
    with pytest.raises(ValueError, match="paper, cv5"):
        make_split(patients(count), kind=kind, seed=0)
