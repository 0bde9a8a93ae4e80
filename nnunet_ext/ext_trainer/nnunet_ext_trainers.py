"""What ``nnUNet_extTrainer`` may point to: ``export nnUNet_extTrainer=.../nnunet_ext/ext_trainer``.

The last resort, where neither start-up files nor ``python -m nnunet_ext.run`` can be used: nnU-Net then finds our
trainers, but no planner and no normalisation. It imports every module of that folder by its file name and forgets it
again, so this one only passes on classes of the installed package: they keep their module and identity, and pickle.
"""

from __future__ import annotations

from nnunet_ext import registry


def __getattr__(name: str) -> object:
    """Import a trainer of the registry when nnU-Net asks for it."""
    entry = registry.get("trainer", name)
    if entry is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return entry.load()
