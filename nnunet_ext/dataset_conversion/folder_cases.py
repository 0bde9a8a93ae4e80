"""Which files of folders make a case: by their names, and by tables of them where there are any."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.text import count, some
from nnunet_ext.dataset_conversion.group_list import read_table
from nnunet_ext.dataset_conversion.types import Case, Found, Problem

COLUMNS = {  # as they are called where the user does not say
    "image": ("image", "image_path", "image_filename", "filename", "file", "id"),
    "mask": ("mask", "mask_path", "mask_filename", "masks"),
    "group": ("patient", "patient_id", "group", "subject", "case"),
    "class": ("class", "label", "diagnosis", "pathology", "classification"),
    "split": ("split", "fold", "kfold", "set"),
}
VOLUMES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_BETWEEN_MASKS = re.compile(r"\s*[&;|]\s*")
_NOTHING = {"", "nan", "none", "null", "na", "n/a"}


def ending_of(path: Path) -> str:
    """Return the ending of a picture or a volume; empty for any other file."""
    return next((ending for ending in (*VOLUMES, *PICTURES) if path.name.lower().endswith(ending)), "")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Lines of values by column, each of an image; `columns` are those that hold what `COLUMNS` lists."""

    lines: Sequence[Mapping[str, str]] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    def said(self, what: str, line: Mapping[str, str]) -> str:
        """Return what a line says; empty where it says nothing."""
        value = line.get(self.columns.get(what, ""), "")
        return "" if value.casefold() in _NOTHING else value


def read_tables(paths: Sequence[Path], named: Mapping[str, str | None]) -> Table:
    """Return the lines of all tables, joined by the image; `named` are the columns that the user names.

    Raises:
        InputError: a table has no column of images, none has a column that the user names, or two say different things.
    """
    tables = {path: read_table(path) for path in paths}
    columns = _columns({column for lines in tables.values() for column in lines[0]}, named) if tables else {}
    image, problems = columns.get("image", ""), []
    joined: dict[str, dict[str, str]] = {}
    for path, lines in tables.items():
        if image not in lines[0]:
            problems.append(
                f"{path}: no column of {', '.join(lines[0])} is called {image or 'image'}; use --image-column."
            )
            continue
        for line in lines:
            whole = joined.setdefault(line[image].casefold(), {})
            for column, value in line.items():
                before = whole.setdefault(column, value)
                if before != value and column == columns.get("mask"):
                    whole[column] = f"{before}&{value}"  # a line for each mask
                elif before != value and column in columns.values():
                    problems.append(
                        f"{path}: the {column} of {line[image]} is {value!r}, but {before!r} in another line."
                    )
    if problems:
        raise InputError(*problems)
    return Table(lines=tuple(joined.values()), columns=columns)


def _columns(known: set[str], named: Mapping[str, str | None]) -> dict[str, str]:
    """Return which column holds what: the user's choice, else one that is called as usual and holds nothing else."""
    missing = [f"--{what}-column {name}" for what, name in named.items() if name and name.lower() not in known]
    if missing:
        raise InputError(f"{', '.join(missing)}: no table has it; there are {', '.join(sorted(known))}.")
    columns = {what: name.lower() for what, name in named.items() if name}
    for what, usual in COLUMNS.items():
        name = next((name for name in usual if name in known and name not in columns.values()), None)
        if what not in columns and name:
            columns[what] = name
    return columns


@dataclass(frozen=True, kw_only=True)
class _File:
    """An image or a mask: its path in its folder without the ending, and what its name has in common with others."""

    path: Path
    place: str
    common: str

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]

    @property
    def key(self) -> tuple[str, str]:
        """Its folder and what its name has in common."""
        return self.place.rpartition("/")[0].casefold(), self.common.casefold()

    def names(self) -> set[str]:
        """Return what a table may call it, in lower case."""
        ending = ending_of(self.path)
        return {n.casefold() for n in (self.place, self.place + ending, self.name, self.name + ending, self.common)}


def find_cases(
    paths: Sequence[Path],
    folders: Sequence[Path],
    table: Table,
    *,
    match: re.Pattern[str],
    group_match: re.Pattern[str] | None,
    empty: Sequence[str],
) -> Found:
    """Pair images and masks, by the table where it names masks and else by their names; what is left is a problem.

    Args:
        paths: all files below the folders.
        folders: that of the images, and that of the masks where it is another one.
        table: what is known of images; without lines, every image is taken.
        match: its group is what an image and its masks have in common.
        group_match: its group is the patient, in the name of an image.
        empty: classes whose images need no mask.
    """
    images, masks = _sort(paths, folders, match)
    taken, problems = _taken(images, table, folders[0])
    pairing = _Pairing(images, masks, taken, table)
    ids = _ids([image for image, _ in taken])
    nothing = {name.casefold() for name in empty}
    cases, groups, used = [], defaultdict(list), set[Path]()
    for image, line in taken:
        id_, category = ids[image.path], table.said("class", line)
        own, faults = pairing.masks_of(image, line)
        used.update(own)
        is_empty = category.casefold() in nothing
        if not (own or is_empty or faults):
            faults.append(f"{image.path}: its mask is missing; where nothing is to be marked, use --empty CLASS.")
        group = table.said("group", line) or (_group(image.name, group_match) if group_match else id_)
        if not group:
            faults.append(f"{image.path}: --group-match finds no patient in its name.")
        problems += [Problem(message=fault, case=id_) for fault in faults]
        if not faults:
            side = table.said("split", line)
            name = "" if image.place == id_ else image.place
            case = Case(
                id=id_, image=image.path, masks=tuple(own), name=name, category=category, empty=is_empty, side=side
            )
            cases.append(case)
            groups[group].append(id_)
    if "mask" not in table.columns:
        known = {image.common.casefold() for image in images}
        alone = [mask for mask in masks if mask.path not in used and mask.common.casefold() not in known]
        problems += [Problem(message=f"{mask.path}: its image is missing.", case=_safe(mask.common)) for mask in alone]
    named = {image.path for image, _ in taken} | used
    left_alone = {
        "that no line of the table names": [path for path in paths if ending_of(path) and path not in named],
        "in a format that is not read": [
            path for path in paths if not ending_of(path) and path.suffix.lower() != ".csv"
        ],
    }
    notes = [f"{count(len(left), 'file')} {why}, left alone: {some(left)}" for why, left in left_alone.items() if left]
    if table.columns:
        taken_from = ", ".join(f"{what} from {column}" for what, column in table.columns.items())
        notes.append(f"columns of the tables: {taken_from}")
    if not any(len(members) > 1 for members in groups.values()):
        notes.append("no patients are known, and each image is taken for one (--group-column, --group-match)")
    return Found(
        files=tuple(sorted({path for case in cases for path in (case.image, *case.masks)})),
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        problems=tuple(problems),
        notes=tuple(notes),
        together=tuple(members for members in groups.values() if len(members) > 1),
    )


