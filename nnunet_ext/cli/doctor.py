"""Check whether everything that a training needs works here: versions, start-up hook, folders, device, weights."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from nnunet_ext import weights
from nnunet_ext.common.environment import NNUNET_FOLDERS, SAM_CHECKPOINT, overlapping_folders
from nnunet_ext.common.text import size

HELP = "check versions, start-up hook, folders, device and weights"

# run in a new interpreter, as nnU-Net's workers are: only what the .pth file does is seen there
CHILD = """
import json, sys
hook = sys.modules.get("_nnunet_ext_hook")
facts = {"hook": bool(hook and hook.installed())}
try:
    import segment_anything  # which imports torchvision, as nnU-Net does
    import torchvision
    healed = "" if torchvision.extension._has_ops() else " for nnU-Net and SAM only, by the hook: it does not fit torch"
    facts["torchvision"] = f"{torchvision.__version__} loads{healed}"
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
    """A line of the report; `ok` is None for plain information."""

    name: str
    ok: bool | None
    detail: str
    hint: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: doctor takes no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print every check as soon as it is done; return 1 if one of them failed."""
    failed = 0
    for check in chain(versions(), hook(), folders(), device(), sam_checkpoint()):
        mark = {True: "ok  ", False: "FAIL", None: "    "}[check.ok]
        print(f"{mark} {check.name}: {check.detail}", flush=True)
        if check.ok is False:
            failed += 1
            print(f"       -> {check.hint}")
    print(f"\n{failed} problem{'s' * (failed != 1)}" if failed else "\nAll is well.")
    return 1 if failed else 0


def versions() -> Iterator[Check]:
    """Check Python, this package, and everything that it requires in the versions that it requires."""
    from packaging.requirements import Requirement

    yield Check("Python", sys.version_info >= (3, 10), sys.version.split()[0], "Use Python 3.10 or newer.")
    try:
        yield Check("nnunet-ext", True, version("nnunet-ext"))
        requirements = [Requirement(r) for r in requires("nnunet-ext") or ()]
    except PackageNotFoundError:
        yield Check("nnunet-ext", False, "not installed", "pip install nnunet-ext")
        return
    for wanted in requirements:
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        hint = f"pip install --upgrade '{wanted.name}{wanted.specifier}'"
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield Check(wanted.name, False, "not installed", hint)
            continue
        if wanted.specifier.contains(found, prereleases=True):
            yield Check(wanted.name, True, found)
        else:
            yield Check(wanted.name, False, f"{found}, but {wanted.specifier} is required", hint)


def hook() -> Iterator[Check]:
    """Check the start-up hook in this interpreter and in a new one, and what it is there for."""
    import _nnunet_ext_hook

    hint = (
        "NNUNET_EXT_DISABLE is set; unset it."
        if _nnunet_ext_hook.disabled()
        else "Reinstall with pip; where .pth files are not read, use: python -m nnunet_ext.run nnUNetv2_train ..."
    )
    states = {True: "active", False: "not active"}
    here = _nnunet_ext_hook.installed()
    yield Check("start-up hook here", here, states[here], hint)
    safe = {**os.environ, "PYTHONSAFEPATH": "1"}  # nothing is imported from the current folder
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False, env=safe)
    try:
        facts = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        yield Check(
            "new interpreter", False, child.stderr.strip()[-500:] or "no answer", "Reinstall Python's packages."
        )
        return
    yield Check("start-up hook in a new process", facts["hook"], states[facts["hook"]], hint)
    found = facts.get("trainer") or facts.get("trainer_error")
    yield Check("nnU-Net finds nnUNetTrainerRAUNet there", "trainer" in facts, found, hint)
    yield Check(
        "torchvision",
        "torchvision" in facts,
        facts.get("torchvision") or facts.get("torchvision_error"),
        "Install torch and torchvision from one index, see https://pytorch.org/get-started/locally",
    )


def folders() -> Iterator[Check]:
    """Check that nnU-Net's three folders are set, exist and are writable, and say how much space is left."""
    for name in NNUNET_FOLDERS:
        value = os.environ.get(name)
        path = Path(value or "")
        if not value:
            yield Check(name, False, "not set", f"export {name}=/path/to/{name}")
        elif not path.is_dir():
            yield Check(name, False, f"{path} is not a directory", f"mkdir -p {shlex.quote(value)}")
        elif not os.access(path, os.W_OK | os.X_OK):
            hint = f"Make {path} writable, or set {name} to another folder."
            yield Check(name, False, f"{path} is not writable", hint)
        else:
            yield Check(name, True, f"{path}, {size(shutil.disk_usage(path).free)} free")
    for overlap in overlapping_folders():
        yield Check("folders apart", False, *overlap.split("; "))


def device() -> Iterator[Check]:
    try:
        import torch
    except Exception as e:  # noqa: BLE001  (a broken installation fails in many ways; all are reported)
        yield Check("torch", False, f"{type(e).__name__}: {e}", "Reinstall torch, see https://pytorch.org")
        return
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        detail = f"CUDA {torch.version.cuda}: {names}"
        try:
            torch.ones(1, device="cuda").add(1).item()  # this build of torch may lack kernels for this GPU
        except RuntimeError as e:
            hint = "Install the build of torch for this GPU and driver, see https://pytorch.org/get-started/locally"
            yield Check("device", False, f"{detail}: {str(e).splitlines()[0]}", hint)
        else:
            yield Check("device", True, detail)
    elif torch.backends.mps.is_available():
        yield Check("device", None, "Apple GPU; give nnU-Net's commands -device mps")
    else:
        yield Check("device", None, f"CPU, {torch.get_num_threads()} threads; give nnU-Net's commands -device cpu")


def sam_checkpoint() -> Iterator[Check]:
    """Check SAM's weights: only the ultrasound trainers need them, so that only a wrong file is a failure."""
    checkpoint = weights.CHECKPOINTS[weights.DEFAULT]
    path = weights.location(checkpoint)
    if path is None:
        yield Check("SAM checkpoint", None, f"none: {SAM_CHECKPOINT}={weights.RANDOM}")
        return
    problem = weights.problem(path, checkpoint)
    if problem is None:
        yield Check("SAM checkpoint", True, str(path))
    elif path.exists() and weights.is_own(path, checkpoint):
        yield Check("SAM checkpoint", None, f"{path}, a file of your own and not SAM's official one")
    elif SAM_CHECKPOINT in os.environ or path.exists():
        yield Check("SAM checkpoint", False, problem, weights.hint(path, checkpoint))
    else:
        yield Check("SAM checkpoint", None, f"{problem}; only training of the ultrasound trainers needs it")
