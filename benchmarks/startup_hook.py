"""What the start-up hook costs every interpreter of its environment, and how soon ``nnunet_ext --help`` answers.

    python benchmarks/startup_hook.py [--runs 200]

Two bare virtual environments differ in the three start-up files alone. Runs of ``python -c pass`` alternate between
them and the hook switched off, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from common import aim, interleaved, machine, options, save

CHECKOUT = Path(__file__).resolve().parent.parent
STARTUP_FILES = ("nnunet_ext.pth", "nnunet_ext.start", "_nnunet_ext_hook.py")
HOOK_AIM_MS, HELP_AIM_MS = 0.5, 300


def make_environment(folder: Path, *, hook: bool) -> Path:
    """Make a bare virtual environment and return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    if hook:
        site_packages = next(folder.glob("lib/python*/site-packages"))
        for file in STARTUP_FILES:
            shutil.copy(CHECKOUT / file, site_packages)
    return folder / "bin" / "python"


def import_cost(python: Path, environment: dict[str, str]) -> float:
    """Return the milliseconds that importing the hook takes, by Python's own account."""
    command = [python, "-X", "importtime", "-c", "pass"]
    report = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stderr
    (line,) = (line for line in report.splitlines() if line.endswith(" _nnunet_ext_hook"))
    return int(line.split("|")[1]) / 1000


def measure(runs: int) -> dict[str, list[float]]:
    """Return the milliseconds of every run of every variant."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NNUNET_EXT_", "PYTHON"))}
    off = {**clean, "NNUNET_EXT_DISABLE": "1"}
    checkout = {**clean, "PYTHONPATH": str(CHECKOUT)}
    with tempfile.TemporaryDirectory() as folder:
        with_hook = make_environment(Path(folder, "with"), hook=True)
        without = make_environment(Path(folder, "without"), hook=False)
        variants = {
            "without the start-up files": lambda: run([without, "-c", "pass"], clean),
            "with the hook": lambda: run([with_hook, "-c", "pass"], clean),
            "with NNUNET_EXT_DISABLE=1": lambda: run([with_hook, "-c", "pass"], off),
            "nnunet_ext --help": lambda: run([sys.executable, "-m", "nnunet_ext", "--help"], checkout),
        }
        times = {name: [1000 * t for t in seconds] for name, seconds in interleaved(variants, runs).items()}
        return times | {"import of the hook alone": [import_cost(with_hook, clean) for _ in range(runs)]}


def run(command: list[str | Path], environment: dict[str, str]) -> None:
    """Run a process to its end."""
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measure, print, write."""
    runs, where = options(__doc__, runs=200).parse_args().runs, machine()
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
            f"{runs} interleaved runs each. The first three run `python -c pass`.",
            "",
            aim("milliseconds that the hook adds", added["with the hook"], HOOK_AIM_MS),
            aim("milliseconds of `nnunet_ext --help`", quartiles["nnunet_ext --help"][1], HELP_AIM_MS),
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
    )


if __name__ == "__main__":
    main()
