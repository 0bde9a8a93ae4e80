"""The one exception for input that a user can put right."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Something about the user's input, named together with the way out.

    The command line prints it without a traceback and exits with code 2. `problems` holds one finished sentence per
    problem; checks collect all of them before anything is written.
    """

    def __init__(self, *problems: str, way_out: str = "") -> None:
        self.problems: Sequence[str] = problems
        self.way_out = way_out
        lines = problems if len(problems) == 1 else (f"{len(problems)} problems:", *(f"  - {p}" for p in problems))
        super().__init__("\n".join([*lines, way_out] if way_out else lines))
