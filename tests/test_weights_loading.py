"""Reading checkpoints: tensors by name, and one clear error for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.common.errors import InputError
from nnunet_ext.weights.loading import read_state_dict

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(3)}


def saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, tmp_path / "c.pth", **options)
    return tmp_path / "c.pth"


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"model": TENSORS, "epoch": 3},
        {"state_dict": TENSORS, "optimizer": {"state": {}}},
        {f"module.{k}": v for k, v in TENSORS.items()},
        {"model": {f"module.{k}": v for k, v in TENSORS.items()}},
        {k: torch.nn.Parameter(v, requires_grad=False) for k, v in TENSORS.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_it_takes(tmp_path: Path, content: Any, zipped: bool) -> None:
    tensors = read_state_dict(saved(tmp_path, content, _use_new_zipfile_serialization=zipped))
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)


def test_a_prefix_that_not_all_keys_have_stays(tmp_path: Path) -> None:
    content = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert read_state_dict(saved(tmp_path, content)).keys() == content.keys()


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_objects_are_refused(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path, {**TENSORS, "best": np.float64(1)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"holds more than tensors \(numpy\.\S+\), and reading that can run any code"):
        read_state_dict(path)


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("ran"),)


def test_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="can run any code: refused"):
        read_state_dict(saved(tmp_path, {"model": Evil()}))
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"<html></html>", b"PK\x03\x04", bytes(1000), b"\x80\x02}q\x00."])
def test_no_torch_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"c\.pth (is no torch checkpoint|holds no state dict)"):
        read_state_dict(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated_file(tmp_path: Path, zipped: bool, part: float) -> None:
    path = saved(tmp_path, {"a": torch.zeros(1000)}, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match=r"c\.pth is no torch checkpoint"):
        read_state_dict(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c\.pth cannot be read: No such file or directory"):
        read_state_dict(tmp_path / "c.pth")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"epoch": 3, "loss": 0.1}, "'epoch' is no tensor but 3."),
        ({"model": {}}, "an empty dict"),
        ({}, "an empty dict"),
        (torch.ones(3), "a Tensor"),
        ([torch.ones(3)], "a list"),
        ({0: torch.ones(3)}, "its key 0 is no name"),
    ],
)
def test_no_state_dict(tmp_path: Path, content: Any, found: str) -> None:
    with pytest.raises(InputError) as error:
        read_state_dict(saved(tmp_path, content))
    assert found in str(error.value)
    assert "'model' or 'state_dict'" in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(tmp_path: Path, value: float) -> None:
    content = {"fine": torch.ones(3), **{f"bad{i}": torch.tensor([1.0, value]).half() for i in range(5)}}
    with pytest.raises(InputError, match="NaN or infinite numbers in bad0, bad1, bad2 and 2 more"):
        read_state_dict(saved(tmp_path, content))
