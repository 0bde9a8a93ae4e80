"""One conversion from start to end, for any dataset: find, compare with what is there, check, write."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import files_below, is_special, sha256
from nnunet_ext.common.processes import Track, in_threads, untracked
from nnunet_ext.common.provenance import versions
from nnunet_ext.common.text import count, some
from nnunet_ext.dataset_conversion import raw_folder, stale
from nnunet_ext.dataset_conversion.group_list import as_cases, read_groups
from nnunet_ext.dataset_conversion.layout import check_all, lay_out
from nnunet_ext.dataset_conversion.raw_folder import RECORD, RawFolder, size_of
from nnunet_ext.dataset_conversion.types import Case, Found, Layout, Outcome, Problem, Reader, Settings, SourceError
from nnunet_ext.dataset_conversion.writer import space_problem, write

REVISION = 3  # raise it when the same request would be converted differently
_HEAD_BYTES = 4096
_LEAVE_DATA = ("source", "link", "checksum", "skip_bad")  # options that, on the same sources, give the same voxels


def run(reader: Reader, settings: Settings, *, track: Track = untracked) -> Outcome:
    """Convert a dataset, or with `dry_run` only check it and lay it out.

    InputError before anything is written: first for what blocks any conversion, before the voxels are read (which takes
    minutes; a dry run reads them all the same), then with all problems of the cases together.
    """
    name = raw_folder.dataset_name(settings.dataset_id, settings.name)
    blocking = raw_folder.environment_problems(name)
    folder = RawFolder(final=(raw_folder.nnunet_root("nnUNet_raw") or Path("nnUNet_raw")) / name)
    found = find(reader, settings)
    if not blocking:
        blocking += [o for place in reader.folders(settings.source) for o in folder.overlaps(place, found.files)]
    if not blocking and not settings.dry_run:
        stale.recover(folder)
    fingerprints = _fingerprints(found.files, settings)
    sources = {Path(os.path.relpath(path, settings.source)).as_posix(): found for path, found in fingerprints.items()}
    request = {"format": REVISION, "options": {**settings.options(), **reader.options()}, "sources": sources}
    request = json.loads(json.dumps(request))  # as it will be read back
    former = folder.record()
    same_data = _same_data(former.get("request", {}), request)
    unchanged = same_data and former["request"]["options"] == request["options"]
    if unchanged and not settings.overwrite and not blocking:
        return _finished(folder, former, settings)
    outdated = [] if same_data else stale.stale_entries(name)
    blocking += _in_the_way(folder, former, request, outdated, settings)
    if blocking and not settings.dry_run:
        _raise(blocking, found.problems, found, settings)
    checks, made = check_all(reader, found.cases, settings, track), None
    while made is None:
        layout = lay_out(reader, found, checks, settings, fingerprints, track)
        problems = [*found.problems, *layout.problems]
        if layout.files and not blocking and (space := space_problem(layout, folder, settings.link)):
            blocking.append(space)
        _raise(blocking, problems, found, settings)
        layout = _recorded(layout, problems, found, request, reader, settings, same_data=same_data)
        try:
            made = (
                Counter()
                if settings.dry_run
                else write(
                    layout,
                    folder,
                    mode=settings.link,
                    overwrite=settings.overwrite,
                    num_processes=settings.num_processes,
                    track=track,
                    around_swap=stale.replaced(outdated, folder),
                )
            )
        except SourceError as e:  # damage that shows only when all of a file is read
            rest = checks.without(e)
            if rest is None or not settings.skip_bad:
                folder.clear()
            if rest is None:
                raise
            checks = rest
    return Outcome(
        folder=folder.final,
        layout=layout,
        made=made,
        skipped=tuple(layout.documents[RECORD]["skipped"]),
        stale=tuple(outdated),
        dry_run=settings.dry_run,
    )


def _fingerprints(files: Sequence[Path], settings: Settings) -> dict[str, Any]:
    """Return `fingerprint` by path, in the order of the files: so they stand in the record, too."""

    def read(file: Path) -> tuple[str, dict[str, Any]]:
        return str(file), fingerprint(file, checksum=settings.checksum)

    found = dict(in_threads(read, files, settings.num_processes))  # hashing and reading let go of the GIL
    return {str(file): found[str(file)] for file in files}


def _in_the_way(
    folder: RawFolder,
    former: Mapping[str, Any],
    request: Mapping[str, Any],
    outdated: Sequence[Path],
    settings: Settings,
) -> Iterator[str]:
    """Yield what is there already and may not be replaced."""
    if folder.final.exists() and not settings.overwrite:
        yield f"{folder.final} exists {_difference(former, request)}; use --overwrite to replace it."
    if outdated and not settings.overwrite_preprocessed:
        yield (
            f"{outdated[0].parent} holds {', '.join(path.name for path in outdated)} of an earlier conversion, which "
            "nnU-Net would silently keep using; --overwrite-preprocessed removes them."
        )


def _recorded(
    layout: Layout,
    problems: Sequence[Problem],
    found: Found,
    request: Mapping[str, Any],
    reader: Reader,
    settings: Settings,
    *,
    same_data: bool,
) -> Layout:
    """Return a layout with everything that its record says."""
    notes = [*found.notes, *layout.notes]
    if not same_data and raw_folder.nnunet_root("nnUNet_preprocessed") is None:
        notes.append(
            "nnUNet_preprocessed is not set: what it may hold of an earlier conversion, which nnU-Net would silently "
            "keep using, could not be looked for."
        )
    record = {
        "request": request,
        "versions": versions(*reader.format(settings).packages),
        **layout.documents[RECORD],
        "skipped": [p.message for p in problems if p.case is not None],
        "notes": notes,
    }
    return replace(layout, documents={**layout.documents, RECORD: record}, notes=tuple(notes))


def find(reader: Reader, settings: Settings) -> Found:
    """Return the cases in a reader's folders, by names of files alone; a folder that cannot be read is a problem."""
    source, unreadable = settings.source, list[OSError]()
    folders = reader.folders(source)
    if missing := [folder for folder in folders if not folder.is_dir()]:
        return Found(problems=tuple(Problem(message=f"{folder}: is not a directory.") for folder in missing))
    below = {path: path.relative_to(folder) for folder in folders for path in files_below(folder, unreadable.append)}
    special = [path for path in below if is_special(path)]
    paths = {path: place for path, place in below.items() if path not in special}
    problems = [f"{e.filename}: this folder cannot be read ({e.strerror})." for e in unreadable]
    notes = [f"{some(special)}: neither a file nor a folder (a pipe or a device), left alone"] if special else []
    for pattern in settings.exclude or ():
        excluded = [path for path, place in paths.items() if _matches(place, pattern)]
        paths = {path: place for path, place in paths.items() if not _matches(place, pattern)}
        if excluded:
            notes.append(f"{count(len(excluded), 'file')} left out by --exclude {pattern}: {some(excluded)}")
        else:
            problems.append(f"--exclude {pattern}: no file in {', '.join(map(str, folders))} is called so.")
    found = reader.find(source, list(paths))
    cases = found.cases
    if settings.limit is not None:
        cases = _few(cases, settings.limit)
        notes.append(f"--limit {settings.limit}: {len(cases)} of {count(len(found.cases), 'case')} taken")
        problems += [] if settings.limit > 0 else [f"--limit {settings.limit}: is at least 1."]
    together = found.together
    if settings.groups is not None:
        try:
            groups, remarks = as_cases(read_groups(settings.groups), cases, settings.groups)
            together, notes = (*together, *groups), [*notes, *remarks]
        except InputError as e:
            problems += [f"--groups {problem}" for problem in e.problems]
    return replace(
        found,
        files=(*found.files, *([settings.groups] if settings.groups else [])),
        cases=cases,
        problems=(*(Problem(message=problem) for problem in problems), *found.problems),
        notes=(*notes, *found.notes),
        together=together,
    )