def _taken(
    images: Sequence[_File], table: Table, folder: Path
) -> tuple[list[tuple[_File, Mapping[str, str]]], list[Problem]]:
    """Return the images that the table names, each with its line, or all; a name of none or of several is a problem."""
    if not table.lines:
        return [(image, {}) for image in images], []
    by_name, problems, taken = _by_name(images), [], []
    for line in table.lines:
        name = line[table.columns["image"]]
        found = _look_up(name, by_name)
        if len(found) == 1:
            taken.append((found[0], line))
        else:
            fault = (
                f"is the name of {some(file.path for file in found)}" if found else f"no image in {folder} is called so"
            )
            problems.append(Problem(message=f"{name}: {fault}.", case=_safe(name)))
    return taken, problems


class _Pairing:
    """Finds the masks of an image: by the table, else in the same place of their folder, else by a unique name."""

    def __init__(
        self,
        images: Sequence[_File],
        masks: Sequence[_File],
        taken: Sequence[tuple[_File, Mapping[str, str]]],
        table: Table,
    ) -> None:
        self._table = table
        self._named = _by_name([*masks, *images])
        self._images = Counter(image.common.casefold() for image, _ in taken)
        self._by_key: dict[tuple[str, str], list[Path]] = defaultdict(list)
        self._by_common: dict[str, list[Path]] = defaultdict(list)
        for mask in masks:
            self._by_key[mask.key].append(mask.path)
            self._by_common[mask.common.casefold()].append(mask.path)

    def masks_of(self, image: _File, line: Mapping[str, str]) -> tuple[list[Path], list[str]]:
        """Return the masks, and a sentence on each that the table names and that is not there once."""
        if "mask" not in self._table.columns:
            common = image.common.casefold()
            alone = self._by_common[common] if self._images[common] == 1 else []
            return self._by_key[image.key] or alone, []
        masks, faults = [], []
        for name in filter(None, _BETWEEN_MASKS.split(self._table.said("mask", line))):
            found = [file.path for file in _look_up(name, self._named) if file.path != image.path]
            masks += found[:1]
            if len(found) != 1:
                faults.append(f"{image.path}: its mask {name} was found {count(len(found), 'time')}.")
        return masks, faults


def _group(name: str, match: re.Pattern[str]) -> str:
    """Return what a pattern finds in a name: its first group, or all of it where it has none."""
    found = match.search(name)
    return next((part for part in found.groups() if part), found[0]) if found else ""


def _sort(paths: Sequence[Path], folders: Sequence[Path], match: re.Pattern[str]) -> tuple[list[_File], list[_File]]:
    """Return images and masks; in one folder, masks are those whose names have more than what they have in common."""
    images: list[_File] = []
    masks: list[_File] = []
    for path in paths:
        if not (ending := ending_of(path)):
            continue
        root = next(folder for folder in reversed(folders) if path.is_relative_to(folder))
        place = path.relative_to(root).as_posix()[: -len(ending)]
        name = place.rpartition("/")[2]
        found = match.fullmatch(name)
        common = next((group for group in found.groups() if group), name) if found else name
        plain = name.casefold() in (common.casefold(), f"{common}_0000".casefold())
        is_mask = root == folders[1] if len(folders) > 1 else not plain
        (masks if is_mask else images).append(_File(path=path, place=place, common=common))
    return images, masks


def _by_name(files: Sequence[_File]) -> dict[str, list[_File]]:
    names: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        for name in file.names():
            names[name].append(file)
    return names


def _look_up(name: str, by_name: Mapping[str, list[_File]]) -> list[_File]:
    """Return the files that a table means: by all of the path that it writes, else by as much of its end as is here."""
    parts = name.replace("\\", "/").casefold().split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((by_name[end] for end in ends if end in by_name), [])


def _ids(images: Sequence[_File]) -> dict[Path, str]:
    """Return a name for each case that is safe for file systems, with folders where names alone are not unique."""
    names = Counter(_safe(image.common).casefold() for image in images)
    return {
        image.path: _safe(image.common if names[_safe(image.common).casefold()] == 1 else image.place)
        for image in images
    }


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.") or "case"
