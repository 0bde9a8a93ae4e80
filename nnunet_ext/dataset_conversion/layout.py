"""From the cases of any dataset to the folder that nnU-Net is to see: check, find near-duplicates, split, lay out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.processes import Track, in_threads
from nnunet_ext.common.text import size
from nnunet_ext.dataset_conversion.duplicates import Duplicates, find_duplicates
from nnunet_ext.dataset_conversion.raw_folder import RECORD
from nnunet_ext.dataset_conversion.splits import OFFICIAL, Split, joined, make_split, official_split
from nnunet_ext.dataset_conversion.types import (
    Case,
    Checked,
    Found,
    ImageFormat,
    Layout,
    OutputFile,
    Problem,
    Reader,
    Settings,
    SourceError,
)

_FOLDERS = {
    "train": ("imagesTr", "labelsTr"),
    "test": ("imagesTs", "labelsTs"),
    "unlabelled": ("imagesTs_unlabelled", ""),
}
_TITLES = {"train": "training", "test": "held-out test", "unlabelled": "unlabelled"}


@dataclass(frozen=True, kw_only=True)
class Checks:
    """The cases without a fault, and the faults of the others; both in the order of ids."""

    good: tuple[Checked, ...]
    problems: tuple[Problem, ...]

    def without(self, error: SourceError) -> Checks | None:
        """Return the same less the case of a file that turned out damaged; None where it is no case's."""
        for checked in self.good:
            if error.path in (checked.case.image, *checked.case.masks):
                problems = [Problem(message=problem, case=checked.case.id) for problem in error.problems]
                good = tuple(other for other in self.good if other is not checked)
                return Checks(good=good, problems=(*self.problems, *problems))
        return None


def check_all(reader: Reader, cases: Sequence[Case], settings: Settings, track: Track) -> Checks:
    """Read every case."""
    good: list[Checked] = []
    problems: list[Problem] = []
    format_ = reader.format(settings)

    def check(case: Case) -> tuple[Case, Checked | None, list[str]]:
        return case, *format_.check(case, reader.values(case))

    results = in_threads(check, cases, settings.num_processes)
    for case, checked, faults in track(results, total=len(cases), what="checking"):
        if checked and not faults:
            faults = reader.faults(checked)
        problems += [Problem(message=fault, case=case.id) for fault in faults]
        good += [checked] if checked and not faults else []
    return Checks(
        good=tuple(sorted(good, key=lambda checked: checked.case.id)),
        problems=tuple(sorted(problems, key=lambda problem: problem.case or "")),
    )


def lay_out(
    reader: Reader, found: Found, checks: Checks, settings: Settings, fingerprints: Mapping[str, Any], track: Track
) -> Layout:
    """Lay out a dataset of the cases that were found good.

    `fingerprints` are those of the source files, by path. The layout has no file where no usable case is left.
    """
    format_ = reader.format(settings)
    good, problems = checks.good, list(checks.problems)
    if not any(checked.marked for checked in good):
        fault = "no usable case is left whose masks mark anything."
        if not found.cases and not found.problems:
            fault = f"no image of {settings.name} was found in it or below."
        if found.cases or all(p.case for p in found.problems):  # else the reader has said it
            problems.append(Problem(message=f"{settings.source}: {fault}"))
        return Layout(documents={RECORD: {}}, problems=tuple(problems))
    duplicates = Duplicates(policy="")
    if reader.duplicates:
        duplicates = find_duplicates(good, reader.duplicates, known=found.same, track=track)
    dropped = duplicates.dropped()
    kept = [checked for checked in good if checked.case.id not in dropped]
    try:
        kind, split = _split(
            reader, [checked.case for checked in kept if checked.case.labelled], found, duplicates, settings
        )
    except InputError as e:
        return Layout(documents={RECORD: {}}, problems=(*problems, *(Problem(message=m) for m in e.problems)))
    image_bytes: Counter[str] = Counter()
    for checked in kept:
        image_bytes[checked.ending] += checked.case.image.stat().st_size
    # nnU-Net allows one ending per dataset: that which leaves most image bytes untouched
    ending = settings.file_ending or image_bytes.most_common(1)[0][0]
    files: list[OutputFile] = []
    cases: dict[str, Any] = {}
    for checked in kept:
        case = checked.case
        subset = "unlabelled" if not case.labelled else "test" if case.id in split.test else "train"
        images, labels = _FOLDERS[subset]
        parts = {"image": checked.image_file(f"{images}/{case.id}_0000{ending}")}
        if labels:
            parts["label"] = checked.label_file(f"{labels}/{case.id}{ending}", reader.values(case))
        record: dict[str, Any] = {"subset": subset}
        cases[case.id] = record
        facts = {"name": case.name, "class": case.category, "doubts": list(checked.doubts)}
        record |= {key: value for key, value in facts.items() if value}
        for part, file in parts.items():
            sources = [{"source": str(source), **fingerprints[str(source)]} for source in file.sources]
            origin = {"sources": sources} if part == "label" and format_.unites else sources[0]
            record[part] = {**origin, "target": file.target, "rewritten": file.recipe is not None, **file.record}
            key = [(source["source"], fingerprints[source["source"]]) for source in sources]
            files.append(replace(file, key=f"{file.recipe or settings.link} {key}"))
    subsets = {id_: case["subset"] for id_, case in cases.items()}
    folds = split.splits_final()
    documents = {
        "dataset.json": _dataset_json(reader, format_, settings, ending, Counter(subsets.values())["train"]),
        "splits_final.json": folds,
        RECORD: {
            "split": {"kind": kind, "seed": settings.seed, "test": list(split.test), "folds": folds},
            **({"kept_together": list(map(list, found.together))} if found.together else {}),
            **({"near_duplicates": duplicates.record()} if duplicates.policy else {}),
            "cases": cases,
        },
    }
    return Layout(
        files=tuple(files),
        documents=documents,
        problems=tuple(problems),
        summary=tuple(_summary(kind, kept, subsets, files, ending, split, duplicates, settings)),
        repairs=tuple(repair for checked in kept for repair in checked.repairs),
        notes=(*split.notes, *duplicates.notes(split), *_doubts(kept)),
    )


