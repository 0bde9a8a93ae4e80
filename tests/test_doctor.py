"""``nnunet_ext doctor``: each thing that will not work fails with a way out."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from environments import Environment

import _nnunet_ext_hook
from nnunet_ext import weights
from nnunet_ext.cli import doctor
from nnunet_ext.common.environment import SAM_CHECKPOINT

FACTS = {"hook": True, "torchvision": "0.28.0 loads", "trainer": "nnunet_ext.trainers.raunet"}
CONTENT = b"weights"


@pytest.fixture
def healthy(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything the doctor looks at is well; the tests break one thing each. Returns the folder of folders."""
    monkeypatch.setattr(_nnunet_ext_hook, "installed", lambda: True)
    monkeypatch.delenv("NNUNET_EXT_DISABLE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(nnunet_folders / "cache"))
    monkeypatch.delenv(SAM_CHECKPOINT, raising=False)
    published = weights.CHECKPOINTS["vit_b"]._replace(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(weights.CHECKPOINTS, "vit_b", published)
    monkeypatch.setattr(doctor, "requires", lambda name: ["nnunetv2<3,>=2.8.1", 'monai>=1.4; extra == "benchmark"'])
    monkeypatch.setattr(doctor, "version", lambda name: {"nnunetv2": "2.8.1", "nnunet-ext": "0.1.0"}[name])
    child_says(monkeypatch, json.dumps(FACTS))
    return nnunet_folders


def child_says(monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str = "") -> None:
    result = SimpleNamespace(stdout=stdout, stderr=stderr)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *args, **kwargs: result)


def report(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and output."""
    code = doctor.run(argparse.Namespace())
    return code, capsys.readouterr().out


def assert_fails(capsys: pytest.CaptureFixture[str], *lines: str, problems: int = 1) -> None:
    """Exit code 1, and these lines, failure and way out, one after the other."""
    code, out = report(capsys)
    assert code == 1
    assert "\n".join(lines) in out
    assert out.count("\nFAIL ") == out.count("\n       -> ") == problems
    assert out.endswith(f"\n{problems} problem{'s' * (problems > 1)}\n")


def test_all_is_well(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = report(capsys)
    assert code == 0
    assert "FAIL" not in out
    assert out.endswith("\nAll is well.\n")
    assert "monai" not in out  # an extra
    assert f"ok   nnUNet_raw: {healthy / 'nnUNet_raw'}, " in out
    assert "GB free" in out
    assert "only training of the ultrasound trainers needs it" in out


def test_folders_inside_one_another(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = healthy / "nnUNet_raw" / "results"
    below.mkdir()
    monkeypatch.setenv("nnUNet_results", str(below))
    (check,) = (check for check in doctor.folders() if not check.ok)
    assert check.detail.startswith(f"nnUNet_results={below} is inside nnUNet_raw={healthy / 'nnUNet_raw'}: ")
    assert check.hint == "give each a folder of its own."


def test_end_to_end(installed: Environment, nnunet_folders: Path) -> None:
    """The real command in an environment with the wheel."""
    folders = {name: str(nnunet_folders / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    result = installed.run(installed.bin / "nnunet_ext", "doctor", XDG_CACHE_HOME=nnunet_folders, **folders)
    assert "ok   start-up hook in a new process: active\n" in result.stdout
    assert "ok   nnU-Net finds nnUNetTrainerRAUNet there: nnunet_ext.trainers.raunet\n" in result.stdout
    assert f"ok   nnunetv2: {version('nnunetv2')}\n" in result.stdout
    alone = installed.run("-c", "import torchvision", check=False).returncode == 0
    [torchvision] = [line for line in result.stdout.splitlines() if line.startswith("ok   torchvision: ")]
    assert ("for nnU-Net and SAM only, by the hook" in torchvision) == (not alone)
    assert result.stdout.endswith("\nAll is well.\n")


@pytest.mark.parametrize(
    ("found", "ok"),
    [
        ("2.8.0", False),
        ("2.8", False),
        ("2.8.1rc1", False),
        ("2.8.1", True),
        ("2.8.1+local", True),
        ("2.10rc1", True),
        ("3.0.0", False),
    ],
)
def test_versions(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: str, ok: bool
) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: found)
    if ok:
        assert report(capsys)[0] == 0
    else:
        assert_fails(
            capsys,
            f"FAIL nnunetv2: {found}, but <3,>=2.8.1 is required",
            "       -> pip install --upgrade 'nnunetv2<3,>=2.8.1'",
        )


def test_missing_packages(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def no_nnunet(name: str) -> str:
        if name == "nnunetv2":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", no_nnunet)
    assert_fails(capsys, "FAIL nnunetv2: not installed", "       -> pip install --upgrade 'nnunetv2<3,>=2.8.1'")

    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", nothing)
    assert_fails(capsys, "FAIL nnunet-ext: not installed", "       -> pip install nnunet-ext")


def test_hook_inactive_here(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_nnunet_ext_hook, "installed", lambda: False)
    monkeypatch.setenv("NNUNET_EXT_DISABLE", "1")
    assert_fails(capsys, "FAIL start-up hook here: not active", "       -> NNUNET_EXT_DISABLE is set; unset it.")


def test_hook_inactive_in_a_new_process(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"hook": False, "torchvision_error": "RuntimeError: no nms", "trainer_error": "RuntimeError: not found"}
    child_says(monkeypatch, f"Searching ...\n{json.dumps(facts)}\n")
    assert_fails(capsys, "FAIL start-up hook in a new process: not active", "       -> Reinstall with pip", problems=3)


def test_new_process_dies(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    child_says(monkeypatch, "", stderr="Fatal Python error")
    assert_fails(capsys, "FAIL new interpreter: Fatal Python error", "       -> ")


def test_real_child_without_the_hook(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child reports is what it finds, not what this process has; -S: no .pth file is read."""
    run = subprocess.run
    monkeypatch.setattr(doctor.subprocess, "run", lambda command, **kw: run([command[0], "-S", *command[1:]], **kw))
    checks = {c.name: c for c in doctor.hook()}
    assert checks["start-up hook here"].ok
    assert not checks["start-up hook in a new process"].ok
    assert not checks["nnU-Net finds nnUNetTrainerRAUNet there"].ok
    assert checks["torchvision"].detail.startswith("ModuleNotFoundError")


def test_folder_not_set(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("nnUNet_raw")
    assert_fails(capsys, "FAIL nnUNet_raw: not set", "       -> export nnUNet_raw=/path/to/nnUNet_raw")


def test_folder_missing(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missing = healthy / "not there"
    monkeypatch.setenv("nnUNet_results", str(missing))
    assert_fails(capsys, f"FAIL nnUNet_results: {missing} is not a directory", f"       -> mkdir -p '{missing}'")


def test_folder_not_writable(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = healthy / "nnUNet_preprocessed"
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder)  # root may write everywhere
    assert_fails(
        capsys,
        f"FAIL nnUNet_preprocessed: {folder} is not writable",
        f"       -> Make {folder} writable, or set nnUNet_preprocessed to another folder.",
    )


@pytest.mark.parametrize("content", [b"short", b"WEIGHTS"])
def test_wrong_sam_file(healthy: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    path = healthy / "cache" / "nnunet_ext" / "sam_vit_b_01ec64.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    size = f"{len(content)} bytes, not {len(CONTENT)}, and " if len(content) != len(CONTENT) else ""
    hashes = f"SHA-256 {hashlib.sha256(content).hexdigest()}, not {hashlib.sha256(CONTENT).hexdigest()}"
    assert_fails(
        capsys,
        f"FAIL SAM checkpoint: {path} has {size}{hashes}",
        "       -> Run: nnunet_ext weights download vit_b --overwrite (or download https://",
    )


def test_right_sam_file(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = healthy / "sam.pth"
    path.write_bytes(CONTENT)
    monkeypatch.setenv(SAM_CHECKPOINT, str(path))
    code, out = report(capsys)
    assert code == 0
    assert f"ok   SAM checkpoint: {path}\n" in out


def test_sam_file_that_was_named_but_is_missing(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SAM_CHECKPOINT, str(healthy / "sam.pth"))
    assert_fails(capsys, f"FAIL SAM checkpoint: {healthy / 'sam.pth'} does not exist")


def test_sam_file_that_cannot_be_read(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = healthy / "sam.pth"
    path.write_bytes(CONTENT)

    def denied(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert weights.problem(path, weights.CHECKPOINTS["vit_b"]) == f"{path} cannot be read: Permission denied"


def test_sam_random_goes_without(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SAM_CHECKPOINT, weights.RANDOM)
    code, out = report(capsys)
    assert code == 0
    assert "SAM checkpoint: none: NNUNET_EXT_SAM_CHECKPOINT=random" in out


def test_gpu_without_kernels(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ones(*args: object, **kwargs: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "Some GPU")
    monkeypatch.setattr(torch, "ones", ones)
    assert_fails(
        capsys,
        f"FAIL device: CUDA {torch.version.cuda}: Some GPU: "
        "CUDA error: no kernel image is available for execution on the device",
        "       -> Install the build of torch for this GPU and driver",
    )
