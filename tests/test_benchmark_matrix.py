"""The TOML file: what it may say, and every mistake at once."""

from __future__ import annotations

import copy
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext import registry
from nnunet_ext.benchmark import matrix, matrix_file
from nnunet_ext.benchmark.jobs import script
from nnunet_ext.common.errors import InputError
from nnunet_ext.metrics.published import Published

SMALL: dict[str, Any] = {
    "name": "small",
    "datasets": [{"id": 29}],
    "rows": [{"trainer": "nnUNetTrainerRAUNet"}],
}


def changed(**values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SMALL), **values}


def problems(**values: Any) -> list[str]:
    with pytest.raises(InputError) as e:
        matrix_file.parse(changed(**values))
    return list(e.value.problems)


def test_ours_come_with_everything() -> None:
    (row,) = matrix_file.parse(SMALL).rows
    assert row == matrix.Row(
        name="nnUNetTrainerRAUNet 2d",
        trainer="nnUNetTrainerRAUNet",
        planner="RAUNetPlanner",
        plans="nnUNetRAUNetPlans",
        configuration="2d",
        checkpoint="checkpoint_final.pth",
        datasets=[],
    )
    (row,) = matrix_file.parse(changed(rows=[{"trainer": "nnUNetTrainerUNet3D"}])).rows
    assert row.configuration == "3d_fullres"
    (row,) = matrix_file.parse(changed(rows=[{"trainer": "nnUNetTrainerSAMUSHF"}])).rows
    assert (row.checkpoint, row.plans) == ("checkpoint_best.pth", "nnUNetSAMUSPlans")


def test_primary_metric_is_one_to_rank_by() -> None:
    assert matrix_file.parse(SMALL).primary is None
    assert matrix_file.parse(changed(primary="hd95")).primary == "hd95"
    for wrong in ("volume_error", "nothing"):
        (problem,) = problems(primary=wrong)
        assert f"primary is {wrong!r}, but must be one of dice, iou, " in problem


def test_stock_trainers_on_stock_plans() -> None:
    rows = [{"trainers": ["nnUNetTrainer", "nnUNetTrainer_5epochs"], "configurations": ["2d", "3d_fullres"]}]
    made = matrix_file.parse(changed(rows=rows)).rows
    assert [r.name for r in made] == [
        "nnUNetTrainer 2d", "nnUNetTrainer 3d_fullres", "nnUNetTrainer_5epochs 2d", "nnUNetTrainer_5epochs 3d_fullres",
    ]  # fmt: skip
    assert {(r.planner, r.plans) for r in made} == {("ExperimentPlanner", "nnUNetPlans")}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"plans": "nnUNetPlans"}, ("ExperimentPlanner", "nnUNetPlans")),
        ({"plans": "nnUNetResEncUNetLPlans"}, ("nnUNetPlannerResEncL", "nnUNetResEncUNetLPlans")),
        ({"planner": "nnUNetPlannerResEncM"}, ("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans")),
        ({"planner": "ExperimentPlanner", "plans": "mine"}, ("ExperimentPlanner", "mine")),
    ],
)
def test_planner_and_plans_follow_from_each_other(given: dict[str, str], expected: tuple[str, str]) -> None:
    (row,) = matrix_file.parse(changed(rows=[{"trainer": "nnUNetTrainerRAUNet", **given}])).rows
    assert (row.planner, row.plans) == expected


def test_every_mistake_is_named_at_once_with_its_place() -> None:
    found = problems(
        name="a name with spaces",
        device="tpu",
        seeds=[1, 1, -1],
        folds=[],
        budget={"epochs": 0, "iteration": 5},
        datasets=[
            {"id": "LiTS"},
            {"id": 30, "name": "Dataset031_BUSI"},
            {"id": 31, "prepare": ["make it", "", 'make "it']},
            {"id": 32, "prepare": ["make it"]},
        ],
        rows=[
            {"trainer": "nnUNetTrainerRAUnet"},
            {"name": "x", "trainer": "nnUNetTrainer", "checkpoint": "best"},
            {"trainer": "nnUNetTrainer", "name": "***"},
        ],
        published=[{"row": "nobody", "metrics": {"dise": 0.5}, "source": "a paper"}, {"row": "x", "metrics": "high"}],
        environment={"NNUNET_EXT_EPOCHS": 3, "nnUNet_def_n_proc": True, "train": 5},
        slurm={"minutes": {"training": 5}, "cpus": "many"},
        arguments={"plan": "-np '4", "prepare": "more"},
        seed=3,
    )
    for expected in (
        "matrix: name is 'a name with spaces', but must match pattern", "matrix: there is no key 'seed' (did you mean",
        "matrix: device is 'tpu', but must be 'cuda', 'cpu' or 'mps'", "matrix: seeds, item 3 is -1, but must be",
        "matrix: folds is [], but must have at least 1 item", "[budget]: epochs is 0, but must be greater than 0",
        "[budget]: there is no key 'iteration' (did you mean iterations?); known are epochs, iterations",
        "[[datasets]] 1: id is 'LiTS', but must be a valid integer", "[[datasets]] 2: name is 'Dataset031_BUSI', but",
        "[[datasets]] 3: prepare, item 2 is empty", "[[datasets]] 3: prepare, item 3 is 'make \"it', which cannot",
        "[[datasets]] 4: with prepare, name must say", '[[datasets]] 4: with prepare, test must be "imagesTs"',
        "[[rows]] 1: nnU-Net has no trainer 'nnUNetTrainerRAUnet' (did you mean nnUNetTrainerRAUNet?)",
        "[[rows]] 2: checkpoint is 'best', but must be",
        "[[published]] 1: metrics has 'dise', which is not a metric (did you mean dice?)",
        "[[published]] 2: metrics is 'high', but must be a valid dictionary", "[[published]] 2: source is missing",
        "NNUNET_EXT_EPOCHS is set by the benchmark", "nnUNet_def_n_proc is True, but", "environment train must be a",
        "[slurm.minutes]: there is no key 'training' (did you mean train?)", "[slurm]: cpus is 'many', but must be",
        "[arguments]: plan is \"-np '4\", which cannot be read", "[arguments]: prepare is 'more'",
        "matrix: names of rows need letters or digits",
    ):  # fmt: skip
        assert any(problem.startswith(expected) or expected in problem for problem in found), (expected, found)


