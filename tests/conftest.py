"""Settings that must be made before nnU-Net is imported, and the fixtures that several test files share."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import hypothesis
import pytest
from commands import ONE_ITERATION, folders
from environments import Environment, build, copy_checkout

os.environ.update(nnUNet_def_n_proc="1", nnUNet_n_proc_DA="1", nnUNet_compile="f")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["OMP_NUM_THREADS"] = "1"  # more threads would wait for those of other tests, and do not survive a fork

hypothesis.settings.register_profile("suite", deadline=None)  # a loaded machine is slow, and nothing else
hypothesis.settings.load_profile("suite")
pytest.register_assert_rewrite("contract", "training")  # what they assert is explained as in a test
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
MARKERS = {  # of every test that uses the fixture
    **dict.fromkeys(("shared_data", "samus_oracle"), ("shared_data", "slow")),
    **dict.fromkeys(("distributions", "bare", "installed", "kinds"), ("slow",)),
}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need."""
    for item in items:
        for fixture in MARKERS.keys() & getattr(item, "fixturenames", ()):
            for marker in MARKERS[fixture]:
                item.add_marker(marker)


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty nnUNet_raw, nnUNet_preprocessed and nnUNet_results below the returned folder."""
    for name, value in folders(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def fork_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nnU-Net's spawned pools forked: the same code without five seconds of imports per worker."""
    import tiny

    monkeypatch.setattr(multiprocessing, "get_context", tiny.forked)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real public data beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no real data beside this checkout (../shared/data)")
    return SHARED / "data"


@pytest.fixture(scope="session")
def samus_oracle() -> Path:
    """All that the official SAMUS gave on the deterministic weights of `samus_weights`."""
    if not (SHARED / "oracle" / "samus").is_dir():
        pytest.skip("no official outputs beside this checkout (../shared/oracle/samus)")
    return SHARED / "oracle" / "samus"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny datasets, preprocessed: 29 binary, also in 3D, and 30 with regions."""
    import tiny

    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in folders(root).items():
            patch.setenv(name, value)
        tiny.make_raw(29, tiny.BINARY)
        tiny.make_raw(30, tiny.REGIONS)
        tiny.plan_and_preprocess(29, configurations=("2d", "3d_fullres"))
        tiny.plan_and_preprocess(30)
    return root


@pytest.fixture(scope="session")
def kinds(prepared: Path) -> Path:
    """More among the prepared datasets: stock plans of 29, 31 classes, 32 ignore label, 33 two MR channels, 34 PNG."""
    import tiny

    with pytest.MonkeyPatch.context() as patch:
        for name, value in folders(prepared).items():
            patch.setenv(name, value)
        tiny.plan_and_preprocess(29, "ExperimentPlanner")
        tiny.make_raw(31, tiny.CLASSES)
        tiny.make_raw(32, tiny.IGNORE)
        tiny.make_raw(33, tiny.BINARY, channels=("T1", "T2"))
        tiny.make_raw(34, tiny.BINARY, channels=("ultrasound",), png=True)
        for dataset_id in range(31, 35):
            tiny.plan_and_preprocess(dataset_id)
    return prepared


@pytest.fixture
def short_runs(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The prepared datasets, an nnUNet_results of the test's own, which is returned, and a budget of one iteration."""
    results = tmp_path / "nnUNet_results"
    results.mkdir()
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(name, str(prepared / name))
    monkeypatch.setenv("nnUNet_results", str(results))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    for name, value in ONE_ITERATION.items():
        monkeypatch.setenv(name, value)
    return results


@pytest.fixture
def datasets(short_runs: Path, fork_pools: None) -> Path:
    """`short_runs` with forked pools."""
    return short_runs


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree to build from and to install in editable mode."""
    return copy_checkout(tmp_path_factory.mktemp("source") / "nnunet_ext")


@pytest.fixture(scope="session")
def distributions(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from it."""
    sdist, wheel = sorted(build(source, tmp_path_factory.mktemp("dist") / "out"), key=lambda f: f.suffix == ".whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment without this package; tests that install it there uninstall it again."""
    return Environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="session")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel."""
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.pip("install", distributions[1])
    return environment
