"""The public Python API: lazy, complete, with examples that run."""

from __future__ import annotations

import ast
import lzma
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nnunet_ext
from nnunet_ext.common.errors import InputError

DOCS = Path(__file__).resolve().parent.parent / "docs"
PUBLIC = sorted(set(nnunet_ext.__all__) - {"__version__"})
LIGHT = """
import sys, nnunet_ext
dir(nnunet_ext)
print(*sorted({m.split(".")[0] for m in sys.modules} & {"torch", "numpy", "nnunetv2", "scipy", "pandas", "matplotlib"}))
"""


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True).stdout == "\n"


def test_names_for_type_checkers_are_those_that_are_resolved() -> None:
    module = ast.parse(Path(nnunet_ext.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in module.body if isinstance(node, ast.If))
    assert {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    } == nnunet_ext._ADDRESSES
    assert set(PUBLIC) == set(nnunet_ext._ADDRESSES)
    assert set(PUBLIC) <= set(dir(nnunet_ext))


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Unet'"):
        nnunet_ext.Unet  # noqa: B018


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_has_an_example(name: str) -> None:
    """tests/test_examples.py runs it."""
    assert ">>> " in (getattr(nnunet_ext, name).__doc__ or "")


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("code of the checkpoint runs",)


def test_models_of_an_earlier_version_load_and_code_does_not_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stored = Path(__file__).parent / "data" / "a5e75ff" / "nnUNetTrainerRAUNet"
    for name in ("plans.json", "dataset.json"):
        shutil.copy(stored / name, tmp_path)
    (tmp_path / "fold_0").mkdir()
    file = tmp_path / "fold_0" / "checkpoint_latest.pth"
    file.write_bytes(lzma.decompress((stored / f"{file.name}.xz").read_bytes()))
    network = nnunet_ext.load_model(tmp_path, checkpoint=file.name)
    assert not network.training

    content = torch.load(file, weights_only=False)
    torch.save({**content, "logging": Malicious()}, file)
    with pytest.raises(InputError, match="holds more than tensors"):
        nnunet_ext.load_model(tmp_path, checkpoint=file.name)
    torch.save({"state_dict": {}}, file)
    with pytest.raises(InputError, match="is not a checkpoint of a training by nnU-Net"):
        nnunet_ext.load_model(tmp_path, checkpoint=file.name)
    with pytest.raises(InputError, match="cannot be read"):
        nnunet_ext.load_model(tmp_path, fold=1)
    with pytest.raises(InputError, match="is not a trained model"):
        nnunet_ext.load_model(tmp_path / "fold_0")
    assert "code of the checkpoint runs" not in capfd.readouterr().out


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    text = (DOCS / "python-api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert not [name for name in PUBLIC if name not in text]
    exec(compile("\n".join(blocks), "docs/python-api.md", "exec"), {"__name__": "page"})
