"""BUSI, the Dataset of Breast Ultrasound Images, as people have it on disk.

As published: folders benign, malignant and normal with ``benign (1).png``, ``benign (1)_mask.png`` and, for further
lesions, ``benign (1)_mask_1.png`` and so on. Flattened: ``images/benign (1).png`` with ``masks/0/benign (1).png`` (or
``benign (1)_mask.png``), further lesions in ``masks/1`` and so on. Either in any parent folder.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.dataset_conversion.conversion import Found, Problem
from nnunet_ext.dataset_conversion.source_files import source_files

REFERENCE = "Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28 (2020) 104863"
PUBLISHED = {"benign": 437, "malignant": 210, "normal": 133}  # images
CLASSES = tuple(PUBLISHED)
LESION_CLASSES = CLASSES[:2]

_CLASS = re.compile(rf"({'|'.join(CLASSES)})(?![a-z])", re.I)
_MASK = re.compile(r"(.+?)_mask(?:_\d+)?", re.I)
_OTHER_FORMATS = (".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_FOLDERS = {*CLASSES, "images", "masks"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image; `name` is its file's in the download, without ending."""

    id: str
    name: str
    diagnosis: str
    image: Path
    masks: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Images and masks of one name."""

    diagnosis: str
    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)


def find(source: Path, classes: Sequence[str]) -> Found:
    """Pair the images of some classes with their masks by name. What does not pair up is a problem of that case."""
    if not source.is_dir():
        return Found(files=(), cases=(), problems=(Problem(message=f"--source {source}: is not a folder."),))
    problems, unreadable, ignored, strange = [], [], [], defaultdict(list)
    by_id: dict[str, dict[str, _Files]] = defaultdict(dict)
    for path in source_files(source, unreadable.append):
        if path.suffix.lower() != ".png":
            ignored += [path.name] if path.suffix.lower() in _OTHER_FORMATS else []
            continue
        folders = [folder.lower() for folder in path.parent.parts[-2:]]
        if _FOLDERS.isdisjoint(folders):
            strange[path.parent].append(path)
            continue
        is_mask, name = _role(path, folders)
        diagnosis, fault = _diagnosis(path, name, folders)
        if fault:
            problems.append(fault)
        elif diagnosis in classes:
            files = by_id[case_id(name, diagnosis)].setdefault(name, _Files(diagnosis=diagnosis))
            (files.masks if is_mask else files.images).append(path)
    problems += [Problem(message=f"{e.filename}: this folder cannot be read ({e.strerror}).") for e in unreadable]
    problems += [_strange_folder(folder, paths) for folder, paths in strange.items()]
    cases = []
    for id_, by_name in sorted(by_id.items()):
        faults = list(_faults(id_, by_name))
        problems += [Problem(message=fault, case=id_) for fault in faults]
        if not faults:
            ((name, files),) = by_name.items()
            cases.append(
                Case(id=id_, name=name, diagnosis=files.diagnosis, image=files.images[0], masks=tuple(files.masks))
            )
    if not any(case.diagnosis in LESION_CLASSES for case in cases):
        problems.append(
            Problem(
                message=f"{source}: no image of a lesion with its mask was found in it or below (benign/benign (1).png "
                f"with benign (1)_mask.png, or images/ with masks/0/; --classes {' '.join(classes)})."
            )
        )
    paths = (p for by_name in by_id.values() for files in by_name.values() for p in (*files.images, *files.masks))
    return Found(
        files=tuple(sorted(paths)),
        cases=tuple(cases),
        problems=tuple(problems),
        notes=(*_ignored_note(ignored), *_missing_note(cases, classes)),
    )


def case_id(name: str, diagnosis: str) -> str:
    """File-system safe and sorted by number: "benign (1)" is benign_0001."""
    words = [word.zfill(4) if word.isdigit() else word for word in re.findall(r"[a-z]+|[0-9]+", name.lower())]
    return "_".join(words if words[:1] == [diagnosis] else [diagnosis, *words])


def _role(path: Path, folders: Sequence[str]) -> tuple[bool, str]:
    """Whether it is a mask, and the name of the image."""
    match = _MASK.fullmatch(path.stem)
    return match is not None or "masks" in folders, match[1] if match else path.stem


def _diagnosis(path: Path, name: str, folders: Sequence[str]) -> tuple[str, Problem | None]:
    """By file name or else by folder; a problem where there is none or they differ."""
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
        message=f"{folder}: is no class folder of BUSI ({', '.join(CLASSES)}), nor images or masks, but holds "
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
                f"{files.images[0]}: its mask is missing; no {name}_mask.png beside it and no masks/0/{name}.png was "
                "found in the source or below."
            )
        elif not files.images:
            yield f"{', '.join(map(str, files.masks))}: the image is missing; no {name}.png was found."


def _ignored_note(ignored: Sequence[str]) -> list[str]:
    shown = ", ".join(sorted(ignored)[:3]) + (", ..." if len(ignored) > 3 else "")
    return [f"{len(ignored)} images are no PNG files and were left alone: {shown}"] if ignored else []


def _missing_note(cases: Sequence[Case], classes: Sequence[str]) -> Iterator[str]:
    counts = Counter(case.diagnosis for case in cases)
    differing = [f"{counts[c]} {c} ones here, {PUBLISHED[c]} published" for c in classes if counts[c] != PUBLISHED[c]]
    if differing:
        yield f"not all of BUSI's images: {'; '.join(differing)}."
