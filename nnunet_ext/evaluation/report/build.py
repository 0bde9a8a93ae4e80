"""Put the report together and write it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from nnunet_ext.errors import InputError
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.evaluation.report.extras import Extras

if TYPE_CHECKING:
    from nnunet_ext.evaluation.comparison import Comparison

Track = Callable[..., Iterable]
TITLE = "Segmentation report"


def build(
    models: Mapping[str, Sequence[Evaluation]],
    out: Path,
    *,
    comparison: Comparison | None = None,
    images: Path | None = None,
    extras: Extras | None = None,
    title: str = TITLE,
    track: Track = lambda items, **_: items,
) -> None:
    """Write one self-contained HTML file.

    Args:
        models: name -> its evaluations; other cases are folds, the same cases again are repeats (seeds).
        out: the file; appears when it is whole.
        comparison: of these models; without it the sections that compare are left out.
        images: folder of nnU-Net's image files, for pictures; default: what the evaluations name.
        extras: what is known beyond metrics.
        title: of the page.
        track: wraps the sections that are being made, to show progress.

    Raises:
        InputError: no models, a model without evaluations, or a file that cannot be written.
    """
    if not models or not all(models.values()):
        raise InputError("There is nothing to report: a model needs at least one evaluation.")
    page = _environment().get_template("report.html.j2").render(title=title, models=list(models))
    _write(out, page)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("nnunet_ext.evaluation.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _write(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError as e:
        raise InputError(f"{file} cannot be written: {e.strerror or e}.") from e
    finally:
        partial.unlink(missing_ok=True)
