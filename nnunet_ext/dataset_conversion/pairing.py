"""Images and their masks, paired by the names of files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.dataset_conversion.types import Case, Found, Problem


@dataclass(frozen=True, kw_only=True)
class Named:
    """A file whose name says of which case it is the image or a mask; `name` and `category` as in `Case`."""

    path: Path
    id: str
    is_mask: bool
    name: str = ""
    category: str = ""


def pair(files: Sequence[Named], missing: Callable[[Named], str], *, one_mask: bool) -> Found:
    """Pair images with the masks of the same id and name; what does not pair up is a problem of that case.

    Args:
        files: images and masks in any order.
        missing: returns half a sentence on what an image without a mask lacks, or a mask without an image; an empty
            one where an image needs no mask.
        one_mask: whether a second mask of an image is a problem.
    """
    by_id: dict[str, dict[str, list[Named]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        by_id[file.id][file.name].append(file)
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
