"""One conversion from start to end, for any dataset: find, compare with what is there, check, write."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import stale
from nnunet_ext.dataset_conversion.fingerprint import fingerprint, same_content
from nnunet_ext.dataset_conversion.raw_folder import RECORD, RawFolder, dataset_name, environment_problems, nnunet_root
from nnunet_ext.dataset_conversion.writer import RawDataset, Track, space_problem, untracked, write
from nnunet_ext.version import __version__

FORMAT = 2  # raise it when the same request would be converted differently
_LEAVE_DATA = ("source", "link", "checksum", "skip_bad")  # options that, on the same sources, give the same voxels


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user can choose for every dataset; the fields under "how" leave the result as it is."""

    source: Path
    dataset_id: int
    name: str
    link: str = "auto"
    split: str = "paper"
    seed: int = 12345
    file_ending: str | None = None
    checksum: bool = False
    skip_bad: bool = False
    # how
    overwrite: bool = False
    overwrite_preprocessed: bool = False
    dry_run: bool = False
    num_processes: int = 1

    def options(self) -> dict[str, Any]:
        """The choices that make a conversion another one."""
        names = ("link", "split", "seed", "file_ending", "checksum", "skip_bad")
        return {"source": str(self.source.absolute()), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One sentence on what is wrong and how to right it; `case` can be left out by --skip-bad (None: nothing can)."""

    message: str
    case: str | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a source folder holds: every file that counts, the reader's own cases, and what is wrong at first sight."""

    files: tuple[Path, ...]
    cases: tuple[Any, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be written, why some cases cannot be, and lines for the user (`summary`, `repairs`, `notes`)."""

    dataset: RawDataset
    problems: tuple[Problem, ...] = ()
    summary: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """One dataset's own part of a conversion.

    `planner` is the nnU-Net planner that the paper's trainers go with, `packages` those whose versions may change what
    is written.
    """

    planner: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]

    def options(self) -> dict[str, Any]:
        """Choices beyond `Settings` that change what is written."""

    def find(self, source: Path) -> Found:
        """The cases in a folder, by names alone."""

    def plan(self, found: Found, settings: Settings, prints: Mapping[str, Any], track: Track) -> Plan:
        """Check every case and lay out the dataset from the good ones; `prints` are fingerprints by path."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a conversion did. `made` counts files by how they came about; `plan` is None when nothing was to be done."""

    folder: Path
    plan: Plan | None = None
    made: Counter[str] = field(default_factory=Counter)
    skipped: tuple[str, ...] = ()
    stale: tuple[Path, ...] = ()
    dry_run: bool = False


def run(reader: Reader, settings: Settings, *, track: Track = untracked) -> Outcome:
    """Convert, or with `dry_run` only plan.

    InputError before anything is written: first for what blocks any conversion, before the voxels are read (which takes
    minutes), then with all problems of the cases together.
    """
    name = dataset_name(settings.dataset_id, settings.name)
    blocking = environment_problems(name)
    folder = RawFolder(final=(nnunet_root("nnUNet_raw") or Path("nnUNet_raw")) / name)
    found = reader.find(settings.source)
    if not blocking:
        folder.check_apart(settings.source, found.files)
        if not settings.dry_run:
            folder.recover()
    prints = _fingerprints(found.files, settings)
    request = _request(reader, settings, prints)
    record = folder.record()
    same_data = record is not None and _same_data(record.get("request", {}), request)
    unchanged = same_data and record["request"]["options"] == request["options"]
    if unchanged and not settings.overwrite and not blocking:
        return _finished(folder, record, settings)
    if folder.final.exists() and not settings.overwrite:
        blocking.append(f"{folder.final} exists {_difference(record, request)}; use --overwrite to replace it.")
    outdated = [] if same_data else stale.stale_entries(name)
    if outdated and not settings.overwrite_preprocessed:
        blocking.append(_stale_message(outdated))
    if blocking:
        _raise(blocking, found.problems, settings)
    unseen = None if same_data else stale.unseen_note()
    plan = reader.plan(found, settings, prints, track)
    problems = [*found.problems, *plan.problems]
    skipped = [p.message for p in problems if settings.skip_bad and p.case is not None]
    space = space_problem(plan.dataset, folder, settings.link)
    _raise([space] if space else [], problems, settings)
    notes = [*found.notes, *plan.notes, *([unseen] if unseen else [])]
    made: Counter[str] = Counter()
    if not settings.dry_run:
        documents = {
            **plan.dataset.documents,
            RECORD: {
                "request": request,
                "versions": _versions(reader.packages),
                **plan.dataset.documents[RECORD],
                "skipped": skipped,
                "notes": notes,
            },
        }
        made = write(
            RawDataset(files=plan.dataset.files, documents=documents),
            folder,
            mode=settings.link,
            overwrite=settings.overwrite,
            num_processes=settings.num_processes,
            track=track,
            around_swap=stale.replaced(outdated),
        )
    return Outcome(
        folder=folder.final,
        plan=replace(plan, notes=tuple(notes)),
        made=made,
        skipped=tuple(skipped),
        stale=tuple(outdated),
        dry_run=settings.dry_run,
    )


def _fingerprints(files: Sequence[Path], settings: Settings) -> dict[str, Any]:
    with ThreadPoolExecutor(max(1, settings.num_processes)) as pool:  # hashing and reading let go of the GIL
        return dict(
            zip(map(str, files), pool.map(lambda f: fingerprint(f, checksum=settings.checksum), files), strict=True)
        )


def _request(reader: Reader, settings: Settings, prints: Mapping[str, Any]) -> dict[str, Any]:
    sources = {Path(os.path.relpath(path, settings.source)).as_posix(): print_ for path, print_ in prints.items()}
    request = {"format": FORMAT, "options": {**settings.options(), **reader.options()}, "sources": sources}
    return json.loads(json.dumps(request))  # as it will be read back


def _same_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether nnU-Net would see the same dataset. Bad cases need no look: `old` and its sources had their outcome."""
    kept = [{k: v for k, v in r.get("options", {}).items() if k not in _LEAVE_DATA} for r in (old, new)]
    return old.get("format") == new["format"] and kept[0] == kept[1] and _same_sources(old, new)


def _same_sources(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    before, now = old.get("sources", {}), new["sources"]
    return before.keys() == now.keys() and all(same_content(before[path], now[path]) for path in now)


def _finished(folder: RawFolder, record: Mapping[str, Any], settings: Settings) -> Outcome:
    damage = folder.damage(record.get("files", {}))
    if damage:
        shown = ", ".join(damage[:5]) + (f" and {len(damage) - 5} more" if len(damage) > 5 else "")
        raise InputError(
            f"{folder.final} was finished, but {shown} is gone or has changed since.",
            hint="Use --overwrite to convert again.",
        )
    if folder.work.is_dir() and not settings.dry_run:
        with folder.locked():
            folder.clear()
    return Outcome(folder=folder.final, dry_run=settings.dry_run)


def _difference(record: Mapping[str, Any] | None, request: Mapping[str, Any]) -> str:
    """Half a sentence on what tells the dataset that is there from the one asked for."""
    if record is None or "request" not in record:
        return "and was not made by this command"
    old = record["request"]
    options = [
        f"--{key.replace('_', '-')} ({old.get('options', {}).get(key)} then, {value} now)"
        for key, value in request["options"].items()
        if old.get("options", {}).get(key) != value
    ]
    if not _same_sources(old, request):
        options.append("source files")
    return f"with other {', '.join(options)}" if options else "from another version of this command"


def _stale_message(outdated: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in outdated)
    return (
        f"{outdated[0].parent} holds {names} of an earlier conversion, which nnU-Net would silently keep using; "
        "--overwrite-preprocessed removes them."
    )


def _raise(blocking: Sequence[str], problems: Sequence[Problem], settings: Settings) -> None:
    fatal = [*blocking, *(p.message for p in problems if p.case is None or not settings.skip_bad)]
    if not fatal:
        return
    bad_cases = {p.case for p in problems if p.case is not None}
    skipping_helps = bad_cases and not settings.skip_bad and all(p.case for p in problems)
    hint = f"--skip-bad converts the rest without {', '.join(sorted(bad_cases))}." if skipping_helps else ""
    raise InputError(*fatal, hint=hint)


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {"nnunet_ext": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
