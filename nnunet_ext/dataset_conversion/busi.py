"""BUSI, the Dataset of Breast Ultrasound Images, as people have it on disk."""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.common.text import count, some
from nnunet_ext.dataset_conversion.group_list import read_groups, read_table
from nnunet_ext.dataset_conversion.types import Case, Checked, Found, Named, Problem, Reader, Settings, pair

if TYPE_CHECKING:
    from nnunet_ext.dataset_conversion.picture_format import Pictures

PUBLISHED = {"benign": 437, "malignant": 210, "normal": 133}  # images
CLASSES = tuple(PUBLISHED)
LESION_CLASSES = CLASSES[:2]

COHORTS = ("all", "curated", "audited")
OBJECTIONS = ("axilla", "needle", "multiclass")

_LISTS = Path(__file__).with_name("curation")  # its README.md says whose they are
_CLASS = re.compile(rf"({'|'.join(CLASSES)})(?![a-z])", re.I)
_MASK = re.compile(r"(.+?)_mask(?:_\d+)?", re.I)
_MASK_LIKE = re.compile(r"(.+?)_mask", re.I)
_COPY = re.compile(r"( - copy| copy| - kopie)( ?\(?\d+\)?)?$", re.I)  # as file managers name one
_OTHER_FORMATS = (".gif", ".webp", ".jp2", ".dcm")
_FOLDERS = {*CLASSES, "images", "masks"}
_KEPT_BYTES = 1 << 29  # of compressed images, between checking and writing; all of BUSI takes a quarter of that


