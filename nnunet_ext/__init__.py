"""RA-U-Net and SAMUS-HF under nnU-Net v2's own commands.

Importing the package activates the start-up hook in this process, for notebooks and for environments that do not
read ``.pth`` files. Nothing heavy is imported here: the names below are imported when they are first used.
docs/python-api.md introduces them.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import _nnunet_ext_hook  # noqa: F401  (importing it is what activates it)
from nnunet_ext.version import __version__

if TYPE_CHECKING:
    from nnunet_ext.architectures.raunet import UNet as UNet
    from nnunet_ext.architectures.raunet import UNet3D as UNet3D
    from nnunet_ext.architectures.samus.models import SAM as SAM
    from nnunet_ext.architectures.samus.models import SAMUS as SAMUS
    from nnunet_ext.architectures.samus.models import SAMUSHF as SAMUSHF
    from nnunet_ext.comparison.comparer import compare as compare
    from nnunet_ext.dataset_conversion import convert_busi as convert_busi
    from nnunet_ext.dataset_conversion import convert_lits as convert_lits
    from nnunet_ext.evaluation.evaluator import evaluate as evaluate
    from nnunet_ext.inference.model_folder import load_model as load_model
    from nnunet_ext.inference.session import Session as Session
    from nnunet_ext.metrics.surface import surface_distances as surface_distances
    from nnunet_ext.report.build import build_report as build_report

_ADDRESSES = {
    "SAM": "nnunet_ext.architectures.samus.models:SAM",
    "SAMUS": "nnunet_ext.architectures.samus.models:SAMUS",
    "SAMUSHF": "nnunet_ext.architectures.samus.models:SAMUSHF",
    "Session": "nnunet_ext.inference.session:Session",
    "UNet": "nnunet_ext.architectures.raunet:UNet",
    "UNet3D": "nnunet_ext.architectures.raunet:UNet3D",
    "build_report": "nnunet_ext.report.build:build_report",
    "compare": "nnunet_ext.comparison.comparer:compare",
    "convert_busi": "nnunet_ext.dataset_conversion:convert_busi",
    "convert_lits": "nnunet_ext.dataset_conversion:convert_lits",
    "evaluate": "nnunet_ext.evaluation.evaluator:evaluate",
    "load_model": "nnunet_ext.inference.model_folder:load_model",
    "surface_distances": "nnunet_ext.metrics.surface:surface_distances",
}
__all__ = ["__version__", *_ADDRESSES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _ADDRESSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = resolve_name(_ADDRESSES[name])
    return value


def __dir__() -> list[str]:
    """List the public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
