"""BUSI images to an nnU-Net dataset: check all, find near-duplicates, decide what is linked and what is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import busi, duplicate_groups, png
from nnunet_ext.dataset_conversion.busi import Case
from nnunet_ext.dataset_conversion.conversion import Found, Plan, Problem, Settings
from nnunet_ext.dataset_conversion.duplicate_groups import DuplicateGroup
from nnunet_ext.dataset_conversion.near_duplicates import thumbnail
from nnunet_ext.dataset_conversion.plan_parts import check_all, files_summary, linked, split_record, split_summary
from nnunet_ext.dataset_conversion.png import PngFile
from nnunet_ext.dataset_conversion.png_recipes import WriteGrey, WriteLesion
from nnunet_ext.dataset_conversion.raw_folder import RECORD
from nnunet_ext.dataset_conversion.splits import Split, make_split
from nnunet_ext.dataset_conversion.writer import OutputFile, RawDataset, Track

_TENTHS = (2, 1)  # held out and validated on: the paper's 7:1:2
_BYTES_PER_PIXEL = {WriteGrey: 1.0, WriteLesion: 0.05}  # of what is written, on the safe side
_PIXELS_PER_SECOND = 4e7  # written on one core, for sharing out work
_KEPT_BYTES = 1 << 29  # of decoded images, between checking and writing; all of BUSI takes half of that


@dataclass(frozen=True, kw_only=True)
class CheckedCase:
    """A case that can be converted; `plain` when the image's own bytes are right for nnU-Net.

    `pixels` is the grey image where it has to be written and there was room to keep it, `thumbnail` what
    `near_duplicates.thumbnail` makes of it.
    """

    case: Case
    image: PngFile
    masks: tuple[PngFile, ...]
    plain: bool
    pixels: np.ndarray | None
    coloured: bool
    lesion_pixels: int
    thumbnail: np.ndarray

    @property
    def id(self) -> str:
        return self.case.id

    @property
    def diagnosis(self) -> str:
        return self.case.diagnosis

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size


@dataclass(frozen=True, kw_only=True)
class BusiReader:
    """BUSI for `conversion.run`.

    Args:
        classes: which of `busi.CLASSES` to convert.
        target: "lesion", or "class" for a label of its own for each class of lesions.
        duplicates: a key of `duplicate_groups.POLICIES`.
    """

    planner: ClassVar[str] = "SAMUSPlanner"
    packages: ClassVar[tuple[str, ...]] = ("nnunetv2", "numpy", "pillow", "opencv-python-headless")

    classes: tuple[str, ...] = busi.LESION_CLASSES
    target: str = "lesion"
    duplicates: str = "group"

    def options(self) -> dict[str, Any]:
        return {
            "converter": "busi",
            "classes": self._classes(),
            "target": self.target,
            "drop_duplicates": self.duplicates == "drop",
            "ignore_duplicates": self.duplicates == "ignore",
        }

    def find(self, source: Path) -> Found:
        return busi.find(source, self._classes())

    def plan(self, found: Found, settings: Settings, prints: Mapping[str, Any], track: Track) -> Plan:
        """Decode all images and masks, then lay out what is good."""
        room = _Room(bytes_left=0 if settings.dry_run else _KEPT_BYTES)
        good, problems = check_all(partial(_check, room=room), found.cases, settings, track)
        if not any(case.lesion_pixels for case in good):
            problems += [Problem(message=f"{settings.source}: no usable image is left.")] if found.cases else []
            return Plan(dataset=RawDataset(files=(), documents={RECORD: {}}), problems=tuple(problems))
        groups = duplicate_groups.duplicate_groups(good)
        dropped = duplicate_groups.dropped(groups, self.duplicates)
        kept = {case.id: case for case in good if case.id not in dropped}
        units = duplicate_groups.split_units(kept, groups, self.duplicates)
        split = make_split(
            units,
            kind=settings.split,
            seed=settings.seed,
            strata={unit: kept[unit].diagnosis for unit in units},
            tenths=_TENTHS,
            unit="group of image",
        )
        layout = _Layout(reader=self, groups=groups, split=split, prints=prints, settings=settings)
        return layout.plan(list(kept.values()), problems)

    def labels(self) -> dict[str, int]:
        """nnU-Net's, without gaps: a class that is not converted has none."""
        lesions = [c for c in busi.LESION_CLASSES if c in self.classes] if self.target == "class" else ["lesion"]
        return {"background": 0, **{name: value for value, name in enumerate(lesions, 1)}}

    def label_of(self, diagnosis: str) -> int:
        """The value of a lesion in images of one class; 0 where there is none."""
        return self.labels().get(diagnosis if self.target == "class" else "lesion", 0)

    def _classes(self) -> list[str]:
        return sorted(set(self.classes))


@dataclass
class _Room:
    """Memory for decoded images, so that few are decoded twice. Threads may miscount it by an image or two."""

    bytes_left: int

    def takes(self, size: int) -> bool:
        self.bytes_left -= size
        return self.bytes_left >= 0


def _check(case: Case, room: _Room) -> tuple[CheckedCase | None, list[str]]:
    """All that is wrong with an image and its masks."""
    faults: list[str] = []
    image, picture = None, None
    try:
        image = png.read(case.image)
        picture = image.decode()
    except InputError as e:
        faults += e.problems
    masks, areas = [], []
    for path in case.masks:
        try:
            mask = png.read(path)
            areas.append(png.lesion(mask.decode()))
            masks.append(mask)
            faults += _size_fault(image, mask)
        except InputError as e:
            faults += e.problems
    if faults or image is None or picture is None:
        return None, faults
    lesion_pixels = int(np.count_nonzero(np.logical_or.reduce(areas)))
    faults += _lesion_fault(case, lesion_pixels)
    plain, grey = png.is_grey(picture), png.grey(picture)
    checked = CheckedCase(
        case=case,
        image=image,
        masks=tuple(masks),
        plain=plain,
        pixels=np.asarray(grey) if not plain and room.takes(image.pixels) else None,
        coloured=png.has_colour(picture),
        lesion_pixels=lesion_pixels,
        thumbnail=thumbnail(grey),
    )
    return checked, faults


