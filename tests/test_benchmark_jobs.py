"""A matrix as commands: what is shared, what needs what, what a change repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.benchmark import commands, matrix, matrix_file, workflow
from nnunet_ext.benchmark.benchmark import Benchmark
from nnunet_ext.benchmark.commands import Folders
from nnunet_ext.benchmark.jobs import Job, Jobs
from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError

LITS = "Dataset029_LiTS"


CONTENT = {
    "name": "test",
    "datasets": [{"id": 29, "name": LITS, "test": "imagesTs"}],
    "rows": [{"trainer": "nnUNetTrainerRAUNet", "name": "RA"}, {"trainer": "nnUNetTrainer", "name": "stock"}],
}


def build(folders: Path, **values: Any) -> Jobs:
    made = matrix_file.parse({**CONTENT, **values})
    return commands.build(made, Folders.of(made, folders / "out"))


def kinds(jobs: Jobs) -> dict[str, int]:
    return {kind: sum(j.kind == kind for j in jobs) for kind in matrix.KINDS}


def test_what_can_be_shared_is_shared(nnunet_folders: Path) -> None:
    rows = [
        {"trainer": "nnUNetTrainerRAUNet"}, {"trainer": "nnUNetTrainerUNet"}, {"trainer": "nnUNetTrainerUNet3D"},
        {"trainer": "nnUNetTrainer", "configurations": ["2d", "3d_fullres"]},
        {"trainer": "nnUNetTrainerRAUNet", "checkpoint": "checkpoint_best.pth", "name": "RA-U-Net, best"},
    ]  # fmt: skip
    jobs = build(nnunet_folders, rows=rows, folds=[0, 1], seeds=[5, 6, 7])
    assert kinds(jobs) == {"prepare": 0, "plan": 2, "train": 30, "predict": 36, "evaluate": 36}
    plans = {j.facts["plans"]: j for j in jobs if j.kind == "plan"}
    command = " ".join(plans["nnUNetRAUNetPlans"].command)
    assert command == "nnUNetv2_plan_and_preprocess -d 29 -c 2d 3d_fullres -pl RAUNetPlanner"
    assert plans["nnUNetPlans"].lock == plans["nnUNetRAUNetPlans"].lock  # they share a fingerprint
    both = [j for j in jobs if j.kind == "predict" and "RAUNet__" in j.needs[0] and j.needs[0].endswith("fold0_seed5")]
    assert len({j.needs for j in both}) == 1
    assert {j.facts["checkpoint"] for j in both} == {"checkpoint_final.pth", "checkpoint_best.pth"}


def test_every_seed_has_its_own_results(nnunet_folders: Path) -> None:
    jobs = build(nnunet_folders, seeds=[3, 8], budget={"epochs": 2, "iterations": 4})
    trains = [j for j in jobs if j.kind == "train"]
    assert len({j.folder for j in trains}) == 4
    for job in trains:
        results = job.environment["nnUNet_results"]
        assert results.endswith(f"seed_{job.facts['seed']}")
        assert job.folder.startswith(results)
        own = {k: v for k, v in job.environment.items() if k.startswith("NNUNET_EXT_")}
        if job.facts["row"] == "RA":
            assert own == {
                "NNUNET_EXT_SEED": str(job.facts["seed"]), "NNUNET_EXT_EPOCHS": "2", "NNUNET_EXT_ITERATIONS": "4",
            }  # fmt: skip
            assert job.facts["seeded"]
        else:  # nnU-Net's own trainer would not look at them
            assert own == {}
            assert job.facts["budget"] == "own"
            assert not job.facts["seeded"]


def test_commands_are_stock(nnunet_folders: Path) -> None:
    jobs = build(nnunet_folders, device="cpu", arguments={"predict": "-npp 1 -nps 1", "train": "--npz"})
    raw, out = nnunet_folders / "nnUNet_raw" / LITS, nnunet_folders / "out"
    by_kind = {j.kind: j for j in jobs if j.facts.get("row") == "RA"}
    train, predict, evaluate = (by_kind[k] for k in ("train", "predict", "evaluate"))
    assert " ".join(train.command) == (
        "nnUNetv2_train 29 2d 0 -tr nnUNetTrainerRAUNet -p nnUNetRAUNetPlans -device cpu --npz"
    )
    predictions = out / "predictions" / LITS / "RA" / "seed_0" / "fold_0"
    assert " ".join(predict.command) == (
        f"nnUNetv2_predict -i {raw}/imagesTs -o {predictions} -f 0 -chk checkpoint_final.pth -d 29 -c 2d "
        "-tr nnUNetTrainerRAUNet -p nnUNetRAUNetPlans -device cpu -npp 1 -nps 1"
    )
    assert " ".join(evaluate.command).startswith(
        f"nnunet_ext evaluate --pred {predictions} --ref {raw}/labelsTs --dataset"
    )
    assert (train.needs, predict.needs, evaluate.needs) == (
        ("d029_plan_nnUNetRAUNetPlans",), (train.id,), (predict.id,)
    )  # fmt: skip
    assert not train.gpu
    assert train.outputs == (f"{train.folder}/checkpoint_final.pth",)


def test_clicks_go_through_our_own_prediction(nnunet_folders: Path) -> None:
    rows = [
        {"trainer": "nnUNetTrainerSAMUSHF", "name": "plain"},
        {"trainer": "nnUNetTrainerSAMUSHF", "name": "clicked", "prompts": "reference"},
    ]
    jobs = build(nnunet_folders, rows=rows, datasets=[{"id": 30, "name": "Dataset030_BUSI", "test": "imagesTs"}])
    assert kinds(jobs)["train"] == 1
    plain, clicked = (j for j in jobs if j.kind == "predict")
    assert plain.command[0] == "nnUNetv2_predict"
    assert clicked.command[:2] == ("nnunet_ext", "predict")
    assert clicked.command[clicked.command.index("--from-reference") + 1].endswith("Dataset030_BUSI/labelsTs")
    assert clicked.command[clicked.command.index("-chk") + 1] == "checkpoint_best.pth"
    assert clicked.facts["prompts"] == "reference"


def test_without_held_out_cases_the_validation_counts(nnunet_folders: Path) -> None:
    (nnunet_folders / "nnUNet_raw" / LITS / "imagesTr").mkdir(parents=True)
    dataset = [{"id": 29}]  # found by its number; test = "auto"
    jobs = build(nnunet_folders, datasets=dataset, folds=[0, 1])
    assert kinds(jobs) == {"prepare": 0, "plan": 2, "train": 4, "predict": 0, "evaluate": 4}
    evaluate = next(j for j in jobs if j.kind == "evaluate")
    model = Path(jobs[evaluate.needs[0]].folder).parent
    assert evaluate.command[:6] == ("nnunet_ext", "evaluate", "-m", str(model), "-f", "0")
    assert str(model / "fold_0" / "validation" / "summary.json") in jobs[evaluate.needs[0]].outputs

    best = build(nnunet_folders, datasets=dataset, rows=[{"trainer": "nnUNetTrainerSAMUSHF"}])
    assert "--val_best" in next(j for j in best if j.kind == "train").command
    same = [{"trainer": "nnUNetTrainerRAUNet", "checkpoint": c, "name": c} for c in (matrix.FINAL, matrix.BEST)]
    with pytest.raises(InputError, match="must have the same checkpoint"):
        build(nnunet_folders, datasets=dataset, rows=same)
    clicks = [{"trainer": "nnUNetTrainerSAMUSHF", "prompts": "reference"}]
    with pytest.raises(InputError, match="needs held-out cases"):
        build(nnunet_folders, datasets=dataset, rows=clicks)

    for sub in ("imagesTs", "labelsTs"):
        (nnunet_folders / "nnUNet_raw" / LITS / sub).mkdir()
    (nnunet_folders / "nnUNet_raw" / LITS / "labelsTs" / "a.nii").touch()
    assert kinds(build(nnunet_folders, datasets=dataset))["predict"] == 2


def test_a_dataset_that_is_not_there(nnunet_folders: Path) -> None:
    with pytest.raises(InputError, match="Dataset 7 is not in") as e:
        build(nnunet_folders, datasets=[{"id": 7}, {"id": 8}])
    assert len(e.value.problems) == 2
    for name in ("Dataset007_A", "Dataset007_B"):
        (nnunet_folders / "nnUNet_raw" / name).mkdir()
    with pytest.raises(InputError, match="Dataset007_A, Dataset007_B"):
        build(nnunet_folders, datasets=[{"id": 7}])


def test_what_a_change_repeats(nnunet_folders: Path) -> None:
    """Jobs keep their hash unless something that their result depends on has changed."""
    before = {j.id: j.hash for j in build(nnunet_folders, budget={"epochs": 2})}

    def repeated(**values: Any) -> set[str]:
        after = {j.id: j.hash for j in build(nnunet_folders, **{"budget": {"epochs": 2}, **values})}
        return {f"{k.split('_')[1]} {'RA' if 'RA' in k else 'stock'}" for k in after if after[k] != before.get(k)}

    assert repeated() == set()
    assert repeated(environment={"nnUNet_def_n_proc": 3}) == set()
    assert repeated(environment={"NNUNET_EXT_RECOMPUTE": 1, "NNUNET_EXT_SLIM_CHECKPOINTS": 1}) == set()
    assert repeated(environment={"NNUNET_EXT_SAM_CHECKPOINT": "random"}) != set()
    assert repeated(budget={"epochs": 3}) == {"train RA", "predict RA", "evaluate RA"}
    assert repeated(arguments={"evaluate": "--tolerance 1"}) == {"evaluate RA", "evaluate stock"}
    assert len(repeated(arguments={"plan": "-gpu_memory_target 4"})) == 8
    raw = nnunet_folders / "nnUNet_raw" / LITS
    raw.mkdir()
    (raw / "splits_final.json").write_text("[]")
    assert len(repeated()) == 8  # another split


@pytest.mark.parametrize("file", ["splits_final.json", "nnUNetRAUNetPlans.json"])
def test_other_preprocessed_data_repeat_what_was_trained_on_them(nnunet_folders: Path, file: str) -> None:
    dataset = [{"id": 29, "name": LITS, "test": "imagesTs", "preprocess": False}]
    preprocessed = nnunet_folders / "nnUNet_preprocessed" / LITS
    preprocessed.mkdir(parents=True)
    before = {j.id: j.hash for j in build(nnunet_folders, datasets=dataset)}
    assert {j.id: j.hash for j in build(nnunet_folders, datasets=dataset)} == before
    (preprocessed / file).write_text("{}")
    changed = [j for j in build(nnunet_folders, datasets=dataset) if j.hash != before[j.id]]
    rows = {"RA", "stock"} if file == "splits_final.json" else {"RA"}
    expected = {(kind, row) for kind in ("train", "predict", "evaluate") for row in rows}
    assert {(j.kind, j.facts["row"]) for j in changed} == expected


def written(folder: Path, name: str = "m", dataset: str = "", row: dict[str, str] | None = None) -> Path:
    """A matrix of one dataset and row as a file."""
    file, row = folder / f"{name}.toml", row or {"trainer": "nnUNetTrainer"}
    keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in row.items())
    file.write_text(
        f'name = "{name}"\nseeds = [4]\n[[datasets]]\nid = 29\nname = "{LITS}"\n{dataset}\n[[rows]]\n{keys}'
    )
    return file


def test_preprocessed_data_have_a_split(nnunet_folders: Path) -> None:
    """nnU-Net would make one in the first training, which changes what counts as done."""
    file = written(nnunet_folders, dataset="preprocess = false")
    for folder, name in (("nnUNet_raw", "dataset"), ("nnUNet_preprocessed", "nnUNetPlans")):
        (nnunet_folders / folder / LITS).mkdir(parents=True)
        (nnunet_folders / folder / LITS / f"{name}.json").write_text("{}")
    with pytest.raises(InputError, match=r"There is no .*splits_final\.json"):
        Benchmark.of(file, nnunet_folders / "out").check_data()
    (nnunet_folders / "nnUNet_preprocessed" / LITS / "splits_final.json").write_text("[]")
    Benchmark.of(file, nnunet_folders / "out").check_data()


def test_the_folder_may_be_moved(nnunet_folders: Path) -> None:
    made = matrix_file.load("smoke")
    here, there = (commands.build(made, Folders.of(made, nnunet_folders / n)) for n in ("here", "dort, über"))
    assert [j.hash for j in here] == [j.hash for j in there]


def test_a_cluster_is_asked_for_what_the_matrix_says(nnunet_folders: Path) -> None:
    slurm = {"partition": "gpu", "mem_gb": 1.5, "cpus": 6, "gpus": 2, "minutes": {"train": 90}, "signal_delay_s": 30}
    made = matrix_file.parse({**CONTENT, "slurm": slurm})
    jobs, file = commands.build(made, Folders.of(made, nnunet_folders / "out")), nnunet_folders / "flow"
    workflow.write(file, jobs, made, "slurm")
    content = json.loads(Path(f"{file}.json").read_text())
    assert content["resources"]["train"] == {
        "runtime": 90, "cpus_per_task": 6, "mem_mb": 1536, "slurm_partition": "gpu", "gpu": 2,
    }  # fmt: skip
    assert "gpu" not in content["resources"]["evaluate"]
    assert content["slurm"] == {"setup": [], "signal_delay_s": 30, "max_timeouts": 10}
    assert [Job(**{**job, "command": tuple(job["command"])}).line() for job in content["jobs"]] == [
        j.line() for j in jobs
    ]
    workflow.write(file, jobs, made, "local")
    content = json.loads(Path(f"{file}.json").read_text())
    assert content["resources"] == {
        "prepare": {},
        "plan": {},
        "train": {"gpu": 1},
        "predict": {"gpu": 1},
        "evaluate": {},
    }
    assert content["slurm"] == {}
    gres = matrix_file.parse({**CONTENT, "slurm": {"gres": "gpu:a100:1"}})
    assert workflow._resources(gres.slurm, "train", list(jobs), "slurm")["gres"] == "gpu:a100:1"


def test_order_and_needs(nnunet_folders: Path) -> None:
    jobs = build(nnunet_folders, seeds=[0, 1])
    seen: set[str] = set()
    for job in jobs:
        assert set(job.needs) <= seen
        seen.add(job.id)
    evaluate = next(j for j in jobs if j.kind == "evaluate")
    assert [j.kind for j in jobs.with_needs(evaluate)] == ["plan", "train", "predict", "evaluate"]
    with pytest.raises(ValueError, match="two jobs"):
        jobs.add(id=evaluate.id, kind="train", command=("true",))


def test_plan_prints_every_command(nnunet_folders: Path, capsys: pytest.CaptureFixture) -> None:
    row = {"name": "a row, 'quoted'", "trainer": "nnUNetTrainerRAUNet"}
    file = written(nnunet_folders, dataset='test = "imagesTs"', row=row)
    assert main(["benchmark", "plan", str(file), "--out", str(nnunet_folders / "out dir")]) == 0
    printed = capsys.readouterr().out
    for job in Benchmark.of(file, nnunet_folders / "out dir").jobs:
        assert f" {job.id}\n" in printed
    assert f"export nnUNet_raw={nnunet_folders}/nnUNet_raw" in printed
    assert "unset NNUNET_EXT_EPOCHS NNUNET_EXT_ITERATIONS NNUNET_EXT_VAL_ITERATIONS NNUNET_EXT_SEED" in printed
    assert (
        f"nnUNet_results='{nnunet_folders}/out dir/nnUNet_results/seed_4' NNUNET_EXT_SEED=4 nnUNetv2_train" in printed
    )
    assert """'a row, '"'"'quoted'"'"''""" in printed
    assert not (nnunet_folders / "out dir").exists()  # it only prints


def test_nothing_runs_without_its_data(nnunet_folders: Path, capsys: pytest.CaptureFixture) -> None:
    out = nnunet_folders / "out"
    assert main(["benchmark", "run", "lits-table1", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"There is no {nnunet_folders}/nnUNet_raw/Dataset029_LiTS/dataset.json" in said
    assert "nnunet_ext convert" in said
    assert not out.exists()


def test_a_folder_belongs_to_one_benchmark(nnunet_folders: Path) -> None:
    def made(name: str) -> Benchmark:
        return Benchmark.of(written(nnunet_folders, name), nnunet_folders / "out")

    made("mine").claim_folder()
    made("mine").claim_folder()
    assert (nnunet_folders / "out" / "matrix.toml").read_text() == (nnunet_folders / "mine.toml").read_text()
    with pytest.raises(InputError, match="holds the benchmark 'mine', not 'yours'"):
        made("yours").claim_folder()
    other = nnunet_folders / "other"
    other.mkdir()
    for name in ("matrix.toml", "benchmark.json"):
        (other / name).write_text('{"speed": 1}')
        with pytest.raises(InputError, match=f"{other / name}: not written by nnunet_ext benchmark"):
            Benchmark.of(nnunet_folders / "mine.toml", other).claim_folder()
        assert (other / name).read_text() == '{"speed": 1}'
        (other / name).unlink()
    (nnunet_folders / "mine.toml").rename(other / "matrix.toml")
    Benchmark.of(other / "matrix.toml", other).claim_folder()  # the user's own copy, as it is
    (other / "matrix.toml").rename(nnunet_folders / "mine.toml")
    (nnunet_folders / "file").touch()
    with pytest.raises(InputError, match="file is a file"):
        Benchmark.of(nnunet_folders / "mine.toml", nnunet_folders / "file")
    with pytest.raises(InputError, match="file is not a writable directory"):
        Benchmark.of(nnunet_folders / "mine.toml", nnunet_folders / "file" / "out").claim_folder()


@pytest.mark.parametrize("where", ["nnUNet_raw", "nnUNet_preprocessed", ""])
def test_folds_that_the_split_lacks_are_refused(
    nnunet_folders: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    """nnU-Net would draw a random split for them. Status and report still know what has been run."""
    folder = nnunet_folders / (where or "nnUNet_raw") / LITS
    folder.mkdir(parents=True)
    (nnunet_folders / "nnUNet_raw" / LITS).mkdir(exist_ok=True)
    (nnunet_folders / "nnUNet_raw" / LITS / "dataset.json").write_text("{}")
    if where:
        (folder / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 3))
    matrix, out = nnunet_folders / "m.toml", nnunet_folders / "out"
    for folds, code in (([0, 2], 0), ([0, 4], 2 if where else 0), ([0, 7], 2)):
        matrix.write_text(
            f'name = "m"\nfolds = {folds}\ndevice = "cpu"\n[[datasets]]\nid = 29\n[[rows]]\ntrainer = "nnUNetTrainer"\n'
        )
        for step in ("plan", "run") if code else ("plan",):
            assert main(["benchmark", step, str(matrix), "--out", str(out)]) == code
            said = capsys.readouterr().err
            assert (f"the folds 0 to {2 if where else 4}, and not {folds[1]}." in said) == (code == 2)
    assert not out.exists()
    assert main(["benchmark", "status", str(matrix), "--out", str(out)]) == 0


def test_a_workflow_replaces_workflows_only(nnunet_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrix = nnunet_folders / "mine.toml"
    matrix.write_text(f'name = "m"\n[[datasets]]\nid = 29\nname = "{LITS}"\n[[rows]]\ntrainer = "nnUNetTrainer"\n')
    file = nnunet_folders / "Snakefile"

    def plan() -> int:
        return main(["benchmark", "plan", str(matrix), "--snakefile", str(file)])

    assert plan() == plan() == 0
    for theirs in (file, file.with_name("Snakefile.json")):
        kept, text = theirs.read_text(), '{"root": "rule all:"}'
        theirs.write_text(text)
        assert plan() == 2
        assert f"{theirs}: not written by nnunet_ext benchmark plan" in capsys.readouterr().err
        assert theirs.read_text() == text
        theirs.write_text(kept)


def test_sams_weights_are_asked_for_before_anything_runs(
    nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    raw, out = nnunet_folders / "nnUNet_raw" / "Dataset030_BUSI", nnunet_folders / "out"
    for sub in ("imagesTs", "labelsTs"):
        (raw / sub).mkdir(parents=True)
    (raw / "dataset.json").write_text("{}")
    monkeypatch.setenv("NNUNET_EXT_SAM_CHECKPOINT", str(nnunet_folders / "sam.pth"))
    assert main(["benchmark", "run", "busi-table1", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"there is no {nnunet_folders}/sam.pth" in said
    assert "nnunet_ext weights download" in said
    assert "convert" not in said
    assert not out.exists()

    monkeypatch.setenv("NNUNET_EXT_SAM_CHECKPOINT", "random")
    made = Benchmark.of("busi-table1", out)
    made.check_data()
    variables = {j.facts["row"]: j.environment.get("NNUNET_EXT_SAM_CHECKPOINT") for j in made.jobs if j.kind == "train"}
    assert variables["SAMUS-HF"] == "random"  # said in the plan, and another result than with the weights
    assert variables["nnU-Net"] is None


def test_without_nnunets_variables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert main(["benchmark", "plan", "lits-table1"]) == 2
    said = capsys.readouterr().err
    assert "nnUNet_raw is not set" in said
    assert "nnUNet_preprocessed is not set" in said
