"""`nnunet_ext evaluate`: folders and model folders, units, nnU-Net's numbers, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
import tifffile
import tiny
from evaluations import boxes
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder, load_summary_json
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from nnunet_ext import registry
from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.evaluation import evaluator
from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.evaluation.evaluator import evaluate, evaluate_source
from nnunet_ext.evaluation.source import from_folders
from nnunet_ext.metrics.definitions import PHYSICAL, PIXELS, PLANAR, Units

SHAPE = (6, 20, 22)


def write(file: Path, array: np.ndarray, spacing: tuple[float, ...] | None = (0.7, 0.8, 3.0), **geometry: Any) -> None:
    image = sitk.GetImageFromArray(array)
    if spacing:
        image.SetSpacing(spacing)
    for name, value in geometry.items():
        getattr(image, f"Set{name}")(value)
    sitk.WriteImage(image, file)


Folders = tuple[Path, Path]
Make = Callable[..., Folders]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Predictions, references and dataset.json in a raw folder's layout."""

    def make(
        labels: dict[str, Any] = tiny.BINARY,
        ending: str = ".nii.gz",
        cases: int = 4,
        shape: tuple[int, ...] = SHAPE,
        **options: Any,
    ) -> Folders:
        pred, ref = tmp_path / "pred", tmp_path / "raw" / "labelsTs"
        pred.mkdir()
        ref.mkdir(parents=True)
        highest = max(max(v) if isinstance(v, list) else v for v in labels.values())
        most = highest - ("ignore" in labels)
        for k in range(cases):
            write(pred / f"case_{k}{ending}", boxes(k, most, shape), **options)
            write(ref / f"case_{k}{ending}", boxes(k + 100, highest, shape), **options)
        dataset = {"labels": labels, "file_ending": ending, "channel_names": {"0": "CT"}, "numTraining": cases}
        order = {"regions_class_order": [1, 2]} if labels is tiny.REGIONS else {}
        tiny.save(tmp_path / "raw" / "dataset.json", dataset | order)
        return pred, ref

    return make


def run(pred: Path, ref: Path, *options: object) -> int:
    return main(["evaluate", "--pred", str(pred), "--ref", str(ref), *map(str, options)])


def refused(capsys: pytest.CaptureFixture[str], pred: Path, ref: Path, *options: object) -> str:
    """What the command says; it writes nothing."""
    assert run(pred, ref, *options) == 2
    assert not list(pred.parent.rglob("metrics.*"))
    captured = capsys.readouterr()
    assert not captured.out
    return captured.err


