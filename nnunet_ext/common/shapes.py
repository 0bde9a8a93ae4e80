"""What JSON files must look like where they are read: pydantic models, and what is said where a file differs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from nnunet_ext.common.errors import InputError
from nnunet_ext.common.files import read_json

Text = Annotated[str, Field(max_length=4096)]  # no path is longer
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]  # a time from 1970 as well


class Shape(BaseModel):
    """Says of a JSON object what its readers rely on: keys, and types of values. Other keys are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, populate_by_name=True)


Kind = TypeVar("Kind")


def read_as(shape: type[Kind], path: Path, *, hint: str = "") -> Kind:
    """Read a JSON file of a shape, which may be a dataclass of ours as well.

    Raises:
        InputError: as `files.read_json`, or everything in which the file differs.
    """
    return checked(shape, read_json(path, hint=hint), path, hint=hint)


def checked(shape: type[Kind], content: Any, where: object, *, hint: str = "", most: int = 8) -> Kind:
    """Return content in its shape.

    Args:
        where: the file, for messages.
        most: problems to name.

    Raises:
        InputError: everything in which the content differs.
    """
    try:
        made: Kind = _adapter(cast(Any, shape)).validate_python(content)
        return made
    except ValidationError as e:
        errors = e.errors(include_url=False)
        problems = [f"{where}: {_place(error['loc'])}{error['msg']}." for error in errors[:most]]
        more = [f"{where}: and {len(errors) - most} faults more."] if len(errors) > most else []
        raise InputError(*problems, *more, hint=hint) from e


@functools.cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _place(parts: tuple[int | str, ...]) -> str:
    """Return where a value is in a file: "checkpoints, item 1, file: "."""
    words = [f"item {part + 1}" if isinstance(part, int) else part[:80] for part in parts]
    return f"{', '.join(words)}: " if words else ""
