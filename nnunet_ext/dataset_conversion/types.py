"""What passes between the engine, a dataset's reader and an image format; nothing here knows a dataset or a format.

A reader yields `Case`s by the names of files alone, which `pair` helps with. Its `ImageFormat` reads each of them and
hands back a `Checked` one, which says how its files are written. `layout` turns those into a `Layout`, and `engine`
writes that. Command lines import this: numpy and what reads images come later.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nnunet_ext.common.errors import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user can choose for every dataset; the fields under "how" leave the result as it is."""

    source: Path
    dataset_id: int
    name: str
    link: str = "auto"
    split: str = "paper"
    seed: int = 12345
    file_ending: str | None = None
    checksum: bool = False
    skip_bad: bool = False
    exclude: Sequence[str] | None = None
    groups: Path | None = None
    limit: int | None = None
    # how
    overwrite: bool = False
    overwrite_preprocessed: bool = False
    dry_run: bool = False
    num_processes: int = 1

    def options(self) -> dict[str, Any]:
        """Return the choices that make a conversion another one."""
        names = ("link", "split", "seed", "file_ending", "checksum", "skip_bad", "exclude", "limit")
        places = {"source": str(self.source.absolute()), "groups": str(self.groups.absolute()) if self.groups else None}
        return places | {name: getattr(self, name) for name in names}