def _size_fault(image: PngFile | None, mask: PngFile) -> list[str]:
    if image is None or image.size == mask.size:
        return []
    sizes = [f"{file.size[0]} x {file.size[1]}" for file in (image, mask)]
    return [f"{image.path} is {sizes[0]} pixels, but {mask.path} is {sizes[1]}; they must agree."]


def _lesion_fault(case: Case, lesion_pixels: int) -> list[str]:
    names = ", ".join(map(str, case.masks))
    if case.diagnosis in busi.LESION_CLASSES and not lesion_pixels:
        return [f"{names}: marks no lesion, but the image is {case.diagnosis}; draw it, or call the image normal."]
    if case.diagnosis not in busi.LESION_CLASSES and lesion_pixels:
        return [f"{names}: marks a lesion, but the image is {case.diagnosis}; correct one of the two."]
    return []


@dataclass(frozen=True, kw_only=True)
class _Layout:
    reader: BusiReader
    groups: Sequence[DuplicateGroup]
    split: Split
    prints: Mapping[str, Any]
    settings: Settings

    def plan(self, cases: Sequence[CheckedCase], problems: Sequence[Problem]) -> Plan:
        subsets = {case.id: "test" if case.id in self.split.test else "train" for case in cases}
        outputs = {case.id: self._outputs(case, subsets[case.id]) for case in cases}
        files = tuple(file for pair in outputs.values() for file in pair)
        record = {
            "split": split_record(self.split, self.settings),
            "near_duplicates": duplicate_groups.record(self.groups, self.reader.duplicates),
            "cases": {case.id: self._case_record(case, subsets[case.id], *outputs[case.id]) for case in cases},
        }
        documents = {
            "dataset.json": self._dataset_json(Counter(subsets.values())["train"]),
            "splits_final.json": self.split.splits_final(),
            RECORD: record,
        }
        return Plan(
            dataset=RawDataset(files=files, documents=documents),
            problems=tuple(problems),
            summary=tuple(self._summary(cases, subsets, files)),
            repairs=tuple(f"{case.image.path}: coloured pixels became grey" for case in cases if case.coloured),
            notes=(*self.split.notes, *duplicate_groups.notes(self.groups, self.split, self.reader.duplicates)),
        )

    def _outputs(self, case: CheckedCase, subset: str) -> tuple[OutputFile, OutputFile]:
        side = {"train": "Tr", "test": "Ts"}[subset]
        target = f"images{side}/{case.id}_0000.png"
        if case.plain:
            print_ = self.prints[str(case.image.path)]
            image = linked(case.image.path, target, print_, self.settings, share=True)
        else:
            image = self._written(WriteGrey(source=case.image, pixels=case.pixels), (case.image,), target)
        recipe = WriteLesion(sources=case.masks, label=self.reader.label_of(case.diagnosis))
        return image, self._written(recipe, case.masks, f"labels{side}/{case.id}.png")

    def _written(self, recipe: WriteGrey | WriteLesion, sources: Sequence[PngFile], target: str) -> OutputFile:
        prints = [self.prints[str(source.path)] for source in sources]
        return OutputFile(
            target=target,
            source=sources[0].path,
            recipe=recipe,
            key=f"{recipe} {prints}",
            seconds=sum(source.pixels for source in sources) / _PIXELS_PER_SECOND,
            estimate=int(sources[0].pixels * _BYTES_PER_PIXEL[type(recipe)]),
        )

    def _dataset_json(self, training_cases: int) -> dict[str, Any]:
        return {
            "name": self.settings.name,
            "description": "Lesions in breast ultrasound",
            "reference": busi.REFERENCE,
            "licence": "see the reference",
            "channel_names": {"0": "ultrasound"},
            "labels": self.reader.labels(),
            "numTraining": training_cases,
            "file_ending": ".png",
            "overwrite_image_reader_writer": "NaturalImage2DIO",
        }

    def _case_record(self, case: CheckedCase, subset: str, image: OutputFile, label: OutputFile) -> dict[str, Any]:
        return {
            "subset": subset,
            "name": case.case.name,
            "class": case.diagnosis,
            "image": {**self._source(case.image), "target": image.target, "rewritten": image.recipe is not None},
            "label": {
                "sources": [self._source(mask) for mask in case.masks],
                "target": label.target,
                "lesion_pixels": case.lesion_pixels,
            },
        }

    def _source(self, file: PngFile) -> dict[str, Any]:
        return {"source": str(file.path), **self.prints[str(file.path)]}

    def _summary(
        self, cases: Sequence[CheckedCase], subsets: Mapping[str, str], files: Sequence[OutputFile]
    ) -> Iterator[str]:
        for subset, title in (("train", "training images"), ("test", "held-out test images")):
            counts = Counter(case.diagnosis for case in cases if subsets[case.id] == subset)
            listed = ", ".join(f"{n} {diagnosis}" for diagnosis, n in sorted(counts.items()))
            yield f"{counts.total()} {title}" + (f" ({listed})" if listed else "")
        yield split_summary(self.split, self.settings)
        yield duplicate_groups.summary(self.groups, self.reader.duplicates)
        yield files_summary(files, self.settings)
