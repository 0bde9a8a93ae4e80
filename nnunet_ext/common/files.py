"""Files that appear only when they are whole, checksums, and JSON that is read and written in one way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import is_running

PARTIAL = ".partial"  # ends the name of a file that is being written


@contextlib.contextmanager
def atomic(path: Path, *, sync: bool = False, ending: str = "") -> Iterator[Path]:
    """Hand out a temporary path in the same folder and move what was written there to `path` at the end.

    Whoever looks, at any moment and after a kill, finds the former file or the whole new one. The temporary file is
    hidden, carries this process's number, and is removed if the block raises.

    Args:
        path: the file to write; its folder exists.
        sync: bring the content to disk before it gets its name, so that a power cut cannot truncate it.
        ending: ends the temporary name, for writers that choose a format by it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}{ending}")
    try:
        yield temporary
        if sync:
            sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, of: Container[str]) -> None:
    """Remove what killed processes of this machine left of the files that they were writing with `atomic`.

    Args:
        folder: where to look.
        of: names of the files that the caller is about to write; nothing else is touched.
    """
    for file in folder.glob(f".*{PARTIAL}*"):
        name, _, process = file.name.partition(PARTIAL)[0][1:].rpartition(".")
        if name in of and process.isdigit() and not is_running(int(process)):
            file.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, sync: bool = False) -> None:
    with atomic(path, sync=sync) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Write a text file atomically, in UTF-8."""
    write_bytes(path, text.encode(), sync=sync)


def write_json(path: Path, content: Any, *, sync: bool = False) -> None:
    """Write `to_json` atomically."""
    write_text(path, to_json(content), sync=sync)


def to_json(content: Any) -> str:
    """Return the text of a JSON file; numbers that are not finite become null, because JSON has no NaN."""
    return json.dumps(without_nan(content), indent=2) + "\n"


def write_results(files: Mapping[Path, str], hint: str = "") -> None:
    """Write the files that a user asked for, in order, each atomically; their folders are made.

    Raises:
        InputError: one cannot be written, since the disk is full for instance.
    """
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        except OSError as e:
            raise InputError(f"{path} cannot be written: {e.strerror or e}.", hint=hint) from e


def read_json(path: Path, kind: type = dict, *, hint: str = "") -> Any:
    """Read JSON whose outermost value is a `kind` (a dict, or a list).

    Raises:
        InputError: the file cannot be read, is not JSON, is nested too deeply, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}.", hint=hint) from e
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} is not valid JSON: {e}.", hint=hint) from e
    if not isinstance(content, kind):
        raise InputError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}.", hint=hint)
    return content


def read_json_if_any(path: Path, kind: type = dict) -> Any:
    """Read JSON that may be missing or broken; an empty `kind` stands for such a file."""
    try:
        return read_json(path, kind)
    except InputError:
        return kind()


def without_nan(content: Any) -> Any:
    """Return the same content with None for every number that is not finite, and lists for tuples."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits (`hashlib.file_digest` needs Python 3.11)."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_writable(path: Path, hint: str) -> None:
    """Check that a file may be written, before the work that goes into it.

    Raises:
        InputError: `path` is a directory, or its folder cannot be written to.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory.", hint=hint)
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{path} cannot be written: {above} is not a writable directory.", hint=hint)


def check_replaceable(paths: Iterable[Path], ours: Callable[[Path], bool], by: str, hint: str) -> None:
    """Check that files may be written, and that those which are there already are not somebody else's.

    Args:
        ours: tells whether an existing file was written by the same command, and may be replaced.
        by: that command, for the message.

    Raises:
        InputError: see `check_writable`, or files would be replaced that are not ours.
    """
    foreign = []
    for path in paths:
        check_writable(path, hint)
        if path.exists() and not (path.is_file() and ours(path)):
            foreign.append(str(path))
    if foreign:
        raise InputError(f"{', '.join(foreign)}: not written by {by}, and not to be overwritten.", hint=hint)


def sync_file(path: Path) -> None:
    """Bring a file's content to disk."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def files_below(folder: Path, onerror: Callable[[OSError], object]) -> Iterator[Path]:
    """Yield all files below a folder in order, through links to folders too, each folder once.

    Hidden files and folders and macOS's ``__MACOSX`` are left out; `onerror` gets those folders that cannot be read.
    """
    seen = set()
    for current, subfolders, names in os.walk(folder, onerror=onerror, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s != "__MACOSX")
        yield from (Path(current, name) for name in sorted(names) if not name.startswith("."))
