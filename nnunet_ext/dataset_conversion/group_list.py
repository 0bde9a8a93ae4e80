"""Lists of what belongs together, written by people: which image is of which patient, or shows what another one shows.

Two forms of CSV are read, with a comma, a semicolon or a tab between columns: a line per image, with a column for its
name and one for its group; or a line per group, with all its images in one column, "benign (1)&benign (318)".
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_text
from nnunet_ext.common.text import count, some
from nnunet_ext.dataset_conversion.types import Case

IMAGE_COLUMNS = ("image", "image_path", "image_filename", "filename", "file", "name", "id", "case")
GROUP_COLUMNS = ("group", "patient", "patient_id", "subject", "case")
_WHOLE_GROUPS, _BETWEEN = "images", "&"


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV file by column, whose names are in lower case; InputError where it is none."""
    text = read_text(path, hint="It should be CSV, saved as UTF-8.")
    header, *_ = text.splitlines() or [""]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval="")
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    try:
        lines = [dict(zip(columns, (str(v or "").strip() for v in line.values()), strict=False)) for line in reader]
    except csv.Error as e:
        raise InputError(f"{path}: is not a CSV file, line {reader.line_num} ({e}).") from e
    if len(set(columns)) < len(columns) or not lines:
        raise InputError(f"{path}: holds no lines below a header of different names; its header: {header[:80]!r}.")
    return lines


def read_groups(path: Path) -> list[list[str]]:
    """Return names of images, a list for each group; InputError where the file has neither of the two forms."""
    lines = read_table(path)
    if _WHOLE_GROUPS in lines[0]:
        return [[name.strip() for name in line[_WHOLE_GROUPS].split(_BETWEEN)] for line in lines]
    image = next((column for column in IMAGE_COLUMNS if column in lines[0]), None)
    group = next((column for column in GROUP_COLUMNS if column in lines[0] and column != image), None)
    if image is None or group is None:
        raise InputError(
            f"{path}: has the columns {', '.join(lines[0])}; needed are one of {', '.join(IMAGE_COLUMNS)} and one of "
            f"{', '.join(GROUP_COLUMNS)}, or {_WHOLE_GROUPS} with names between {_BETWEEN!r}."
        )
    groups = defaultdict(list)
    for line in lines:
        if line[group]:
            groups[line[group]].append(line[image])
    return list(groups.values())


def as_cases(groups: Iterable[Sequence[str]], cases: Sequence[Case], path: Path) -> tuple[list[list[str]], list[str]]:
    """Return groups of case ids, and notes on images that the list or the dataset has alone.

    An image is called by its case's id, by the dataset's name for it, or by its file, with folders or without.

    Raises:
        InputError: none of the names is known, or one is that of several images.
    """
    known = _names(cases)
    named = [[name for name in group if name] for group in groups]
    several = sorted({name for group in named for name in group if len(known.get(_key(name), ())) > 1})
    if several:
        raise InputError(f"{path}: more than one image is called {some(several)}; write their folders too.")
    found = [sorted({id_ for name in group for id_ in known.get(_key(name), ())}) for group in named]
    absent = [name for group in named for name in group if _key(name) not in known]
    here = {id_ for group in found for id_ in group}
    if not here:
        raise InputError(f"{path}: none of its images is in the dataset: {some(absent)}.")
    notes = [f"{path.name}: {count(len(absent), 'image')} of it not in the dataset: {some(absent)}"] if absent else []
    if alone := [case.id for case in cases if case.id not in here]:
        notes.append(f"{path.name}: {count(len(alone), 'case')} not in it, each for itself: {some(alone)}")
    return [group for group in found if len(group) > 1], notes


def _names(cases: Sequence[Case]) -> Mapping[str, set[str]]:
    """Return the cases that each name may stand for; a longer name, with folders, stands for fewer."""
    names = defaultdict(set)
    for case in cases:
        parts = case.image.parts
        files = ["/".join(parts[-depth:]) for depth in range(1, min(len(parts), 4) + 1)]
        stems = [file.removesuffix(case.image.suffix) for file in files]
        for name in {case.id, case.name, *files, *stems} - {""}:
            names[_key(name)].add(case.id)
    return names


def _key(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./").casefold()
