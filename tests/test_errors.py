"""InputError: what the user reads."""

from __future__ import annotations

import pickle

import pytest

from nnunet_ext.common.errors import InputError


@pytest.mark.parametrize(
    ("problems", "hint", "text"),
    [
        (("One thing.",), "", "One thing."),
        (("One thing.",), "Do this.", "One thing.\nDo this."),
        (("One.", "Two."), "Do this.", "2 problems:\n  - One.\n  - Two.\nDo this."),
    ],
)
def test_text(problems: tuple[str, ...], hint: str, text: str) -> None:
    assert str(InputError(*problems, hint=hint)) == text


def test_comes_back_whole_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(InputError("One.", "Two.", hint="Do this.")))
    assert str(error) == "2 problems:\n  - One.\n  - Two.\nDo this."
    assert error.problems == ("One.", "Two.")
    assert error.hint == "Do this."
