"""Every class that nnU-Net's commands may ask for by name: trainers (-tr), planners (-pl), normalisations."""

from __future__ import annotations

import argparse

HELP = "trainers, planners and normalisations, one line each"

HEADINGS = {
    "trainer": "Trainers (nnUNetv2_train ... -tr NAME)",
    "planner": "Planners (nnUNetv2_plan_and_preprocess ... -pl NAME)",
    "normalization": "Normalisations (named in plans)",
    "resampling": "Resampling functions (named in plans)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="the trainers as the tables of docs/trainers.md")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext import registry

    if args.markdown:
        print(trainers_table())
        return 0
    width = max(len(e.name) for e in registry.entries())
    for kind, heading in HEADINGS.items():
        if not registry.entries(kind):
            continue
        print(heading)
        for e in registry.entries(kind):
            facts = (
                e.summary,
                f"paper row {e.paper_row}" if e.paper_row else "",
                f"{e.parameters:,} parameters" if e.parameters else "",
                e.configuration,
                f"-p {e.plans}" if e.plans else "",
            )
            print(f"  {e.name:<{width}}  {'; '.join(filter(None, facts))}")
        print()
    return 0


PROMPTS = {"none": "", "mixed": "none or clicks", "click": "clicks"}


def trainers_table() -> str:
    """Return Markdown tables of the trainers, one per paper and one of those that reproduce none."""
    from nnunet_ext import registry

    trainers = registry.entries("trainer")
    lines: list[str] = []
    for paper in dict.fromkeys(e.paper for e in trainers if e.paper):
        lines += [f"### {paper}", ""]
        lines += ["| `-tr` | Network and recipe | Row of the paper's table | Parameters (trained) | `-c` | Prompts |"]
        lines += ["|---|---|---|---|---|---|"]
        for e in trainers:
            if e.paper == paper:
                count = f"{e.parameters:,}" if e.parameters else "as planned"
                trained = f" ({e.trained:,})" if e.trained else ""
                facts = (f"`{e.name}`", e.summary, e.paper_row, count + trained, e.configuration, PROMPTS[e.prompts])
                lines += [f"| {' | '.join(facts)} |"]
        lines += [""]
    lines += ["### Baselines", "", "| `-tr` | Network and recipe | `-c` | Prompts |", "|---|---|---|---|"]
    for e in trainers:
        if not e.paper:
            lines += [f"| `{e.name}` | {e.summary} | {e.configuration} | {PROMPTS[e.prompts]} |"]
    return "\n".join(lines)
