"""The folder of a training, fold_X: whether there is such a fold, who trains there, and what an earlier one left."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import PARTIAL
from nnunet_ext.common.nnunet_files import SPLITS, read_splits

if os.name == "posix":
    import fcntl

NNUNET_FOLDS = 5  # of the split that nnU-Net makes where there is none
LOCK = "training.lock"


def check_fold(fold: int | str, preprocessed: Path) -> None:
    """Check that a fold is one of the split, or "all".

    For a number that the split lacks nnU-Net draws 80 % of all cases at random, test cases of other folds and
    near-duplicates among them, and -1 is its last fold.

    Args:
        preprocessed: folder of the preprocessed dataset, where splits_final.json is.

    Raises:
        InputError: there is no such fold.
    """
    if fold == "all":
        return
    file = preprocessed / SPLITS
    there = len(read_splits(preprocessed)) if file.exists() else NNUNET_FOLDS
    if not (isinstance(fold, int) and 0 <= fold < there):
        source = f"{file} has" if file.exists() else f"without {file}, nnU-Net makes"
        raise InputError(
            f"There is no fold {fold}: {source} {', '.join(map(str, range(there))) or 'none'}.",
            hint='Train one of these, or "all".',
        )


class FolderLock:
    """Keeps a second training out of a folder for as long as this process lives, or until `release`.

    The system takes the lock back when its process ends, however that happens; worker processes do not inherit it.
    Where a system or a file system has no such locks, nothing is refused.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / LOCK
        self._handle: int | None = None  # not a file object, which would close, and unlock, when it is collected

    def take(self) -> None:
        """Lock the folder.

        Raises:
            InputError: another process trains there.
        """
        if os.name != "posix":
            return
        while self._handle is None:
            handle = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                owner = os.read(handle, 1000).decode(errors="replace")
                os.close(handle)
                if e.errno not in (errno.EACCES, errno.EAGAIN):
                    return
                raise InputError(
                    f"{self.file.parent} is being trained by {owner or 'another process'}.",
                    hint="Wait for it to end, or end it; a second training in the same folder would destroy both.",
                ) from e
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), self.file.stat()):  # else its owner has just removed it
                    self._handle = handle
        os.ftruncate(self._handle, 0)
        os.write(self._handle, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        """Let others train there."""
        if self._handle is not None:
            self.file.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None


def remove_partial(folder: Path) -> None:
    """Remove what a killed training left half written; the folder is locked."""
    for file in folder.glob(f".checkpoint_*{PARTIAL}"):
        file.unlink()


def set_aside(folder: Path, log: Path) -> Path | None:
    """Move an earlier training's checkpoints, validation and logs into a numbered folder among them.

    With those in place, ``--c`` would go on with the earlier training and lose the new one.

    Args:
        folder: of the fold.
        log: the new training's, which stays.

    Returns:
        Where they are, ``previous_1`` or the next number that is free; None where no checkpoint was there.
    """
    found = [*folder.glob("checkpoint_*.pth")]
    if not found:
        return None
    names = (folder / f"previous_{n}" for n in itertools.count(1))
    place = next(name for name in names if not name.exists())
    place.mkdir()
    found += [file for file in (*folder.glob("training_log_*.txt"), folder / "validation") if file != log]
    for file in found:
        if file.exists():
            file.replace(place / file.name)
    return place