class SourceError(InputError):
    """Reports a file of the download that is damaged, which may show only while another one is made from it."""

    def __init__(self, *problems: str, hint: str = "", path: Path | None = None) -> None:
        super().__init__(*problems, hint=hint)
        self.path = path


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One sentence on what is wrong and how to put it right; --skip-bad leaves `case` out (None: it cannot)."""

    message: str
    case: str | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image of a download with its masks.

    Attributes:
        id: nnU-Net's name of the case.
        image: the file of the image.
        masks: the files of its masks; an image without any goes to imagesTs_unlabelled, unless it is `empty`.
        name: what the download calls it, where the id does not say that.
        category: its class, of which every side of a split holds its share.
        empty: whether nothing is to be marked in it, so that no mask is needed.
        side: where an official split puts it: "train", "val", "test" or the name of a fold.
    """

    id: str
    image: Path
    masks: tuple[Path, ...]
    name: str = ""
    category: str = ""
    empty: bool = False
    side: str = ""

    @property
    def labelled(self) -> bool:
        """Whether it has a label map."""
        return bool(self.masks) or self.empty


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a source folder holds: every file that counts, the cases, and what is wrong at first sight.

    Attributes:
        together: ids of cases that no split may part, for each patient for example.
        same: ids of cases that are known to show the same, as near-duplicates do.
    """

    files: tuple[Path, ...] = ()
    cases: tuple[Case, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    together: tuple[Sequence[str], ...] = ()
    same: tuple[Sequence[str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Named:
    """A file whose name says of which case it is the image or a mask; `name` and `category` as in `Case`."""

    path: Path
    id: str
    is_mask: bool
    name: str = ""
    category: str = ""


def pair(files: Sequence[Named], missing: Callable[[Named], str], *, one_mask: bool) -> Found:
    """Pair images with the masks of the same id and name, whatever its case; what does not pair up is a problem.

    Args:
        files: images and masks in any order.
        missing: returns half a sentence on what an image without a mask lacks, or a mask without an image; an empty
            one where an image needs no mask.
        one_mask: whether a second mask of an image is a problem.
    """
    by_id: dict[str, dict[str, list[Named]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        by_id[file.id][file.name.casefold()].append(file)
    cases, problems = [], []
    for id_, by_name in sorted(by_id.items()):
        faults = list(_faults(id_, by_name, missing, one_mask))
        problems += [Problem(message=fault, case=id_) for fault in faults]
        if not faults:
            (members,) = by_name.values()
            (image,) = (file for file in members if not file.is_mask)
            masks = tuple(file.path for file in members if file.is_mask)
            cases.append(Case(id=id_, image=image.path, masks=masks, name=image.name, category=image.category))
    paths = sorted(file.path for file in files)
    return Found(files=tuple(paths), cases=tuple(cases), problems=tuple(problems))


def _faults(
    id_: str, by_name: Mapping[str, Sequence[Named]], missing: Callable[[Named], str], one_mask: bool
) -> Iterator[str]:
    first = [next((str(f.path) for f in members if not f.is_mask), "") for members in by_name.values()]
    if sum(map(bool, first)) > 1:
        yield f"{' and '.join(filter(None, first))} would both be case {id_}; rename or remove one."
        return
    for members in by_name.values():
        images, masks = ([f for f in members if f.is_mask is kind] for kind in (False, True))
        repeated = [part for part in ([images, masks] if one_mask else [images]) if len(part) > 1]
        for part in repeated:
            yield f"case {id_} is there more than once: {_listed(part)}; keep one."
        if not repeated and not (images and masks) and (lack := missing(members[0])):
            yield f"{_listed(members)}: {lack}"


def _listed(files: Sequence[Named]) -> str:
    return ", ".join(str(file.path) for file in files)


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file of a dataset.

    Attributes:
        target: its place in the dataset's folder.
        sources: the files that it is made of, one or more.
        recipe: writes it to a path (picklable); None: the source's own bytes are right.
        key: changes whenever the content would.
        size: bytes on disk, where they are known beforehand; `estimate` is an upper guess of them.
        seconds: a rough guess of what the recipe takes on one core.
        share: whether it may have its bytes in common with the source; a file that people edit should not.
        record: what conversion.json says of it besides its sources and its target.
    """

    target: str
    sources: tuple[Path, ...]
    recipe: Callable[[Path], None] | None = None
    key: str = ""
    size: int | None = None
    estimate: int = 0
    seconds: float = 0.0
    share: bool = True
    record: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def unchanged(cls, source: Path, target: str, **attributes: Any) -> OutputFile:
        """Return a file whose source's bytes are right as they are."""
        size = source.stat().st_size
        return cls(target=target, sources=(source,), size=size, estimate=size, **attributes)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A folder of nnUNet_raw to be: files, JSON documents by name, problems of cases, and lines for the user."""

    files: tuple[OutputFile, ...] = ()
    documents: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    summary: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a conversion did. `made` counts files by how they came about; `layout` is None if nothing was to be done."""

    folder: Path
    layout: Layout | None = None
    made: Counter[str] = field(default_factory=Counter)
    skipped: tuple[str, ...] = ()
    stale: tuple[Path, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Checked(ABC):
    """A case whose files were read and can be converted.

    Attributes:
        marked: the number of pixels or voxels that its masks mark.
        repairs: what writing it puts right, a sentence with the file's name for each.
        doubts: what could not be proven and people should look at, a sentence that stands for every such case.
        ending: that of the dataset's files with which the image needs least rewriting.
        size: pixels or voxels along each axis.
        thumbnail: what `same_frame.thumbnail` makes of the image, for those formats of which near-duplicates are found.
    """

    case: Case
    marked: int
    repairs: tuple[str, ...]
    ending: str
    size: tuple[int, ...]
    thumbnail: np.ndarray | None = None
    doubts: tuple[str, ...] = ()

    @abstractmethod
    def image_file(self, target: str) -> OutputFile:
        """Return how the image gets to a place in the dataset."""

    @abstractmethod
    def label_file(self, target: str, values: Mapping[int, int]) -> OutputFile:
        """Return how the label map gets to a place in the dataset; `values` as in `Reader.values`."""


class ImageFormat(ABC):
    """How images of one kind and their masks are read, checked and written."""

    image_io: ClassVar[str]  # nnU-Net's class that reads what is written
    packages: ClassVar[tuple[str, ...]]  # those whose versions may change what is written
    unites: ClassVar[bool]  # whether an image may have several masks, which become one label map

    @abstractmethod
    def check(self, case: Case, values: Mapping[int, int]) -> tuple[Checked | None, list[str]]:
        """Read all of a case; return it, or None, and a sentence on each fault.

        Called from threads: it shall spend its time where Python's lock is let go of (numpy, zlib, Pillow).
        """


class Reader(ABC):
    """One dataset: its facts, the options of its own, and which of its files make a case.

    Everything else is shared. A subclass is a frozen dataclass whose fields are the options; its docstring is what
    ``nnunet_ext convert COMMAND --help`` says first.
    """

    command: ClassVar[str]
    dataset_id: ClassVar[int]  # in nnUNet_raw, as `dataset_name`, unless `Settings` say otherwise
    dataset_name: ClassVar[str]
    description: ClassVar[str]
    reference: ClassVar[str]
    licence: ClassVar[str]
    channel: ClassVar[str]
    planning: ClassVar[str]  # arguments of nnUNetv2_plan_and_preprocess that the paper's trainers need
    source: ClassVar[Path | None] = None  # where the download is unless the user says so; None: the user has to
    tenths: ClassVar[tuple[int, int]] = (1, 1)  # of the cases, held out and validated on in the split "paper"
    unit: ClassVar[str] = "patient"  # what no split tears apart, in messages

    @classmethod  # noqa: B027  (a dataset may have none)
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add command-line options beyond those of every dataset, called as fields of this class or of `Settings`."""

    @property
    def duplicates(self) -> str:
        """A key of `duplicates.POLICIES`; empty: near-duplicates are not looked for."""
        return ""

    def options(self) -> dict[str, Any]:
        """Return the choices beyond `Settings` that change what is written."""
        return {"converter": self.command, **vars(self)}

    def folders(self, source: Path) -> Sequence[Path]:
        """Return the folders below which the files are; InputError where the options name none."""
        return [source]

    @abstractmethod
    def format(self, settings: Settings) -> ImageFormat:
        """Return what reads and writes the images of one conversion."""

    @abstractmethod
    def find(self, source: Path, paths: Sequence[Path]) -> Found:
        """Pair the images and masks among all files of the folders by name; what does not pair up is a problem."""

    @abstractmethod
    def labels(self) -> dict[str, Any]:
        """Return nnU-Net's labels, names to values; a region is a list that begins with the value of its own."""

    @abstractmethod
    def values(self, case: Case) -> Mapping[int, int]:
        """Return the value in the dataset for each one that a case's masks may hold; other ones are faults.

        A picture's masks hold 0 where they are black and 1 elsewhere.
        """

    def faults(self, checked: Checked) -> list[str]:
        """Return what is wrong with a sound case by this dataset's own rules."""
        return []
