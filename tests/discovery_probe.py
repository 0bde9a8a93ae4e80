"""Child process of test_discovery.py: looks every class up as nnU-Net does, here and in the processes that it starts.

Prints one JSON object; run as a file, because spawned workers import the main module again.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

STOCK = {
    "trainer": "nnUNetTrainer",
    "planner": "ResEncUNetPlanner",
    "normalization": "CTNormalization",
    "resampling": "resample_data_or_seg_to_shape",
}
FAR_STOCK = ("trainer", "nnUNetTrainer_1epoch")  # found only after importing half of nnU-Net, torchvision included


def look_up(kind: str, name: str) -> object:
    """What nnU-Net finds under that name, by its own code."""
    if kind == "trainer":
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        return recursive_find_trainer_class_by_name(name)
    if kind == "planner":
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        return PlansManager({"experiment_planner_used": name}).experiment_planner_class
    if kind == "resampling":
        from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name

        return recursive_find_resampling_fn_by_name(name)
    return normalize_with(name)


def normalize_with(name: str) -> object:
    """Normalise as DefaultPreprocessor does; it keeps the class to itself, so that is caught on its way."""
    import numpy as np
    from nnunetv2.preprocessing.preprocessors import default_preprocessor

    found = []
    search = default_preprocessor.recursive_find_python_class

    def caught(*args: object) -> object:
        found.append(search(*args))
        return found[-1]

    default_preprocessor.recursive_find_python_class = caught
    try:
        default_preprocessor.DefaultPreprocessor(verbose=False)._normalize(
            np.full((1, 2, 16, 16), 60, np.float32),
            np.zeros((1, 2, 16, 16), np.int8),
            SimpleNamespace(normalization_schemes=[name], use_mask_for_norm=[False]),
            {"0": {"mean": 60, "std": 10, "percentile_00_5": -100, "percentile_99_5": 200}},
        )
    finally:
        default_preprocessor.recursive_find_python_class = search
    return found[0]


def modules_of_all() -> dict[str, str]:
    """The module that every class comes from, ours and a few of nnU-Net's."""
    from nnunet_ext import registry

    wanted = [(e.kind, e.name) for e in registry.entries()]
    return {name: look_up(kind, name).__module__ for kind, name in (*wanted, *STOCK.items())}


def write_modules_of_all(_rank: int, file: str) -> None:
    """For torch.multiprocessing.spawn."""
    Path(file).write_text(json.dumps(modules_of_all()))


def main() -> None:
    """Look up in this process, in a spawn worker, and in a child of torch.multiprocessing.spawn."""
    from torch.multiprocessing import spawn

    import nnunet_ext
    from nnunet_ext import registry

    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        worker = pool.apply_async(modules_of_all)
        file = Path(folder) / "modules.json"
        child = spawn(write_modules_of_all, args=(str(file),), nprocs=1, join=False)
        facts = {"package": nnunet_ext.__file__, "main": modules_of_all()}
        classes = [look_up(e.kind, e.name) for e in registry.entries()]
        facts["pickled"] = all(pickle.loads(pickle.dumps(c)) is c for c in classes)
        facts["far stock"] = look_up(*FAR_STOCK).__name__
        facts["spawn worker"] = worker.get()
        child.join()
        facts["torch child"] = json.loads(file.read_text())
    sys.stdout.write("\n" + json.dumps(facts))


if __name__ == "__main__":
    main()
