"""Integers and switches from environment variables, and the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path

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


@pytest.mark.parametrize(("text", "on"), [("1", True), (" 1 ", True), ("0", False), ("", False)])
def test_switch(monkeypatch: pytest.MonkeyPatch, text: str, on: bool) -> None:
    monkeypatch.setenv(environment.RECOMPUTE, text)
    assert environment.switch(environment.RECOMPUTE) == on


@pytest.mark.parametrize("text", ["2", "yes", "-1"])
def test_wrong_switch(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(environment.RECOMPUTE, text)
    with pytest.raises(InputError, match=f"NNUNET_EXT_RECOMPUTE='{text}' is neither 0 nor 1"):
        environment.switch(environment.RECOMPUTE)


def test_the_page_lists_every_variable() -> None:
    root = Path(__file__).resolve().parent.parent
    sources = [*(root / "nnunet_ext").rglob("*.py"), *root.glob("_nnunet_ext_*.py")]
    used = {name for file in sources for name in re.findall(r"NNUNET_EXT_[A-Z]\w*", file.read_text(encoding="utf-8"))}
    page = (root / "docs" / "environment.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(NNUNET_EXT_\w+)", page, re.MULTILINE)) == used
