"""Console scripts of this environment, run as users run them, and the variables by which nnU-Net finds its folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
ONE_ITERATION = {f"NNUNET_EXT_{name}": "1" for name in ("EPOCHS", "ITERATIONS", "VAL_ITERATIONS")}


def folders(root: Path) -> dict[str, str]:
    """Make nnUNet_raw, nnUNet_preprocessed and nnUNet_results below `root`; return the variables that name them."""
    paths = {name: root / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    return {name: str(path) for name, path in paths.items()}


def command(line: str, **environment: str) -> str:
    """Run a console script, which has to succeed, with more environment variables; return what it printed."""
    name, *arguments = line.split()
    return succeed([str(BIN / name), *arguments], {**os.environ, **environment})


def succeed(words: list[str], environment: dict[str, str]) -> str:
    """Run a command that has to succeed; return what it printed."""
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-4000:]
    return done.stdout
