"""Breaks files as disks, editors and other programs do: values of other kinds, lost keys, cut and flipped bytes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    7,
    2.5,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "..",
    "a\nb",
    "x" * 300,
    "x/" * 3000,
    "\0",
    "\ud800",
    "\udcff",
    "ä€",
    [],
    {},
    [[]],
    [None],
    {"a": None},
    {"": {}},
)
DEEP = '{"a": ' * 5000


def broken(content: bytes, rng: random.Random, *, text: bool = False) -> bytes:
    """Another version of a file; JSON is mostly broken in its structure, and `text` line by line."""
    if text and rng.random() < 0.5:
        return _lines(content, rng)
    if not text and rng.random() < 0.8:
        try:
            value = json.loads(content)
        except ValueError:
            pass
        else:
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                value = _changed(value, rng)
            return json.dumps(value).encode()
    return _bytes(content, rng)


def _changed(value: Any, rng: random.Random) -> Any:
    """The same with one value replaced, lost, doubled or called otherwise."""
    value = copy.deepcopy(value)
    if not isinstance(value, dict | list) or not value or rng.random() < 0.03:
        return copy.deepcopy(rng.choice(ODD))
    parent = value
    while True:  # down a way of which each step is as likely as the others: most values are in long lists
        key = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        if not isinstance(parent[key], dict | list) or not parent[key] or rng.random() < 0.2:
            break
        parent = parent[key]
    odd = copy.deepcopy(rng.choice(ODD))
    what = rng.choice(("replace",) * 4 + ("lose", "more", "wrap", "as text"))
    if what == "lose":
        del parent[key]
    elif what == "more" and isinstance(parent, list):
        parent.append(copy.deepcopy(rng.choice((parent[key], odd))))
    elif what == "more":
        parent[str(odd)[:99] if isinstance(odd, str | int) else "more"] = copy.deepcopy(parent[key])
    elif what == "wrap":
        parent[key] = [parent[key]]
    elif what == "as text":
        parent[key] = str(parent[key])
    else:
        parent[key] = odd
    return value


def _bytes(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    what = rng.choice(("cut", "flip", "insert", "empty", "deep", "other"))
    if what == "cut":
        return content[:at]
    if what == "flip" and at < len(content):
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if what == "insert":
        return content[:at] + rng.randbytes(rng.choice((1, 8, 300))) + content[at:]
    return {"empty": b"", "deep": DEEP.encode()}.get(what, rng.randbytes(64))


def _lines(content: bytes, rng: random.Random) -> bytes:
    """Lines with another value behind the equals sign, lost, or twice."""
    lines = content.decode().splitlines()
    at = rng.randrange(len(lines))
    key, separator, _ = lines[at].partition("=")
    odd = ("-1", "1e999", "nan", '""', '".."', '"../../x"', '"a\\nb"', "[]", "{}", "[[]]", "9" * 40, '"x y"', '"$(id)"')
    if separator:
        changed = [[], [lines[at]] * 2, [f"{key}= {rng.choice(odd)}"], [f"{key}= {rng.choice(odd)}"]]
    else:
        changed = [[], [lines[at]] * 2]
    lines[at : at + 1] = rng.choice(changed)
    return "\n".join(lines).encode()
