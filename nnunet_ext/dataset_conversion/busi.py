"""BUSI, the Dataset of Breast Ultrasound Images, as people have it on disk.

As published: folders benign, malignant and normal with ``benign (1).png``, ``benign (1)_mask.png`` and, for further
lesions, ``benign (1)_mask_1.png`` and so on. Flattened: ``images/benign (1).png`` with ``masks/0/benign (1).png`` (or
``benign (1)_mask.png``), further lesions in ``masks/1`` and so on. Either in any parent folder.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nnunet_ext.common.files import files_below
from nnunet_ext.common.text import some
from nnunet_ext.dataset_conversion.png import Pictures
from nnunet_ext.dataset_conversion.types import Case, Checked, Found, Problem, Reader, Settings

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
    """BUSI.

    Args:
        classes: which of `CLASSES` to convert.
        target: "lesion", or "class" for a label of its own for each class of lesions.
        duplicates: a key of `duplicates.POLICIES`.
    """

    description: ClassVar[str] = "Lesions in breast ultrasound"
    reference: ClassVar[str] = "Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28 (2020) 104863"
    licence: ClassVar[str] = "see the reference"
    channel: ClassVar[str] = "ultrasound"
    planner: ClassVar[str] = "SAMUSPlanner"
    tenths: ClassVar[tuple[int, int]] = (2, 1)  # the paper's 7:1:2
    unit: ClassVar[str] = "group of image"

    classes: tuple[str, ...] = LESION_CLASSES
    target: str = "lesion"
    duplicates: str = "group"

    def options(self) -> dict[str, Any]:
        """Return the converter, its classes and target, and what becomes of near-duplicates."""
        return {
            "converter": "busi",
            "classes": sorted(set(self.classes)),
            "target": self.target,
            "drop_duplicates": self.duplicates == "drop",
            "ignore_duplicates": self.duplicates == "ignore",
        }

    def format(self, settings: Settings) -> Pictures:
        """Return PNG, with room for all images that are to be written."""
        return Pictures(room=0 if settings.dry_run else _KEPT_BYTES)

    def labels(self) -> dict[str, int]:
        """Return the labels without gaps: a class that is not converted has none."""
        lesions = [c for c in LESION_CLASSES if c in self.classes] if self.target == "class" else ["lesion"]
        return {"background": 0, **{name: value for value, name in enumerate(lesions, 1)}}

    def values(self, case: Case) -> Mapping[int, int]:
        """Return the value of a lesion in images of the case's class; 0 where there is none."""
        return {0: 0, 1: self.labels().get(case.category if self.target == "class" else "lesion", 0)}

    def faults(self, checked: Checked) -> list[str]:
        """Compare what the masks mark with the class."""
        case, names = checked.case, ", ".join(map(str, checked.case.masks))
        if case.category in LESION_CLASSES and not checked.marked:
            return [f"{names}: marks no lesion, but the image is {case.category}; draw it, or call the image normal."]
        if case.category not in LESION_CLASSES and checked.marked:
            return [f"{names}: marks a lesion, but the image is {case.category}; correct one of the two."]
        return []

    def find(self, source: Path) -> Found:
        """Pair the images of the classes asked for with their masks by name."""
        problems: list[Problem] = []
        unreadable: list[OSError] = []
        ignored, strange = [], defaultdict(list)
        by_id: dict[str, dict[str, _Files]] = defaultdict(dict)
        for path in files_below(source, unreadable.append):
            if path.suffix.lower() != ".png":
                ignored += [path.name] if path.suffix.lower() in _OTHER_FORMATS else []
                continue
            folders = [folder.lower() for folder in path.parent.parts[-2:]]
            if _FOLDERS.isdisjoint(folders):
                strange[path.parent].append(path)
                continue
            is_mask, name = _role(path, folders)
            category, fault = _category(path, name, folders)
            if fault:
                problems.append(fault)
            elif category in self.classes:
                files = by_id[case_id(name, category)].setdefault(name, _Files(category=category))
                (files.masks if is_mask else files.images).append(path)
        problems += [Problem(message=f"{e.filename}: this folder cannot be read ({e.strerror}).") for e in unreadable]
        problems += [_strange_folder(folder, paths) for folder, paths in strange.items()]
        cases = []
        for id_, by_name in sorted(by_id.items()):
            faults = list(_faults(id_, by_name))
            problems += [Problem(message=fault, case=id_) for fault in faults]
            if not faults:
                ((name, files),) = by_name.items()
                masks = tuple(files.masks)
                cases.append(Case(id=id_, image=files.images[0], masks=masks, name=name, category=files.category))
        if not any(case.category in LESION_CLASSES for case in cases):
            message = (
                f"{source}: no image of a lesion with its mask was found in it or below (benign/benign (1).png with "
                f"benign (1)_mask.png, or images/ with masks/0/; --classes {' '.join(sorted(set(self.classes)))})."
            )
            problems.append(Problem(message=message))
        paths = (p for by_name in by_id.values() for files in by_name.values() for p in (*files.images, *files.masks))
        notes = [f"{len(ignored)} images are no PNG files and were left alone: {some(sorted(ignored))}"]
        return Found(
            files=tuple(sorted(paths)),
            cases=tuple(cases),
            problems=tuple(problems),
            notes=(*(notes if ignored else []), *self._number_note(cases)),
        )

    def _number_note(self, cases: Sequence[Case]) -> Iterator[str]:
        counts = Counter(case.category for case in cases)
        wrong = [c for c in sorted(set(self.classes)) if counts[c] != PUBLISHED[c]]
        if wrong:
            listed = ", ".join(f"{counts[c]} {c} (published: {PUBLISHED[c]})" for c in wrong)
            yield f"not as many images as BUSI has: {listed}"


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Images and masks of one name."""

    category: str
    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)


def case_id(name: str, category: str) -> str:
    """Return a name that is safe for file systems and sorted by number: "benign (1)" is benign_0001."""
    words = [word.zfill(4) if word.isdigit() else word for word in re.findall(r"[a-z]+|[0-9]+", name.lower())]
    return "_".join(words if words[:1] == [category] else [category, *words])


def _role(path: Path, folders: Sequence[str]) -> tuple[bool, str]:
    """Tell whether it is a mask, and the name of the image."""
    match = _MASK.fullmatch(path.stem)
    return match is not None or "masks" in folders, match[1] if match else path.stem


def _category(path: Path, name: str, folders: Sequence[str]) -> tuple[str, Problem | None]:
    """Return the class by file name or else by folder; a problem where there is none or they differ."""
    match = _CLASS.match(name)
    named = match[1].lower() if match else ""
    folder = next((f for f in reversed(folders) if f in CLASSES), "")
    if named and folder not in ("", named):
        message = f"{path}: is {named} by its name but {folder} by its folder; rename or move it."
        return "", Problem(message=message, case=case_id(name, named))
    if not named and not folder:
        message = f"{path}: neither its name nor its folder says its class, {', '.join(CLASSES)}; rename it."
        return "", Problem(message=message)
    return named or folder, None


def _strange_folder(folder: Path, paths: Sequence[Path]) -> Problem:
    return Problem(
        message=f"{folder}: is not a class folder of BUSI ({', '.join(CLASSES)}), images or masks, but holds "
        f"{len(paths)} PNG files, {paths[0].name} for example; rename it, or move them out of the source."
    )


def _faults(id_: str, by_name: dict[str, _Files]) -> Iterator[str]:
    named = [files.images[0] for files in by_name.values() if files.images]
    if len(named) > 1:
        yield f"{' and '.join(map(str, named))} would both be case {id_}; rename or remove one."
        return
    for name, files in by_name.items():
        if len(files.images) > 1:
            yield f"case {id_} is there more than once: {', '.join(map(str, files.images))}; keep one."
        elif not files.masks:
            yield (
                f"{files.images[0]}: its mask is missing; no {name}_mask.png next to it and no masks/0/{name}.png was "
                "found in the source or below."
            )
        elif not files.images:
            yield f"{', '.join(map(str, files.masks))}: the image is missing; no {name}.png was found."