def test_what_only_shows_together_is_named_as_well() -> None:
    """Beside faults elsewhere; but what a table with a fault may have meant is not guessed at."""
    figures = {"row": "RA", "metrics": {"dice": 0.7}, "source": "a paper"}
    rows = [{"trainer": "nnUNetTrainer", "name": "R A"}, {"trainer": "nnUNetTrainer", "name": "R_A", "datasets": [7]}]
    found = problems(datasets=[{"id": 29}, {"id": 29}], rows=rows, published=[figures], seeds=[0, 0])
    for expected in (
        "seeds must differ, but these are there more than once: 0", "dataset ids must differ",
        "names of rows must differ, but these are there more than once: R_A",
        "row 'R_A' names datasets that are not there: 7", "[[published]] names a row 'RA' (did you mean",
    ):  # fmt: skip
        assert any(expected in problem for problem in found), (expected, found)
    found = problems(rows=[*rows, {"trainer": "nobody"}], datasets=[{"id": 29}, {}], published=[figures])
    assert not any("[[published]]" in problem or "not there: 7" in problem for problem in found)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"trainer": "nnUNetTrainerSAMUSClick"}], 'add prompts = "reference"'),
        ([{"trainer": "nnUNetTrainer", "prompts": "reference"}], "needs a trainer that takes clicks"),
        ([{"trainer": "nnUNetTrainer", "planner": "nnUNetPlannerResEncX"}], "no planner 'nnUNetPlannerResEncX'"),
        ([{"trainer": "nnUNetTrainer", "planner": "ResEncUNetPlanner"}], "plans must say how ResEncUNetPlanner calls"),
        ([{"trainer": "nnUNetTrainer", "plans": "a__b"}], "contains '__'"),
        ([{"trainer": "nnUNetTrainer", "trainers": ["nnUNetTrainer"]}], "either trainer or trainers"),
        ([{"trainers": ["nnUNetTrainer", "nnUNetTrainerUNet"], "name": "x"}], "would stand for 2 rows"),
        (
            [
                {"trainer": "nnUNetTrainerUNet", "planner": "RAUNetPlanner", "plans": "p"},
                {"trainer": "nnUNetTrainer", "planner": "ExperimentPlanner", "plans": "p"},
            ],
            "made by several planners",
        ),
        (
            [{"trainer": "nnUNetTrainer", "checkpoint": "checkpoint_latest.pth"}],
            "checkpoint is 'checkpoint_latest.pth', but must be 'checkpoint_final.pth' or 'checkpoint_best.pth'",
        ),
        ([{"trainer": "nnUNetTrainer", "name": ".."}], "names of rows need letters or digits"),
        ([{"trainer": "nnUNetTrainer", "name": "a\x1b[2J"}], "name is 'a\\x1b[2J', which holds control characters"),
        ([{"trainer": "nnUNetTrainer", "name": "--out"}], "name is '--out', which commands would take for an option"),
        ([{"trainer": "nnUNetTrainer", "plans": "../../x"}], "plans is '../../x', but must begin with a letter"),
        ([{"trainer": "nnUNetTrainer", "plans": "p\nreboot #"}], "have no slashes or control characters"),
        ([{"trainer": "nnUNetTrainer", "configuration": ".."}], "configuration is '..', but must begin with"),
        ([{"trainer": "nnUNetTrainer", "configurations": ["2d", "--c"]}], "configurations, item 2 is '--c', but must"),
        ([{}], "trainer is missing"),
        ([], "rows is [], but must have at least 1 item"),
    ],
)
def test_rows_that_cannot_be(rows: list[dict[str, Any]], expected: str) -> None:
    assert any(expected in p for p in problems(rows=rows)), problems(rows=rows)


