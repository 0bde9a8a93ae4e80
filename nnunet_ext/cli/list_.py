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
    """None."""


def run(args: argparse.Namespace) -> int:
    """Print the registry."""
    from nnunet_ext import registry

    width = max(len(e.name) for e in registry.ENTRIES)
    for kind, heading in HEADINGS.items():
        if not registry.entries(kind):
            continue
        print(heading)
        for e in registry.entries(kind):
            facts = [e.summary]
            if e.paper_row:
                facts.append(f"paper row {e.paper_row}")
            if e.parameters:
                facts.append(f"{e.parameters:,} parameters")
            if e.configuration:
                facts.append(e.configuration)
            if e.plans:
                facts.append(f"-p {e.plans}")
            print(f"  {e.name:<{width}}  {'; '.join(facts)}")
        print()
    return 0
