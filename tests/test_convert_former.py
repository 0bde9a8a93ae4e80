"""What commit a5e75ff made of the same sources (tests/data/a5e75ff/conversion) is still understood, and still made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import busi_source
import lits_source
import pytest

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion.types import Outcome

FORMER = Path(__file__).resolve().parent / "data" / "a5e75ff" / "conversion"
DATASETS: dict[str, tuple[Callable[[Path], Path], Callable[..., Outcome]]] = {
    lits_source.DATASET: (lambda root: lits_source.codalab(root, 7, test_volumes=1), lits_source.convert),
    busi_source.DATASET: (busi_source.twins, busi_source.convert),
}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def without_place_and_time(then: Any, now: Any) -> Any:
    """Return what is recorded now, less what was not then, with then's paths, times and checksums."""
    if isinstance(then, dict):
        return {
            key: value
            if key in ("source", "bytes", "mtime_ns", "head_sha256")
            else without_place_and_time(value, now[key])
            for key, value in then.items()
        }
    if isinstance(then, list) and then and isinstance(then[0], dict):
        return [without_place_and_time(*pair) for pair in zip(then, now, strict=True)]
    return now


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_same_source_gives_the_same_dataset(nnunet_folders: Path, dataset: str) -> None:
    make, convert = DATASETS[dataset]
    folder = convert(make(nnunet_folders / "in")).folder
    for name in ("splits_final.json", "dataset.json"):
        assert (folder / name).read_bytes() == (FORMER / dataset / name).read_bytes()
    ours, former = (read(path / "conversion.json") for path in (folder, FORMER / dataset))
    assert ours["files"].keys() == former["files"].keys()
    assert ours["split"] == former["split"]
    assert ours["request"].keys() == former["request"].keys()
    assert ours["cases"].keys() == former["cases"].keys()
    for case, then in former["cases"].items():
        assert without_place_and_time(then, ours["cases"][case]) == then
    groups = [
        [group["cases"] for group in record.get("near_duplicates", {}).get("groups", [])] for record in (ours, former)
    ]
    assert groups[0] == groups[1]


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_former_record_is_understood(nnunet_folders: Path, dataset: str) -> None:
    make, convert = DATASETS[dataset]
    source = make(nnunet_folders / "in")
    folder = convert(source).folder
    ours, former = (read(path / "conversion.json") for path in (folder, FORMER / dataset))
    assert former["request"]["sources"].keys() == ours["request"]["sources"].keys()
    # the times and places of here and now, and what other versions of Pillow and zlib make of the same pixels
    former["request"]["options"]["source"] = str(source)
    former["request"]["sources"], former["files"] = ours["request"]["sources"], ours["files"]
    (folder / "conversion.json").write_text(json.dumps(former))
    with pytest.raises(InputError, match="exists from another version of this command; use --overwrite"):
        convert(source)  # which would cut grey masks elsewhere
    with pytest.raises(InputError, match=r"--seed \(12345 then, 1 now\).*--overwrite"):
        convert(source, seed=1)
    assert convert(source, seed=1, overwrite=True).layout is not None