@dataclass(frozen=True, kw_only=True)
class BusiReader(Reader):
    """BUSI lesions in breast ultrasound, as published or flattened.

    Reads benign/benign (1).png with benign (1)_mask.png, _mask_1.png and so on, or images/NAME.png with
    masks/0/NAME.png (or NAME_mask.png), masks/1/NAME.png and so on, in any sub-folders of DIR; JPEG, BMP and TIFF as
    well, but no JPEG masks. Images become one 8-bit channel at their own size, the masks of an image one label map.
    BUSI holds images more than once, some under two classes: near-duplicates are found and each group of them is kept
    on one side of every split.
    """

    command, dataset_id, dataset_name = "busi", 30, "BUSI"
    description = "Lesions in breast ultrasound"
    reference = "Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28 (2020) 104863"
    licence = "see the reference"
    channel = "ultrasound"
    planning = "-c 2d -pl SAMUSPlanner"
    tenths = (2, 1)  # the paper's 7:1:2
    unit = "image group"

    classes: Sequence[str] = LESION_CLASSES
    target: str = "lesion"
    duplicates: str = "group"
    cohort: str = "all"
    drop: Sequence[str] = ()

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--classes",
            nargs="+",
            choices=CLASSES,
            default=cls.classes,
            metavar="CLASS",
            help=f"of {', '.join(CLASSES)}; default: {' '.join(cls.classes)}",
        )
        parser.add_argument(
            "--target",
            choices=("lesion", "class"),
            default=cls.target,
            help="lesion: lesion against all else (default); class: benign 1, malignant 2",
        )
        parser.add_argument(
            "--cohort",
            choices=COHORTS,
            default=cls.cohort,
            help="all (default); curated: the 450 images of Curated BUSI v1, none of which shows what another one "
            "shows; audited: all, and the groups that an outside audit found count as near-duplicates too",
        )
        parser.add_argument(
            "--drop",
            nargs="+",
            choices=OBJECTIONS,
            default=cls.drop,
            metavar="WHAT",
            help=f"leave out images to which the audit objects, of {', '.join(OBJECTIONS)} (of more than one class)",
        )
        parser.set_defaults(duplicates=cls.duplicates)
        duplicates = parser.add_mutually_exclusive_group()
        for policy, text in (
            ("drop", "keep one image of each group of near-duplicates: that of most pixels, of equal ones the first"),
            ("ignore", "split image by image, as published random splits do; near-duplicates are only reported"),
        ):
            name = f"--{policy}-duplicates"
            duplicates.add_argument(name, dest="duplicates", action="store_const", const=policy, help=text)

    def options(self) -> dict[str, Any]:
        return {
            "converter": "busi",
            "classes": sorted(set(self.classes)),
            "target": self.target,
            "drop_duplicates": self.duplicates == "drop",
            "ignore_duplicates": self.duplicates == "ignore",
            "cohort": self.cohort,
            "drop": sorted(set(self.drop)),
        }

    def format(self, settings: Settings) -> Pictures:
        from nnunet_ext.dataset_conversion.picture_format import Pictures

        return Pictures(room=0 if settings.dry_run else _KEPT_BYTES)

    def labels(self) -> dict[str, int]:
        # without gaps: a class that is not converted has none
        lesions = [c for c in LESION_CLASSES if c in self.classes] if self.target == "class" else ["lesion"]
        return {"background": 0, **{name: value for value, name in enumerate(lesions, 1)}}

    def values(self, case: Case) -> Mapping[int, int]:
        return {0: 0, 1: self.labels().get(case.category if self.target == "class" else "lesion", 0)}

    def faults(self, checked: Checked) -> list[str]:
        case, names = checked.case, ", ".join(map(str, checked.case.masks))
        if case.category in LESION_CLASSES and not checked.marked:
            return [f"{names}: marks no lesion, but the image is {case.category}; draw it, or call the image normal."]
        if case.category not in LESION_CLASSES and checked.marked:
            return [f"{names}: marks a lesion, but the image is {case.category}; correct one of the two."]
        return []

    def find(self, source: Path, paths: Sequence[Path]) -> Found:
        files, problems, notes = _sort(paths)
        found = pair([file for file in files if file.category in self.classes], _missing, one_mask=False)
        bad = {problem.case for problem in problems}
        sound = [case for case in found.cases if case.id not in bad]
        cases = tuple(replace(case, empty=case.category not in LESION_CLASSES) for case in sound)
        problems += found.problems
        counts, classes = Counter(case.category for case in cases), sorted(set(self.classes))
        if not any(counts[c] for c in LESION_CLASSES):
            message = (
                f"{source}: no image of a lesion with its mask was found in it or below (benign/benign (1).png with "
                f"benign (1)_mask.png, or images/ with masks/0/; --classes {' '.join(classes)})."
            )
            problems.append(Problem(message=message))
        if maskless := [case.image.name for case in cases if not case.masks]:
            notes.append(f"{count(len(maskless), 'normal image')} without a mask, marked nowhere: {some(maskless)}")
        if wrong := [f"{counts[c]} {c} (published: {PUBLISHED[c]})" for c in classes if counts[c] != PUBLISHED[c]]:
            notes.append(f"not as many images as BUSI has: {', '.join(wrong)}")
        out = self._left_out()
        notes += [
            f"{why}: {count(sum(case.id in ids for case in cases), 'image')} left out" for why, ids in out.items()
        ]
        gone = set().union(*out.values())
        return replace(
            found,
            cases=tuple(case for case in cases if case.id not in gone),
            problems=tuple(problem for problem in problems if problem.case not in gone),
            notes=tuple(notes),
            same=tuple(map(_ids, read_groups(_LISTS / "audit_groups.csv"))) if self.cohort == "audited" else (),
        )

    def _left_out(self) -> dict[str, set[str]]:
        """Return the cases that the cohort and what is to be dropped leave out, by the option that says so."""
        out = {}
        if self.cohort == "curated":
            curated = {f"{line['class']} ({line['id']})" for line in read_table(_LISTS / "curated_busi_v1.csv")}
            published = {f"{kind} ({n + 1})" for kind, images in PUBLISHED.items() for n in range(images)}
            out["--cohort curated"] = set(_ids(published - curated))
        for line in read_table(_LISTS / "audit_objections.csv"):
            if line["objection"] in self.drop:
                out[f"--drop {line['objection']}"] = set(_ids(line["images"].split("&")))
        return out


