"""Bland and Altman's figure of volumes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from evaluations import evaluation

from nnunet_ext.comparison import ModelRuns
from nnunet_ext.report.agreement import limits, volumes
from nnunet_ext.report.data import ReportData

RANDOM = np.random.default_rng(0)
REFERENCE = np.exp(RANDOM.normal(2, 1.5, 20))
PREDICTED = REFERENCE * RANDOM.normal(1.1, 0.1, 20)


def data_of(reference: np.ndarray, predicted: np.ndarray) -> ReportData:
    sizes = {"volume_reference": reference, "volume_prediction": predicted, "volume_error": predicted - reference}
    run = evaluation(np.full(len(reference), 0.8), others=sizes)
    return ReportData(models=[ModelRuns(name="A", runs=[run])])


def test_limits_by_hand() -> None:
    # of 1, 3, 5: the mean is 3, the standard deviation 2
    assert limits(np.array([1.0, 3.0, 5.0])) == pytest.approx((3, 3 - 3.92, 3 + 3.92))


def test_says_what_it_draws() -> None:
    (figure,) = volumes(data_of(REFERENCE, PREDICTED))["tumour"]
    bias, low, high = limits(PREDICTED - REFERENCE)
    assert f"bias {bias:+.3g} [" in figure
    assert f"limits {low:.3g} to {high:.3g} ml, n 20" in figure
    assert "log scale" in figure
    assert len(re.findall("<circle", figure)) == 20


def test_a_dot_is_where_its_case_is() -> None:
    (figure,) = volumes(data_of(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])))["tumour"]
    found = re.findall(r'cx="(.*?)" cy="(.*?)" r=".*?" data-c="(.*?)"', figure)
    dots = {int(c): (float(x), float(y)) for x, y, c in found}
    assert dots[0][0] < dots[1][0] < dots[2][0]  # means 1.5, 2, 2.5
    assert dots[0][1] < dots[1][1] < dots[2][1]  # differences 1, 0, -1, upwards
    assert dots[1][1] - dots[0][1] == pytest.approx(dots[2][1] - dots[1][1], abs=0.11)


def test_cases_that_are_empty_in_both_say_nothing() -> None:
    reference, predicted = np.array([0.0, 0.0, 3.0, 4.0, 5.0]), np.array([0.0, 1.0, 3.0, 4.0, 5.0])
    (figure,) = volumes(data_of(reference, predicted))["tumour"]
    assert sorted(re.findall(r'data-c="(\d)"', figure)) == ["1", "2", "3", "4"]


def test_is_left_out_without_volumes() -> None:
    nothing = np.full(5, np.nan)
    assert volumes(data_of(nothing, nothing)) is None
    assert volumes(data_of(np.array([1.0, 2.0]), np.array([1.0, 2.0]))) is None
