"""A layout to nnUNet_raw: atomic, parallel, resumable, whatever the images are.

A dataset grows in a hidden folder, each file under a temporary name first, and takes its place by renaming. Killed at
any moment, the next run keeps the files whose sources and recipe are still the same and makes the rest. Files that need
no change are not written again but cloned or linked, and copied only where nothing else works.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json_if_sound, sync_file, sync_folder, write_json, writing_to
from nnunet_ext.common.processes import Track, continuing, finished, untracked
from nnunet_ext.common.text import size
from nnunet_ext.dataset_conversion.raw_folder import RECORD, RawFolder, size_of
from nnunet_ext.dataset_conversion.types import Layout, OutputFile, SourceError

_TEMPORARY = ".tmp"
_SECONDS_PER_WORKER = 1.0  # starting one takes half of that; less work is done sooner without
_FICLONE = 0x40049409  # linux/fs.h; Python has no name for it


def write(
    layout: Layout,
    folder: RawFolder,
    *,
    mode: str,
    overwrite: bool = False,
    num_processes: int = 1,
    track: Track = untracked,
    around_swap: AbstractContextManager[None] | None = None,
) -> Counter[str]:
    """Build the dataset and put it in place; return how many files were linked (by method), copied, written or kept.

    `around_swap` is entered when everything is written and nothing has changed yet for nnU-Net. InputError for links
    that do not work and for a full disk; the same call then continues.
    """
    with folder.locked():
        if folder.final.exists() and not overwrite:
            raise InputError(f"{folder.final} exists.", hint="Use --overwrite to replace it.")
        left = unfinished(layout, folder)
        done: Counter[str] = Counter(kept=len(layout.files) - len(left))
        try:
            with writing_to(folder.new, hint="Put that right and run the same command again: it continues."):
                with continuing():
                    _prepare(layout.files, left, folder)
                    _make_files(left, folder, mode, num_processes, track, done)
                    _write_documents(layout, folder)
                with around_swap or nullcontext():
                    folder.swap()
                folder.settle()
        except SourceError:
            raise  # what is finished is of use where the rest is to be converted
        except InputError:
            if not +done:
                folder.clear()
            raise
    return +done


def unfinished(layout: Layout, folder: RawFolder) -> list[OutputFile]:
    """Return the files that an interrupted run did not get to, or made from something else."""
    keys = read_json_if_sound(folder.keys)

    def whole(file: OutputFile) -> bool:
        # a file appears under its name when it is finished and on disk; the size is against other damage
        found = size_of(folder.new / file.target)
        return found == file.size if file.size is not None else bool(found)

    return [file for file in layout.files if keys.get(file.target) != file.key or not whole(file)]


def space_problem(layout: Layout, folder: RawFolder, mode: str) -> str | None:
    """Return a sentence where what is still to be written will not fit; links that may be made are taken as free."""
    disk = folder.final.parent
    while not disk.exists():
        disk = disk.parent
    left = unfinished(layout, folder)
    needed = sum(f.estimate for f in left if f.recipe or mode == "copy" or (mode == "auto" and not f.share))
    free = shutil.disk_usage(disk).free
    if needed <= free:
        return None
    return (
        f"{folder.final.parent}: too little disk space, {size(free)} free and about {size(needed)} needed; free some, "
        "or set nnUNet_raw to a larger disk."
    )


def _prepare(files: Sequence[OutputFile], left: Sequence[OutputFile], folder: RawFolder) -> None:
    """Clear all that an interrupted run left and that is not wanted as it is, then note what the folder is to hold."""
    good = {f.target for f in files} - {f.target for f in left}
    for path in list(folder.new.rglob("*")):
        if not path.is_dir() and path.relative_to(folder.new).as_posix() not in good:
            path.unlink()
    for parent in {(folder.new / f.target).parent for f in files}:
        parent.mkdir(parents=True, exist_ok=True)
    write_json(folder.keys, {f.target: f.key for f in files}, sync=True)


def _make_files(
    files: Sequence[OutputFile], folder: RawFolder, mode: str, num_processes: int, track: Track, done: Counter[str]
) -> None:
    """Link what needs no writing, which takes no time; write and copy the rest in as many processes as is worth it."""
    rest = {}
    for file in sorted(files, key=lambda f: -f.seconds):
        target = folder.new / file.target
        # a name that no other process uses, outside what resuming looks at by key
        temporary = target.with_name(f".{target.name}.{os.getpid()}{_TEMPORARY}")
        method = None if file.recipe else link(file.sources[0], temporary, mode, share=file.share)
        if method is None:
            rest[temporary] = file
        else:
            temporary.replace(target)
            done[method] += 1
    workers = min(num_processes, len(rest), int(sum(file.seconds for file in rest.values()) / _SECONDS_PER_WORKER))
    jobs = [(temporary, file.sources[0], file.recipe) for temporary, file in rest.items()]
    with closing(finished(_make, jobs, workers)) as made:
        for temporary in track(made, total=len(jobs), what="writing"):
            # only this process gives a file its name: a worker that outlives it cannot touch a later run's work
            file = rest[temporary]
            temporary.replace(folder.new / file.target)
            done["written" if file.recipe else "copy"] += 1


def _make(job: tuple[Path, Path, Callable[[Path], None] | None]) -> Path:
    temporary, source, recipe = job
    copy(source, temporary) if recipe is None else recipe(temporary)
    sync_file(temporary)
    return temporary


def _write_documents(layout: Layout, folder: RawFolder) -> None:
    """Write the record last, with every file's size, by which a later run sees whether all is still there."""
    sizes = {f.target: (folder.new / f.target).stat().st_size for f in layout.files}
    record = {RECORD: {**layout.documents.get(RECORD, {}), "files": sizes}}
    others = {name: content for name, content in layout.documents.items() if name != RECORD}
    for name, content in {**others, **record}.items():
        write_json(folder.new / name, content, sync=True)
    for path in folder.new.iterdir():
        if path.is_dir():
            sync_folder(path)
    sync_folder(folder.new)


def link(source: Path, target: Path, mode: str, *, share: bool = True) -> str | None:
    """Make `target` stand for `source` without copying bytes; return the method, or None where only a copy is left.

    `auto` tries, in this order, a reflink (independent of the source) and, where the two may `share` their bytes, a
    hard link (same device, link permitted) and a symbolic link. InputError when the one method asked for does not work
    here.
    """
    if mode == "copy":
        return None
    source = Path(os.path.realpath(source))  # a hard link to a link would be a link
    automatic = _LINKS if share else ("reflink",)
    for method in automatic if mode == "auto" else (mode,):
        try:
            _LINKS[method](source, target)
            return method
        except OSError as e:
            target.unlink(missing_ok=True)
            if mode != "auto":
                raise InputError(
                    f"{source}: no {mode} link to it can be made in {target.parent} ({e.strerror or e}).",
                    hint="Use --link auto, which takes what works, or --link copy.",
                ) from e
    return None


def copy(source: Path, target: Path) -> None:
    """Copy the bytes, in the kernel where the system can."""
    shutil.copyfile(os.path.realpath(source), target)


def _reflink(source: Path, target: Path) -> None:
    try:
        import fcntl
    except ImportError as e:  # Windows
        raise OSError("reflinks are not available on this system") from e
    with source.open("rb") as old, target.open("xb") as new:
        fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())


_LINKS: dict[str, Callable[[Path, Path], None]] = {"reflink": _reflink, "hard": os.link, "symlink": os.symlink}
