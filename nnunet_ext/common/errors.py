"""The one exception for input that a user can put right."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Reports what is wrong with the user's input, together with a hint on how to put it right.

    The command line prints it without a traceback and exits with code 2. `problems` holds one finished sentence per
    problem; checks collect all of them before anything is written.
    """

    def __init__(self, *problems: str, hint: str = "") -> None:
        self.problems: Sequence[str] = problems
        self.hint = hint
        lines = problems if len(problems) == 1 else (f"{len(problems)} problems:", *(f"  - {p}" for p in problems))
        super().__init__("\n".join([*lines, hint] if hint else lines))


def clicks_needed() -> InputError:
    """Return what a network says that was trained with clicks only and gets none."""
    return InputError(
        "This network was trained with clicks only and needs some: nnunet_ext predict -m MODEL_FOLDER -i IN "
        "-o OUT --prompts prompts.json (or --from-reference DIR)."
    )
