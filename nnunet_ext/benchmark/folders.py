"""Where everything of a benchmark lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.benchmark.matrix import Dataset, Matrix, Row, slug
from nnunet_ext.common.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Of one benchmark.

    Args:
        root: everything that it makes, but for preprocessed data where `data` is "environment".
        raw, preprocessed: nnU-Net's.
    """

    root: Path
    raw: Path
    preprocessed: Path

    @classmethod
    def of(cls, matrix: Matrix, root: Path) -> Folders:
        """The user's own raw and preprocessed data, or the benchmark's.

        Raises:
            InputError: nnU-Net's variables are not set, or the root is a file.
        """
        root = root.resolve()
        if root.exists() and not root.is_dir():
            raise InputError(f"{root} is a file.", hint="Name a folder with --out.")
        if matrix.data == "own":
            return cls(root=root, raw=root / "nnUNet_raw", preprocessed=root / "nnUNet_preprocessed")
        values = {name: os.environ.get(name, "") for name in ("nnUNet_raw", "nnUNet_preprocessed")}
        if missing := [name for name, value in values.items() if not value]:
            raise InputError(
                *(f"{name} is not set." for name in missing),
                hint=f"export {' '.join(f'{name}=/path/to/{name}' for name in missing)}",
            )
        raw, preprocessed = (Path(v).resolve() for v in values.values())
        return cls(root=root, raw=raw, preprocessed=preprocessed)

    def results(self, seed: int) -> Path:
        """nnUNet_results of a seed: nnU-Net's folders carry no seed."""
        return self.root / "nnUNet_results" / f"seed_{seed}"

    def model(self, dataset: str, row: Row, seed: int) -> Path:
        """TRAINER__PLANS__CONFIGURATION."""
        return self.results(seed) / dataset / row.model

    def predictions(self, dataset: str, row: Row, seed: int, fold: int) -> Path:
        """Of the held-out cases."""
        return self.root / "predictions" / dataset / slug(row.name) / f"seed_{seed}" / f"fold_{fold}"

    def evaluation(self, dataset: str, row: Row, seed: int, fold: int) -> Path:
        """metrics.json and manifest.json."""
        return self.root / "evaluations" / dataset / slug(row.name) / f"seed_{seed}" / f"fold_{fold}"

    def dataset_name(self, dataset: Dataset) -> str:
        """As the matrix has it, or as the folder of that number in nnUNet_raw (or nnUNet_preprocessed) is called.

        Raises:
            InputError: there is none, or more than one.
        """
        if dataset.name:
            return dataset.name
        pattern = f"Dataset{dataset.id:03d}_*"
        found = sorted({p.name for folder in (self.raw, self.preprocessed) for p in folder.glob(pattern) if p.is_dir()})
        if len(found) != 1:
            raise InputError(
                f"Dataset {dataset.id} is {'not' if not found else 'more than once'} in {self.raw}"
                f"{': ' + ', '.join(found) if found else ''}.",
                hint="Convert it (nnunet_ext convert --help), or say which with name = ... in [[datasets]].",
            )
        return found[0]
