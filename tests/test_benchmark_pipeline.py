"""The whole way through the command line: the printed plan in bash, then a run on the data that it made."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from commands import BIN, succeed

LITS = "Dataset029_LiTS"

pytestmark = pytest.mark.slow

COMMON = """
name = "tiny"
device = "cpu"
[budget]
epochs = 1
iterations = 1
val_iterations = 1
[arguments]
plan = "-npfp 1 -np 1"
predict = "-npp 0 -nps 0"
evaluate = "--jobs 1"
[environment]
nnUNet_def_n_proc = 1
[environment.train]
nnUNet_n_proc_DA = 0
[[rows]]
name = "RA-U-Net"
trainer = "nnUNetTrainerRAUNet"
"""

MAKES_ITS_DATA = """
[[datasets]]
id = 29
name = "Dataset029_LiTS"
test = "imagesTs"
prepare = [
    "nnunet_ext phantom lits --cases 10 --size 32 --slices 8 --num-processes 1 --out {root}/LiTS",
    "nnunet_ext convert lits --source {root}/LiTS --num-processes 1",
]
"""

HAS_DATA = """
[[rows]]
name = "U-Net+Res-block"
trainer = "nnUNetTrainerResUNet"
[[datasets]]
id = 29
preprocess = false
"""


def nnunet_ext(*arguments: object, **environment: str) -> str:
    return succeed([str(BIN / "nnunet_ext"), *map(str, arguments)], {**os.environ, **environment})


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which bash has run every line of a plan."""
    folder = tmp_path_factory.mktemp("planned")
    file = folder / "tiny.toml"
    file.write_text(COMMON.replace('device = "cpu"', 'device = "cpu"\ndata = "own"') + MAKES_ITS_DATA)
    script = folder / "all.sh"
    script.write_text(nnunet_ext("benchmark", "plan", file, "--out", folder / "out"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet_", "NNUNET_EXT_"))}
    succeed(["bash", str(script)], {**environment, "PATH": f"{BIN}:{environment['PATH']}"})
    return folder / "out"


def test_the_printed_plan_runs_in_bash(planned: Path) -> None:
    assert (planned / "nnUNet_results" / "seed_0" / LITS).is_dir()
    assert (planned / "evaluations" / LITS / "RA-U-Net" / "seed_0" / "fold_0" / "metrics.json").is_file()


def test_run_status_report(planned: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "tiny.toml", tmp_path / "out"
    file.write_text(COMMON + HAS_DATA)
    environment = {n: str(planned / n) for n in ("nnUNet_raw", "nnUNet_preprocessed")}
    where = (file, "--out", out)
    printed = nnunet_ext("benchmark", "run", *where, "--jobs", "2", **environment)
    assert "6 jobs, 6 done" in printed
    assert printed.count("done        d029_") == 6
    for row in ("RA-U-Net", "U-Net+Res-block"):
        folder = out / "evaluations" / LITS / row / "seed_0" / "fold_0"
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["seed"] == 0
        assert manifest["sha256"]["splits_final.json"]
        assert manifest["sha256"]["nnUNetRAUNetPlans.json"]
        assert [s["kind"] for s in manifest["steps"].values()] == ["train", "predict", "evaluate"]
        assert all(s["seconds"] > 0 and s["peak_bytes_of_largest_process"] > 1e7 for s in manifest["steps"].values())
    assert "running" not in nnunet_ext("benchmark", "run", *where, **environment)
    assert "6 jobs: 6 done" in nnunet_ext("benchmark", "status", *where, **environment)
    printed = nnunet_ext("benchmark", "report", *where, **environment)
    assert re.search(r"U-Net\+Res-block +6,942,609", printed)
    assert (out / "report" / LITS / "report.html").stat().st_size > 10_000
