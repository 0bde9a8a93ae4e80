"""Files of prompts, as people write them: points and boxes of cases, in JSON or CSV. Nothing heavy is imported here."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json, read_text
from nnunet_ext.common.shapes import Text, checked
from nnunet_ext.common.text import some

EXAMPLE = (
    '{"case_1": [{"point": [120, 88]}, {"point": [10, 9], "foreground": false}], "case_2": [{"box": [3, 4, 50, 60]}]}'
)
COLUMNS = ("case", "class", "object", "x", "y", "z", "foreground", "x0", "y0", "x1", "y1")  # of a CSV file
MOST = 1000  # prompts of a case
SHOWN = 20  # faults in one message
Pixel = Annotated[float, Field(allow_inf_nan=False)]
BOOLEANS = {"": True, "true": True, "1": True, "false": False, "0": False}


class _Prompt(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)
    label: Annotated[Text | None, Field(alias="class", description="name of the class; the only one by default")] = None
    object: Annotated[int, Field(ge=1, description="prompts of one object ask for one mask")] = 1


class PointPrompt(_Prompt):
    """A point on an object, or on what is not of it."""

    point: Annotated[list[Pixel], Field(min_length=2, max_length=3, description="[x, y], in a volume [x, y, z]")]
    foreground: Annotated[bool, Field(description="whether the point is on the object")] = True


class BoxPrompt(_Prompt):
    """A box around an object."""

    box: Annotated[
        list[Pixel],
        Field(min_length=4, max_length=5, description="[x0, y0, x1, y1], in a volume [x0, y0, x1, y1, z]"),
    ]


Prompt = Annotated[
    Annotated[PointPrompt, Tag("point")] | Annotated[BoxPrompt, Tag("box")],
    Discriminator(lambda prompt: "box" if isinstance(prompt, BoxPrompt) or "box" in prompt else "point"),
]


def schema() -> dict[str, Any]:
    """Return the JSON schema of a file of prompts; pixels count from 0, the centre of the first pixel being (0, 0)."""
    return TypeAdapter(dict[str, Annotated[list[Prompt], Field(max_length=MOST)]]).json_schema()


def read_prompts(
    path: Path, *, cases: Sequence[str], classes: Sequence[str], ndim: int, required: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Read the prompts of cases from a JSON file, or from a CSV file (``.csv``) with a row per prompt.

    Places are in pixels of the original image, counted from 0. Cases that the file does not name have no prompts.

    Args:
        path: the file.
        cases: the images that are to be predicted.
        classes: names of the foreground classes or regions.
        ndim: 2 for pictures, 3 for volumes.
        required: every case must have a prompt.

    Returns:
        By case ``{"point": [x, y(, z)], "foreground": ..., "class": ...}`` or ``{"box": [x0, y0, x1, y1(, z)], "class":
        ...}``, with ``"object"`` where that is not 1.

    Raises:
        InputError: everything that is wrong with the file, at once.
    """
    hint = f"It looks like {EXAMPLE}; docs/prompts.md has the CSV's columns."
    found: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
    problems: list[str] = []
    unknown: dict[str, None] = {}
    boxes: set[tuple[str, str, int, float]] = set()
    for case, where, content in _rows(path, hint):
        if case not in found:
            unknown[case] = None
            continue
        if content is None:
            continue
        try:
            prompt = as_prompt(content, where, classes=classes, ndim=ndim)
        except InputError as e:
            problems += e.problems
            continue
        if "box" in prompt:
            place = (case, prompt["class"], prompt.get("object", 1), prompt["box"][4] if ndim == 3 else 0)
            problems += [f"{where}: this object has a box already."] * (place in boxes)
            boxes.add(place)
        found[case].append(prompt)
        if len(found[case]) == MOST + 1:
            problems.append(f"{path}: more than {MOST} prompts for {case}.")
    if unknown:
        problems.insert(0, f"{path}: no image for {some(list(unknown))}.")
    if required and (missing := [case for case in cases if not found[case]]):
        problems.append(f"{path}: no prompts for {some(missing)}.")
    if problems:
        shown = problems[:20]
        raise InputError(
            *shown, *([f"{path}: and {len(problems) - 20} faults more."] * (len(problems) > 20)), hint=hint
        )
    return found


def as_prompt(content: Any, where: str, *, classes: Sequence[str], ndim: int) -> dict[str, Any]:
    """Return one prompt with its class, as `read_prompts` does; InputError for all that is wrong with it."""
    if not isinstance(content, dict) or ("point" in content) == ("box" in content):
        raise InputError(f'{where}: not an object with either "point" or "box".')
    kind: Any = BoxPrompt if "box" in content else PointPrompt
    prompt = checked(kind, content, where)
    problems = []
    key, wanted = ("box", ndim + 2) if "box" in content else ("point", ndim)
    place = content[key]
    if len(place) != wanted:
        problems.append(f'{where}: "{key}" must be {wanted} numbers.')
    if key == "box" and not (place[0] < place[2] and place[1] < place[3]):
        problems.append(f"{where}: the box {place} is empty; it is left, top, right, bottom.")
    if prompt.label is None and len(classes) > 1:
        problems.append(f'{where}: "class" must say which of {", ".join(classes)}.')
    elif prompt.label is not None and prompt.label not in classes:
        problems.append(f'{where}: "class" must be one of {", ".join(classes)}.')
    if problems:
        raise InputError(*problems)
    made = {"class": prompt.label or classes[0], key: place}
    made |= {"foreground": prompt.foreground} if key == "point" else {}
    return made | ({"object": prompt.object} if prompt.object != 1 else {})


def _rows(path: Path, hint: str) -> Iterator[tuple[str, str, Any]]:
    """Yield case, place in the file for messages, and prompt; one of None for a case that is there without prompts."""
    if path.suffix.lower() != ".csv":
        for case, prompts in read_json(path, hint=hint).items():
            if not isinstance(prompts, list):
                raise InputError(f"{path}: {case[:80]} has no list of prompts.", hint=hint)
            yield case, "", None
            yield from ((case, f"{path}: prompt {i} of {case}", prompt) for i, prompt in enumerate(prompts, 1))
        return
    try:
        reader = csv.DictReader(io.StringIO(read_text(path, hint=hint).removeprefix("\ufeff")), strict=True)
        columns = reader.fieldnames or []
        if "case" not in columns or not set(columns) <= set(COLUMNS) or len(set(columns)) != len(columns):
            raise InputError(f"{path}: the first line must name columns among {', '.join(COLUMNS)}.", hint=hint)
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: not as many fields as the first line has.", hint=hint)
            yield row["case"], where, _from_row(row)
    except csv.Error as e:
        raise InputError(f"{path} is no CSV file ({e}).", hint=hint) from e


def _from_row(row: dict[str, str]) -> dict[str, Any]:
    """Return what a CSV row says, as JSON would; what is not a number stays text, which is an error later."""
    given = {name: value.strip() for name, value in row.items() if value.strip()}
    prompt: dict[str, Any] = {}
    for key, names in (("point", ("x", "y")), ("box", ("x0", "y0", "x1", "y1"))):
        if given.keys() & set(names):
            prompt[key] = [_number(given.get(name, "")) for name in (*names, *(["z"] if "z" in given else []))]
    prompt |= {"class": given["class"]} if "class" in given else {}
    prompt |= {"object": _number(given["object"], int)} if "object" in given else {}
    if "foreground" in given:
        prompt["foreground"] = BOOLEANS.get(given["foreground"].lower(), given["foreground"])
    return prompt


def _number(text: str, kind: type = float) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text
