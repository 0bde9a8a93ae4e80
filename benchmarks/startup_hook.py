"""What the start-up hook costs every interpreter of its environment, and how soon ``nnunet_ext --help`` answers.

    python benchmarks/startup_hook.py [--runs 200]

Two bare virtual environments differ in the three start-up files alone. Runs of ``python -c pass`` alternate between
them and the hook switched off, so that whatever else the machine does meets all of them alike. Writes
results/startup_hook.json and .md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from common import machine, save

CHECKOUT = Path(__file__).resolve().parent.parent
STARTUP_FILES = ("nnunet_ext.pth", "nnunet_ext.start", "_nnunet_ext_hook.py")
HELP_TARGET_MS = 300


def make_environment(folder: Path, *, hook: bool) -> Path:
    """A bare virtual environment; returns its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    if hook:
        site_packages = next(folder.glob("lib/python*/site-packages"))
        for file in STARTUP_FILES:
            shutil.copy(CHECKOUT / file, site_packages)
    return folder / "bin" / "python"


def timed(command: list[str | Path], environment: dict[str, str]) -> float:
    """Milliseconds that a process takes."""
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def import_cost(python: Path, environment: dict[str, str]) -> float:
    """Milliseconds that importing the hook takes, by Python's own account."""
    command = [python, "-X", "importtime", "-c", "pass"]
    report = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stderr
    (line,) = (line for line in report.splitlines() if line.endswith(" _nnunet_ext_hook"))
    return int(line.split("|")[1]) / 1000


def measure(runs: int) -> dict[str, list[float]]:
    """Milliseconds of every run of every variant, interleaved."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NNUNET_EXT_", "PYTHON"))}
    off = {**clean, "NNUNET_EXT_DISABLE": "1"}
    checkout = {**clean, "PYTHONPATH": str(CHECKOUT)}
    with tempfile.TemporaryDirectory() as folder:
        with_hook = make_environment(Path(folder, "with"), hook=True)
        without = make_environment(Path(folder, "without"), hook=False)
        variants = {
            "without the start-up files": lambda: timed([without, "-c", "pass"], clean),
            "with the hook": lambda: timed([with_hook, "-c", "pass"], clean),
            "with NNUNET_EXT_DISABLE=1": lambda: timed([with_hook, "-c", "pass"], off),
            "import of the hook alone": lambda: import_cost(with_hook, clean),
            "nnunet_ext --help": lambda: timed([sys.executable, "-m", "nnunet_ext", "--help"], checkout),
        }
        for run in variants.values():  # writes byte code, fills caches
            run()
        times = {name: [] for name in variants}
        for i in range(runs):
            names = list(variants)
            for name in names[i % len(names) :] + names[: i % len(names)]:
                times[name].append(variants[name]())
    return times


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    runs, where = parser.parse_args().runs, machine()
    times = measure(runs)

    baseline = times["without the start-up files"]
    added = {
        name: statistics.median(a - b for a, b in zip(times[name], baseline, strict=True))
        for name in ("with the hook", "with NNUNET_EXT_DISABLE=1")
    }
    quartiles = {name: statistics.quantiles(values, n=4) for name, values in times.items()}
    save(
        "startup_hook",
        title="Start-up cost of the hook",
        command="python benchmarks/startup_hook.py",
        notes=[
            f"{runs} interleaved runs each. The first three run `python -c pass`. Target for `nnunet_ext --help`: "
            f"under {HELP_TARGET_MS} ms."
        ],
        header=("run", "median ms", "quartiles", "median of paired differences"),
        rows=[
            (name, f"{q[1]:.2f}", f"{q[0]:.2f} to {q[2]:.2f}", f"{added[name]:+.2f}" if name in added else "")
            for name, q in quartiles.items()
        ],
        packages=(),
        where=where,
        runs=runs,
        quartiles_ms=quartiles,
        median_difference_to_without_ms=added,
        help_target_ms=HELP_TARGET_MS,
    )


if __name__ == "__main__":
    main()
