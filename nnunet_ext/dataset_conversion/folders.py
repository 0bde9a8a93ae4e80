"""Any dataset of images and masks in folders, with or without tables of them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import files_below
from nnunet_ext.dataset_conversion.folder_cases import COLUMNS, PICTURES, VOLUMES, ending_of, find_cases, read_tables
from nnunet_ext.dataset_conversion.types import Case, Checked, Found, ImageFormat, Problem, Reader, Settings

MATCH = r"(.+?)(?:_0000)?(?:[ _-](?:mask|seg|segmentation|label|gt)(?:[ _-]?\d+)?)?"
_KEPT_BYTES = 1 << 29  # of compressed images, between checking and writing


@dataclass(frozen=True, kw_only=True)
class FoldersReader(Reader):
    """Images and masks in folders: any 2D or 3D dataset, with tables of its cases or without.

    Images are paired with masks by their names, less _mask, _seg and the like; several masks of an image are united.
    Pictures (PNG, JPEG, BMP, TIFF; masks without losses) become one grey channel, volumes are NIfTI, MHA or NRRD.
    Tables say what names do not: masks, patients, classes and the official split. docs/folders.md has examples.
    """

    command, dataset_id, dataset_name = "folders", 50, "Folders"
    description, reference, licence = "Images and masks in folders", "not said", "not said"
    channel, planning = "image", ""
    source, tenths = Path(), (2, 1)

    images: Path | None = None
    masks: Path | None = None
    csv: Sequence[Path] = ()
    image_column: str | None = None
    mask_column: str | None = None
    group_column: str | None = None
    class_column: str | None = None
    split_column: str | None = None
    match: str = MATCH
    group_match: str | None = None
    structures: Sequence[str] = ("lesion",)
    target: str = "mask"
    empty: Sequence[str] = ()
    duplicates: str = ""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        def add(name: str, about: str, **settings: Any) -> None:
            parser.add_argument(name, help=about, **settings)

        folder = {"type": Path, "metavar": "DIR"}
        add("--images", "folder of the images (default: that of the first table)", **folder)
        add("--masks", "folder of the masks (default: that of the images)", **folder)
        about = "tables with a line per image, joined by its name"
        add("--csv", about, type=Path, nargs="+", default=cls.csv, metavar="FILE")
        for what, about in (
            ("image", "names of images, with ending and folders or without"),
            ("mask", "names of masks, with & between several"),
            ("group", "patients, or what else no split may part"),
            ("class", "classes, of which every side of a split holds its share"),
            ("split", "the official split: train, val, test, or a number for each fold"),
        ):
            names = ", ".join(COLUMNS[what])
            add(f"--{what}-column", f"{about} (default: one called {names}, if there is one)", metavar="NAME")
        about = "matches names without ending; its group is what an image, its masks and a table's line have in common"
        add("--match", about, default=cls.match, metavar="REGEX")
        add("--group-match", "its group is the patient in an image's name", metavar="REGEX")
        about = "what masks mark: one name (all that is not 0 in pictures, 1 in volumes), or several with their values"
        add("--labels", about, dest="structures", nargs="+", default=cls.structures, metavar="NAME[=VALUE]")
        about = "class: what masks mark has the class of its image for a label; --labels are the classes"
        add("--target", about, choices=("mask", "class"), default=cls.target)
        add("--empty", "classes in which nothing is to be marked", nargs="+", default=cls.empty, metavar="CLASS")
        about = "look for near-duplicates among pictures, and treat them so (docs/busi.md)"
        add("--near-duplicates", about, dest="duplicates", choices=("group", "drop", "ignore"), default=cls.duplicates)

    def options(self) -> dict[str, Any]:
        choices = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"converter": self.command, **json.loads(json.dumps(choices, default=str))}

    def folders(self, source: Path) -> list[Path]:
        if self.images is None and not self.csv:
            raise InputError(
                "Neither images nor a table are given.", hint="Use --images DIR --masks DIR or --csv FILE."
            )
        images = source / (self.images or self.csv[0].parent)
        return [images, source / self.masks] if self.masks not in (None, self.images) else [images]

    def format(self, settings: Settings) -> ImageFormat:
        endings = {ending_of(path) for path in files_below(self.folders(settings.source)[0], lambda error: None)}
        if endings.intersection(VOLUMES) and not endings.intersection(PICTURES):
            from nnunet_ext.dataset_conversion.itk_volumes import AnyVolumes

            return AnyVolumes(verify=settings.checksum)
        from nnunet_ext.dataset_conversion.picture_format import Pictures

        numbered = self.target == "mask" and list(self._stored().values()) != [1]
        return Pictures(room=0 if settings.dry_run else _KEPT_BYTES, numbered=numbered, strict=False)

    def _stored(self) -> dict[str, int]:
        """Return the value that stands for each structure in the masks: what the user says, or 1, 2, 3 and so on."""
        named = [structure.partition("=") for structure in self.structures]
        stored = {name: value or str(number) for number, (name, _, value) in enumerate(named, 1)}
        if (
            len(stored) < len(named)
            or len(set(stored.values())) < len(stored)
            or not all(map(_is_label, stored.values()))
        ):
            raise InputError(
                f"--labels {' '.join(self.structures)}: every name and every value is there once, and values are whole "
                "numbers above 0."
            )
        return {name: int(value) for name, value in stored.items()}

    def labels(self) -> dict[str, int]:
        return {"background": 0, **{name: number for number, name in enumerate(self._stored(), 1)}}

    def values(self, case: Case) -> Mapping[int, int]:
        labels = {name.casefold(): number for name, number in self.labels().items()}
        if self.target == "class":
            return {0: 0, 1: labels.get(case.category.casefold(), 0)}
        return {0: 0, **{value: labels[name.casefold()] for name, value in self._stored().items()}}

    def faults(self, checked: Checked) -> list[str]:
        case = checked.case
        if self.target == "class" and not case.empty and not self.values(case)[1]:
            return [f"{case.image}: is {case.category or 'of no class'}, but --labels are {', '.join(self._stored())}."]
        if case.empty and checked.marked:
            return [f"{case.masks[0]}: marks something, but nothing is to be marked in {case.category} images."]
        return []

    def find(self, source: Path, paths: Sequence[Path]) -> Found:
        tables = [source / table for table in self.csv]
        try:
            self._stored()
            table = read_tables(tables, {what: getattr(self, f"{what}_column") for what in COLUMNS})
            match, group_match = (re.compile(text, re.I) if text else None for text in (self.match, self.group_match))
        except InputError as e:
            return Found(problems=tuple(Problem(message=message) for message in e.problems))
        except re.error as e:
            return Found(problems=(Problem(message=f"{e.pattern!r}: is not a regular expression ({e})."),))
        assert match
        folders = self.folders(source)
        found = find_cases(paths, folders, table, match=match, group_match=group_match, empty=self.empty)
        problems = list(found.problems)
        if self.duplicates and any(ending_of(case.image) in VOLUMES for case in found.cases):
            problems.append(Problem(message="--near-duplicates: only pictures can be compared, not volumes."))
        return replace(found, files=(*found.files, *tables), problems=tuple(problems))


def _is_label(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65536