def _matches(path: Path, pattern: str) -> bool:
    """Tell whether a path or one of the folders that it is in has a name like *.jpg, or a path like extra/*.jpg."""
    return any(part.match(pattern) for part in (path, *path.parents[:-1]))


def _few(cases: Sequence[Case], limit: int) -> tuple[Case, ...]:
    """Return so many cases at most, the first of each category in turn."""
    seen: Counter[str] = Counter()
    order = {}
    for case in cases:
        order[case.id] = seen[case.category]
        seen[case.category] += 1
    taken = {case.id for case in sorted(cases, key=lambda case: order[case.id])[:limit]}
    return tuple(case for case in cases if case.id in taken)


def fingerprint(path: Path, *, checksum: bool) -> dict[str, Any]:
    """Return size, modification time and SHA-256 of the first 4 KiB; with `checksum`, of the whole content too.

    A file that cannot be read gets ``{"error": ...}``, so that finding out why is left to the check that names it.
    """
    if is_special(path):
        return {"error": "not a file"}
    try:
        status = path.stat()
        with path.open("rb") as stream:
            head = hashlib.sha256(stream.read(_HEAD_BYTES)).hexdigest()
        cheap = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "head_sha256": head}
        return {**cheap, "sha256": sha256(path)} if checksum else cheap
    except OSError as e:
        return {"error": e.strerror or type(e).__name__}


