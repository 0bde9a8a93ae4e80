"""Virtual environments to install the package into; their other packages are those of the running environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
OURS = ("nnunet_ext", "nnunet-ext", "_nnunet_ext_hook", "__editable__", "__pycache__")


class Environment:
    """A virtual environment in `folder`.

    A folder of links to everything in the running site-packages except this project is added by a .pth file. The
    .pth files in that folder are not processed, so no start-up hook gets in that way.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.bin = folder / "bin"
        self.site_packages = next(folder.glob("lib/python*/site-packages"))
        links = folder / "links"
        links.mkdir()
        for source in (Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")):
            for entry in source.iterdir():
                if not entry.name.startswith(OURS) and not (links / entry.name).exists():
                    (links / entry.name).symlink_to(entry)
        (self.site_packages / "links.pth").write_text(f"{links}\n")

    def run(
        self, *command: str | Path, check: bool = True, cwd: Path | None = None, **variables: object
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python COMMAND...`` with nothing of this project in the environment variables but `variables`."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("NNUNET_EXT_", "nnUNet_", "PYTHON"))}
        environment.update({k: str(v) for k, v in variables.items()})
        result = subprocess.run(
            [self.bin / "python", *command],
            env=environment,
            cwd=cwd or self.bin,  # not the checkout, which would be importable there
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(f"{command} exited with {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def pip(self, *arguments: str | Path) -> None:
        """Run pip without an index."""
        if arguments[0] == "install":
            arguments = (*arguments, "--no-deps", "--no-index", "--no-build-isolation")
        self.run("-m", "pip", "--disable-pip-version-check", *arguments)

    def listing(self) -> set[str]:
        """Every file and folder in site-packages, byte code apart."""
        files = (p.relative_to(self.site_packages) for p in self.site_packages.rglob("*"))
        return {str(f) for f in files if "__pycache__" not in f.parts}


def copy_checkout(destination: Path) -> Path:
    """The source tree without what git ignores, so that building leaves nothing in the checkout."""
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "demo", "__pycache__", "results")
    return Path(shutil.copytree(CHECKOUT, destination, ignore=unwanted))


def build(source: Path, destination: Path, *options: str) -> list[Path]:
    """``python -m build`` with the running environment's setuptools; returns what was built."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", destination, *options, source]
    result = subprocess.run(command, cwd=destination.parent, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return sorted(destination.iterdir())


@contextmanager
def replaced(file: Path, content: str) -> Iterator[None]:
    """Another content of an installed file for a while."""
    original = file.read_text()
    file.write_text(content)
    try:
        yield
    finally:
        file.write_text(original)
