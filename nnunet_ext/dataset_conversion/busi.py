"""BUSI, the Dataset of Breast Ultrasound Images, as people have it on disk."""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.common.text import count, some
from nnunet_ext.dataset_conversion.types import Case, Checked, Found, Named, Problem, Reader, Settings, pair

if TYPE_CHECKING:
    from nnunet_ext.dataset_conversion.png import Pictures

PUBLISHED = {"benign": 437, "malignant": 210, "normal": 133}  # images
CLASSES = tuple(PUBLISHED)
LESION_CLASSES = CLASSES[:2]

_CLASS = re.compile(rf"({'|'.join(CLASSES)})(?![a-z])", re.I)
_MASK = re.compile(r"(.+?)_mask(?:_\d+)?", re.I)
_OTHER_FORMATS = (".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_FOLDERS = {*CLASSES, "images", "masks"}
_KEPT_BYTES = 1 << 29  # of decoded images, between checking and writing; all of BUSI takes half of that


@dataclass(frozen=True, kw_only=True)
class BusiReader(Reader):
    """BUSI lesions in breast ultrasound, as published or flattened.

    Reads benign/benign (1).png with benign (1)_mask.png, _mask_1.png and so on, or images/NAME.png with
    masks/0/NAME.png (or NAME_mask.png), masks/1/NAME.png and so on, in any sub-folders of DIR. Images become one 8-bit
    channel at their own size, the masks of an image one label map. BUSI holds images more than once, some under two
    classes: near-duplicates are found and each group of them is kept on one side of every split.
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
        }

    def format(self, settings: Settings) -> Pictures:
        from nnunet_ext.dataset_conversion.png import Pictures

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
        files: list[Named] = []
        problems: list[Problem] = []
        strange = defaultdict(list)
        for path in paths:
            folders = [folder.lower() for folder in path.parent.parts[-2:]]
            if path.suffix.lower() != ".png":
                continue
            if _FOLDERS.isdisjoint(folders):
                strange[path.parent].append(path)
                continue
            file = _named(path, folders)
            if isinstance(file, Problem):
                problems.append(file)
            elif file.category in self.classes:
                files.append(file)
        for folder, inside in strange.items():
            message = (
                f"{folder}: is not a class folder of BUSI ({', '.join(CLASSES)}), images or masks, but holds "
                f"{len(inside)} PNG files, {inside[0].name} for example; rename it, or move them out of the source."
            )
            problems.append(Problem(message=message))
        found = pair(files, _missing, one_mask=False)
        problems += found.problems
        counts, classes = Counter(case.category for case in found.cases), sorted(set(self.classes))
        if not any(counts[c] for c in LESION_CLASSES):
            message = (
                f"{source}: no image of a lesion with its mask was found in it or below (benign/benign (1).png with "
                f"benign (1)_mask.png, or images/ with masks/0/; --classes {' '.join(classes)})."
            )
            problems.append(Problem(message=message))
        notes = []
        if others := sorted(path.name for path in paths if path.suffix.lower() in _OTHER_FORMATS):
            notes.append(f"{count(len(others), 'image')} in another format than PNG, left alone: {some(others)}")
        if wrong := [f"{counts[c]} {c} (published: {PUBLISHED[c]})" for c in classes if counts[c] != PUBLISHED[c]]:
            notes.append(f"not as many images as BUSI has: {', '.join(wrong)}")
        return replace(found, problems=tuple(problems), notes=tuple(notes))


def case_id(name: str, category: str) -> str:
    """Return a name that is safe for file systems and sorted by number: "benign (1)" is benign_0001."""
    words = [word.zfill(4) if word.isdigit() else word for word in re.findall(r"[a-z]+|[0-9]+", name.lower())]
    return "_".join(words if words[:1] == [category] else [category, *words])


def _named(path: Path, folders: Sequence[str]) -> Named | Problem:
    """Return what a file is, its class by its name or else by folder; a problem where there is none or they differ."""
    mask = _MASK.fullmatch(path.stem)
    name = mask[1] if mask else path.stem
    match = _CLASS.match(name)
    named = match[1].lower() if match else ""
    folder = next((f for f in reversed(folders) if f in CLASSES), "")
    if named and folder not in ("", named):
        message = f"{path}: is {named} by its name but {folder} by its folder; rename or move it."
        return Problem(message=message, case=case_id(name, named))
    category = named or folder
    if not category:
        message = f"{path}: neither its name nor its folder says its class, {', '.join(CLASSES)}; rename it."
        return Problem(message=message)
    is_mask = mask is not None or "masks" in folders
    return Named(path=path, id=case_id(name, category), is_mask=is_mask, name=name, category=category)


def _missing(file: Named) -> str:
    if file.is_mask:
        return f"the image is missing; no {file.name}.png was found."
    return (
        f"its mask is missing; no {file.name}_mask.png next to it and no masks/0/{file.name}.png was found in the "
        "source or below."
    )