def _split(
    reader: Reader, cases: Sequence[Case], found: Found, duplicates: Duplicates, settings: Settings
) -> tuple[str, Split]:
    """Return the official split where there is one, else the one asked for, and which it is.

    InputError where the official one is impossible or tears apart what belongs together.
    """
    categories, sides = ({case.id: getattr(case, name) for case in cases} for name in ("category", "side"))
    units = joined(categories, [*found.together, *duplicates.inseparable()])
    strata = {unit: categories[unit] for unit in units}
    if not any(sides.values()):
        made = make_split(
            units, kind=settings.split, seed=settings.seed, strata=strata, tenths=reader.tenths, unit=reader.unit
        )
        return settings.split, made
    if torn := [f"{ids} belong together, but {where}." for ids, where in _torn(found.together, sides)]:
        raise InputError(*torn)
    split = official_split(sides, units, seed=settings.seed, strata=strata)
    leaks = [
        f"{ids} show the same, but {where}: expect scores too good"
        for ids, where in _torn([group.ids for group in duplicates.groups], sides)
    ]
    return OFFICIAL, replace(split, notes=(*split.notes, *leaks))


def _torn(groups: Iterable[Sequence[str]], sides: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the groups that an official split tears apart, and half a sentence on where it puts them."""
    for group in groups:
        places = {sides[id_] for id_ in group if id_ in sides}
        if len(places) > 1:
            yield ", ".join(group), f"the official split puts them into {' and '.join(sorted(places))}"


def _doubts(cases: Sequence[Checked]) -> list[str]:
    """Return each doubt with all the cases that it is about."""
    about: dict[str, list[str]] = {}
    for checked in cases:
        for doubt in checked.doubts:
            about.setdefault(doubt, []).append(checked.case.id)
    return [f"{', '.join(ids)}: {doubt}" for doubt, ids in about.items()]


def _dataset_json(
    reader: Reader, format_: ImageFormat, settings: Settings, ending: str, training_cases: int
) -> dict[str, Any]:
    labels = reader.labels()
    regions = any(isinstance(value, list) for value in labels.values())
    order = [value[0] if isinstance(value, list) else value for value in labels.values() if value]
    return {
        "name": settings.name,
        "description": reader.description,
        "reference": reader.reference,
        "licence": reader.licence,
        "channel_names": {"0": reader.channel},
        "labels": labels,
        "numTraining": training_cases,
        "file_ending": ending,
        "overwrite_image_reader_writer": format_.image_io,
        **({"regions_class_order": order} if regions else {}),
    }


def _summary(
    kind: str,
    cases: Sequence[Checked],
    subsets: Mapping[str, str],
    files: Sequence[OutputFile],
    ending: str,
    split: Split,
    duplicates: Duplicates,
    settings: Settings,
) -> Iterator[str]:
    """Yield the lines for the user."""
    counts = []
    for subset, title in _TITLES.items():
        categories = Counter(checked.case.category for checked in cases if subsets[checked.case.id] == subset)
        listed = ", ".join(f"{n} {category}" for category, n in sorted(categories.items()) if category)
        counts.append(f"{categories.total()} {title} cases" + (f" ({listed})" if listed else ""))
    yield f"{', '.join(counts)}; file ending {ending}"
    sizes = [f"fold {i}: {len(train)} + {len(val)}" for i, (train, val) in enumerate(split.folds)]
    yield f"split {kind}, seed {settings.seed} (training + validation): {', '.join(sizes)}"
    if duplicates.policy:
        yield duplicates.summary()
    written = [file for file in files if file.recipe]
    yield (
        f"{len(files) - len(written)} files unchanged (--link {settings.link}), {len(written)} to be "
        f"written, about {size(sum(file.estimate for file in written))}"
    )
