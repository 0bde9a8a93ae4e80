"""What lies next to predictions: labels that contradict each other, prompts, training cases, mistaken folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

from nnunet_ext.cli import main
from nnunet_ext.evaluation.evaluation import Evaluation

CASES = [f"case_{k}" for k in range(10)]
DATASET = "Dataset040_X"
BOTH, ALONE = {"background": 0, "liver": 1, "tumour": 2}, {"background": 0, "tumour": 1}


def write(folder: Path, shift: int = 0, cases: list[str] = CASES) -> Path:
    """Squares that are moved down by so many pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, case in enumerate(cases):
        mask = np.zeros((64, 64), np.uint8)
        mask[20 + shift : 40 + shift, 10 + k : 30 + k] = 1
        Image.fromarray(mask).save(folder / f"{case}.png")
    return folder


def labels(folder: Path, of: dict[str, Any]) -> Path:
    order = {"regions_class_order": [1, 2]} if any(isinstance(v, list) for v in of.values()) else {}
    tiny.save(folder / "dataset.json", {"labels": of, "file_ending": ".png", **order})
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and references, of which only the latter have a dataset.json."""
    pred, ref = write(tmp_path / "pred", 2), write(tmp_path / "raw" / "labelsTs")
    labels(ref.parent, ALONE)
    return pred, ref


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(command: str, *words: object) -> tuple[int, str]:
        """Return the exit code and all that is said."""
        capsys.readouterr()
        code = main([command, *map(str, words)])
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return run


class TestLabels:
    @pytest.mark.parametrize(
        ("theirs", "said"),
        [
            (BOTH, "tumour is label 2 in the one and label 1 in the other"),
            ({"background": 0, "cyst": 1}, "label 1 is cyst in the one and tumour in the other"),
            (
                {"background": 0, "tumour": [1, 2], "core": 2},
                "tumour is labels 1, 2 in the one and label 1 in the other",
            ),
        ],
    )
    def test_that_contradict_each_other_are_refused(
        self, pair: tuple[Path, Path], run: Run, theirs: dict[str, Any], said: str
    ) -> None:
        pred, ref = pair
        labels(pred, theirs)
        code, text = run("evaluate", "--pred", pred, "--ref", ref)
        assert code == 2
        assert f"{pred / 'dataset.json'} and {ref.parent / 'dataset.json'} contradict each other" in text
        assert said in text
        assert "--labels-from" in text
        assert not (pred / "metrics.json").exists()
        for side, expected in (("predictions", set(theirs)), ("references", set(ALONE))):
            assert run("evaluate", "--pred", pred, "--ref", ref, "--labels-from", side)[0] == 0
            assert set(Evaluation.load(pred).structures) == expected - {"background"}
        assert run("evaluate", "--pred", pred, "--ref", ref, "--dataset-json", ref.parent / "dataset.json")[0] == 0

    def test_that_agree_need_no_decision(self, pair: tuple[Path, Path], run: Run) -> None:
        pred, ref = pair
        labels(pred, {"background": 0, "Tumour": 1, "cyst": 2})
        assert run("evaluate", "--pred", pred, "--ref", ref)[0] == 0

    def test_of_a_model_and_of_its_dataset(self, model: Path, tmp_path: Path, run: Run) -> None:
        labels(tmp_path / "pre" / DATASET, BOTH)
        code, text = run("evaluate", "-m", model, "-f", "0")
        assert code == 2
        assert "tumour is label 1 in the one and label 2 in the other" in text
        code, text = run("evaluate", "--pred", model / "fold_0" / "validation", "--ref", references(tmp_path))
        assert code == 2
        assert "contradict" in text
        assert run("evaluate", "-m", model, "-f", "0", "--labels-from", "predictions")[0] == 0


def references(root: Path) -> Path:
    return root / "pre" / DATASET / "gt_segmentations"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fold of two of five, fold 7, which the split lacks, and fold all."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    write(references(tmp_path))
    folds = [{"train": [c for c in CASES if c not in val], "val": val} for val in (CASES[:2], CASES[2:4])]
    tiny.save(tmp_path / "pre" / DATASET / "splits_final.json", folds)
    model = tmp_path / "res" / DATASET / "nnUNetTrainer__nnUNetPlans__2d"
    for fold, cases in ((0, CASES[:2]), (7, CASES[3:5]), ("all", CASES)):
        write(model / f"fold_{fold}" / "validation", 1, cases)
    labels(model, ALONE)
    tiny.save(model / "plans.json", {"dataset_name": DATASET, "plans_name": "nnUNetPlans"})
    return model


class TestTrainingCases:
    def test_fold_all_is_named_and_never_ranked_with_held_out_cases(
        self, model: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        code, text = run("evaluate", "-m", model, "-f", "all", "--report", "r.html")
        assert code == 0
        assert "10 of these 10 cases are training cases of the model (case_0, case_1, case_2 and 7 more)" in text
        assert "nnUNetTrainer 2d was trained on 10 of its 10 cases" in Path("r.html").read_text()
        held_out = write(tmp_path / "cv", 5)
        code, text = run("evaluate", "--pred", held_out, "--ref", references(tmp_path), "--dataset-json",
                         model / "dataset.json", "--prompts", "none")  # fmt: skip
        assert code == 0
        assert "training cases" not in text
        trained = model / "fold_all" / "validation"
        code, text = run("compare", f"held_out={held_out}", f"trained={trained}", "--metrics", "dice")
        assert code == 0
        assert "is better" not in text
        assert "One saw the cases in training, not ranked" in text
        assert "trained was trained on 10 of its 10 cases (case_0, case_1, case_2 and 7 more)" in text
        assert "Cases in training differ (no prompts: held_out; no prompts, on training cases: trained)" in text

    def test_by_nnunets_own_summary(self, model: Path, tmp_path: Path) -> None:
        """Also without nnU-Net's folders, by the place of the validation."""
        shutil.rmtree(tmp_path / "pre")
        validation = model / "fold_all" / "validation"
        metrics = {"1": {"TP": 1, "FP": 0, "FN": 1, "TN": 1, "Dice": 2 / 3, "IoU": 0.5}}
        cases = [{"prediction_file": f"/p/{case}.png", "metrics": metrics} for case in CASES]
        tiny.save(validation / "summary.json", {"metric_per_case": cases})
        from nnunet_ext.comparison import ModelRuns, read_models

        runs = ModelRuns(name="A", runs=read_models([("A", validation)])["A"])
        assert runs.trained_cases == CASES
        assert runs.prompts == "none, training cases"

    def test_held_out_folds_have_none(self, model: Path, run: Run) -> None:
        code, text = run("evaluate", "-m", model, "-f", "0")
        assert code == 0
        assert "training" not in text
        assert "trained_cases" not in Evaluation.load(model / "fold_0" / "validation").info

    @pytest.mark.parametrize("by", ["place", "record"])
    def test_a_folds_training_cases_among_others(self, model: Path, tmp_path: Path, run: Run, by: str) -> None:
        """An ensemble on the training images, or a split that was exchanged after the training."""
        pred = model / "fold_0" / "validation" if by == "place" else tmp_path / "pred"
        write(pred, 1)
        if by == "record":
            record = {"source": "none", "model": str(model), "checkpoints": [{"file": "fold_0/checkpoint_final.pth"}]}
            tiny.save(pred / "prompts_used.json", record)
        code, text = run("evaluate", "--pred", pred, "--ref", references(tmp_path))
        assert code == 0
        assert "8 of these 10 cases are training cases" in text
        assert Evaluation.load(pred).info["trained_cases"] == CASES[2:]
        held_out = write(tmp_path / "raw" / "labelsTs")
        code, text = run("evaluate", "--pred", pred, "--ref", held_out)  # the same names, of other images
        assert "training cases" not in text

    def test_a_fold_that_the_split_lacks_is_said(self, model: Path, run: Run) -> None:
        code, text = run("evaluate", "-m", model, "-f", "7")
        assert code == 0
        assert "Note: Fold 7 is none of the 2 in" in text
        assert "nnU-Net drew a random split" in text
        other = shutil.copy(model / "fold_7" / "validation" / "metrics.json", model / "other.json")
        code, text = run("compare", f"A={model / 'fold_7' / 'validation'}", f"B={other}", "--out", model / "out")
        assert code == 0
        assert "Fold 7 is none of the 2" in text


