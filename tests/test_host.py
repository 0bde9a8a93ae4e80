"""The private names of other packages that nnunet_ext.common.host lists: where they are, and what they do for us."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.data_loader import DataLoader
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import nnunet_ext
from nnunet_ext.common import host
from nnunet_ext.common.host import PRIVATE, Private
from nnunet_ext.trainers.samus_training import RandomZoom

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = {"_asdict", "_fields", "_make", "_replace", "_exit"}  # of named tuples and of os, underscore and all
MADE = {"_is_protocol", "_backward_cls", "_abc_impl"}  # by metaclasses


@pytest.mark.parametrize("private", PRIVATE, ids=lambda p: f"{p.owner}.{p.name}")
def test_is_where_it_was(private: Private) -> None:
    import segment_anything  # noqa: F401  (torchvision may be importable only after it)

    owner = pkgutil.resolve_name(private.owner)
    assigned = inspect.isclass(owner) and f"self.{private.name} = " in inspect.getsource(owner)
    assigned = assigned or private.name == "_orig_mod"  # a sub-module, which torch registers
    assert hasattr(owner, private.name) or assigned, f"{private.owner} has no {private.name} any more; {private.use}"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_networks_are_unwrapped(alone: None) -> None:
    network = nn.Linear(2, 2)
    compiled = torch.compile(network, backend="eager")
    for wrapped in (network, compiled, DistributedDataParallel(network), DistributedDataParallel(compiled)):
        assert host.unwrapped(wrapped) is network


class Numbers(DataLoader):
    """A loader of ones."""

    def __init__(self) -> None:
        super().__init__(None, 1, infinite=True)

    def generate_train_batch(self) -> dict:
        return {"data": np.ones(1)}


def test_workers_are_stopped() -> None:
    loader = NonDetMultiThreadedAugmenter(Numbers(), None, 1)
    next(loader)
    workers = list(loader._processes)
    assert all(w.is_alive() for w in workers)
    host.stop_workers(loader)
    for worker in workers:
        worker.join(10)
    assert not any(w.is_alive() for w in workers)


def test_nnunet_builds_the_loss_and_chooses_the_best_as_it_did() -> None:
    assert "self.loss = self._build_loss()" in inspect.getsource(nnUNetTrainer.initialize)
    chosen = inspect.getsource(nnUNetTrainer.on_epoch_end)
    assert "if self._best_ema is None or self.logger.get_value('ema_fg_dice', step=-1) > self._best_ema" in chosen


def test_transforms_call_what_is_overridden() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    image = torch.rand(1, 16, 16)
    out = RandomZoom(1.3)(image=image, segmentation=(image > 0.5).to(torch.int16))
    assert out["image"].shape == out["segmentation"].shape == image.shape
    assert not torch.equal(out["image"], image)
    assert not torch.equal(out["segmentation"], (image > 0.5).to(torch.int16))


def touched(file: Path) -> set[str]:
    """Return the private names that a file reads of something else than its own objects, or imports."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    names = {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and ast.unparse(n.value) not in ("self", "cls", "super()")
    } - own
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names |= {*str(node.module).split("."), *(alias.name for alias in node.names)}
    return {n for n in names if n.startswith("_") and not n.startswith("__")} - PUBLIC


def test_no_other_file_touches_private_names() -> None:
    files = [ROOT / "_nnunet_ext_hook.py", *(ROOT / "nnunet_ext").rglob("*.py")]
    found = {str(f.relative_to(ROOT)): touched(f) for f in files}
    in_hook = {p.name for p in PRIVATE if "_nnunet_ext_hook.py" in p.use}
    in_host = {part for p in PRIVATE for part in (*p.owner.split("."), p.name)}
    assert found.pop("_nnunet_ext_hook.py") <= in_hook
    assert found.pop("nnunet_ext/common/host.py") <= in_host
    assert {file: names for file, names in found.items() if names} == {}


def test_no_other_private_name_is_overridden() -> None:
    """By intent, or by accident once a host has a method of the same name."""
    for module in pkgutil.walk_packages(nnunet_ext.__path__, "nnunet_ext."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes = [c for m in list(sys.modules) if m.startswith("nnunet_ext.") for c in vars(sys.modules[m]).values()]
    overridden = {
        (name, cls.__name__)
        for cls in classes
        if inspect.isclass(cls) and cls.__module__.startswith("nnunet_ext.")
        for name in vars(cls)
        if name.startswith("_") and not name.startswith("__") and name not in PUBLIC | MADE
        for base in cls.__mro__
        if base is not object and not base.__module__.startswith("nnunet_ext.") and name in vars(base)
    }
    listed = {p.name for p in PRIVATE if p.use.startswith("overridden")}
    assert {(name, cls) for name, cls in overridden if name not in listed} == set()
    assert {name for name, _ in overridden} >= listed
