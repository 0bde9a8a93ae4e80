"""Check whether everything that a training needs works here: versions, start-up hook, folders, device, weights."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

HELP = "check versions, start-up hook, folders, device and weights"

PACKAGES = (
    *("nnunet-ext", "nnunetv2", "torch", "torchvision", "dynamic-network-architectures", "batchgenerators"),
    *("batchgeneratorsv2", "SimpleITK", "opencv-python-headless", "segment-anything", "numpy"),
)

# run in a new interpreter, as nnU-Net's workers are: only what the .pth file does is seen there
CHILD = """
import json, sys
hook = sys.modules.get("_nnunet_ext_hook")
facts = {"hook": bool(hook and hook.installed())}
try:
    import torchvision
    facts["torchvision"] = "loads" if torchvision.extension._has_ops() else "loads without compiled operators (healed)"
except Exception as e:
    facts["torchvision_error"] = f"{type(e).__name__}: {e}"
try:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    facts["trainer"] = recursive_find_trainer_class_by_name("nnUNetTrainerRAUNet").__module__
except Exception as e:
    facts["trainer_error"] = f"{type(e).__name__}: {e}"
print(json.dumps(facts))
"""


class Check(NamedTuple):
    """One line of the report; `ok` is None for plain information."""

    name: str
    ok: bool | None
    detail: str
    way_out: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> int:
    """Print all checks; 1 if one of them failed."""
    failed = 0
    for check in (*versions(), *hook(), *folders(), *device(), *sam_checkpoint()):
        mark = {True: "ok  ", False: "FAIL", None: "    "}[check.ok]
        print(f"{mark} {check.name}: {check.detail}", flush=True)
        if check.ok is False:
            failed += 1
            print(f"       -> {check.way_out}")
    print(f"\n{failed} problem{'s' * (failed != 1)}" if failed else "\nAll is well.")
    return 1 if failed else 0


def versions() -> Iterator[Check]:
    """Python and packages; those that are missing fail."""
    yield Check("Python", sys.version_info >= (3, 10), sys.version.split()[0], "Use Python 3.10 or newer.")
    for name in PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Check(name, False, "not installed", f"pip install {name}")
            continue
        ok, way_out = True, ""
        if name == "nnunetv2" and tuple(int(i) for i in found.split(".")[:3] if i.isdigit()) < (2, 8, 1):
            ok, way_out = False, "pip install --upgrade 'nnunetv2>=2.8.1,<3'"
        yield Check(name, ok, found, way_out)


def hook() -> Iterator[Check]:
    """The start-up hook in this interpreter and in a new one, and what it is there for."""
    import _nnunet_ext_hook

    disabled = os.environ.get("NNUNET_EXT_DISABLE", "") not in ("", "0")
    way_out = (
        "NNUNET_EXT_DISABLE is set; unset it."
        if disabled
        else "Reinstall with pip; where .pth files are not read, use: python -m nnunet_ext.run nnUNetv2_train ..."
    )
    yield Check("start-up hook here", _nnunet_ext_hook.installed(), "active" * _nnunet_ext_hook.installed(), way_out)
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
    try:
        facts = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        yield Check("new interpreter", False, child.stderr.strip()[-500:] or "no answer", way_out)
        return
    yield Check("start-up hook in a new process", facts["hook"], "active" if facts["hook"] else "not active", way_out)
    found = facts.get("trainer", facts.get("trainer_error"))
    yield Check("nnU-Net finds nnUNetTrainerRAUNet there", "trainer" in facts, found, way_out)
    yield Check(
        "torchvision",
        "torchvision" in facts,
        facts.get("torchvision", facts.get("torchvision_error")),
        "Install torch and torchvision from one index, see https://pytorch.org/get-started/locally",
    )


def folders() -> Iterator[Check]:
    """nnU-Net's three folders: set, there, writable, and how much space is left."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        value = os.environ.get(name)
        if not value:
            yield Check(name, False, "not set", f"export {name}=/path/to/{name}")
            continue
        path = Path(value)
        if not path.is_dir():
            yield Check(name, False, f"{path} does not exist", f"mkdir -p {path}")
        elif not os.access(path, os.W_OK | os.X_OK):
            yield Check(
                name, False, f"{path} is not writable", f"Make {path} writable, or set {name} to another folder."
            )
        else:
            yield Check(name, True, f"{path}, {shutil.disk_usage(path).free / 1e9:.0f} GB free")


def device() -> Iterator[Check]:
    """What torch computes on."""
    try:
        import torch
    except Exception as e:  # noqa: BLE001  (a broken installation fails in many ways; all are reported)
        yield Check("torch", False, f"{type(e).__name__}: {e}", "Reinstall torch, see https://pytorch.org")
        return
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Check("device", True, f"CUDA {torch.version.cuda}: {names}")
    elif torch.backends.mps.is_available():
        yield Check("device", None, "Apple GPU; give nnU-Net's commands -device mps")
    else:
        yield Check("device", None, f"CPU, {torch.get_num_threads()} threads; give nnU-Net's commands -device cpu")


def sam_checkpoint() -> Iterator[Check]:
    """SAM's weights: needed by the ultrasound trainers only, so their absence is no failure; a wrong file is."""
    from nnunet_ext.weights import sam

    path = sam.location()
    problem = sam.problem(path)
    if problem is None:
        yield Check("SAM checkpoint", True, str(path))
    elif path.exists():
        yield Check("SAM checkpoint", False, problem, f"Download {sam.URL} again and put it there.")
    else:
        yield Check("SAM checkpoint", None, f"{problem}; only training of the ultrasound trainers needs it")
