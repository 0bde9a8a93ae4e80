"""Downloads of public datasets to nnU-Net's raw format, from the command line and from Python (docs/python-api.md).

`READERS` are the datasets: a new one is its reader and a place in that list. Nothing heavy is imported before a
conversion begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from nnunet_ext.dataset_conversion.busi import BusiReader
from nnunet_ext.dataset_conversion.folders import FoldersReader
from nnunet_ext.dataset_conversion.ircadb import IrcadbReader
from nnunet_ext.dataset_conversion.lits import LitsReader
from nnunet_ext.dataset_conversion.types import Outcome, Reader, Settings

READERS: dict[str, type[Reader]] = {
    reader.command: reader for reader in (LitsReader, BusiReader, IrcadbReader, FoldersReader)
}


def convert(reader: Reader, source: str | PathLike[str], **settings: Any) -> Outcome:
    """Convert the dataset of a reader; `settings` are the other fields of `Settings`, the reader's by default."""
    from nnunet_ext.dataset_conversion import engine

    settings = {"dataset_id": reader.dataset_id, "name": reader.dataset_name, **settings}
    return engine.run(reader, Settings(source=Path(source), **settings))


def convert_lits(source: str | PathLike[str], *, target: str = LitsReader.target, **settings: Any) -> Outcome:
    """Convert LiTS or MSD's Task03_Liver, as it was downloaded, into ``$nnUNet_raw``.

    >>> import os, tempfile
    >>> from unittest import mock
    >>> from nnunet_ext.phantom.lits import write_lits
    >>> with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, nnUNet_raw=folder, clear=True):
    ...     _ = write_lits(out=Path(folder, "LiTS"), cases=3, size=64, slices=8)
    ...     outcome = convert_lits(Path(folder, "LiTS"), target="regions")
    >>> outcome.folder.name, len(outcome.layout.files)
    ('Dataset029_LiTS', 6)

    Args:
        source: folder of the download; files may lie in any sub-folders.
        target: "tumour", "liver-tumour" (both labels) or "regions" (overlapping).
        settings: the other fields of `nnunet_ext.dataset_conversion.types.Settings`, such as dataset_id, name, split,
            link, skip_bad, overwrite, dry_run and num_processes; ``nnunet_ext convert lits --help`` explains them.

    Raises:
        InputError: before anything is written, everything that is wrong with the download and with nnU-Net's folders.
    """
    return convert(LitsReader(target=target), source, **settings)


def convert_busi(
    source: str | PathLike[str],
    *,
    classes: Sequence[str] = BusiReader.classes,
    target: str = BusiReader.target,
    duplicates: str = BusiReader.duplicates,
    cohort: str = BusiReader.cohort,
    drop: Sequence[str] = BusiReader.drop,
    **settings: Any,
) -> Outcome:
    """Convert BUSI, as published or flattened, into ``$nnUNet_raw``.

    >>> import os, tempfile
    >>> from unittest import mock
    >>> from nnunet_ext.phantom.busi import write_busi
    >>> with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, nnUNet_raw=folder, clear=True):
    ...     _ = write_busi(out=Path(folder, "BUSI"), benign=12, malignant=8, normal=1, size=96)
    ...     outcome = convert_busi(Path(folder, "BUSI"), split="cv5")
    >>> outcome.folder.name, len(outcome.layout.files)
    ('Dataset030_BUSI', 40)

    Args:
        source: folder of the download.
        classes: some of "benign", "malignant" and "normal".
        target: "lesion", or "class" for a label of its own for benign and malignant.
        duplicates: "group" keeps near-duplicates on one side of every split, "drop" keeps one image of each group,
            "ignore" splits image by image.
        cohort: "all"; "curated" for the 450 images of Curated BUSI v1; "audited" for all, with the groups of an outside
            audit as near-duplicates.
        drop: some of "axilla", "needle" and "multiclass", images to which the audit objects.
        settings: as in `convert_lits`.

    Raises:
        InputError: before anything is written, everything that is wrong with the download and with nnU-Net's folders.
    """
    reader = BusiReader(classes=classes, target=target, duplicates=duplicates, cohort=cohort, drop=drop)
    return convert(reader, source, **settings)