def _same_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether nnU-Net would see the same dataset.

    Bad cases need no look: `old` and its sources had their outcome.
    """
    kept = [{k: v for k, v in r.get("options", {}).items() if k not in _LEAVE_DATA} for r in (old, new)]
    return old.get("format") == new["format"] and kept[0] == kept[1] and _same_sources(old, new)


def _same_sources(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether two requests are for the same bytes, whatever the times of files where both know the checksums."""
    before, now = old.get("sources", {}), new["sources"]
    cheap = ("error", "bytes", "mtime_ns", "head_sha256")
    return before.keys() == now.keys() and all(
        one["sha256"] == other["sha256"]
        if "sha256" in one and "sha256" in other
        else all(one.get(name) == other.get(name) for name in cheap)
        for one, other in ((before[path], now[path]) for path in now)
    )


def _finished(folder: RawFolder, record: Mapping[str, Any], settings: Settings) -> Outcome:
    sizes = record["files"]
    if damage := [name for name, size in sizes.items() if size_of(folder.final / name) != size]:
        raise InputError(
            f"{folder.final} was finished, but {some(damage, 5)} is gone or has changed since.",
            hint="Use --overwrite to convert again.",
        )
    if folder.work.is_dir() and not settings.dry_run:
        with folder.locked():
            folder.clear()
    return Outcome(folder=folder.final, dry_run=settings.dry_run)


def _difference(record: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """Return half a sentence on how the dataset that is there differs from the one asked for."""
    if "request" not in record:
        return "and was not made by this command"
    old = record["request"].get("options", {})
    options = [
        f"--{key.replace('_', '-')} ({old[key]} then, {value} now)"
        for key, value in request["options"].items()
        if key in old and old[key] != value  # what the former version did not know cannot be compared
    ]
    if not _same_sources(record["request"], request):
        options.append("source files")
    return f"with other {', '.join(options)}" if options else "from another version of this command"


def _raise(blocking: Sequence[str], problems: Sequence[Problem], found: Found, settings: Settings) -> None:
    fatal = [*blocking, *(p.message for p in problems if p.case is None or not settings.skip_bad)]
    if not fatal:
        return
    bad = {p.case for p in problems if p.case is not None}
    skipping_helps = (
        bad and not settings.skip_bad and all(p.case for p in problems) and {c.id for c in found.cases} - bad
    )
    hints = [f"--skip-bad converts the rest without {', '.join(sorted(bad))}."] if skipping_helps else []
    if problems:  # what was left alone may be what is missing
        hints += [f"note: {note}" for note in found.notes]
    raise InputError(*fatal, hint="\n".join(hints))
