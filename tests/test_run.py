"""``python -m nnunet_ext.run``: which commands it knows and how it hands over; see also test_discovery.py."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, PackageNotFoundError
from types import SimpleNamespace

import pytest

from nnunet_ext import run
from nnunet_ext.common.errors import InputError


@pytest.fixture(autouse=True)
def _argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "nnUNetv2_train", "1", "2d", "0"])


def test_hands_the_arguments_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(entry_point: EntryPoint) -> object:
        return lambda: (entry_point.value, sys.argv)

    monkeypatch.setattr(EntryPoint, "load", load)
    value, argv = run.main()
    assert value == "nnunetv2.run.run_training:run_training_entry"
    assert argv == ["nnUNetv2_train", "1", "2d", "0"]


@pytest.mark.parametrize(("argv", "message"), [(["pip"], "no command 'pip'"), ([], "No command given")])
def test_knows_only_commands_of_nnunet(argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as e:
        run.main(argv)
    assert "nnUNetv2_plan_and_preprocess" in e.value.hint


def test_without_nnunet(monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> SimpleNamespace:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(run, "distribution", distribution)
    with pytest.raises(InputError, match="nnU-Net is not installed"):
        run.main()
