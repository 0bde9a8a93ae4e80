"""The public Python API: lazy, complete, with examples that run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnunet_ext

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


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "python-api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert not [name for name in PUBLIC if name not in text]
    exec(compile("\n".join(blocks), "docs/python-api.md", "exec"), {"__name__": "page"})
