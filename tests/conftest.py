"""Settings that must be made before nnU-Net is imported, and the fixtures that several test files share."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

os.environ.update(nnUNet_def_n_proc="1", nnUNet_n_proc_DA="1", nnUNet_compile="f")
os.environ.setdefault("MPLBACKEND", "Agg")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty nnUNet_raw, nnUNet_preprocessed and nnUNet_results below the returned folder."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


@pytest.fixture
def fork_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nnU-Net's spawned pools forked: the same code without five seconds of imports per worker."""
    get_context = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: get_context("fork"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real public data beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no real data beside this checkout (../shared/data)")
    return SHARED / "data"