class TestPrompts:
    def test_without_a_record_are_unknown(self, pair: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
        """As for an ensemble, of which nnU-Net says nothing."""
        pred, ref = pair
        code, text = run("evaluate", "--pred", pred, "--ref", ref)
        assert code == 0
        assert "No file says whether prompts were given" in text
        assert Evaluation.load(pred).info["prompts"] == "unknown"
        automatic = write(tmp_path / "automatic", 3)
        tiny.save(automatic / "predict_from_raw_data_args.json", {})  # as nnUNetv2_predict leaves it
        assert "No file" not in run("evaluate", "--pred", automatic, "--ref", ref)[1]
        assert Evaluation.load(automatic).info["prompts"] == "none"
        code, text = run("compare", f"A={pred}", f"B={automatic}", "--metrics", "dice", "--out", tmp_path / "out")
        assert "Different prompts, not ranked (A: prompts not recorded, B: no prompts)." in text
        assert "No record says whether A got prompts" in text

    def test_are_declared_where_nothing_says_them(self, pair: tuple[Path, Path], run: Run) -> None:
        pred, ref = pair
        assert run("evaluate", "--pred", pred, "--ref", ref, "--prompts", "reference")[0] == 0
        assert Evaluation.load(pred).info["prompts"] == "reference"
        tiny.save(pred / "prompts_used.json", {"source": "file"})
        code, text = run("evaluate", "--pred", pred, "--ref", ref, "--prompts", "none")
        assert code == 2
        assert "--prompts none: what lies next to the predictions says file." in text
        assert run("evaluate", "--pred", pred, "--ref", ref, "--prompts", "file")[0] == 0

    def test_of_an_ensemble_are_those_of_its_members(self, pair: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
        pred, ref = pair
        members = [tmp_path / name for name in ("one", "other")]
        for member in members:
            tiny.save(member / "prompts_used.json", {"source": "reference", "rule": "box"})
        assert run("evaluate", "--pred", pred, "--ref", ref, "--members", *members)[0] == 0
        info = Evaluation.load(pred).info
        assert (info["prompts"], info["members"]) == ("reference, box", list(map(str, members)))
        tiny.save(members[0] / "prompts_used.json", {"source": "session"})
        (members[1] / "prompts_used.json").unlink()
        for others, message in (
            (members, "other: no file says whether prompts were given"),
            ([tmp_path / "absent"], "absent is not a directory"),
        ):
            code, text = run("evaluate", "--pred", pred, "--ref", ref, "--members", *others)
            assert code == 2
            assert message in text
        tiny.save(members[1] / "prompts_used.json", {"source": "file"})
        code, text = run("evaluate", "--pred", pred, "--ref", ref, "--members", *members)
        assert code == 2
        assert "--members have different prompts" in text
        tiny.save(pred / "prompts_used.json", {"source": "none"})
        code, text = run("evaluate", "--pred", pred, "--ref", ref, "--members", members[0])
        assert "they have session, and what lies next to the ensemble says none" in text

    def test_of_an_earlier_versions_file_without_a_model(self, pair: tuple[Path, Path], run: Run) -> None:
        pred, ref = pair
        run("evaluate", "--pred", pred, "--ref", ref, "--prompts", "none")
        content = json.loads((pred / "metrics.json").read_text())
        content["nnunet_ext"]["format"] = 1
        for trainer, expected in ((None, "unknown"), ("nnUNetTrainer", "none")):
            content["nnunet_ext"]["info"] |= {"trainer": trainer} if trainer else {}
            (pred / "metrics.json").write_text(json.dumps(content))
            assert Evaluation.load(pred).info["prompts"] == expected


class TestFolders:
    def test_predictions_that_are_the_references(self, pair: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
        _, ref = pair
        links = tmp_path / "links"
        links.mkdir()
        for file in ref.iterdir():
            (links / file.name).symlink_to(file)
        for pred in (ref, links):
            code, text = run("evaluate", "--pred", pred, "--ref", ref, "--out", tmp_path / "out")
            assert code == 2
            assert f"{pred}: these predictions are their own references: case_0, case_1" in text
        copies = Path(shutil.copytree(ref, tmp_path / "copies"))
        code, text = run("evaluate", "--pred", copies, "--ref", ref)
        assert code == 0
        assert "Note: Every prediction equals its reference" in text
        assert Evaluation.load(copies).notes[0].startswith("Every prediction equals")

    def test_that_look_swapped(self, pair: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
        pred, ref = pair
        tiny.save(pred / "predict_from_raw_data_args.json", {})
        code, text = run("evaluate", "--pred", ref, "--ref", pred, "--out", tmp_path / "out")
        assert code == 2
        assert "They look swapped" in text
        other = write(tmp_path / "other", 3)
        code, text = run("evaluate", "--pred", other, "--ref", pred, "--dataset-json", ref.parent / "dataset.json")
        assert code == 0
        assert f"The references in {pred} look like predictions" in text

    def test_that_are_named_twice(self, pair: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
        pred, ref = pair
        assert run("evaluate", "--pred", pred, "--ref", ref)[0] == 0
        (tmp_path / "link").symlink_to(pred)
        for words in ((f"A={pred}", f"B={tmp_path / 'link'}"), (f"A={pred}", f"A={pred}/metrics.json", "B=x")):
            code, text = run("compare", *words, "--out", tmp_path / "out")
            assert code == 2
            assert f"metrics.json is named twice, for A and for {words[1][0]}." in text
