"""LiTS cases to an nnU-Net dataset: check all, decide what is linked and what is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import lits, nifti
from nnunet_ext.dataset_conversion.checks import CheckedImage, CheckedLabel, check_image, check_label
from nnunet_ext.dataset_conversion.conversion import Found, Plan, Problem, Settings
from nnunet_ext.dataset_conversion.lits import Case, Target
from nnunet_ext.dataset_conversion.nifti import NII, NII_GZ, NiftiFile, header_bytes, label_header
from nnunet_ext.dataset_conversion.plan_parts import check_all, files_summary, linked, split_record, split_summary
from nnunet_ext.dataset_conversion.raw_folder import RECORD
from nnunet_ext.dataset_conversion.recipes import RewriteImage, WriteLabel
from nnunet_ext.dataset_conversion.splits import Split, make_split
from nnunet_ext.dataset_conversion.writer import OutputFile, RawDataset, Track

# what gzip level 1 leaves of an uncompressed file, on the safe side
_GZIPPED_IMAGE, _GZIPPED_LABEL = 0.6, 0.05
# voxel bytes per second on one core, for sharing out work: a plain file, decompression, compression
_PLAIN, _GUNZIP, _GZIP = 1e9, 3e8, 1e8


@dataclass(frozen=True, kw_only=True)
class CheckedCase:
    """A case that can be converted."""

    id: str
    image: CheckedImage
    label: CheckedLabel | None


@dataclass(frozen=True, kw_only=True)
class LitsReader:
    """LiTS for `conversion.run`; `target` is a key of `lits.TARGETS`."""

    planner: ClassVar[str] = "RAUNetPlanner"
    packages: ClassVar[tuple[str, ...]] = ("nnunetv2", "numpy", "nibabel", "SimpleITK")

    target: str = "tumour"

    def options(self) -> dict[str, Any]:
        return {"converter": "lits", "target": self.target}

    def find(self, source: Path) -> Found:
        return lits.find(source)

    def plan(self, found: Found, settings: Settings, prints: Mapping[str, Any], track: Track) -> Plan:
        """Read all labels and headers (in threads: numpy and zlib let go of the GIL), then lay out what is good."""
        good, problems = check_all(_check, found.cases, settings, track)
        if not any(case.label for case in good):
            problems += [Problem(message=f"{settings.source}: no usable case is left.")] if found.cases else []
            return Plan(dataset=RawDataset(files=(), documents={RECORD: {}}), problems=tuple(problems))
        layout = _Layout(
            target=lits.TARGETS[self.target],
            ending=settings.file_ending or _ending_of_most(good),
            split=make_split({c.id: [c.id] for c in good if c.label}, kind=settings.split, seed=settings.seed),
            prints=prints,
            settings=settings,
        )
        return layout.plan(good, problems)


def _check(case: Case) -> tuple[CheckedCase | None, list[str]]:
    """All that is wrong with a case, volume and segmentation alike."""
    faults: list[str] = []
    image, label = None, None
    try:
        image = check_image(nifti.read(case.image))
    except InputError as e:
        faults += e.problems
    try:
        label = check_label(nifti.read(case.label), image, lits.LABELS) if case.label else None
    except InputError as e:
        faults += e.problems
    return (CheckedCase(id=case.id, image=image, label=label) if image else None), faults


def _ending_of_most(cases: Sequence[CheckedCase]) -> str:
    """nnU-Net allows one ending per dataset: the one that leaves most image bytes untouched."""
    sizes: Counter[str] = Counter({NII: 0, NII_GZ: 0})
    for case in cases:
        sizes[case.image.file.ending] += case.image.file.path.stat().st_size
    return sizes.most_common(1)[0][0]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    target: Target
    ending: str
    split: Split
    prints: Mapping[str, Any]
    settings: Settings

    def plan(self, cases: Sequence[CheckedCase], problems: Sequence[Problem]) -> Plan:
        subsets = {case.id: self._subset(case) for case in cases}
        files = tuple(file for case in cases for file in self._outputs(case, subsets[case.id]))
        outputs = {file.source: file for file in files}
        record = {
            "split": split_record(self.split, self.settings),
            "cases": {case.id: self._case_record(case, subsets[case.id], outputs) for case in cases},
        }
        documents = {
            "dataset.json": self._dataset_json(Counter(subsets.values())["train"]),
            "splits_final.json": self.split.splits_final(),
            RECORD: record,
        }
        repairs = [
            f"{part.file.path}: {repair}"
            for case in cases
            for part in (case.image, case.label)
            if part
            for repair in part.repairs
        ]
        return Plan(
            dataset=RawDataset(files=files, documents=documents),
            problems=tuple(problems),
            summary=tuple(self._summary(subsets, files)),
            repairs=tuple(repairs),
            notes=self.split.notes,
        )

    def _subset(self, case: CheckedCase) -> str:
        if case.label is None:
            return "unlabelled"
        return "test" if case.id in self.split.test else "train"

    def _outputs(self, case: CheckedCase, subset: str) -> Iterator[OutputFile]:
        images = {"train": "imagesTr", "test": "imagesTs", "unlabelled": "imagesTs_unlabelled"}[subset]
        yield self._image(case.image, f"{images}/{case.id}_0000{self.ending}")
        if case.label:
            labels = {"train": "labelsTr", "test": "labelsTs"}[subset]
            yield self._label(case.label, case.image, f"{labels}/{case.id}{self.ending}")

    def _image(self, image: CheckedImage, target: str) -> OutputFile:
        if not image.repairs and image.file.ending == self.ending:
            return self._linked(image.file, target, share=True)
        header = header_bytes(image.header)
        recipe = RewriteImage(source=image.file.voxels, header=header, compress=self.ending == NII_GZ)
        return self._written(recipe, target, image.file.voxels.size, _GZIPPED_IMAGE)

    def _label(self, label: CheckedLabel, image: CheckedImage, target: str) -> OutputFile:
        same_values = all(old == new or not label.counts[old] for old, new in self.target.mapping)
        if same_values and not label.repairs and not label.file.voxels.scaled and label.file.ending == self.ending:
            return self._linked(label.file, target, share=False)
        header = header_bytes(label_header(image.header, label.file.shape))
        recipe = WriteLabel(
            source=label.file.voxels, header=header, compress=self.ending == NII_GZ, mapping=self.target.mapping
        )
        return self._written(recipe, target, label.file.voxels.count, _GZIPPED_LABEL)

    def _linked(self, file: NiftiFile, target: str, *, share: bool) -> OutputFile:
        return linked(file.path, target, self.prints[str(file.path)], self.settings, share=share)

    def _written(self, recipe: RewriteImage | WriteLabel, target: str, voxel_bytes: int, gzipped: float) -> OutputFile:
        source = recipe.source.path
        size = len(recipe.header) + voxel_bytes
        seconds = voxel_bytes * (1 / _PLAIN + recipe.source.compressed / _GUNZIP + recipe.compress / _GZIP)
        return OutputFile(
            target=target,
            source=source,
            recipe=recipe,
            seconds=seconds,
            key=f"{recipe.key} {source} {self.prints[str(source)]}",
            size=None if recipe.compress else size,
            estimate=int(size * gzipped) if recipe.compress else size,
        )

    def _dataset_json(self, training_cases: int) -> dict[str, Any]:
        content = {
            "name": self.settings.name,
            "description": "Liver tumours in contrast-enhanced abdominal CT",
            "reference": lits.REFERENCE,
            "licence": "CC BY-NC-ND 4.0 (LiTS), CC BY-SA 4.0 (Decathlon)",
            "channel_names": {"0": "CT"},
            "labels": self.target.labels,
            "numTraining": training_cases,
            "file_ending": self.ending,
            # nnU-Net reads .nii with nibabel and .nii.gz with SimpleITK unless told; one reader, one notion of space
            "overwrite_image_reader_writer": "SimpleITKIO",
        }
        if self.target.regions_class_order:
            content["regions_class_order"] = list(self.target.regions_class_order)
        return content

    def _case_record(self, case: CheckedCase, subset: str, outputs: Mapping[Path, OutputFile]) -> dict[str, Any]:
        parts = {"image": case.image, "label": case.label}
        record: dict[str, Any] = {"subset": subset}
        for part, checked in parts.items():
            if checked:
                file = outputs[checked.file.path]
                record[part] = {
                    "source": str(checked.file.path),
                    **self.prints[str(checked.file.path)],
                    "target": file.target,
                    "rewritten": file.recipe is not None,
                    "repairs": list(checked.repairs),
                }
        if case.label:
            record["label"]["source_voxels"] = {str(value): count for value, count in case.label.counts.items()}
        return record

    def _summary(self, subsets: Mapping[str, str], files: Sequence[OutputFile]) -> Iterator[str]:
        counts = Counter(subsets.values())
        yield (
            f"{counts['train']} training cases, {counts['test']} held-out test cases, "
            f"{counts['unlabelled']} unlabelled; file ending {self.ending}"
        )
        yield split_summary(self.split, self.settings)
        yield files_summary(files, self.settings)
