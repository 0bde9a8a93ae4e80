"""InputError: what the user reads."""

from __future__ import annotations

import pickle

import pytest

from nnunet_ext.errors import InputError


@pytest.mark.parametrize(
    ("problems", "way_out", "text"),
    [
        (("One thing.",), "", "One thing."),
        (("One thing.",), "Do this.", "One thing.\nDo this."),
        (("One.", "Two."), "Do this.", "2 problems:\n  - One.\n  - Two.\nDo this."),
    ],
)
def test_text(problems: tuple[str, ...], way_out: str, text: str) -> None:
    assert str(InputError(*problems, way_out=way_out)) == text


def test_comes_back_whole_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(InputError("One.", "Two.", way_out="Do this.")))
    assert str(error) == "2 problems:\n  - One.\n  - Two.\nDo this."
    assert error.problems == ("One.", "Two.")
    assert error.way_out == "Do this."
