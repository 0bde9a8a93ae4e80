"""The synthetic LiTS: layout, reproducibility, Hounsfield units, labels, geometry, resuming, errors."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from lits_source import tree
from scipy import ndimage

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.phantom import lits
from nnunet_ext.phantom.canvas import Ellipsoid, NoiseField, Pose, Segment, tube
from nnunet_ext.phantom.lits import Scan, noise_filter, render

SIZE, SLICES = 96, 16


def canonical(case: Scan) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels with indices growing to the patient's right, front and head."""
    return tuple(
        np.asarray(nib.as_closest_canonical(nib.Nifti1Image(v, case.affine)).dataobj) for v in (case.hu, case.labels)
    )


@pytest.fixture(scope="module")
def cases() -> list[Scan]:
    return [render(seed=0, case=i, size=SIZE, slices=SLICES) for i in range(8)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lits")
    assert lits.write_lits(out=out, cases=3, size=64, slices=6, test_cases=1) == 4
    return out


def test_layout_and_headers(written: Path):
    names = [f"{kind}-{i}.nii" for kind in ("segmentation", "volume") for i in range(3)]
    assert sorted(p.name for p in written.iterdir()) == sorted([*names, "test-volume-0.nii"])
    for i in range(3):
        volume, labels = nib.load(written / f"volume-{i}.nii"), nib.load(written / f"segmentation-{i}.nii")
        assert volume.shape == labels.shape == (64, 64, 6)
        assert volume.get_data_dtype() == np.int16
        assert labels.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(volume.affine, labels.affine)
        np.testing.assert_allclose(volume.get_qform(), volume.get_sform(), atol=1e-4)
        directions = volume.affine[:3, :3] / nib.affines.voxel_sizes(volume.affine)
        np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=1e-6)
        assert set(np.unique(labels.dataobj)) <= {0, 1, 2}


def test_bytes_depend_on_neither_processes_nor_case_count(written: Path, tmp_path: Path):
    lits.write_lits(out=tmp_path, cases=2, size=64, slices=6, test_cases=1, num_processes=2)
    ours, others = tree(tmp_path), tree(written)
    assert len(ours) == 5
    assert ours == {name: others[name] for name in ours}


def test_gzip_is_reproducible_and_holds_the_same_voxels(written: Path, tmp_path: Path):
    for name in "ab":
        lits.write_lits(out=tmp_path / name, cases=1, size=64, slices=6, file_ending=".nii.gz")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    np.testing.assert_array_equal(
        nib.load(tmp_path / "a" / "volume-0.nii.gz").dataobj, nib.load(written / "volume-0.nii").dataobj
    )


def test_seed_case_and_test_flag_give_other_patients():
    hu = [
        render(seed=s, case=c, size=48, slices=2, test=t).hu
        for s, c, t in ((0, 0, False), (1, 0, False), (0, 1, False), (0, 0, True))
    ]
    assert all((hu[0] != other).mean() > 0.5 for other in hu[1:])


def test_hounsfield_units(cases: list[Scan]):
    for case in cases:
        hu, labels = case.hu.astype(np.float32), case.labels
        assert hu.min() >= -1024
        assert hu.max() > 300, "bone"
        corner = hu[:6, :6]
        assert corner.mean() < -1000
        assert corner.max() < -950, "air is never 0"
        inner = ndimage.binary_erosion(labels == 1, np.ones((5, 5, 1)))
        assert 88 < np.median(hu[inner]) < 135
        body = ndimage.binary_opening(hu > -300, np.ones((3, 3, 1)))
        assert ((hu > -130) & (hu < -75) & body).sum() > 0.02 * hu.size, "fat"


def test_noise_of_the_liver(cases: list[Scan]):
    for case in cases:
        inner = ndimage.binary_erosion(case.labels == 1, np.ones((5, 5, 1)))
        low, middle = np.percentile(case.hu[inner], (16, 50))  # vessels are on the other side
        assert 8 < middle - low < 19