def _sort(paths: Sequence[Path]) -> tuple[list[Named], list[Problem], list[str]]:
    """Return the files that count, what is wrong with names and places of others, and notes on what is left alone."""
    from nnunet_ext.dataset_conversion.picture_file import ENDINGS  # here, because command lines import this file

    files: list[Named] = []
    problems: list[Problem] = []
    strange: dict[Path, list[Path]] = defaultdict(list)
    pictures = [path for path in paths if path.suffix.lower() in ENDINGS]
    copies = [path for path in pictures if _COPY.search(path.stem)]
    masked = {_name(path).casefold() for path in pictures if _is_mask(path)}
    strays = [path for path in pictures if path not in copies and not _is_of_busi(path, masked)]
    for path in pictures:
        if path in copies or path in strays:
            continue
        if _FOLDERS.isdisjoint(_folders(path)):
            strange[path.parent].append(path)
        elif isinstance(file := _named(path), Problem):
            problems.append(file)
        else:
            files.append(file)
    for folder, inside in strange.items():
        message = (
            f"{folder}: is not a class folder of BUSI ({', '.join(CLASSES)}), images or masks, but holds "
            f"{count(len(inside), 'picture')}, {inside[0].name} for example; rename it, or --exclude it."
        )
        problems.append(Problem(message=message))
    others = [path for path in paths if path.suffix.lower() in _OTHER_FORMATS]
    notes = [
        f"{count(len(left), 'picture')} left alone, {why}: {some(path.name for path in left)}"
        for why, left in (
            ("named as a copy", copies),
            ("without a mask and without a class in its name", strays),
            ("in a format that is not read", others),
        )
        if left
    ]
    return files, problems, notes


def _is_of_busi(path: Path, masked: set[str]) -> bool:
    """Tell whether a picture is a mask, has one, or has a class in its name, none of which is true of previews."""
    return _is_mask(path) or _CLASS.match(path.stem) is not None or path.stem.casefold() in masked


def _ids(names: Iterable[str]) -> list[str]:
    return [case_id(name, name.split()[0]) for name in names]


def case_id(name: str, category: str) -> str:
    """Return a name that is safe for file systems and sorted by number: "benign (1)" is benign_0001."""
    words = [word.zfill(4) if word.isdigit() else word for word in re.findall(r"[a-z]+|[0-9]+", name.lower())]
    return "_".join(words if words[:1] == [category] else [category, *words])


def _folders(path: Path) -> list[str]:
    return [folder.lower() for folder in path.parent.parts[-2:]]


def _is_mask(path: Path) -> bool:
    return "masks" in _folders(path) or _MASK_LIKE.match(path.stem) is not None


def _name(path: Path) -> str:
    """Return the name that an image and its masks have in common."""
    match = _MASK.fullmatch(path.stem)
    return match[1] if match else path.stem


def _named(path: Path) -> Named | Problem:
    """Return what a file is, its class by its name or else by folder; a problem where there is none or they differ."""
    name = _name(path)
    match = _CLASS.match(name)
    named = match[1].lower() if match else ""
    folder = next((f for f in reversed(_folders(path)) if f in CLASSES), "")
    if named and folder not in ("", named):
        message = f"{path}: is {named} by its name but {folder} by its folder; rename or move it."
        return Problem(message=message, case=case_id(name, named))
    category = named or folder
    if not category:
        message = f"{path}: neither its name nor its folder says its class, {', '.join(CLASSES)}; rename it."
        return Problem(message=message)
    if mask := _MASK_LIKE.match(name):
        message = f"{path}: is not called as masks are, NAME_mask.png, NAME_mask_1.png; rename it, or --exclude it."
        return Problem(message=message, case=case_id(mask[1], category))
    return Named(path=path, id=case_id(name, category), is_mask=_is_mask(path), name=name, category=category)


def _missing(file: Named) -> str:
    if file.is_mask:
        return f"the image is missing; no {file.name}.png was found."
    if file.category not in LESION_CLASSES:
        return ""
    return (
        f"its mask is missing; no {file.name}_mask.png next to it and no masks/0/{file.name}.png was found in the "
        "source or below."
    )
