"""A third dataset needs its reader and nothing else, whether its images are pictures or volumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import busi_source
import lits_source
import numpy as np
import pytest

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import READERS, convert, engine
from nnunet_ext.dataset_conversion.nifti import Volumes
from nnunet_ext.dataset_conversion.picture_format import Pictures
from nnunet_ext.dataset_conversion.types import Case, Found, ImageFormat, Named, Reader, Settings, pair


@dataclass(frozen=True, kw_only=True)
class ThirdReader(Reader):
    """images/NAME with masks/NAME."""

    command, dataset_id, dataset_name, planning = "kidneys", 7, "Kidneys", "-c 3d_fullres"
    description, reference, licence, channel = "Kidneys", "nobody", "CC0", "any"
    tenths = (3, 2)

    images: ImageFormat = field(default_factory=Pictures)

    def options(self) -> dict[str, Any]:
        return {"converter": "third"}

    def format(self, settings: Settings) -> ImageFormat:
        return self.images

    def find(self, source: Path, paths: Sequence[Path]) -> Found:
        files = [
            Named(path=path, id=path.name.partition(".")[0], is_mask=path.parent.name == "masks") for path in paths
        ]
        return pair(files, lambda file: f"{file.id} is alone.", one_mask=True)

    def labels(self) -> dict[str, int]:
        return {"background": 0, "kidney": 7}

    def values(self, case: Case) -> Mapping[int, int]:
        return {0: 0, 1: 7}


def pictures(source: Path, name: str) -> None:
    busi_source.save(busi_source.ultrasound(int(name[-1])), source / "images" / f"{name}.png")
    busi_source.save(busi_source.mask_image(busi_source.lesion()), source / "masks" / f"{name}.png")


def volumes(source: Path, name: str) -> None:
    lits_source.save(source / "images" / f"{name}.nii.gz", lits_source.ct(int(name[-1])))
    lits_source.save(source / "masks" / f"{name}.nii.gz", (lits_source.liver() > 0).astype(np.uint8))


@pytest.mark.parametrize(
    ("make", "images", "label_of"),
    [
        (pictures, Pictures(), busi_source.label_of),
        (volumes, Volumes(), lambda folder, case: lits_source.label_of(folder, case, ".nii.gz")),
    ],
)
def test_a_third_dataset(nnunet_folders: Path, make: Callable, images: ImageFormat, label_of: Callable) -> None:
    source = nnunet_folders / "in"
    for n in range(10):
        make(source, f"patient_{n}")
    folder = convert(ThirdReader(images=images), source).folder
    assert folder.name == "Dataset007_Kidneys"
    content = json.loads((folder / "dataset.json").read_text())
    assert content["numTraining"] == 7
    assert content["labels"]["kidney"] == 7
    assert len(json.loads((folder / "splits_final.json").read_text())) == 5
    assert set(np.unique(label_of(folder, "patient_3"))) == {0, 7}
    assert convert(ThirdReader(images=images), source).layout is None
    for path in (source / "masks").glob("patient_4*"):
        path.unlink()
    with pytest.raises(InputError, match=r"patient_4\S+: patient_4 is alone"):
        engine.run(ThirdReader(images=images), Settings(source=source, dataset_id=8, name="Kidneys"))


def test_a_folder_without_any_case(nnunet_folders: Path) -> None:
    source = nnunet_folders / "in"
    source.mkdir()
    with pytest.raises(InputError, match=r"in: no image of Kidneys was found"):
        engine.run(ThirdReader(images=Volumes()), Settings(source=source, dataset_id=7, name="Kidneys"))


def test_a_lone_bad_case_cannot_be_skipped(nnunet_folders: Path) -> None:
    source = nnunet_folders / "in"
    pictures(source, "patient_0")
    (source / "masks" / "patient_0.png").unlink()
    with pytest.raises(InputError, match=r"patient_0 is alone") as caught:
        convert(ThirdReader(), source)
    assert "--skip-bad" not in str(caught.value)
    with pytest.raises(InputError, match=r"in: no usable case is left"):
        convert(ThirdReader(), source, skip_bad=True)


def test_the_command_line_follows_the_reader(
    nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(READERS, "kidneys", ThirdReader)
    for n in range(10):
        pictures(nnunet_folders / "in", f"patient_{n}")
    assert main(["convert", "kidneys", "--source", str(nnunet_folders / "in")]) == 0
    out = capsys.readouterr().out
    assert "7 training cases, 3 held-out test cases" in out
    assert "next: nnUNetv2_plan_and_preprocess -d 7 -c 3d_fullres --verify_dataset_integrity" in out
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["convert", "kidneys", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "images/NAME with masks/NAME. " in shown
    assert "paper: 5:2:3 by patient" in shown
    assert "default: Kidneys" in shown
