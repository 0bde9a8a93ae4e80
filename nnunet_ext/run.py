"""``python -m nnunet_ext.run COMMAND ...``: nnU-Net's commands where the environment does not read ``.pth`` files.

Such environments are ``pip install --target``, ``python -S`` and some frozen or managed installations. Importing this
module imports the package, which activates the hook; multiprocessing imports the main module again in every process
that it spawns, so the workers have it too.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import nnunet_ext  # noqa: F401  (importing it is what activates the hook)
from nnunet_ext.errors import InputError


def main(argv: list[str] | None = None) -> object:
    """Run the console command `argv[0]` of nnunetv2 with the other arguments.

    Raises:
        InputError: nnU-Net has no such command.
    """
    argv = sys.argv[1:] if argv is None else argv
    commands = {
        e.name: e for e in entry_points(group="console_scripts") if e.dist is not None and e.dist.name == "nnunetv2"
    }
    if not argv or argv[0] not in commands:
        raise InputError(
            f"nnU-Net has no command {argv[0]!r}." if argv else "No command given.",
            way_out="usage: python -m nnunet_ext.run COMMAND ..., where COMMAND is one of: " + ", ".join(commands),
        )
    sys.argv = list(argv)
    return commands[argv[0]].load()()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as e:
        sys.exit(f"error: {e}")
