"""nnU-Net finds our classes in every process of an environment that has the package, and nothing else changes."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from discovery_probe import FAR_STOCK, STOCK
from environments import Environment, build, replaced

import _nnunet_ext_hook as hook
from nnunet_ext import registry

PROBE = Path(__file__).parent / "discovery_probe.py"
STARTUP_FILES = {"_nnunet_ext_hook.py", "nnunet_ext.pth", "nnunet_ext.start"}
HEAVY = {"torch", "numpy", "scipy", "cv2", "SimpleITK", "nibabel", "matplotlib", "nnunetv2", "torchvision"}
FIND = "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
# what the hook does for torchvision, for processes that are to run without the hook
DECLARE_OPERATORS = """
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


@pytest.fixture(scope="session")
def torchvision_loads(bare: Environment) -> bool:
    """Whether torchvision can be imported here without the hook."""
    return bare.run("-c", "import torchvision", check=False).returncode == 0


@pytest.fixture
def without_hook(torchvision_loads: bool) -> str:
    """Code that lets a process without the hook search all of stock nnU-Net, which imports torchvision."""
    return "" if torchvision_loads else DECLARE_OPERATORS


def assert_found_everywhere(environment: Environment, package: Path) -> None:
    """Run the probe: every entry of `package`'s registry, and stock names, in all three kinds of processes."""
    facts = json.loads(environment.run(PROBE).stdout.splitlines()[-1])
    assert Path(facts["package"]).parent == package
    assert facts["pickled"]
    assert facts["far stock"] == FAR_STOCK[1]
    for process in ("main", "spawn worker", "torch child"):
        modules = facts[process]
        assert all(modules.pop(name).startswith("nnunetv2.") for name in STOCK.values())
        assert modules == {e.name: e.module for e in registry.ENTRIES}


