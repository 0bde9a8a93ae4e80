"""One dataset's folder in nnUNet_raw: whether it can be written, its lock, and how a new one takes its place."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import Field

from nnunet_ext.common.environment import NNUNET_FOLDERS, overlapping_folders
from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json, sync_folder
from nnunet_ext.common.shapes import Shape, checked

RECORD = "conversion.json"


def nnunet_root(variable: str) -> Path | None:
    """Return one of nnU-Net's three folders, read when needed; None where the environment does not name it."""
    value = os.environ.get(variable)
    return Path(value).absolute() if value else None


def dataset_name(dataset_id: int, name: str) -> str:
    """Return nnU-Net's folder name, for example Dataset029_LiTS; InputError where nnU-Net could not use it."""
    if not 1 <= dataset_id <= 999:
        raise InputError(f"--dataset-id {dataset_id}: nnU-Net's ids have three digits, 1 to 999.")
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]|_(?!_))*", name):  # nnU-Net splits result folders at "__"
        raise InputError(f"--name {name!r}: use letters, digits, single underscores, '-' and '.'.")
    return f"Dataset{dataset_id:03d}_{name}"


def environment_problems(name: str) -> list[str]:
    """Return what keeps `name` from being written: nnUNet_raw unset or unwritable, the dataset id taken."""
    raw = nnunet_root("nnUNet_raw")
    if raw is None:
        return ["nnUNet_raw is not set; export nnUNet_raw=/path/to/nnUNet_raw."]
    problems = []
    existing = raw
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problems.append(f"nnUNet_raw={raw} cannot be written ({existing} is not a writable directory).")
    if (raw / name).is_symlink():
        problems.append(f"{raw / name} is a symbolic link, which cannot be replaced; remove the link first.")
    problems += overlapping_folders()
    prefix = name.split("_")[0]
    for variable in NNUNET_FOLDERS:
        root = nnunet_root(variable)
        for folder in sorted(root.glob(f"{prefix}*")) if root else []:
            if folder.is_dir() and folder.name != name:
                problems.append(f"dataset id {int(prefix[7:])} is taken by {folder}; choose another --dataset-id.")
    return problems


class _Request(Shape):
    format: int = 0
    options: dict[str, Any]
    sources: dict[str, dict[str, Any]]


class _Record(Shape):
    request: _Request
    files: dict[str, int] = Field(default_factory=dict)


class RawFolder:
    """One dataset's folder.

    `final` is what nnU-Net sees. `work` is invisible to it and holds the lock, the dataset being built (`new`, whose
    files `keys` describes) and, for the moment between two renames, the one being replaced (`old`).
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.work = final.with_name(f".{final.name}.partial")
        self.new, self.old, self.keys = self.work / "new", self.work / "old", self.work / "keys.json"

    def record(self) -> dict[str, Any]:
        """Return the record of the conversion that is there; empty where there is none that this command has made."""
        file = self.final / RECORD
        try:
            return checked(_Record, read_json(file), file).model_dump()
        except InputError:
            return {}

    def overlaps(self, source: Path, files: Iterable[Path]) -> list[str]:
        """Return a sentence where replacing the dataset would take the source, or one of its files, with it."""
        own = [Path(os.path.realpath(folder)) for folder in (self.final, self.work)]
        lost = [p for p in (source, *files) if any(Path(os.path.realpath(p)).is_relative_to(folder) for folder in own)]
        if not lost and not own[0].is_relative_to(os.path.realpath(source)):
            return []
        through = f" ({lost[0]} does)" if lost and lost[0] != source else ""
        return [
            f"--source {source} overlaps{through} with the dataset to be written, {self.final}: replacing that would "
            "delete the download. Move the download elsewhere, give its own folder as --source, or choose another "
            "--dataset-id."
        ]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second conversion of the same dataset out; the system lets go of the lock when the process dies."""
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.work / "lock", timeout=0)
            lock.acquire()
        except Timeout as e:
            raise InputError(f"{self.final}: another conversion is writing it.", hint="Wait for it to end.") from e
        except OSError as e:
            raise InputError(f"{self.work}: cannot be written ({e.strerror}).") from e
        try:
            yield
        finally:
            lock.release()

    def swap(self) -> None:
        """Let the finished new dataset take the place of the old one; where that fails, nothing has changed."""
        if self.final.exists():
            self.final.rename(self.old)
        try:
            self.new.rename(self.final)
        except OSError:
            if self.old.exists():
                self.old.rename(self.final)
            raise

    @property
    def swapped(self) -> bool:
        """Whether a conversion is past the point of no return: what it has built is no longer in the work folder."""
        return not self.new.exists()

    def settle(self) -> None:
        """Bring a swap to disk and remove all that is left of the conversion."""
        try:
            sync_folder(self.final.parent)
        finally:
            self.clear()

    def recover(self) -> None:
        """After a kill between the two renames of `swap`, bring the previous dataset back, or remove its remains."""
        if self.old.is_dir() and not self.final.exists():
            self.old.rename(self.final)
        shutil.rmtree(self.old, ignore_errors=True)

    def clear(self) -> None:
        """Remove the work folder with all that is in it."""
        shutil.rmtree(self.work, ignore_errors=True)


def size_of(path: Path) -> int | None:
    """Return a file's bytes; None where it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return None
