"""What the plans of all datasets have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol, TypeVar

from nnunet_ext.dataset_conversion.conversion import Problem, Settings
from nnunet_ext.dataset_conversion.splits import Split
from nnunet_ext.dataset_conversion.writer import OutputFile, Track


class Identified(Protocol):
    """A reader's own case."""

    @property
    def id(self) -> str: ...


Case = TypeVar("Case", bound=Identified)
Checked = TypeVar("Checked", bound=Identified)


def check_all(
    check: Callable[[Case], tuple[Checked | None, list[str]]],
    cases: Sequence[Case],
    settings: Settings,
    track: Track,
) -> tuple[list[Checked], list[Problem]]:
    """The cases without a fault, and the faults of the others; both in the order of ids.

    In threads: `check` shall spend its time where Python's lock is let go of (numpy, zlib, Pillow).
    """
    good: list[Checked] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(max(1, settings.num_processes)) as pool:
        futures: dict[Future, Case] = {pool.submit(check, case): case for case in cases}
        for future in track(as_completed(futures), total=len(futures), what="checking"):
            checked, faults = future.result()
            problems += [Problem(message=fault, case=futures[future].id) for fault in faults]
            good += [checked] if checked and not faults else []
    return sorted(good, key=lambda case: case.id), sorted(problems, key=lambda problem: problem.case or "")


def linked(path: Path, target: str, print_: Mapping[str, Any], settings: Settings, *, share: bool) -> OutputFile:
    """A file whose own bytes are right; `print_` is its fingerprint."""
    size = path.stat().st_size
    key = f"{settings.link} {path} {print_}"
    return OutputFile(target=target, source=path, key=key, size=size, estimate=size, share=share)


def split_record(split: Split, settings: Settings) -> dict[str, Any]:
    """A split as conversion.json keeps it."""
    return {
        "kind": settings.split,
        "seed": settings.seed,
        "test": list(split.test),
        "folds": split.splits_final(),
    }


def split_summary(split: Split, settings: Settings) -> str:
    """One line on the folds."""
    sizes = [f"fold {i}: {len(train)} + {len(val)}" for i, (train, val) in enumerate(split.folds)]
    return f"split {settings.split}, seed {settings.seed} (training + validation): {', '.join(sizes)}"


def files_summary(files: Sequence[OutputFile], settings: Settings) -> str:
    """One line on what is linked and what is written."""
    written = [file for file in files if file.recipe]
    return (
        f"{len(files) - len(written)} files unchanged (--link {settings.link}), {len(written)} to be "
        f"written, about {sum(file.estimate for file in written) / 1e9:.2f} GB"
    )
