"""The documentation against the code."""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_ext.cli import VERBS
from nnunet_ext.metrics.definitions import METRICS

DOCS = Path(__file__).resolve().parent.parent / "docs"
README = DOCS.parent / "README.md"
UNITS = {"length": "mm, px", "volume": "ml, mm2, px"}
BETTER = {1: "larger", -1: "smaller", 0: ""}


def test_definitions_of_metrics() -> None:
    rows = [line for line in (DOCS / "evaluation.md").read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{m.key}` | {UNITS.get(m.quantity, '')} | {BETTER[m.better]} | {m.definition} | {m.undefined} | "
        f"{'yes' if m.ranked else ''} |"
        for m in METRICS
    ]


def test_links_lead_somewhere() -> None:
    for file in (README, *DOCS.glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)", file.read_text()):
            assert target.startswith("http") or (file.parent / target).exists(), f"{file.name}: {target}"


def test_every_verb_is_in_the_readme() -> None:
    text = README.read_text()
    assert not [verb for verb in VERBS if f"nnunet_ext {verb}" not in text]