def test_names_of_variables_are_what_a_shell_takes() -> None:
    """They stand unquoted in the printed script."""
    found = problems(environment={"A; reboot": 1, "train": {"B=1 reboot #": "x", "OK": "$(reboot)"}})
    assert found == [
        "matrix: environment 'A; reboot' is not the name of a variable",
        "matrix: environment 'B=1 reboot #' is not the name of a variable",
    ]


def test_a_title_stays_in_its_line_of_the_script() -> None:
    made = matrix_file.parse(changed(title="Livers\nreboot"))
    assert made.title == "Livers reboot"
    assert "# Livers reboot: 0 jobs" in script([], made.title).splitlines()


def test_published_figures_are_of_a_dataset() -> None:
    """Else a paper's figures on livers would stand beside results on breasts."""
    published = {"row": "RA", "metrics": {"dice": 0.7}, "source": "a paper"}
    datasets = [{"id": 29}, {"id": 30}]
    rows = [{"trainer": "nnUNetTrainerRAUNet", "name": "RA"}]
    assert any("must say of which dataset" in p for p in problems(datasets=datasets, rows=rows, published=[published]))
    assert any("must say of which" in p for p in problems(rows=rows, published=[{**published, "dataset": 7}]))
    said = {**published, "dataset": 29}
    made = matrix_file.parse(changed(datasets=datasets, rows=rows, published=[said]))
    assert [len(made.published_of(dataset)) for dataset in made.datasets] == [1, 0]


def test_no_matrix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read") as e:
        matrix_file.load(tmp_path / "no.toml")
    assert "lits-table1" in e.value.hint
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(InputError, match="is not valid TOML"):
        matrix_file.load(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes("name = 'Größe'".encode("latin-1"))
    with pytest.raises(InputError, match="is not text in UTF-8"):
        matrix_file.load(tmp_path / "latin.toml")


@pytest.mark.parametrize("preset", ["lits-table1", "busi-table1", "smoke"])
def test_presets(preset: str) -> None:
    made = matrix_file.load(preset)
    assert made.name == preset
    assert made.differences or preset == "smoke"


def test_the_liver_preset_has_the_papers_rows_and_figures() -> None:
    made = matrix_file.load("lits-table1")
    papers = {e.paper_row: e for e in registry.entries("trainer") if e.paper_row and e.planner == "RAUNetPlanner"}
    rows = {r.name: r for r in made.rows}
    for name, entry in papers.items():
        assert rows[name].trainer == entry.name
        assert rows[name].configuration == entry.configuration
    stock = {(r.trainer, r.configuration) for r in made.rows if registry.get("trainer", r.trainer) is None}
    assert stock == {("nnUNetTrainer", "2d"), ("nnUNetTrainer", "3d_fullres")}
    assert any(r.trainer == "nnUNetTrainerMatchedBudget" for r in made.rows)
    assert {p.row: p.metrics["dice"] for p in made.published} == {
        "RA-U-Net": 0.773, "U-Net": 0.648, "U-Net+Attention": 0.481, "U-Net+Res-block": 0.688, "3D U-Net": 0.717,
    }  # fmt: skip
    assert {p.row for p in made.published} == set(papers)
    for p in made.published:  # what a table can hold at all: a mean Dice is at most the harmonic mean of the means
        precision, recall = p.metrics["precision"], p.metrics["recall"]
        assert p.metrics["dice"] <= 2 * precision * recall / (precision + recall) + 0.001


def test_the_ultrasound_preset_keeps_clicks_apart() -> None:
    made = matrix_file.load("busi-table1")
    clicks = [r for r in made.rows if r.prompts == "reference"]
    assert {r.trainer for r in clicks} == {
        f"nnUNetTrainer{n}Click" for n in ("SAMUSHF", "SAMUS", "SAMUSHFControl", "SAM", "MatchedBudget400")
    }
    assert {r.trainer for r in made.rows} - {r.trainer for r in clicks} == {
        *(f"nnUNetTrainer{n}" for n in ("SAMUSHF", "SAMUS", "SAMUSHFControl", "SAM", "MatchedBudget400")),
        "nnUNetTrainer",
    }
    assert all(r.checkpoint == "checkpoint_best.pth" for r in made.rows if r.plans == "nnUNetSAMUSPlans")
    assert {p.row for p in made.published} <= {r.name for r in clicks}  # the papers' figures are of that protocol


def test_the_example_of_the_help_is_a_matrix_with_every_key(tmp_path: Path) -> None:
    from nnunet_ext.cli import benchmark

    text = benchmark.__doc__.split("none.\n", 1)[1].split("\n`run`", 1)[0]
    (tmp_path / "example.toml").write_text(textwrap.dedent(text))
    made = matrix_file.load(tmp_path / "example.toml")
    assert made.rows[0].name == made.published[0].row == "RA-U-Net"
    assert made.slurm.minutes.train == 2880
    assert all(preset in benchmark.__doc__ for preset in matrix_file.presets())
    models = [matrix.Matrix, matrix.Budget, matrix.Dataset, matrix.Rows, Published, matrix.Slurm]
    for model in [*models, matrix.Minutes, matrix.Arguments]:
        for key, field in model.model_fields.items():  # nothing is left unsaid
            assert re.search(rf"\b{field.alias or key}", benchmark.__doc__), key
