"""Files that appear only when they are whole, checksums, and the one reader of JSON and TOML."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import is_running
from nnunet_ext.common.text import size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LONGEST_NAME = 200  # bytes of a temporary name that are those of the file
PARTIAL = ".partial"  # ends the name of a file that is being written
LARGEST = 1 << 29  # bytes of a JSON or TOML file
DEEPEST = 50  # levels of one


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
    temporary = _temporary(path, ending)
    try:
        yield temporary
        if sync:
            sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path, ending: str = "") -> Path:
    """Return where `path` is written; a long name is cut, because names have no more than 255 bytes."""
    return path.with_name(f".{_cut(path.name)}.{os.getpid()}{PARTIAL}{ending}")


def _cut(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])


def remove_leftovers(folder: Path, of: Iterable[str] | None = None) -> None:
    """Remove what killed processes of this machine left of the files that they were writing with `atomic`.

    Args:
        folder: where to look.
        of: names of the files that the caller is about to write; nothing else is touched. None: of all files, for a
            folder that is the caller's own.
    """
    names = None if of is None else {_cut(name) for name in of}
    for file in folder.glob(f".*{PARTIAL}*"):
        name, _, process = file.name.partition(PARTIAL)[0][1:].rpartition(".")
        if (names is None or name in names) and process.isdigit() and not is_running(int(process)):
            file.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, sync: bool = False) -> None:
    with atomic(path, sync=sync) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Write a text file atomically, in UTF-8; names of files that have no such text are escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"), sync=sync)


def write_json(path: Path, content: Any, *, sync: bool = False) -> None:
    """Write `to_json` atomically."""
    write_text(path, to_json(content), sync=sync)


def to_json(content: Any) -> str:
    """Return the text of a JSON file; numbers that are not finite become null, because JSON has no NaN."""
    return json.dumps(without_nan(content), indent=2) + "\n"


def write_results(files: Mapping[Path, str], hint: str = "") -> None:
    """Write the files that a user asked for, together or not at all; their folders are made.

    They appear in order, when all of them are on the disk. What a killed run left of them is removed.

    Raises:
        InputError: one cannot be written, since the disk is full for instance.
    """
    whole: dict[Path, Path] = {}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent, of=[path.name])
            whole[path] = _temporary(path)
            whole[path].write_bytes(text.encode(errors="backslashreplace"))
        for path, temporary in whole.items():
            temporary.replace(path)
    except OSError as e:
        raise InputError(f"{path} cannot be written: {e.strerror or e}.", hint=hint) from e
    finally:
        for temporary in whole.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def read_json(path: Path, kind: type = dict, *, hint: str = "") -> Any:
    """Read JSON whose outermost value is a `kind` (a dict, or a list); `common.shapes` checks what is in it.

    Raises:
        InputError: there is no such file, it is larger or deeper than any of these files is, is not JSON, names a key
            twice, holds text that no file could be called, or is something else than a `kind`.
    """
    text = read_text(path, hint=hint)
    try:
        content = json.loads(text, object_pairs_hook=_unique)
        _check_plain(content)
    except (ValueError, RecursionError) as e:
        raise _invalid(path, "JSON", e, hint) from e
    if not isinstance(content, kind):
        raise InputError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}.", hint=hint)
    return content


def read_json_if_any(path: Path, kind: type = dict, *, hint: str = "") -> Any:
    """Read JSON that may be missing, for which an empty `kind` stands; raises as `read_json` where it is broken."""
    return read_json(path, kind, hint=hint) if os.path.exists(path) else kind()


def read_json_if_sound(path: Path, kind: type = dict) -> Any:
    """Read JSON of which nothing is known, or that can be made again: an empty `kind` stands for what is no such file.

    Where a decision depends on the content, `read_json_if_any` is right: a broken file is not a missing one.
    """
    try:
        return read_json(path, kind)
    except InputError:
        return kind()


def read_toml(path: Path, *, hint: str = "") -> dict[str, Any]:
    """Read TOML; raises as `read_json` does."""
    text = read_text(path, hint=hint)
    try:
        content: dict[str, Any] = tomllib.loads(text)
        _check_plain(content)
    except (ValueError, RecursionError) as e:
        raise _invalid(path, "TOML", e, hint) from e
    return content


def is_special(path: Path) -> bool:
    """Tell whether something is there that would wait for ever, or never end, when it is read: a pipe or a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


def read_text(path: Path, *, hint: str = "") -> str:
    """Read a text file in UTF-8, with or without the mark that some editors begin it with.

    Raises:
        InputError: it is missing, not a file, larger than any that people write, or no such text.
    """
    try:
        if path.is_dir() or is_special(path):
            raise InputError(f"{path} is not a file.", hint=hint)
        if (bytes_ := path.stat().st_size) > LARGEST:
            raise InputError(f"{path} has {size(bytes_)}, far more than such a file.", hint=hint)
        return path.read_text(encoding="utf-8-sig")
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}.", hint=hint) from e
    except UnicodeDecodeError as e:
        raise InputError(f"{path} is not text in UTF-8: {e.reason} at byte {e.start:,}.", hint=hint) from e


def _invalid(path: Path, format_: str, error: Exception, hint: str) -> InputError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).rstrip(".")
    return InputError(f"{path} is not valid {format_}: {reason}.", hint=hint)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict; of two values under one key, one would be dropped without a word."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return made


def _check_plain(content: Any) -> None:
    """Check that content is no deeper than `DEEPEST`, and that each text in it could be the name of a file."""
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise RecursionError
        texts = [text for c in level for text in (c if isinstance(c, dict) else [c]) if isinstance(text, str)]
        for text in texts:
            if not text.isascii():
                os.fsencode(text)  # refuses half of a surrogate pair
            if "\0" in text:
                raise ValueError(f"{text!r:.40} holds a null character")
        level = [v for c in level if isinstance(c, dict | list) for v in (c.values() if isinstance(c, dict) else c)]


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
        InputError: `path` is a directory, its name is too long, or its folder cannot be written to.
    """
    try:
        is_folder = path.is_dir()
        above = next(folder for folder in path.absolute().parents if folder.exists())
    except OSError as e:  # names of over 255 bytes
        raise InputError(f"{path} cannot be written: {e.strerror or e}.", hint=hint) from e
    if is_folder:
        raise InputError(f"{path} is a directory.", hint=hint)
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{path} cannot be written: {above} is not a writable directory.", hint=hint)


@contextlib.contextmanager
def writing_to(place: Path, hint: str) -> Iterator[None]:
    """Report a disk that is full, read-only or broken as an error of the input, around what writes to `place`.

    Raises:
        InputError: with the file's name, where the system has said it.
    """
    try:
        yield
    except BrokenPipeError:  # of a reader that leaves, which is no disk's
        raise
    except OSError as e:
        raise InputError(f"{e.filename or place}: {reason(e)}.", hint=hint) from e


def reason(error: OSError) -> str:
    """Return what the system objects to, in words."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)


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
