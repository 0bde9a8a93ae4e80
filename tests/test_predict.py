"""nnunet_ext predict: clicks from a file or from the reference, and where they came from written down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
import tiny
import torch
from commands import ONE_ITERATION, folders
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from training import CPU, train, untrained

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.inference.encoded_case import prompted_logits
from nnunet_ext.inference.prompts import (
    ForegroundMaps,
    ObjectPrompt,
    clicks_from_reference,
    fixed_clicks,
    random_clicks,
    to_original,
    to_preprocessed,
)
from nnunet_ext.trainers.samus_training import ForegroundLoss, dice_bce, dice_loss, dice_mse

PLANS = "nnUNetSAMUSPlans"
TINY = "nnUNetTrainerSAMUSHFTiny"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models as a training begins with them: 35 pictures with one class, 36 volumes with two classes."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in folders(root).items():
            patch.setenv(name, value)
        tiny.make_raw(35, tiny.BINARY, channels=("ultrasound",), png=True)
        tiny.make_raw(36, tiny.CLASSES, shape=(2, 40, 36))
        for dataset in (35, 36):
            tiny.plan_and_preprocess(dataset, "SAMUSPlanner")
            untrained(TINY, dataset, PLANS)
    return root


def model(root: Path, trainer: str = TINY, dataset: int = 35) -> Path:
    return root / "nnUNet_results" / f"Dataset{dataset:03d}_Tiny" / f"{trainer}__{PLANS}__2d"


def raw(root: Path, folder: str, dataset: int = 35) -> Path:
    return root / "nnUNet_raw" / f"Dataset{dataset:03d}_Tiny" / folder


def predict(root: Path, out: Path, *options: object, trainer: str = TINY, dataset: int = 35) -> int:
    where = ("-m", model(root, trainer, dataset), "-i", raw(root, "imagesTr", dataset), "-o", out)
    return main([*map(str, ("predict", *where, "-device", "cpu", *options))])


def read(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(file))


def record(out: Path) -> dict:
    return json.loads((out / "prompts_used.json").read_text())


def test_one_checkpoint_with_and_without_clicks(trained: Path, tmp_path: Path) -> None:
    assert predict(trained, tmp_path / "none", "--npz") == 0
    assert predict(trained, tmp_path / "click", "--from-reference", raw(trained, "labelsTr"), "--npz") == 0
    for out, source in (("none", "none"), ("click", "reference")):
        assert {f.name for f in (tmp_path / out).glob("*.png")} == {f"case_{i}.png" for i in range(4)}
        assert read(tmp_path / out / "case_0.png").shape == (40, 36)
        assert record(tmp_path / out)["source"] == source
    assert "not comparable" in record(tmp_path / "click")["warning"]
    none, click = (np.load(tmp_path / out / "case_0.npz")["probabilities"] for out in ("none", "click"))
    assert not np.allclose(none, click)


def test_without_clicks_it_is_what_nnunet_predicts(trained: Path, tmp_path: Path) -> None:
    predict(trained, tmp_path / "out")
    predictor = nnUNetPredictor(device=CPU, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model(trained)), (0,), "checkpoint_best.pth")
    image = str(raw(trained, "imagesTr") / "case_1_0000.png")
    [expected] = predictor.predict_from_files_sequential([[image]], None)
    assert np.array_equal(read(tmp_path / "out" / "case_1.png"), expected[0])


def test_clicks_from_the_reference_are_on_the_lesion(trained: Path, tmp_path: Path) -> None:
    predict(trained, tmp_path / "out", "--from-reference", raw(trained, "labelsTr"))
    for case, clicks in record(tmp_path / "out")["cases"].items():
        [click] = clicks
        x, y = (round(v) for v in click["point"])
        assert click["foreground"]
        assert read(raw(trained, "labelsTr") / f"{case}.png")[y, x] == 1


@pytest.mark.slow
def test_clicks_from_a_file_equal_the_same_clicks_from_the_reference(trained: Path, tmp_path: Path) -> None:
    predict(trained, tmp_path / "reference", "--from-reference", raw(trained, "labelsTr"), "--npz")
    used = record(tmp_path / "reference")["cases"]
    prompts = {
        case: [{"point": c["point"][:2], "foreground": c["foreground"]} for c in cs] for case, cs in used.items()
    }
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    predict(trained, tmp_path / "file", "--prompts", tmp_path / "prompts.json", "--npz")
    for i in range(4):
        a, b = (np.load(tmp_path / out / f"case_{i}.npz")["probabilities"] for out in ("reference", "file"))
        np.testing.assert_allclose(a, b, atol=1e-3)  # the record rounds to a hundredth of a pixel
    assert record(tmp_path / "file")["source"] == "file"


def test_several_clicks_classes_and_slices(trained: Path, tmp_path: Path) -> None:
    prompts = {
        f"case_{i}": [
            {"point": [18, 20, 1], "class": "tumour"},
            {"point": [2, 2, 1], "class": "tumour", "foreground": False},
            {"point": [18, 20, 0], "class": "liver"},
        ]
        for i in range(4)
    }
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    assert predict(trained, tmp_path / "out", "--prompts", tmp_path / "prompts.json", dataset=36) == 0
    assert read(tmp_path / "out" / "case_0.nii.gz").shape == (2, 40, 36)
    assert record(tmp_path / "out")["cases"]["case_0"] == [
        {"class": "tumour", "point": [18, 20, 1], "foreground": True},
        {"class": "tumour", "point": [2, 2, 1], "foreground": False},
        {"class": "liver", "point": [18, 20, 0], "foreground": True},
    ]


@pytest.mark.slow
def test_network_trained_with_clicks_only(
    trained: Path, tmp_path: Path, fork_pools: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    trainer = f"{TINY}Click"
    for name, value in {**folders(trained), **ONE_ITERATION, "nnUNet_n_proc_DA": "0"}.items():
        monkeypatch.setenv(name, value)
    train(trainer, 35, plans=PLANS)
    assert predict(trained, tmp_path / "out", trainer=trainer) == 2
    assert "--from-reference" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert predict(trained, tmp_path / "out", "--from-reference", raw(trained, "labelsTr"), trainer=trainer) == 0
    validated = model(trained, trainer) / "fold_0" / "validation" / "case_2.png"
    chosen = ("-chk", "checkpoint_final.pth", "--from-reference", raw(trained, "labelsTr"))
    predict(trained, tmp_path / "final", *chosen, trainer=trainer)
    assert np.array_equal(read(tmp_path / "final" / "case_2.png"), read(validated))
    for folder in (validated.parent, tmp_path / "final"):
        assert json.loads((folder / "prompts_used.json").read_text())["source"] == "reference"


@pytest.mark.slow
def test_continues_and_refuses_to_mix(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    predict(trained, tmp_path / "out")
    (tmp_path / "out" / "case_1.png").unlink()
    before = (tmp_path / "out" / "case_0.png").stat().st_mtime_ns
    predict(trained, tmp_path / "out")
    assert "1 case predicted" in capsys.readouterr().out
    assert (tmp_path / "out" / "case_0.png").stat().st_mtime_ns == before
    for other in (("--from-reference", raw(trained, "labelsTr")), ("--npz",), ("-chk", "checkpoint_final.pth")):
        assert predict(trained, tmp_path / "out", *other) == 2
        assert "another request" in capsys.readouterr().err
    assert predict(trained, tmp_path / "out", "--npz", "--overwrite") == 0
    assert (tmp_path / "out" / "case_0.npz").exists()
    for name in ("plans.json", "dataset.json"):
        assert (tmp_path / "out" / name).read_bytes() == (model(trained) / name).read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "holds a list, not a dict"),
        ('{"case_9": []}', "no image for case_9"),
        ('{"case_0": 3}', "case_0 has no list"),
        ('{"case_0": [{"point": [1]}]}', "point: List should have at least 2 items"),
        ('{"case_0": [{"point": [1, 2, 3]}]}', '"point" must be 2 numbers'),
        ('{"case_0": [{"point": [1, NaN]}]}', "prompts.json"),
        ('{"case_0": [{"box": [5, 5, 5, 9]}]}', "prompt 1 of case_0: the box [5, 5, 5, 9] is empty"),
        (
            '{"case_0": [{"box": [5, 5, 7, 9]}, {"box": [5, 5, 7, 9]}]}',
            "prompt 2 of case_0: this object has a box already",
        ),
        ('{"case_0": [{"point": [1, 2], "object": 0}]}', "object: Input should be greater than or equal to 1"),
        ('{"case_0": [' + ", ".join(['{"point": [1, 2]}'] * 10_000) + "]}", "more than 1000 prompts for case_0"),
        ('{"case_0": [{"point": [1, 2], "class": "cyst"}]}', '"class" must be one of tumour'),
        ('{"case_0": [{"point": [1, 2], "foreground": 1}]}', "foreground: Input should be a valid boolean"),
        ('{"case_0": [{"points": [1, 2]}]}', 'not an object with either "point" or "box"'),
    ],
)
def test_wrong_prompt_files(
    content: str, message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "prompts.json").write_text(content)
    assert predict(trained, tmp_path / "out", "--prompts", tmp_path / "prompts.json") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "prompts.json" in error
    assert not (tmp_path / "out").exists()


def test_edited_clicks_are_another_request(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "prompts.json"
    for x in (10, 20):
        file.write_text(json.dumps({f"case_{i}": [{"point": [x, 20]}] for i in range(4)}))
        done = predict(trained, tmp_path / "out", "--prompts", file)
    assert done == 2
    assert "another request" in capsys.readouterr().err


def test_wrong_folders(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    images, out, empty = raw(trained, "imagesTr"), tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    for options, message in (
        (("-m", empty, "-i", images), "is not a trained model"),
        (("-m", model(trained), "-i", empty), "holds no image"),
        (("-m", model(trained), "-i", images, "-f", 3), "fold 3"),
        (("-m", model(trained), "-i", images, "--from-reference", empty), "lacks the reference of case_0"),
    ):
        assert main([*map(str, ("predict", *options, "-o", out, "-device", "cpu"))]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_image_larger_than_the_patch_is_taken_whole(trained: Path) -> None:
    predictor = nnUNetPredictor(device=CPU, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model(trained)), (0,), "checkpoint_best.pth")
    network, click = predictor.network.eval(), ObjectPrompt(xy=torch.tensor([[200.0, 30.0]]), labels=torch.ones(1))
    data = torch.rand(1, 2, 300, 280)
    logits = prompted_logits(network, data, {(0, 0): (click,)}, patch_size=(256, 256), device=CPU)
    assert logits.shape == (2, 2, 300, 280)
    with torch.no_grad():
        expected = network(data[:, 0][None], click.xy[None, None], click.labels[None, None])
    torch.testing.assert_close(logits[:, 0], expected[0])


def test_click_outside_of_the_image(trained: Path) -> None:
    properties = {"bbox_used_for_cropping": [[0, 1], [10, 30], [0, 36]], "shape_before_cropping": (1, 40, 36)}
    where = {"classes": ["lesion"], "properties": properties, "shape": (1, 40, 72), "transpose_forward": [0, 1, 2]}
    click = {"class": "lesion", "foreground": True}
    inside = to_preprocessed([{**click, "point": [18, 20]}], name="x", **where)
    torch.testing.assert_close(inside[0, 0][0].xy, torch.tensor([[36.5, 20.5]]))
    backward = {"properties": properties, "shape": (1, 40, 72), "transpose_backward": [0, 1, 2]}
    assert to_original(inside, classes=["lesion"], ndim=2, **backward) == [{**click, "point": [18, 20]}]
    for point, message in (([36, 20], "outside of the image"), ([5, 2], "empty margin")):
        with pytest.raises(InputError, match=message):
            to_preprocessed([{**click, "point": point}], name="x", **where)


def test_fixed_click_is_the_middle_of_the_foreground() -> None:
    mask = torch.zeros(1, 2, 6, 7, dtype=torch.bool)
    mask[0, 0, 1, 2:5] = mask[0, 0, 4, 0:3] = True
    points, labels = fixed_clicks(mask, torch.ones_like(mask[:, :1]))
    places = mask[0, 0].nonzero()
    assert points[0, 0, 0].tolist() == places[len(places) // 2].flip(0).tolist()
    background = (~mask[0, 1]).nonzero()
    assert points[0, 1, 0].tolist() == background[len(background) // 2].flip(0).tolist()
    assert labels.tolist() == [[[1], [0]]]


def test_random_clicks_are_uniform_over_the_foreground() -> None:
    mask = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    mask[0, 0, [0, 2, 4], [1, 3, 4]] = True
    generator = torch.Generator().manual_seed(0)
    mask = mask.expand(3000, -1, -1, -1)
    points, labels = random_clicks(mask, mask | True, generator)
    assert labels.all()
    places, counts = points[:, 0, 0].unique(dim=0, return_counts=True)
    assert places.tolist() == [[1, 0], [3, 2], [4, 4]]
    assert counts.min() > 900
    again, _ = random_clicks(mask, mask | True, torch.Generator().manual_seed(0))
    assert torch.equal(points, again)


def test_no_click_on_a_pixel_that_does_not_count() -> None:
    mask, valid = torch.zeros(50, 1, 4, 4, dtype=torch.bool), torch.zeros(50, 1, 4, 4, dtype=torch.bool)
    mask[:, :, 0], valid[:, :, 3, 2] = True, True
    for points, labels in (random_clicks(mask, valid, torch.Generator()), fixed_clicks(mask, valid)):
        assert (points == torch.tensor([2.0, 3.0])).all()
        assert not labels.any()
    points, _ = random_clicks(mask, valid & False, torch.Generator())
    assert points.shape == (50, 1, 1, 2)


def test_losses_are_the_formulas() -> None:
    torch.manual_seed(0)
    z, t = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.6).float()
    valid, p = torch.ones(2, 1, 8, 8), torch.sigmoid(z)
    dice = 1 - (2 * (p * t).sum() + 1e-5) / ((p**2).sum() + (t**2).sum() + 1e-5)
    bce = -(2 * t * p.log() + (1 - t) * (1 - p).log()).mean()
    torch.testing.assert_close(dice_loss(z, t, valid), dice)
    torch.testing.assert_close(dice_mse(z, t, valid), dice + ((p - t) ** 2).mean())
    torch.testing.assert_close(dice_bce(z, t, valid), 0.8 * dice + 0.2 * bce)
    assert dice_loss(torch.full_like(z, -20), 0 * t, valid) < 1e-3  # nothing found where nothing is


@pytest.mark.parametrize("criterion", [dice_mse, dice_bce])
def test_ignored_pixels_change_nothing(criterion) -> None:
    loss = ForegroundLoss(criterion=criterion, maps=ForegroundMaps(classes=(1,), ignore_label=2))
    output = torch.randn(2, 2, 4, 4, requires_grad=True)
    target = torch.randint(0, 3, (2, 1, 8, 8))
    loss(output, target).backward()
    ignored = torch.nn.functional.interpolate(target.float(), size=(4, 4), mode="nearest") == 2
    assert ignored.any()
    assert not output.grad[:, 1:][ignored].any()
    assert output.grad[:, 1:][~ignored].all()


def test_region_maps_drop_the_ignored_channel() -> None:
    target = torch.tensor([1.0, 0, 1]).view(1, 3, 1, 1)
    maps, valid = ForegroundMaps(classes=((1, 2), 2), has_regions=True, ignore_label=3)(target)
    assert maps.flatten().tolist() == [True, False]
    assert valid.flatten().tolist() == [False]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [((1, 2), [[1.0, 0], [3, 0]]), (((1, 2), 2), [[2.0, 0], [3, 0]])],
    ids=["classes", "regions"],
)
def test_clicks_of_a_reference_with_classes_or_regions(classes: tuple, expected: list) -> None:
    maps = ForegroundMaps(classes=classes, has_regions=classes[0] != 1, ignore_label=3)
    seg = torch.tensor([[-1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 0, 0]], dtype=torch.int16)
    prompts = clicks_from_reference(seg.view(1, 2, 1, 6), maps)
    assert [prompts[0, k][0].xy[0].tolist() for k in range(2)] == expected
    assert [int(prompts[z, k][0].labels) for z in range(2) for k in range(2)] == [1, 1, 0, 0]
