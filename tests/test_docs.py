"""The documentation against the code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from nnunet_ext.cli import VERBS, build_parser
from nnunet_ext.evaluation.intervals import DIFFERENCE_COVERAGE, MEAN_COVERAGE
from nnunet_ext.metrics.definitions import METRICS

DOCS = Path(__file__).resolve().parent.parent / "docs"
README = DOCS.parent / "README.md"
PAGES = (README, README.with_name("CONTRIBUTING.md"), *sorted(DOCS.glob("*.md")))
UNITS = {"length": "mm, px", "volume": "ml, mm2, px"}
BETTER = {1: "larger", -1: "smaller", 0: ""}


def test_definitions_of_metrics() -> None:
    rows = [line for line in (DOCS / "evaluation.md").read_text().splitlines() if line.startswith("| `")]
    cells = [
        (f"`{m.key}`", UNITS.get(m.quantity, ""), BETTER[m.better], m.definition, m.undefined, "yes" * m.ranked)
        for m in METRICS
    ]
    assert [c for c in cells if "|" in "".join(c)] == []  # it would end the cell
    expected = [f"| {' | '.join(c)} |" for c in cells]
    assert rows == expected, "docs/evaluation.md shall have these rows:\n" + "\n".join(expected)


def test_coverage_of_intervals() -> None:
    """What reports say of intervals, and docs/statistics.md, is what was measured."""
    measured = json.loads((DOCS.parent / "benchmarks" / "results" / "interval_coverage.json").read_text())["coverage"]
    text = (DOCS / "statistics.md").read_text()
    tables = (("mean: t", "t", MEAN_COVERAGE), ("difference: Hodges-Lehmann", "Hodges-Lehmann", DIFFERENCE_COVERAGE))
    for method, label, table in tables:
        for row in table:
            n, *shares = row
            assert dict(zip(row._fields[1:], shares, strict=True)) == measured[method][str(n)]
            cells = [f"{share:.3f}".lstrip("0") for share in shares]
            assert n not in (6, 10, 20, 30, 50, 100) or f"| {label} | {n} | {' | '.join(cells)} |" in text


def test_links_lead_somewhere() -> None:
    for file in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", file.read_text()):
            assert target.startswith("http") or (file.parent / target).exists(), f"{file.name}: {target}"


def test_the_readme_is_short_and_leads_everywhere() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 120
    assert not [page.name for page in DOCS.glob("*.md") if f"(docs/{page.name})" not in text]
    assert not [verb for verb in VERBS if f"nnunet_ext {verb}" not in text]


def commands() -> list[str]:
    """Return every command of ours in the code blocks of the pages."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        lines = re.findall(r"^ {4}(nnunet_ext .*)$", text, re.MULTILINE)
        found += [re.split(r"\s[#>]\s|\s{2,}#", line)[0].strip() for line in lines]
    return sorted({line for line in found if "|" not in line})  # less lists of verbs


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    build_parser().parse_args(shlex.split(command)[1:])
