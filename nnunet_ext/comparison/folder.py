"""The folder of a comparison's files."""

from __future__ import annotations

import json
from pathlib import Path

from nnunet_ext.common.errors import InputError
from nnunet_ext.comparison.export import case_rows, model_rows, pair_rows, to_csv, to_json
from nnunet_ext.comparison.latex import to_latex
from nnunet_ext.comparison.records import Comparison
from nnunet_ext.evaluation.files import check_file, write_text

RECORD, MARK = "comparison.json", "nnunet_ext compare"
FILES = (RECORD, "comparison.csv", "comparison_pairs.csv", "comparison_cases.csv", "comparison.tex")


def save(comparison: Comparison, folder: Path) -> None:
    """Write all `FILES`; those of an earlier comparison are replaced.

    Raises:
        InputError: see `check_folder`.
    """
    check_folder(folder)
    record = {"made_by": MARK, "files": FILES, **to_json(comparison)}
    # the record comes first: what is written after it is known to be ours, however far this gets
    texts = [json.dumps(record, indent=1, allow_nan=False) + "\n"]
    texts += [*(to_csv(rows(comparison)) for rows in (model_rows, pair_rows, case_rows)), to_latex(comparison)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, texts, strict=True):
            write_text(folder / name, text)
    except OSError as e:
        raise InputError(
            f"{folder} cannot be written: {e.strerror or e}.", hint="Name another folder with --out."
        ) from e


def check_folder(folder: Path) -> None:
    """Whether `save` may write there.

    Raises:
        InputError: the folder is a file, cannot be written to, or holds files of these names that no comparison has
            written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file.", hint="Name a folder with --out.")
    for name in FILES:
        check_file(folder / name, "Name another folder with --out.")
    foreign = [str(folder / name) for name in FILES if (folder / name).exists() and name not in _ours(folder)]
    if foreign:
        raise InputError(
            f"{', '.join(foreign)}: not written by nnunet_ext compare, and not to be overwritten.",
            hint="Name another folder with --out.",
        )


def _ours(folder: Path) -> list[str]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record["files"] if record["made_by"] == MARK else []
    except (OSError, ValueError, LookupError, TypeError):
        return []