def test_tumours_are_darker_and_surrounded_by_liver(cases: list[Scan]):
    with_tumour = [case for case in cases if (case.labels == 2).any()]
    assert len(with_tumour) == 7, "one case in eight has none"
    for case in with_tumour:
        assert max(t.diameter for t in case.tumours) >= 12
        assert all(6 <= t.diameter <= 90 and 20 <= t.contrast <= 60 for t in case.tumours)
        liver, tumour = case.hu[case.labels == 1], case.hu[case.labels == 2]
        assert np.median(liver) - np.median(tumour) > 12
        shell = ndimage.binary_dilation(case.labels == 2, np.ones((3, 3, 1))) & (case.labels != 2)
        assert (case.labels[shell] == 1).mean() > 0.5


def test_liver_is_one_organ_on_the_right(cases: list[Scan]):
    for case in cases:
        _, labels = canonical(case)
        parts, _ = ndimage.label(labels > 0)
        assert np.bincount(parts.ravel())[1:].max() > 0.97 * (labels > 0).sum()
        assert (labels[SIZE // 2 :] > 0).sum() > 2 * (labels[: SIZE // 2] > 0).sum()


def test_spine_is_at_the_back(cases: list[Scan]):
    for case in cases:
        hu, _ = canonical(case)
        bone = hu[SIZE * 2 // 5 : SIZE * 3 // 5] > 250
        assert bone[:, : SIZE // 2].sum() > 3 * bone[:, SIZE // 2 :].sum()


def test_spacing_origin_and_orientation_vary(cases: list[Scan]):
    views = [abs(case.affine[0, 0]) * SIZE for case in cases]
    assert all(280 <= v <= 500 for v in views)
    assert len({round(v) for v in views}) > 4
    assert len({tuple(case.affine[:3, 3]) for case in cases}) == len(cases)
    assert len({nib.aff2axcodes(case.affine) for case in cases}) > 1
    free = [render(seed=0, case=i, size=32) for i in range(4)]
    thickness = {case.affine[2, 2] for case in free}
    assert len(thickness) > 1
    assert all(0.7 <= t <= 5 for t in thickness)
    assert all(180 < case.affine[2, 2] * case.hu.shape[2] < 260 for case in free)


def test_field_of_view_does_not_depend_on_size():
    small, large = (render(seed=0, case=2, size=s, slices=2) for s in (32, 64))
    assert small.affine[0, 0] * 32 == pytest.approx(large.affine[0, 0] * 64)


def test_resumes_and_skips(tmp_path: Path):
    arguments = {"out": tmp_path, "cases": 2, "size": 48, "slices": 3}
    assert lits.write_lits(**arguments) == 2
    before = tree(tmp_path)
    stamp = (tmp_path / "volume-0.nii").stat().st_mtime_ns
    (tmp_path / "segmentation-1.nii").unlink()
    (tmp_path / ".volume-1.nii.4194305.partial").touch()  # of a process that was killed
    seen = []
    assert lits.write_lits(**arguments, track=lambda items, total, **_: seen.append(total) or items) == 1
    assert seen == [1]
    assert (tmp_path / "volume-0.nii").stat().st_mtime_ns == stamp
    assert tree(tmp_path) == before
    assert lits.write_lits(**arguments, seed=5) == 2, "other arguments, other files"
    assert tree(tmp_path) != before


@pytest.mark.parametrize("failing", ["write_bytes", "replace", "mkdir"])
def test_a_full_disk_is_a_message_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, failing, refuse)
    with pytest.raises(InputError, match=r"out: the disk is full\.\nFree some space") as e:
        lits.write_lits(out=tmp_path / "out", cases=1, size=32, slices=1)
    assert "the same command continues" in str(e.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_leftovers_of_other_cases_are_removed(tmp_path: Path):
    """Of a process that was killed and is asked for fewer cases now."""
    (tmp_path / ".volume-7.nii.4194305.partial").touch()
    lits.write_lits(out=tmp_path, cases=1, size=32, slices=1)
    assert sorted(os.listdir(tmp_path)) == ["segmentation-0.nii", "volume-0.nii"]


def test_errors_name_every_problem(tmp_path: Path):
    with pytest.raises(InputError) as e:
        lits.write_lits(out=tmp_path, cases=0, size=-3, slices=0, test_cases=-1, num_processes=0, file_ending=".mha")
    assert len(e.value.problems) == 6
    assert list(tmp_path.iterdir()) == []


def test_unusable_folders(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        lits.write_lits(out=tmp_path / "file" / "out", cases=1, size=32)
    (tmp_path / "folder" / "volume-0.nii").mkdir(parents=True)
    with pytest.raises(InputError, match=r"volume-0\.nii exists and is not a phantom"):
        lits.write_lits(out=tmp_path / "folder", cases=1, size=32)
    real = tmp_path / "volume-0.nii"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), real)
    before = real.read_bytes()
    with pytest.raises(InputError, match="not a phantom"):
        lits.write_lits(out=tmp_path, cases=1, size=32)
    assert real.read_bytes() == before


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["phantom", "lits", "--cases", "1", "--size", "32", "--slices", "2", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "1 case written" in capsys.readouterr().out
    assert main([*command, "--size", "5"]) == 2
    assert "--size" in capsys.readouterr().err


def test_shapes_measure_distance():
    at = [np.array([v], np.float32) for v in (13.0, 0.0, 0.0)]
    for semi, turn in (((10, 10, 10), 0), ((5, 10, 10), 90)):
        ellipsoid = Ellipsoid((0, 0, 0), semi, (0, 0, turn))
        assert ellipsoid.distance(*at)[0] == pytest.approx(3, abs=1e-3)
    assert Segment((0, 0, 0), (10, 0, 0), 1, 2).distance(*at)[0] == pytest.approx(1, abs=1e-3)
    assert tube([(0, 0, 0), (5, 0, 0), (10, 0, 0)], 2).distance(*at)[0] == pytest.approx(1, abs=1e-3)


def test_pose_box_holds_what_it_should():
    pose = Pose(scale=(0.9, 1.1, 1.0), degrees=7, shift=(3, -4))
    (x0, x1), (y0, y1), _ = pose.to_scanner(((-10, 30), (5, 20), (0, 1)))
    x, y = (g.astype(np.float32) for g in np.meshgrid(np.linspace(-60, 60, 241), np.linspace(-60, 60, 241)))
    u, v, _ = pose.to_model(x, y, x)
    inside = (u > -10) & (u < 30) & (v > 5) & (v < 20)
    assert inside.any()
    assert x[inside].min() >= x0 - 1e-3
    assert x[inside].max() <= x1 + 1e-3
    assert y[inside].min() >= y0 - 1e-3
    assert y[inside].max() <= y1 + 1e-3


def test_noise_field_is_smooth_unit_noise_whatever_the_planes():
    axes = tuple(np.linspace(-40, 40, n, dtype=np.float32) for n in (30, 40, 50))
    field = NoiseField(np.random.default_rng(3), knot=5.0, reach=(42.0, 42.0, 42.0), axes=axes)
    whole = field(slice(0, 30))
    assert whole.shape == (30, 40, 50)
    assert abs(whole.std() - 1) < 0.15
    np.testing.assert_array_equal(field(slice(7, 12)), whole[7:12])


@pytest.mark.parametrize("size", [64, 65])
def test_noise_filter_keeps_unit_variance(size: int):
    response = noise_filter(size=size, pixel=0.8, cutoff=0.4)
    white = np.random.default_rng(0).standard_normal((40, size, size))
    assert np.fft.irfft2(np.fft.rfft2(white) * response, s=(size, size)).std() == pytest.approx(1, abs=0.03)