def test_wheel_from_sdist_equals_wheel_from_source(
    source: Path, distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    sdist, wheel = distributions
    with tarfile.open(sdist) as archive:
        names = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    assert names >= STARTUP_FILES | {"setup.py", "LICENSE"}
    (direct,) = build(source, tmp_path / "out", "--wheel")
    with zipfile.ZipFile(wheel) as a, zipfile.ZipFile(direct) as b:
        assert {i.filename: i.CRC for i in a.infolist()} == {i.filename: i.CRC for i in b.infolist()}
        names = set(a.namelist())
    assert names >= STARTUP_FILES | {
        "nnunet_ext/py.typed",
        "nnunet_ext/ext_trainer/nnunet_ext_trainers.py",
        "nnunet_ext/benchmark/presets/smoke.toml",
        "nnunet_ext/dataset_conversion/curation/README.md",
        "nnunet_ext/dataset_conversion/curation/audit_groups.csv",
        "nnunet_ext/report/deviations.md",
        "nnunet_ext/report/templates/report.html.j2",
    }
    assert not any(n.startswith(("nnunetv2", "tests", "benchmarks")) for n in names)
    modules = {e.module.replace(".", "/") + ".py" for e in registry.ENTRIES}
    assert names >= modules


def test_wheel(installed: Environment) -> None:
    assert_found_everywhere(installed, installed.site_packages / "nnunet_ext")


def test_editable_then_uninstalled_then_wheel_uninstalled(
    bare: Environment, source: Path, distributions: tuple[Path, Path]
) -> None:
    before = bare.listing()
    bare.pip("install", "--editable", source)
    assert bare.listing() - before >= STARTUP_FILES
    assert_found_everywhere(bare, source / "nnunet_ext")
    bare.pip("uninstall", "--yes", "nnunet-ext")
    assert bare.listing() == before

    bare.pip("install", distributions[1])
    assert bare.listing() - before >= STARTUP_FILES
    bare.pip("uninstall", "--yes", "nnunet-ext")
    assert bare.listing() == before
    result = bare.run("-c", FIND + "print(find('nnUNetTrainer').__module__)")
    assert result.stdout.strip() == "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
    assert "nnunet_ext" not in result.stderr


def test_deleted_checkout_leaves_interpreters_silent(bare: Environment, source: Path) -> None:
    before = bare.listing()
    bare.pip("install", "--editable", source)
    moved = source.rename(source.with_name("moved"))
    try:
        assert bare.run("-c", "import nnunetv2").stderr == ""
    finally:
        moved.rename(source)
        bare.pip("uninstall", "--yes", "nnunet-ext")
    assert bare.listing() == before


def test_disabled_and_folder_for_external_trainers(installed: Environment, without_hook: str) -> None:
    """With NNUNET_EXT_DISABLE none of our names is known to nnU-Net; pointing nnUNet_extTrainer to us finds them."""
    script = (
        without_hook
        + FIND
        + f"""
import os, pickle, sys
import nnunetv2
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunet_ext import registry

folders = dict(zip({tuple(registry.ROOTS)!r}, ("trainer", "planner", "normalization", "resampling")))
for root, kind in folders.items():
    folder = os.path.join(nnunetv2.__path__[0], *root.split(".")[1:])
    for name in (e.name for e in registry.entries(kind)):
        assert recursive_find_python_class(folder, name, root) is None, name
try:
    find("nnUNetTrainerRAUNet")
except RuntimeError as e:
    assert "Could not find requested nnunet trainer" in str(e)
else:
    raise AssertionError("found although disabled")
assert find("nnUNetTrainer").__name__ == "nnUNetTrainer"
assert not any(m.startswith("nnunet_ext.trainers") for m in sys.modules)

os.environ["nnUNet_extTrainer"] = {str(installed.site_packages / "nnunet_ext" / "ext_trainer")!r}
for entry in registry.entries("trainer"):
    found = find(entry.name)
    assert found is entry.load() is find(entry.name)
    assert found.__module__ == entry.module
    assert pickle.loads(pickle.dumps(found)) is found
try:
    find("nnUNetTrainerOfNobody")
except RuntimeError:
    pass
else:
    raise AssertionError("found what does not exist")
"""
    )
    installed.run("-c", script, NNUNET_EXT_DISABLE=1)


def test_broken_registry(installed: Environment) -> None:
    script = FIND + (
        "from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name\n"
        "for _ in range(3):\n"
        "    print(find('nnUNetTrainer').__name__)\n"
        "print(recursive_find_resampling_fn_by_name('resample_data_or_seg_to_shape').__name__)\n"
    )
    with replaced(installed.site_packages / "nnunet_ext" / "registry.py", "def broken(:\n"):
        result = installed.run("-c", script)
        assert installed.run("-c", "pass").stderr == ""
    assert result.stdout.split() == ["nnUNetTrainer"] * 3 + ["resample_data_or_seg_to_shape"]
    assert result.stderr.count("nnunet_ext: the plug-in is broken and ignored") == 1
    assert "SyntaxError" in result.stderr
    assert "registry.py" in result.stderr


def test_broken_trainer_module(installed: Environment) -> None:
    script = FIND + (
        "print(find('nnUNetTrainer').__name__)\n"
        "print(find('nnUNetTrainerMatchedBudget').__name__, flush=True)\n"
        "find('nnUNetTrainerRAUNet')\n"
    )
    module = installed.site_packages / "nnunet_ext" / "trainers" / "raunet.py"
    with replaced(module, "import a_package_that_is_missing\n"):
        result = installed.run("-c", script, check=False)
    assert result.stdout.split() == ["nnUNetTrainer", "nnUNetTrainerMatchedBudget"]
    assert result.returncode == 1
    assert f'File "{module}", line 1' in result.stderr
    assert result.stderr.endswith("ModuleNotFoundError: No module named 'a_package_that_is_missing'\n")


def test_runner_where_pth_files_are_not_read(
    bare: Environment, distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    """``pip install --target`` on PYTHONPATH; stand-in metadata of nnunetv2 add a command that spawns a worker."""
    target, commands = tmp_path / "target", tmp_path / "commands"
    bare.pip("install", "--target", target, distributions[1])
    metadata = commands / "nnunetv2-2.8.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nnunetv2\nVersion: 2.8.1\n")
    (metadata / "entry_points.txt").write_text("[console_scripts]\nnnUNetv2_probe = probe:main\n")
    (commands / "probe.py").write_text(
        "import multiprocessing, sys\n"
        "def find(name):\n"
        "    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name\n"
        "    return recursive_find_trainer_class_by_name(name)\n"
        "def main():\n"
        "    assert sys.argv == ['nnUNetv2_probe', '--flag'], sys.argv\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        worker = pool.apply_async(find, ('nnUNetTrainerRAUNet',))\n"
        "        found = find('nnUNetTrainerRAUNet')\n"
        "        assert worker.get() is found\n"
        "    print(found.__module__)\n"
    )
    path = f"{target}:{commands}"
    loaded = bare.run("-c", "import sys; print('_nnunet_ext_hook' in sys.modules)", PYTHONPATH=path)
    assert loaded.stdout == "False\n"
    result = bare.run("-m", "nnunet_ext.run", "nnUNetv2_probe", "--flag", PYTHONPATH=path)
    assert result.stdout.splitlines()[-1] == "nnunet_ext.trainers.raunet"

    wrong = bare.run("-m", "nnunet_ext.run", "nnUNetv2_nothing", check=False, PYTHONPATH=path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: nnU-Net has no command 'nnUNetv2_nothing'.\n")
    assert "nnUNetv2_probe" in wrong.stderr
    assert bare.run("-m", "nnunet_ext", "--version", PYTHONPATH=path).stdout.startswith("nnunet_ext ")


NO_OPERATORS = "operator torchvision::nms does not exist"
WARNING = "nnunet_ext: torchvision's compiled operators do not fit this torch."


@pytest.fixture
def sick(installed: Environment, torchvision_loads: bool) -> Environment:
    """An environment with the wheel where torchvision's compiled operators do not load."""
    if torchvision_loads:
        pytest.skip("torchvision's compiled operators load here: there is nothing to declare")
    return installed


@pytest.mark.parametrize(
    "script",
    [
        "import segment_anything",
        f"{FIND}find({FAR_STOCK[1]!r})",
        "try:\n    import torchvision\nexcept RuntimeError:\n    import segment_anything\nimport torchvision",
    ],
    ids=["segment_anything", "nnunetv2", "after another program's failure"],
)
def test_torchvision_is_healed_for_who_does_not_call_it(sick: Environment, script: str) -> None:
    assert sick.run("-c", script).stderr.count(WARNING) == 1
    disabled = sick.run("-c", script, check=False, NNUNET_EXT_DISABLE=1)
    assert disabled.returncode == 1
    assert NO_OPERATORS in disabled.stderr
    assert WARNING not in disabled.stderr


def test_torchvision_stays_broken_for_other_programs(sick: Environment, tmp_path: Path) -> None:
    (tmp_path / "another_program.py").write_text("import nnunetv2, torchvision\n")
    for script in ("import torchvision", "import nnunet_ext, torchvision", "import another_program"):
        result = sick.run("-c", script, check=False, PYTHONPATH=tmp_path)
        assert result.returncode == 1
        assert NO_OPERATORS in result.stderr
        assert WARNING not in result.stderr


def test_declared_operators_still_fail_when_called(sick: Environment) -> None:
    script = "import segment_anything, torch, torchvision\ntorchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"
    result = sick.run("-c", script, check=False)
    assert "in nms" in result.stderr
    assert "Couldn't load custom C++ ops" in result.stderr


def test_start_up_loads_nothing_but_the_hook(installed: Environment, bare: Environment) -> None:
    script = "import sys; print(*sys.modules)"
    with_hook, without = (set(e.run("-c", script).stdout.split()) for e in (installed, bare))
    assert with_hook - without == {"_nnunet_ext_hook"}


@pytest.mark.parametrize(
    "command",
    [
        ("-c", "import nnunet_ext"),
        ("-c", "import nnunet_ext.registry; assert nnunet_ext.registry.ENTRIES"),
        ("-m", "nnunet_ext", "--help"),
        ("-m", "nnunet_ext", "list"),
        ("-c", "import nnunet_ext.run"),
    ],
    ids=lambda c: " ".join(c[1:]),
)
def test_nothing_heavy_is_imported(installed: Environment, command: tuple[str, ...]) -> None:
    report = installed.run("-X", "importtime", *command).stderr
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in report.splitlines() if "|" in line}
    assert "nnunet_ext" in imported
    assert not imported & HEAVY


def test_console_script(installed: Environment) -> None:
    assert installed.run(installed.bin / "nnunet_ext", "--help").stdout.startswith("usage: nnunet_ext ")


# the hook's parts in this process, on stand-ins


def stand_in(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module like nnunetv2.utilities.find_class_by_name whose search answers ``("stock", name)``."""
    module = ModuleType("nnunetv2.utilities.find_class_by_name")

    def recursive_find_python_class(folder: str, class_name: str, current_module: str | None, **kwargs: object):
        return ("stock", class_name)

    module.recursive_find_python_class = recursive_find_python_class
    monkeypatch.setattr(hook, "_warned", set())
    return module


def test_search_is_extended_once_and_also_where_it_was_imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    module, earlier = stand_in(monkeypatch), ModuleType("nnunetv2.earlier")
    earlier.recursive_find_python_class = stock = module.recursive_find_python_class
    monkeypatch.setitem(sys.modules, "nnunetv2.earlier", earlier)
    monkeypatch.setitem(sys.modules, "nnunetv2.not_a_module", None)
    hook._extend_class_search(module)
    hook._extend_class_search(module)
    assert module.recursive_find_python_class is earlier.recursive_find_python_class
    assert module.recursive_find_python_class.__wrapped__ is stock
    assert module.recursive_find_python_class("", "Another", current_module="nnunetv2.x") == ("stock", "Another")


@pytest.mark.parametrize("root", ["nnunetv2.experiment_planning", "nnunetv2.elsewhere", None])
def test_names_are_ours_only_below_the_root_of_their_kind(monkeypatch: pytest.MonkeyPatch, root: str | None) -> None:
    module = stand_in(monkeypatch)
    hook._extend_class_search(module)
    found = module.recursive_find_python_class("", "nnUNetTrainerRAUNet", root, base_folder="")
    assert found == ("stock", "nnUNetTrainerRAUNet")


def test_unreadable_registry_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = stand_in(monkeypatch)
    hook._extend_class_search(module)
    monkeypatch.setattr(registry, "find", lambda root, name: 1 / 0)
    for _ in range(3):
        assert module.recursive_find_python_class("", "X", "nnunetv2.x") == ("stock", "X")
    assert capsys.readouterr().err.count("ZeroDivisionError") == 1


def find_with(
    monkeypatch: pytest.MonkeyPatch, finders: list, callback: Callable[[ModuleType], None], name: str = "wanted"
) -> ModuleSpec | None:
    """What the hook's finder finds among other `finders`."""
    monkeypatch.setattr(hook, "_AFTER_IMPORT", {name: callback})
    monkeypatch.setattr(sys, "meta_path", [hook._Finder, *finders])
    monkeypatch.setattr(hook, "_warned", set())
    return hook._Finder.find_spec(name)


class Loader:
    """A loader that executes nothing."""

    def create_module(self, spec: ModuleSpec) -> None: ...

    def exec_module(self, module: ModuleType) -> None:
        module.executed = True


def finder(loader: object) -> SimpleNamespace:
    return SimpleNamespace(find_spec=lambda name, path, target: ModuleSpec(name, loader))


def test_callback_runs_after_its_module_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one loader serves many modules, as zipimport's does."""
    calls = []
    nothing = SimpleNamespace(find_spec=lambda name, path, target: None)
    spec = find_with(monkeypatch, [SimpleNamespace(), nothing, finder(Loader())], calls.append)
    other, wanted = ModuleType("other"), ModuleType("wanted")
    for module in (other, wanted):
        spec.loader.exec_module(module)
        assert module.executed
    assert calls == [wanted]
    assert find_with(monkeypatch, [nothing], calls.append) is None


def test_finders_that_ask_each_other_do_not_go_in_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    class Another:
        """What another plug-in may do: ask every other finder."""

        @classmethod
        def find_spec(cls, name: str, path: object, target: object) -> ModuleSpec | None:
            others = (f for f in sys.meta_path if f is not cls)
            return next((spec for f in others if (spec := f.find_spec(name, path, target))), None)

    calls = []
    spec = find_with(monkeypatch, [Another, finder(Loader())], calls.append)
    spec.loader.exec_module(ModuleType("wanted"))
    assert len(calls) == 1


@pytest.mark.parametrize("loader", [None, object()])
def test_loaders_that_cannot_be_extended_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], loader: object
) -> None:
    spec = find_with(monkeypatch, [finder(loader)], pytest.fail)
    assert spec.loader is loader
    assert "could not hook into wanted" in capsys.readouterr().err


def test_failing_callback_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = find_with(monkeypatch, [finder(Loader())], lambda module: module.what_is_not_there)
    spec.loader.exec_module(ModuleType("wanted"))
    assert "could not hook into wanted: AttributeError" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "active"), [("", True), ("0", True), ("1", False), ("yes", False)])
def test_switch(monkeypatch: pytest.MonkeyPatch, value: str, active: bool) -> None:
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.setenv("NNUNET_EXT_DISABLE", value)
    hook.install()
    hook.install()
    assert hook.installed() is active
    assert len(sys.meta_path) == active


def test_warning_survives_a_process_without_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "_warned", set())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    hook._warn("nobody reads this")