class TestNumbers:
    def test_files_and_table(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        pred, ref = make(tiny.CLASSES)
        (ref.parent / "imagesTs").mkdir()
        assert run(pred, ref, "--name", "our model", "--tolerance", "3") == 0
        printed = capsys.readouterr().out
        for text in ("our model: 4 cases", "liver (label 1)", "tumour (label 2)", "HD95 (mm)", "pooled", "metrics.csv"):
            assert text in printed
        evaluation = Evaluation.load(pred)
        assert evaluation.units == PHYSICAL
        assert evaluation.structures == {"liver": (1,), "tumour": (2,)}
        assert evaluation.cases == [f"case_{k}" for k in range(4)]
        info = evaluation.info
        assert (info["name"], info["nsd_tolerance"], info["prompts"]) == ("our model", 3, "unknown")
        assert info["images"] == str(ref.parent / "imagesTs")
        table = pd.read_csv(pred / "metrics.csv")
        assert len(table) == 8
        content = json.loads((pred / "metrics.json").read_text())
        dice = table.loc[table["structure"] == "tumour", "dice"]
        assert content["nnunet_ext"]["aggregates"]["tumour"]["metrics"]["dice"]["mean"] == pytest.approx(dice.mean())
        assert f"{dice.mean():.4f}" in printed

    def test_report(self, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pred, ref = make(tiny.CLASSES)
        assert run(pred, ref, "--report", tmp_path / "report.html", "--name", "the only one") == 0
        assert str(tmp_path / "report.html") in capsys.readouterr().out
        assert "the only one" in (tmp_path / "report.html").read_text()

    def test_a_report_of_what_was_asked_for(
        self, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pred, ref = make(tiny.CLASSES)
        names = sorted(file.name.removesuffix(".nii.gz") for file in pred.glob("*.nii.gz"))
        groups, report = tmp_path / "groups.csv", tmp_path / "report.html"
        groups.write_text("case,site\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)))
        assert "There is no case nobody." in refused(capsys, pred, ref, "--report", report, "--cases", "nobody")
        assert "--cases and --subgroups need --report." in refused(capsys, pred, ref, "--subgroups", groups)
        assert run(pred, ref, "--report", report, "--cases", names[1], "--subgroups", groups) == 0
        assert '<section id="subgroups"' in report.read_text()

    @pytest.mark.usefixtures("fork_pools")
    @pytest.mark.parametrize("labels", [tiny.BINARY, tiny.CLASSES, tiny.REGIONS, tiny.IGNORE])
    def test_nnunets_own_summary(self, make: Make, labels: dict[str, Any], tmp_path: Path) -> None:
        pred, ref = make(labels)
        write(pred / "case_0.nii.gz", np.zeros(SHAPE, np.uint8))
        write(ref / "case_0.nii.gz", np.zeros(SHAPE, np.uint8))
        source = from_folders(pred, ref)
        evaluate_source(source).save(tmp_path / "out")
        reader = determine_reader_writer_from_dataset_json(source.dataset, verbose=False)()
        keys = [v[0] if len(v) == 1 else v for v in source.structures.labels.values()]
        compute_metrics_on_folder(
            str(ref), str(pred), str(tmp_path / "summary.json"), reader, ".nii.gz", keys, source.structures.ignore, 1
        )
        theirs, ours = (
            load_summary_json(str(f)) for f in (tmp_path / "summary.json", tmp_path / "out" / "metrics.json")
        )
        assert set(ours["mean"]) == set(theirs["mean"]) == set(keys)

        def same(mine: dict[str, Any], other: dict[str, Any]) -> None:
            for key, value in other.items():
                assert mine[key] == pytest.approx(value) or (mine[key] is None and np.isnan(value)), key

        same(ours["foreground_mean"], theirs["foreground_mean"])
        for key in keys:
            same(ours["mean"][key], theirs["mean"][key])
        for mine, other in zip(ours["metric_per_case"], theirs["metric_per_case"], strict=True):
            assert Path(mine["prediction_file"]).samefile(other["prediction_file"])
            assert Path(mine["reference_file"]).samefile(other["reference_file"])
            for key in keys:
                same(mine["metrics"][key], other["metrics"][key])

    def test_ignored_voxels_count_nowhere(self, make: Make) -> None:
        pred, ref = make(tiny.IGNORE, cases=1)
        reference = np.zeros(SHAPE, np.uint8)
        reference[:, 5:10, 5:10] = 1
        reference[:, 15:] = 2
        prediction = (reference == 1).astype(np.uint8)
        prediction[0, 18, 3] = 1  # far away, and ignored
        write(ref / "case_0.nii.gz", reference)
        write(pred / "case_0.nii.gz", prediction)
        row = evaluate(pred, ref).of("tumour").loc["case_0"]
        assert (row["dice"], row["hd"], row["lesions_prediction"], row["volume_error"]) == (1, 0, 1, 0)
        assert row["tn"] == 6 * 15 * 22 - 6 * 25

    def test_regions_overlap(self, make: Make) -> None:
        pred, ref = make(tiny.REGIONS)
        evaluation = evaluate(pred, ref)
        liver, tumour = (evaluation.of(name) for name in ("liver", "tumour"))
        assert evaluation.structures == {"liver": (1, 2), "tumour": (2,)}
        assert (liver["volume_reference"] >= tumour["volume_reference"]).all()
        for case, row in liver.iterrows():
            mask = sitk.GetArrayFromImage(sitk.ReadImage(ref / f"{case}.nii.gz")) > 0
            assert row["volume_reference"] == pytest.approx(mask.sum() * 0.7 * 0.8 * 3 / 1000)

    def test_several_processes(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        pred, ref = make(tiny.CLASSES)
        alone = evaluate(pred, ref)
        monkeypatch.setattr(evaluator, "_SECONDS_PER_WORKER", 1e-9)
        seen = []

        def track(items: Iterable, *, total: int, what: str, unit: str) -> Iterable:
            seen.append((total, what, unit))
            return items

        together = evaluate(pred, ref, jobs=2, track=track)
        pd.testing.assert_frame_equal(alone.table, together.table)
        assert seen == [(4, "evaluate", "case")]

    def test_case_names_stay_text(self, make: Make) -> None:
        pred, ref = make(cases=1)
        for folder in (pred, ref):
            (folder / "case_0.nii.gz").rename(folder / "007.nii.gz")
        assert evaluate(pred, ref).cases == ["007"]


class TestUnits:
    @pytest.mark.parametrize(
        ("ending", "shape", "spacing", "units", "side", "area"),
        [
            (".nii.gz", SHAPE, (0.5, 0.5, 2.0), PHYSICAL, 0.5, 0.0005),
            (".nii", SHAPE, (0.5, 0.5, 2.0), PHYSICAL, 0.5, 0.0005),
            (".nii.gz", (20, 22), (0.5, 0.5), PLANAR, 0.5, 0.25),
            (".nii.gz", (1, 20, 22), (0.5, 0.5, 999), PLANAR, 0.5, 0.25),
            (".nii.gz", (1, 20, 22), (0.5, 0.5, 5), PHYSICAL, 0.5, 0.00125),
            (".nii.gz", (20, 22), None, PIXELS, 1, 1),
            (".png", (20, 22), None, PIXELS, 1, 1),
            (".bmp", (20, 22), None, PIXELS, 1, 1),
        ],
    )
    def test_of_files(
        self,
        make: Make,
        ending: str,
        shape: tuple[int, ...],
        spacing: tuple[float, ...] | None,
        units: Units,
        side: float,
        area: float,
    ) -> None:
        pred, ref = make(ending=ending, shape=shape, spacing=spacing, cases=1)
        prediction, reference = np.zeros((2, *shape), np.uint8)
        reference[..., 5, 5], prediction[..., 5, 8] = 1, 1
        write(pred / f"case_0{ending}", prediction, spacing)
        write(ref / f"case_0{ending}", reference, spacing)
        evaluation = evaluate(pred, ref)
        assert evaluation.units == units
        row = evaluation.of("tumour").loc["case_0"]
        assert row["hd"] == row["hd95"] == row["assd"] == pytest.approx(3 * side)
        assert row["volume_reference"] == pytest.approx(reference.sum() * area)
        assert np.isnan(row["hd_rows"]) == (len(shape) == 3 and shape[0] > 1)
        assert f"volume_reference_{units.volume}" in evaluation.table

    def test_tiff_has_its_spacing_beside_it(self, make: Make) -> None:
        pred, ref = make(ending=".tif", cases=0)
        for folder in (pred, ref):
            tifffile.imwrite(folder / "a.tif", boxes(1))
        assert evaluate(pred, ref).units == PIXELS
        tiny.save(ref / "a.json", {"spacing": [3.0, 0.5, 0.5]})
        evaluation = evaluate(pred, ref)
        assert evaluation.units == PHYSICAL
        voxels = (boxes(1) > 0).sum()
        assert evaluation.of("tumour")["volume_reference"].item() == pytest.approx(voxels * 0.75 / 1000)

    def test_a_volume_and_an_image_share_no_table(self, make: Make) -> None:
        pred, ref = make(cases=1)
        for folder in (pred, ref):
            write(folder / "flat.nii.gz", boxes(3, shape=(20, 22)), (0.5, 0.5))
        with pytest.raises(InputError, match="cannot share a table"):
            evaluate(pred, ref)


class TestErrors:
    def test_pipes_are_not_waited_for(self, make: Make) -> None:
        pred, ref = make()
        file = next(pred.glob("*.nii.gz"))
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(InputError, match=f"{file.name} is not a file, but a pipe"):
            from_folders(pred, ref)

    def test_missing_cases_both_ways(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        pred, ref = make(cases=14)
        (pred / "case_1.nii.gz").unlink()
        for k in (0, *range(2, 12)):
            (ref / f"case_{k}.nii.gz").unlink()
        said = refused(capsys, pred, ref)
        assert f"{pred} holds no prediction of case_1." in said
        assert f"{ref} holds no reference of case_0, case_10, case_11, case_2, case_3" in said
        assert "and 3 more" in said

    def test_size_and_place_and_reading(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        """All in one message, from the headers."""
        pred, ref = make(cases=5)
        write(pred / "case_1.nii.gz", boxes(1, shape=(6, 20, 21)))
        write(pred / "case_2.nii.gz", boxes(1), (0.7, 0.8, 4.0))
        write(pred / "case_3.nii.gz", boxes(1), Direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
        (ref / "case_4.nii.gz").write_bytes(b"no image")
        said = refused(capsys, pred, ref)
        assert "4 problems" in said
        assert "case_1: sizes differ, 21x20x6 and 22x20x6" in said
        assert "case_2: positions in space differ, by up to 5 mm" in said
        assert "case_3: positions in space differ" in said
        assert f"{ref / 'case_4.nii.gz'} cannot be read" in said
        assert "--ignore-geometry" in said

    @pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".nii"])
    def test_the_same_voxels_in_another_order(
        self, make: Make, capsys: pytest.CaptureFixture[str], ending: str, tmp_path: Path
    ) -> None:
        """References that another tool has saved in its own order of axes are the same references."""
        pred, ref = make(cases=3, ending=ending, Origin=(-7.0, 11.0, 2.5))
        expected = evaluate(pred, ref).table
        for case, order, flips in (
            ("case_1", (0, 1, 2), (True, True, False)),
            ("case_2", (2, 0, 1), (False, True, True)),
        ):
            file = ref / f"{case}{ending}"
            image = sitk.Flip(sitk.PermuteAxes(sitk.ReadImage(file), order), flips, flipAboutOrigin=False)
            sitk.WriteImage(image, file)
        assert run(pred, ref) == 0
        said = capsys.readouterr().out
        assert "Note: case_1: prediction and reference have the same voxels in space in another order" in said
        assert "Note: case_2: " in said
        assert "case_0" not in said
        found = Evaluation.load(pred).table
        mirrored = ["dice_slices", "precision_slices", "recall_slices"]  # of case_2: its slices are others
        pd.testing.assert_frame_equal(found.drop(columns=mirrored), expected.drop(columns=mirrored), rtol=1e-5)
        write(ref / f"case_1{ending}", boxes(101), Origin=(-7.0, 11.0, 30.0))
        assert run(pred, ref, "--out", tmp_path / "other") == 2
        assert "case_1: positions in space differ" in capsys.readouterr().err

    def test_the_same_pixels_in_another_order(self, make: Make) -> None:
        pred, ref = make(cases=1, shape=(20, 22), spacing=(0.5, 0.5))
        expected = evaluate(pred, ref).table
        file = ref / "case_0.nii.gz"
        sitk.WriteImage(sitk.Flip(sitk.ReadImage(file), (True, False), flipAboutOrigin=False), file)
        pd.testing.assert_frame_equal(evaluate(pred, ref).table, expected, rtol=1e-5)

    def test_ignored_geometry(self, make: Make) -> None:
        pred, ref = make(cases=1)
        write(pred / "case_0.nii.gz", boxes(0), Origin=(30, 0, 0))
        assert run(pred, ref) == 2
        assert run(pred, ref, "--ignore-geometry") == 0

    def test_rounded_headers_are_fine(self, make: Make) -> None:
        pred, ref = make(cases=1)
        write(pred / "case_0.nii.gz", boxes(0), (0.70001, 0.8, 3.0001), Origin=(0, 1e-4, 0))
        assert run(pred, ref) == 0

    def test_picture_of_another_size(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        pred, ref = make(ending=".png", shape=(20, 22), spacing=None)
        write(pred / "case_1.png", boxes(0, shape=(22, 20)), None)
        assert "case_1: sizes differ, 20x22 and 22x20" in refused(capsys, pred, ref)

    def test_unknown_labels_and_colours(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        pred, ref = make(ending=".png", shape=(20, 22), spacing=None)
        write(ref / "case_1.png", 255 * boxes(0, shape=(20, 22)), None)
        colours = np.zeros((20, 22, 3), np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), pred / "case_2.png")
        said = refused(capsys, pred, ref)
        assert f"{ref / 'case_1.png'} holds 255, and dataset.json knows the labels 0, 1." in said
        assert f"{pred / 'case_2.png'} has 3 channels" in said

    @pytest.mark.parametrize("value", [2, 257, -1, 0.5, np.nan])
    def test_unknown_values(self, make: Make, capsys: pytest.CaptureFixture[str], value: float) -> None:
        pred, ref = make(cases=1, ending=".nrrd")
        odd = boxes(0).astype(np.float32)
        odd[0, 0, 0] = value
        write(pred / "case_0.nrrd", odd)
        assert f"holds {value:g}, and dataset.json knows the labels 0, 1." in refused(capsys, pred, ref)

    @pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
    def test_any_type_of_voxels(self, make: Make, kind: type) -> None:
        pred, ref = make(tiny.CLASSES, cases=2)
        expected = evaluate(pred, ref).table
        for file in ref.iterdir():
            image = sitk.ReadImage(file)
            sitk.WriteImage(sitk.Cast(image, sitk.GetImageFromArray(np.zeros((1, 1), kind)).GetPixelID()), file)
        pd.testing.assert_frame_equal(evaluate(pred, ref).table, expected)

    def test_gzip_in_several_parts(self, make: Make) -> None:
        """Which no checksum at the end of the file covers, but those of its parts."""
        pred, ref = make(cases=1)
        expected = evaluate(pred, ref).table
        content = gzip.decompress((pred / "case_0.nii.gz").read_bytes())
        parts = [gzip.compress(content[:1000]), gzip.compress(content[1000:])]
        (pred / "case_0.nii.gz").write_bytes(b"".join(parts))
        pd.testing.assert_frame_equal(evaluate(pred, ref).table, expected)

    def test_a_flipped_bit(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        """ITK would read other voxels from it without a word."""
        pred, ref = make(cases=1, shape=(20, 64, 64))
        file = pred / "case_0.nii.gz"
        content = bytearray(file.read_bytes())
        content[-5] ^= 1  # of the checksum
        file.write_bytes(content)
        assert f"{file} cannot be read" in refused(capsys, pred, ref)

    @pytest.mark.parametrize("cut", [1, 30, 120])
    def test_truncated_file(self, make: Make, capsys: pytest.CaptureFixture[str], cut: int) -> None:
        """Its header is fine: found during the work, and still nothing is written."""
        pred, ref = make(cases=3, shape=(20, 64, 64))
        file = pred / "case_1.nii.gz"
        file.write_bytes(file.read_bytes()[:-cut])
        assert f"{file} cannot be read" in refused(capsys, pred, ref)

    def test_other_endings(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        pred, ref = make(cases=3)
        write(pred / "case_1.nrrd", boxes(0))
        (pred / "case_1.nii.gz").unlink()
        said = refused(capsys, pred, ref)
        assert f"{pred}: case_1 with ending .nrrd, and dataset.json says .nii.gz." in said
        for file in (*pred.iterdir(), *ref.iterdir()):
            file.unlink()
        write(pred / "case_1.nii", boxes(0))
        assert "holds no *.nii.gz file, as dataset.json has it, but *.nii." in refused(capsys, pred, ref)

    def test_folders_and_dataset_json(self, make: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        said = refused(capsys, tmp_path / "nowhere", tmp_path / "either")
        assert f"{tmp_path / 'nowhere'} is not a directory." in said
        assert f"{tmp_path / 'either'} is not a directory." in said
        pred, ref = make()
        dataset = ref.parent / "dataset.json"
        moved = dataset.rename(tmp_path / "moved.json")
        said = refused(capsys, pred, ref)
        assert str(pred / "dataset.json") in said
        assert str(dataset) in said
        assert "--dataset-json" in said
        (pred / "dataset.json").write_text("{")
        assert f"{pred / 'dataset.json'} is not valid JSON" in refused(capsys, pred, ref)
        tiny.save(pred / "dataset.json", {"labels": tiny.BINARY})
        assert '"file_ending"' in refused(capsys, pred, ref)
        tiny.save(pred / "dataset.json", {"labels": tiny.BINARY, "file_ending": ".jpg"})
        assert "holds no *.jpg file" in refused(capsys, pred, ref)
        assert run(pred, ref, "--dataset-json", moved, "--out", tmp_path / "out") == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "Give --pred and --ref, or -m and -f"),
            (["--pred", "."], "Give --pred and --ref, or -m and -f"),
            (["-m", "."], "Give --pred and --ref, or -m and -f"),
            (["--pred", ".", "--ref", ".", "-m", ".", "-f", "0"], "Give --pred and --ref, or -m and -f"),
            (["--pred", ".", "--ref", ".", "--tolerance", "-1"], "--tolerance"),
            (["--pred", ".", "--ref", ".", "--jobs", "0"], "--jobs"),
            (["--pred", ".", "--ref", ".", "--images", "nowhere"], "--images nowhere is not a directory"),
        ],
    )
    def test_options(self, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
        assert main(["evaluate", *options]) == 2
        assert message in capsys.readouterr().err

    def test_nowhere_to_write(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        pred, ref = make()
        (pred / "file").touch()
        for option, place, message in (
            ("--out", pred / "file", "file is not a writable directory"),
            ("--out", pred / "file" / "below", "file is not a writable directory"),
            ("--report", pred / "file" / "report.html", "file is not a writable directory"),
            ("--report", pred, f"{pred} is a directory"),
        ):
            assert message in refused(capsys, pred, ref, option, place)

    @pytest.mark.parametrize(
        ("name", "content"), [("metrics.csv", "case,dice\na,1\n"), ("metrics.json", '{"dice": 1}')]
    )
    def test_files_of_others_are_left_alone(
        self, make: Make, capsys: pytest.CaptureFixture[str], name: str, content: str
    ) -> None:
        pred, ref = make()
        (pred / name).write_text(content)
        assert run(pred, ref) == 2
        assert f"{pred / name}: not written by nnunet_ext evaluate" in capsys.readouterr().err
        assert {f.name: f.read_text() for f in pred.glob("metrics.*")} == {name: content}
        assert run(pred, ref, "--out", pred / "own") == run(pred, ref, "--out", pred / "own") == 0

    def test_a_report_replaces_reports_only(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        pred, ref = make()
        out, report = pred.parent / "out", pred.parent / "report.html"
        page = pred.parent / "page.html"
        page.write_text("<!doctype html>\n<title>Mine</title>")
        for file in (pred / "case_1.nii.gz", ref.parent / "dataset.json", page):
            before = file.read_bytes()
            said = refused(capsys, pred, ref, "--out", out, "--report", file)
            assert f"{file}: not written by the report of nnunet_ext, and not to be overwritten." in said
            assert file.read_bytes() == before
        assert run(pred, ref, "--out", out, "--report", report) == 0
        assert run(pred, ref, "--out", out, "--report", report, "--name", "again") == 0
        assert "again" in report.read_text()

    def test_interrupted(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        pred, ref = make()
        monkeypatch.setattr(evaluator, "measure_segmentations", stop)
        assert run(pred, ref) == 130
        assert not list(pred.glob("*metrics*"))


class TestModelFolder:
    @pytest.fixture
    def model(self, nnunet_folders: Path) -> Path:
        """Two folds of two cases each, as nnU-Net leaves them."""
        name = tiny.make_raw(31, tiny.CLASSES)
        raw, base = nnunet_folders / "nnUNet_raw" / name, nnunet_folders / "nnUNet_preprocessed" / name
        model = nnunet_folders / "nnUNet_results" / name / "nnUNetTrainerRAUNet__nnUNetRAUNetPlans__2d"
        folds = json.loads((raw / "splits_final.json").read_text())
        (base / "gt_segmentations").mkdir(parents=True)
        for file in (raw / "labelsTr").iterdir():
            (base / "gt_segmentations" / file.name).symlink_to(file)
        tiny.save(base / "splits_final.json", folds)
        for fold, cases in enumerate(folds):
            (model / f"fold_{fold}" / "validation").mkdir(parents=True)
            for case in cases["val"]:
                label = sitk.ReadImage(raw / "labelsTr" / f"{case}.nii.gz")
                array = np.roll(sitk.GetArrayFromImage(label), 1 + fold, axis=2)
                write(model / f"fold_{fold}" / "validation" / f"{case}.nii.gz", array, label.GetSpacing())
        (model / "dataset.json").write_text((raw / "dataset.json").read_text())
        tiny.save(model / "plans.json", {"dataset_name": name, "plans_name": "nnUNetRAUNetPlans"})
        return model

    def test_one_fold(self, model: Path) -> None:
        assert main(["evaluate", "-m", str(model), "-f", "0"]) == 0
        evaluation = Evaluation.load(model / "fold_0" / "validation")
        assert evaluation.cases == ["case_2", "case_3"]
        expected = {
            "name": "nnUNetTrainerRAUNet 2d",
            "trainer": "nnUNetTrainerRAUNet",
            "plans": "nnUNetRAUNetPlans",
            "configuration": "2d",
            "dataset": "Dataset031_Tiny",
            "fold": 0,
            "prompts": "none",
        }
        assert expected.items() <= evaluation.info.items()
        assert evaluation.info["references"].endswith("gt_segmentations")
        assert evaluation.info["images"].endswith("nnUNet_raw/Dataset031_Tiny/imagesTr")

    def test_the_same_by_its_folders(self, model: Path, nnunet_folders: Path) -> None:
        """The folder of the validation tells what it is."""
        assert main(["evaluate", "-m", str(model), "-f", "1"]) == 0
        pred = model / "fold_1" / "validation"
        by_model = Evaluation.load(pred)
        ref = nnunet_folders / "nnUNet_raw" / "Dataset031_Tiny" / "labelsTr"
        for case in ("case_2", "case_3"):
            (ref / f"{case}.nii.gz").unlink()
        assert run(pred, ref, "--out", nnunet_folders / "out") == 0
        by_folder = Evaluation.load(nnunet_folders / "out")
        pd.testing.assert_frame_equal(by_model.table, by_folder.table)
        for key in ("name", "trainer", "plans", "configuration", "dataset", "fold"):
            assert by_folder.info[key] == by_model.info[key]

    def test_folds_are_pooled(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evaluate", "-m", str(model), "-f", "0", "1"]) == 0
        assert "4 cases" in capsys.readouterr().out
        evaluation = Evaluation.load(model / "validation_folds_0_1")
        assert evaluation.cases == [f"case_{k}" for k in range(4)]
        assert evaluation.info["fold"] == [0, 1]
        content = json.loads((model / "validation_folds_0_1" / "metrics.json").read_text())
        for case in content["metric_per_case"]:
            assert Path(case["prediction_file"]).is_file()
            assert Path(case["reference_file"]).is_file()

    def test_the_registry_says_who_needs_clicks(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No name does: another package's trainer is asked for its entry as ours are."""
        theirs = {"TheirPointer": "click", "TheirClick": "none", "TheirMixed": "mixed"}
        entries = {name: registry.Entry("trainer", name, "theirs", "", prompts=p) for name, p in theirs.items()}
        ours = registry.get
        monkeypatch.setattr(registry, "get", lambda kind, name: entries.get(name) or ours(kind, name))
        prompts = {}
        for trainer in (*theirs, "nnUNetTrainerSAMUSHFClick", "nnUNetTrainerSAMUSHF", "NobodysClick"):
            model = model.rename(model.with_name(f"{trainer}__nnUNetSAMUSPlans__2d"))
            assert main(["evaluate", "-m", str(model), "-f", "0"]) == 0
            prompts[trainer] = Evaluation.load(model / "fold_0" / "validation").info["prompts"]
        clicked = {trainer for trainer, source in prompts.items() if source == "reference"}
        assert clicked == {"TheirPointer", "nnUNetTrainerSAMUSHFClick"}
        assert {prompts[trainer] for trainer in set(prompts) - clicked} == {"none"}

    def test_what_is_missing(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (model / "fold_0" / "validation" / "case_2.nii.gz").unlink()
        assert main(["evaluate", "-m", str(model), "-f", "0", "3"]) == 2
        said = capsys.readouterr().err
        assert "holds no prediction of case_2" in said
        assert f"{model / 'fold_3' / 'validation'} holds no validation" in said
        (model / "plans.json").unlink()
        assert main(["evaluate", "-m", str(model), "-f", "0"]) == 2
        assert "is not a trained model: plans.json missing" in capsys.readouterr().err

    def test_a_case_counts_once(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(model / "fold_0", model / "fold_all")
        assert main(["evaluate", "-m", str(model), "-f", "0", "all"]) == 2
        said = capsys.readouterr().err
        assert "fold all has predicted cases of another fold again: case_2, case_3." in said
        assert "holds no prediction of case_0, case_1." in said

    def test_no_references(
        self, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
            monkeypatch.delenv(variable)
        assert main(["evaluate", "-m", str(model), "-f", "0"]) == 2
        assert "Set nnUNet_preprocessed" in capsys.readouterr().err


class TestProvenance:
    def test_clicks_are_named(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        pred, ref = make()
        record = {
            "source": "reference",
            "model": "/r/Dataset030_BUSI/nnUNetTrainerSAMUSHF__nnUNetSAMUSPlans__2d",
            "checkpoints": [{"file": "fold_0/checkpoint_best.pth"}, {"file": "fold_1/checkpoint_best.pth"}],
        }
        tiny.save(pred / "prompts_used.json", record)
        assert run(pred, ref) == 0
        assert "Prompts came from: reference." in capsys.readouterr().out
        info = Evaluation.load(pred).info
        assert (info["prompts"], info["trainer"], info["fold"]) == ("reference", "nnUNetTrainerSAMUSHF", [0, 1])

    def test_what_nnunet_leaves_beside_a_prediction(self, make: Make) -> None:
        pred, ref = make()
        tiny.save(pred / "plans.json", {"dataset_name": "Dataset029_LiTS", "plans_name": "nnUNetPlans"})
        assert run(pred, ref) == 0
        info = Evaluation.load(pred).info
        assert (info["dataset"], info["plans"], info["prompts"], info["name"]) == (
            "Dataset029_LiTS",
            "nnUNetPlans",
            "unknown",
            "pred",
        )
