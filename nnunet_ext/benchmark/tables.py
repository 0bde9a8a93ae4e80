"""TOML tables, read key by key; every mistake is noted, none stops the reading."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Iterable
from typing import Any

_KINDS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "text": ("a string", str),
    "integer": ("an integer", int),
    "flag": ("true or false", bool),
    "number": ("a number", (int, float)),
    "table": ("a table", dict),
}
_LISTS = {"texts": "text", "integers": "integer", "tables": "table"}


class Table:
    """One table. `take` every key that is known, then `finish`.

    Args:
        content: as tomllib gives it.
        where: its place in the file, for messages.
        problems: the list that all tables of a file share.
    """

    def __init__(self, content: dict[str, Any], where: str, problems: list[str]) -> None:
        self.content, self.where, self.problems = content, where, problems
        self.known: list[str] = []

    def note(self, problem: str) -> None:
        """One more mistake of this table."""
        self.problems.append(f"{self.where}: {problem}")

    def take(
        self, key: str, kind: str, default: Any = None, *, required: bool = False, choices: Collection[Any] = ()
    ) -> Any:
        """The value of `key`; `default` where it is missing or wrong.

        Args:
            kind: "text", "integer", "flag", "number", "table", or a list of one of them: "texts", "integers", "tables".
            choices: what the value, or every item of the list, may be; any where empty.
        """
        self.known.append(key)
        if key not in self.content:
            if required:
                self.note(f"{key} is missing")
            return default
        value = self.content[key]
        items = value if kind in _LISTS and isinstance(value, list) else [value]
        what, types = _KINDS[_LISTS.get(kind, kind)]
        if kind in _LISTS and not isinstance(value, list):
            self.note(f"{key} is {value!r}, but must be a list")
            return default
        wrong = [i for i in items if not isinstance(i, types) or (isinstance(i, bool) and kind != "flag")]
        if not wrong and choices:
            what, wrong = f"one of {listed(choices)}", [i for i in items if i not in choices]
        if wrong:
            each = f"a list, each item {what}" if kind in _LISTS else what
            self.note(f"{key} is {value!r}, but must be {each}")
            return default
        return tuple(value) if kind in _LISTS else value

    def check_words(self, key: str, text: str, *, required: bool = False) -> None:
        """Note a text that a shell could not read as words."""
        try:
            words = shlex.split(text)
        except ValueError as e:
            self.note(f"{key} has {text!r}: {e}")
            return
        if required and not words:
            self.note(f"{key} has an empty command")

    def finish(self) -> None:
        """Note every key that nobody asked for."""
        for key in self.content:
            if key not in self.known:
                self.note(f"there is no key {key!r}{meant(key, self.known)}; known are {listed(self.known)}")


def listed(items: Iterable[Any]) -> str:
    """For a message."""
    return ", ".join(str(i) for i in items)


def meant(word: str, known: Iterable[str]) -> str:
    """A guess at what a misspelt word should be, to stand behind it in a message."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
