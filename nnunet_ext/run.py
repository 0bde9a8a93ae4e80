"""``python -m nnunet_ext.run COMMAND ...``: nnU-Net's commands where the environment does not read ``.pth`` files.

Such environments are ``pip install --target`` and some frozen or managed installations. Importing this module imports
the package, which activates the hook; multiprocessing imports the main module again in every process that it spawns,
so the workers have it too. (It would skip a ``__main__.py``.)
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import nnunet_ext  # noqa: F401  (importing it is what activates the hook)
from nnunet_ext.common.errors import InputError


def main(argv: list[str] | None = None) -> Any:
    """Run the console command `argv[0]` of nnunetv2 with the other arguments.

    Raises:
        InputError: nnU-Net is not installed, or has no such command.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        scripts = distribution("nnunetv2").entry_points.select(group="console_scripts")
    except PackageNotFoundError:
        raise InputError("nnU-Net is not installed.", hint="pip install 'nnunetv2>=2.8.1,<3'") from None
    commands = {script.name: script for script in scripts}
    if not argv or argv[0] not in commands:
        raise InputError(
            f"nnU-Net has no command {argv[0]!r}." if argv else "No command given.",
            hint="usage: python -m nnunet_ext.run COMMAND ..., where COMMAND is one of: " + ", ".join(commands),
        )
    sys.argv = argv
    return commands[argv[0]].load()()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as e:
        sys.stderr.write(f"error: {e}\n")
        sys.exit(2)
