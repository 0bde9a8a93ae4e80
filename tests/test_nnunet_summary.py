"""summary.json as nnU-Net itself writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_ext.common.errors import InputError
from nnunet_ext.comparison import ModelRuns, read_models
from nnunet_ext.evaluation.evaluation import is_summary, load_summary
from nnunet_ext.metrics.definitions import PHYSICAL, PIXELS

RANDOM = np.random.default_rng(0)
MASKS = {f"case.{i}": [RANDOM.integers(0, 3, (1, 6, 7), dtype=np.uint8) for _ in range(2)] for i in range(3)}
MASKS["empty"] = [np.zeros((1, 6, 7), np.uint8)] * 2


@pytest.fixture
def nnunet_summary(tmp_path: Path, fork_pools: None) -> Path:
    """Of a fold's validation, with a label and a region."""
    return write(tmp_path / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "validation", ".nii.gz")


def write(folder: Path, ending: str) -> Path:
    reference = folder.parent / "reference"
    for where, k in ((folder, 0), (reference, 1)):
        where.mkdir(parents=True)
        for case, masks in MASKS.items():
            image = sitk.GetImageFromArray(masks[k] if ending == ".nii.gz" else masks[k][0])
            sitk.WriteImage(image, where / f"{case}{ending}")
    reader = SimpleITKIO() if ending == ".nii.gz" else NaturalImage2DIO()
    file = folder / "summary.json"
    compute_metrics_on_folder(str(reference), str(folder), str(file), reader, ending, [1, (1, 2)], num_processes=1)
    return file


def test_has_nnunets_numbers(nnunet_summary: Path) -> None:
    evaluation = load_summary(nnunet_summary)
    assert is_summary(nnunet_summary)
    assert sorted(evaluation.cases) == sorted(MASKS)
    assert evaluation.structures == {"1": (1,), "(1, 2)": (1, 2)}
    assert evaluation.units == PHYSICAL
    assert evaluation.info["trainer"] == "nnUNetTrainer"
    assert evaluation.info["prompts"] == "none"
    for structure, labels in evaluation.structures.items():
        rows = evaluation.of(structure)
        for case, masks in MASKS.items():
            prediction, reference = (np.isin(mask, labels) for mask in masks)
            tp, fp, fn = (
                (prediction & reference).sum(),
                (prediction & ~reference).sum(),
                (~prediction & reference).sum(),
            )
            row = rows.loc[case]
            assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (tp, fp, fn, 42 - tp - fp - fn)
            if case == "empty":
                assert row[["dice", "iou", "precision", "recall"]].isna().all()
            else:
                assert row["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
                assert row["iou"] == pytest.approx(tp / (tp + fp + fn))
                assert row["precision"] == pytest.approx(tp / (tp + fp))
                assert row["recall"] == pytest.approx(tp / (tp + fn))


def test_pictures_have_pixels(tmp_path: Path, fork_pools: None) -> None:
    assert load_summary(write(tmp_path / "out", ".png")).units == PIXELS


@pytest.mark.parametrize("where", ["validation", "."])
def test_names_come_from_dataset_json(nnunet_summary: Path, where: str) -> None:
    folder = nnunet_summary.parent if where == "validation" else nnunet_summary.parents[2]
    labels = {"background": 0, "tumour": 1, "liver": [1, 2]}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert load_summary(nnunet_summary).structures == {"tumour": (1,), "liver": (1, 2)}


def test_prompts_are_what_was_written_down(nnunet_summary: Path) -> None:
    (nnunet_summary.parent / "prompts_used.json").write_text(json.dumps({"source": "file"}))
    assert load_summary(nnunet_summary).info["prompts"] == "file"


@pytest.mark.parametrize("path", ["pred/{}", "../gone/{}", "D:\\study\\pred\\{}", "\\\\server\\pred\\{}", "C:/pred/{}"])
def test_paths_of_elsewhere_name_cases_and_no_more(
    nnunet_summary: Path, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is at such a path from the current folder, by chance or in another experiment."""
    content = json.loads(nnunet_summary.read_text())
    for case in content["metric_per_case"]:
        case["prediction_file"] = path.format(Path(case["prediction_file"]).name)
    nnunet_summary.write_text(json.dumps(content))
    (tmp_path / "pred").mkdir()
    (tmp_path / "pred" / "prompts_used.json").write_text(json.dumps({"source": "reference"}))
    monkeypatch.chdir(tmp_path)
    evaluation = load_summary(nnunet_summary)
    assert sorted(evaluation.cases) == sorted(MASKS)
    assert (evaluation.info["predictions"], evaluation.info["prompts"]) == (str(nnunet_summary.parent), "none")


def test_a_case_is_there_once(nnunet_summary: Path) -> None:
    content = json.loads(nnunet_summary.read_text())
    content["metric_per_case"].append(content["metric_per_case"][1])
    nnunet_summary.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"summary\.json has cases more than once: case\.1\."):
        load_summary(nnunet_summary)


def test_click_trainers_validate_with_clicks_from_the_reference(nnunet_summary: Path) -> None:
    model = nnunet_summary.parents[2]
    clicked = model.rename(model.with_name("nnUNetTrainerSAMUSClick__nnUNetSAMUSPlans__2d"))
    assert load_summary(clicked / "fold_0" / "validation" / "summary.json").info["prompts"] == "reference"


def test_a_trained_model_is_all_its_folds(nnunet_summary: Path) -> None:
    model = nnunet_summary.parents[2]
    for folder, change in (("fold_1", "other"), ("fold_all", "all")):
        (model / folder / "validation").mkdir(parents=True)
        other = nnunet_summary.read_text().replace("case.", f"{change}.").replace("empty", f"{change}_empty")
        (model / folder / "validation" / "summary.json").write_text(other)
    read = ModelRuns(name="A", runs=read_models([("A", model)])["A"])
    assert len(read.folds) == 2
    assert read.cases == sorted([*MASKS, "other.0", "other.1", "other.2", "other_empty"])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"metric_per_case": []}',
        '{"metric_per_case": [{"metrics": {"1": {}}}]}',
        '{"metric_per_case": [{"prediction_file": "a.nii.gz", "metrics": {}}]}',
    ],
)
def test_what_is_no_summary(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(
        InputError, match=r"summary\.json (is not valid JSON|holds a list|is not a summary\.json of nnU-Net)"
    ):
        load_summary(tmp_path / "summary.json")
