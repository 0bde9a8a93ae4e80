"""Integers from environment variables."""

from __future__ import annotations

import pytest

from nnunet_ext.common import environment
from nnunet_ext.common.errors import InputError


@pytest.mark.parametrize(
    ("text", "minimum", "value"), [("7", 1, 7), (" 7 ", 1, 7), ("1", 1, 1), ("0", 0, 0), ("", 1, None), ("  ", 1, None)]
)
def test_value(monkeypatch: pytest.MonkeyPatch, text: str, minimum: int, value: int | None) -> None:
    monkeypatch.setenv(environment.EPOCHS, text)
    assert environment.integer(environment.EPOCHS, minimum) == value


def test_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.SEED, raising=False)
    assert environment.integer(environment.SEED) is None


@pytest.mark.parametrize(("text", "minimum"), [("0", 1), ("-1", 0), ("many", 1), ("1.5", 1), ("1e3", 1)])
def test_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, text: str, minimum: int) -> None:
    monkeypatch.setenv(environment.ITERATIONS, text)
    with pytest.raises(InputError, match=rf"NNUNET_EXT_ITERATIONS='{text}' is not an integer of at least {minimum}"):
        environment.integer(environment.ITERATIONS, minimum)
