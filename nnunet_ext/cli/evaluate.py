"""Placeholder of the skeleton."""

from __future__ import annotations

import argparse

HELP = "evaluate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Not yet."""


def run(args: argparse.Namespace) -> int:
    """Not yet."""
    raise NotImplementedError
