"""RA-U-Net and SAMUS-HF under nnU-Net v2's own commands.

Importing the package activates the start-up hook in this process, for notebooks and for environments that do not
read ``.pth`` files. Nothing heavy is imported here.
"""

import _nnunet_ext_hook  # noqa: F401  (importing it is what activates it)
from nnunet_ext.version import __version__

__all__ = ["__version__"]
