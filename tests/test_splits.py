"""Splits are by patient or other group, stratified, seeded, always five folds, and nobody is on two sides."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.dataset_conversion.splits import FOLDS, Split, make_split


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


def busi(benign: int = 437, malignant: int = 210) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Groups like BUSI's near-duplicates (every eighth image has a twin, every 50th two) and their strata."""
    groups, strata = {}, {}
    for diagnosis, count in (("benign", benign), ("malignant", malignant)):
        ids = [f"{diagnosis}_{n:04d}" for n in range(count)]
        while ids:
            size = 3 if len(ids) % 50 == 0 else 2 if len(ids) % 8 == 0 else 1
            group, ids = ids[:size], ids[size:]
            groups[group[0]] = group
            strata[group[0]] = diagnosis
    return groups, strata


def paper_split(groups: dict[str, list[str]], strata: dict[str, str], seed: int = 12345) -> Split:
    return make_split(groups, kind="paper", seed=seed, strata=strata, tenths=(2, 1), unit="image group")


def share(cases: Sequence[str], diagnosis: str = "benign") -> float:
    return sum(case.startswith(diagnosis) for case in cases) / len(cases)


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_paper_split_of_busi_is_7_1_2_of_images_and_of_classes(seed: int) -> None:
    groups, strata = busi()
    split = paper_split(groups, strata, seed)
    train, val = split.folds[0]
    assert abs(len(split.test) - 129) <= 1
    assert abs(len(val) - 65) <= 1
    assert abs(len(train) - 453) <= 2
    sides = [split.test, *(val for _, val in split.folds)]
    assert len(set().union(*sides)) == sum(map(len, sides))
    for side in (train, *sides):
        assert abs(share(side) - 437 / 647) < 1.6 / len(side)
        assert all(len(set(group) & set(side)) in (0, len(group)) for group in groups.values())


def test_cv5_of_busi_validates_everybody_once() -> None:
    groups, strata = busi()
    split = make_split(groups, kind="cv5", seed=1, strata=strata)
    validated = [case for _, val in split.folds for case in val]
    assert sorted(validated) == sorted(case for group in groups.values() for case in group)
    for train, val in split.folds:
        assert abs(len(val) - 647 / 5) < 2
        assert abs(share(val) - share(train)) < 0.02
    assert not split.notes


def test_known_stratified_split_stays_the_same() -> None:
    split = paper_split(*busi(9, 6))
    assert split.test == ("benign_0005", "benign_0007", "malignant_0001")
    assert [val for _, val in split.folds] == [
        ("benign_0006", "malignant_0005"),
        ("benign_0008", "malignant_0002"),
        ("benign_0003", "malignant_0004"),
        ("benign_0001", "benign_0002"),
        ("benign_0000", "malignant_0000"),
    ]


def test_a_missing_group_moves_few_others() -> None:
    """Unlike a reshuffle, which would change four of five held-out images."""
    groups, strata = busi(120, 60)
    before = paper_split(groups, strata)
    for missing in groups:
        rest = {group: ids for group, ids in groups.items() if group != missing}
        after = paper_split(rest, strata)
        assert len(set(before.test) - set(after.test) - set(groups[missing])) <= 3
        for (_, old), (_, new) in zip(before.folds, after.folds, strict=True):
            assert len(set(old) - set(new) - set(groups[missing])) <= 5


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["paper", "cv5"]),
    classes=st.integers(1, 4),
)
def test_groups_stay_whole_whatever_their_sizes(sizes: list[int], seed: int, kind: str, classes: int) -> None:
    groups = {f"g{i}": [f"g{i}_{n}" for n in range(size)] for i, size in enumerate(sizes)}
    strata = {group: f"class {i % classes}" for i, group in enumerate(groups)}
    split = make_split(groups, kind=kind, seed=seed, strata=strata, tenths=(2, 1), unit="image group")
    everyone = {case for group in groups.values() for case in group}
    rest = everyone - set(split.test)
    assert bool(split.test) == (kind == "paper" and len(groups) >= 3)
    for train, val in split.folds:
        assert train
        assert val
        assert set(train) | set(val) == rest
        for side in (train, val, split.test):
            assert all(len(set(group) & set(side)) in (0, len(group)) for group in groups.values())
    validated = [case for _, val in split.folds for case in val]
    if not split.notes:
        assert len(validated) == len(set(validated))
    assert kind == "paper" or set(validated) == everyone
    assert all("image group" in note for note in split.notes)


def test_order_of_groups_and_strata_does_not_matter() -> None:
    groups, strata = busi(30, 20)
    assert paper_split(dict(reversed(groups.items())), dict(reversed(strata.items()))) == paper_split(groups, strata)


@pytest.mark.parametrize(("count", "kind"), [(0, "paper"), (5, "loocv")])
def test_nonsense_is_refused(count: int, kind: str) -> None:
    with pytest.raises(ValueError, match="paper, cv5"):
        make_split(patients(count), kind=kind, seed=0)
