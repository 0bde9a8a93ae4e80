"""The one dataset folder in nnUNet_raw that a conversion makes, and the hidden work folder beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nnunet_ext.common.errors import InputError

RECORD = "conversion.json"
_ROOTS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def nnunet_root(variable: str) -> Path | None:
    """One of nnU-Net's three folders, read when needed; None where the environment does not name it."""
    value = os.environ.get(variable)
    return Path(value).absolute() if value else None


def dataset_name(dataset_id: int, name: str) -> str:
    """nnU-Net's folder name, for example Dataset029_LiTS. InputError where nnU-Net could not use it."""
    if not 1 <= dataset_id <= 999:
        raise InputError(f"--dataset-id {dataset_id}: nnU-Net's ids have three digits, 1 to 999.")
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]|_(?!_))*", name):  # nnU-Net splits result folders at "__"
        raise InputError(f"--name {name!r}: use letters, digits, single underscores, '-' and '.'.")
    return f"Dataset{dataset_id:03d}_{name}"


def environment_problems(name: str) -> list[str]:
    """What keeps `name` from being written: nnUNet_raw unset or unwritable, the dataset id taken."""
    raw = nnunet_root("nnUNet_raw")
    if raw is None:
        return ["nnUNet_raw is not set; export nnUNet_raw=/path/to/nnUNet_raw."]
    problems = []
    existing = raw
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problems.append(f"nnUNet_raw={raw} cannot be written ({existing} is not a writable folder).")
    if (raw / name).is_symlink():
        problems.append(f"{raw / name} is a symbolic link, which cannot be replaced; remove the link first.")
    prefix = name.split("_")[0]
    for variable in _ROOTS:
        root = nnunet_root(variable)
        for folder in sorted(root.glob(f"{prefix}*")) if root else []:
            if folder.is_dir() and folder.name != name:
                problems.append(f"dataset id {int(prefix[7:])} is taken by {folder}; choose another --dataset-id.")
    return problems


@dataclass(frozen=True, kw_only=True)
class RawFolder:
    """`final` is what nnU-Net sees. `work` is invisible to it and holds the lock, the dataset being built and, for the
    moment between two renames, the one being replaced."""

    final: Path

    @property
    def work(self) -> Path:
        return self.final.with_name(f".{self.final.name}.partial")

    @property
    def new(self) -> Path:
        return self.work / "new"

    @property
    def old(self) -> Path:
        return self.work / "old"

    @property
    def keys(self) -> Path:
        return self.work / "keys.json"

    def check_apart(self, source: Path, files: Iterable[Path]) -> None:
        """InputError where replacing the dataset would take the source, or one of its files, with it."""
        own = [Path(os.path.realpath(folder)) for folder in (self.final, self.work)]
        lost = [p for p in (source, *files) if any(Path(os.path.realpath(p)).is_relative_to(folder) for folder in own)]
        if lost or own[0].is_relative_to(os.path.realpath(source)):
            through = f" ({lost[0]} does)" if lost and lost[0] != source else ""
            raise InputError(
                f"--source {source} overlaps{through} with the dataset to be written, {self.final}: replacing that "
                "would delete the download.",
                hint="Move the download elsewhere, give its own folder as --source, or choose another --dataset-id.",
            )

    def record(self) -> dict[str, Any] | None:
        """The finished dataset's conversion.json; None where there is none or it is not one."""
        try:
            content = json.loads((self.final / RECORD).read_text())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def damage(self, sizes: dict[str, int]) -> list[str]:
        """Files of the finished dataset that are gone or have another size than recorded."""
        return [name for name, size in sizes.items() if _size(self.final / name) != size]

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

    def recover(self) -> None:
        """After a kill between the two renames of `swap`: the previous dataset comes back, or its remains go."""
        if not self.work.is_dir():
            return
        with self.locked():
            if self.old.is_dir() and not self.final.exists():
                self.old.rename(self.final)
            shutil.rmtree(self.old, ignore_errors=True)

    def swap(self) -> None:
        """Let the finished new dataset take the place of the old one."""
        if self.final.exists():
            self.final.rename(self.old)
        self.new.rename(self.final)
        sync_folder(self.final.parent)
        self.clear()

    def clear(self) -> None:
        """Remove the work folder with all that is in it."""
        shutil.rmtree(self.work, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Write via a temporary name, on disk before it gets its own."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as stream:
        json.dump(content, stream, indent=2)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def sync_file(path: Path) -> None:
    """Bring a file's content to disk: a power cut may truncate one that already has its name but was not synced."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a folder's own entries to disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
