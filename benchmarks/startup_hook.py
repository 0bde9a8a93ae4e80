"""What the start-up hook costs every interpreter of its environment, and how soon ``nnunet_ext --help`` answers.

    python benchmarks/startup_hook.py [--runs 200]

Two bare virtual environments differ in the three start-up files alone. Runs of ``python -c pass`` alternate between
them and the hook switched off, so that whatever else the machine does meets all of them alike. Writes
results/startup_hook.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from nnunet_ext import __version__

CHECKOUT = Path(__file__).resolve().parent.parent
RESULTS = CHECKOUT / "benchmarks" / "results"
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


def cpu_model() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = (
        [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


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
    runs = parser.parse_args().runs
    load = round(os.getloadavg()[0], 1)
    times = measure(runs)

    milliseconds = {}
    for name, values in times.items():
        lower, median, upper = statistics.quantiles(values, n=4)
        milliseconds[name] = {"median": round(median, 3), "quartiles": [round(lower, 3), round(upper, 3)]}
    baseline = times["without the start-up files"]
    added = {
        name: round(statistics.median(a - b for a, b in zip(times[name], baseline, strict=True)), 3)
        for name in ("with the hook", "with NNUNET_EXT_DISABLE=1")
    }
    result = {
        "command": "python benchmarks/startup_hook.py",
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.system(), "load": load},
        "versions": {"python": platform.python_version(), "nnunet_ext": __version__},
        "runs": len(baseline),
        "milliseconds": milliseconds,
        "median_difference_to_without_ms": added,
        "help_target_ms": HELP_TARGET_MS,
    }
    table = ["| Run | median ms | quartiles | median of paired differences |", "|---|---|---|---|"]
    for name, value in milliseconds.items():
        lower, upper = value["quartiles"]
        difference = f"{added[name]:+.2f}" if name in added else ""
        table.append(f"| {name} | {value['median']:.2f} | {lower:.2f} to {upper:.2f} | {difference} |")
    machine = result["machine"]
    lines = [
        "# Start-up cost of the hook",
        "",
        f"`{result['command']}`: {result['runs']} interleaved runs each; {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}, load {load} from other work at the start; "
        f"Python {result['versions']['python']}, nnunet_ext {__version__}.",
        f"The first three run `python -c pass`. Target for `nnunet_ext --help`: under {HELP_TARGET_MS} ms.",
        "",
        *table,
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "startup_hook.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "startup_hook.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
