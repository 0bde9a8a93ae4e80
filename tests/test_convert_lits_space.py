"""Where LiTS volumes and segmentations lie in space: contradictions are settled by proof, or said."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from lits_source import AFFINE, convert, ct, label_of, liver, real_ct, save, verify

from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import nifti_space
from nnunet_ext.dataset_conversion.types import Outcome


def one_case(source: Path, label: np.ndarray, affine: np.ndarray, ending: str = ".nii") -> None:
    save(source / f"volume-0{ending}", ct())
    save(source / f"segmentation-0{ending}", label, affine)


def doubts(outcome: Outcome) -> list[str]:
    """Without what is said of small datasets."""
    return [note for note in outcome.layout.notes if note.startswith("lits_")]


@pytest.mark.parametrize("target", ["tumour", "liver-tumour"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("order", "turned"),
    [((0, 1, 2), (-1, 1, 1)), ((0, 1, 2), (-1, -1, -1)), ((1, 0, 2), (1, 1, 1)), ((2, 0, 1), (1, -1, 1))],
)
def test_labels_in_another_order_of_voxels(
    nnunet_folders: Path, target: str, ending: str, order: tuple[int, ...], turned: tuple[int, ...]
) -> None:
    """As any tool saves them that has an axis order of its own."""
    image = nib.Nifti1Image(liver(), AFFINE).as_reoriented(np.array([*zip(order, turned, strict=True)]))
    one_case(nnunet_folders / "in", np.asarray(image.dataobj), image.affine, ending)
    outcome = convert(nnunet_folders / "in", target=target)
    expected = liver() if target == "liver-tumour" else liver() == 2
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_000", ending), expected)
    (repair,) = outcome.layout.repairs
    assert "segmentation-0" in repair
    assert "stored in another order" in repair
    assert doubts(outcome) == []
    verify(outcome.folder)


def test_all_orders_of_a_cube(nnunet_folders: Path) -> None:
    """Where shapes say nothing."""
    shape = (8, 8, 8)
    orders = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
    for number, (order, turned) in enumerate(orders):
        save(nnunet_folders / "in" / f"volume-{number}.nii", ct(number, shape))
        image = nib.Nifti1Image(liver(shape), AFFINE).as_reoriented(np.array([*zip(order, turned, strict=True)]))
        save(nnunet_folders / "in" / f"segmentation-{number}.nii", np.asarray(image.dataobj), image.affine)
    outcome = convert(nnunet_folders / "in", target="liver-tumour")
    for number in range(len(orders)):
        np.testing.assert_array_equal(label_of(outcome.folder, f"lits_{number:03d}"), liver(shape))


def test_a_volume_in_the_middle_leaves_a_doubt(nnunet_folders: Path) -> None:
    """Both axes reversed, or a header in the wrong frame: the two say the same of it."""
    centred = AFFINE.copy()
    centred[:2, 3] = 0.7 * np.array([9, 8]) / 2
    save(nnunet_folders / "in" / "volume-0.nii", ct(), centred)
    image = nib.Nifti1Image(liver(), centred).as_reoriented(np.array([[0, -1], [1, -1], [2, 1]]))
    np.testing.assert_allclose(image.affine, np.diag([-1, -1, 1, 1]) @ centred, atol=1e-6)
    save(nnunet_folders / "in" / "segmentation-0.nii", np.asarray(image.dataobj), image.affine)
    outcome = convert(nnunet_folders / "in", target="liver-tumour")
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_000"), liver())
    assert doubts(outcome) == [f"lits_000: {nifti_space.FRAMES}"]


def test_shapes_that_no_order_explains(nnunet_folders: Path) -> None:
    """Of the same number of voxels and with the axes swapped, but elsewhere in space."""
    one_case(nnunet_folders / "in", liver().transpose(1, 0, 2), AFFINE)
    with pytest.raises(InputError, match=r"10 x 9 x 8 voxels, but .*segmentation-0\.nii is 9 x 10 x 8"):
        convert(nnunet_folders / "in")


def test_rounding_is_no_doubt(nnunet_folders: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 0.02
    one_case(nnunet_folders / "in", liver(), affine)
    outcome = convert(nnunet_folders / "in", target="liver-tumour")
    (repair,) = outcome.layout.repairs
    assert repair.endswith("origin differed from the volume's by rounding: the volume's taken")
    assert doubts(outcome) == []


def test_geometry_of_the_volume_is_taken_and_reported(nnunet_folders: Path, capfd: pytest.CaptureFixture[str]) -> None:
    moved = AFFINE @ np.diag([-1, 1, 1, 1])
    moved[:3, 3] = 0
    moved[2, 2] = 5
    save(nnunet_folders / "in" / "volume-0.nii", ct())
    save(nnunet_folders / "in" / "segmentation-0.nii", liver(), moved)
    save(nnunet_folders / "in" / "volume-1.nii", ct(1))
    save(nnunet_folders / "in" / "segmentation-1.nii", liver())
    outcome = convert(nnunet_folders / "in", target="liver-tumour", split="cv5")
    (repair,) = outcome.layout.repairs
    assert repair.startswith(f"{nnunet_folders / 'in' / 'segmentation-0.nii'}: only the header put it elsewhere")
    assert "origin, direction, spacing differed by up to 81.9 mm" in repair
    (doubt,) = doubts(outcome)
    assert doubt.startswith("lits_000: volume and segmentation say different places")
    assert "whether they overlay" in doubt
    record = json.loads((outcome.folder / "conversion.json").read_text())
    assert doubt in record["notes"]
    assert {id_: len(case.get("doubts", ())) for id_, case in record["cases"].items()} == {"lits_000": 1, "lits_001": 0}
    assert outcome.made["written"] == 1
    image = sitk.ReadImage(str(outcome.folder / "imagesTr/lits_000_0000.nii"))
    label = sitk.ReadImage(str(outcome.folder / "labelsTr/lits_000.nii"))
    for part in ("Spacing", "Origin", "Direction"):
        assert getattr(image, f"Get{part}")() == getattr(label, f"Get{part}")()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label).T, liver())
    verify(outcome.folder)
    assert "mismatch" not in capfd.readouterr().out.lower()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_skewed_directions_are_made_orthonormal(nnunet_folders: Path, ending: str) -> None:
    skewed = AFFINE.copy()
    skewed[0, 1] += 0.01
    save(nnunet_folders / "in" / f"volume-0{ending}", ct(), skewed, codes=(0, 1))
    save(nnunet_folders / "in" / f"segmentation-0{ending}", liver(), skewed, codes=(0, 1))
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(nnunet_folders / "in" / f"volume-0{ending}"))
    outcome = convert(nnunet_folders / "in")
    repairs = [repair for repair in outcome.layout.repairs if "orthonormal" in repair]
    assert len(repairs) == 2
    image_file = outcome.folder / f"imagesTr/lits_000_0000{ending}"
    corners = np.array([[*corner, 1] for corner in itertools.product((0, 9), (0, 8), (0, 7))])
    by = np.linalg.norm(corners @ (nib.load(image_file).affine - skewed)[:3].T, axis=1).max()
    assert by > 0.01
    assert all(repair.endswith(f"voxels move {by:.2g} mm or less") for repair in repairs)
    image = sitk.ReadImage(str(outcome.folder / f"imagesTr/lits_000_0000{ending}"))
    np.testing.assert_allclose(image.GetSpacing(), (0.7, 0.7, 2.5), atol=1e-3)
    np.testing.assert_allclose(image.GetDirection(), np.diag([1, 1, 1]).ravel(), atol=0.02)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, ct())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_identity_affines(nnunet_folders: Path, ending: str) -> None:
    """Of a volume whose segmentation knows the voxel size, of both, and of a volume without a segmentation."""
    source = nnunet_folders / "in"
    for name, affine in (("volume-0", np.eye(4)), ("volume-1", np.eye(4)), ("segmentation-1", np.eye(4))):
        save(source / f"{name}{ending}", liver() if name.startswith("seg") else ct(), affine)
    save(source / f"segmentation-0{ending}", liver())
    save(source / f"test-volume-0{ending}", ct(), np.eye(4))
    one_mm = np.diag([1.0, 1, 1, 1])
    one_mm[:3, 3] = (1, 2, 3)  # somebody has said so
    for name in ("volume-2", "segmentation-2"):
        save(source / f"{name}{ending}", liver() if name.startswith("seg") else ct(), one_mm)
    outcome = convert(source, target="liver-tumour")
    images = {path.name[: -len("_0000" + ending)]: path for path in outcome.folder.glob("images*/*")}
    expected, got = (sitk.ReadImage(str(path)) for path in (source / f"segmentation-0{ending}", images["lits_000"]))
    for part in ("Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(getattr(got, f"Get{part}")(), getattr(expected, f"Get{part}")(), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(got).T, ct())
    np.testing.assert_array_equal(label_of(outcome.folder, "lits_000", ending), liver())
    assert [repair for repair in outcome.layout.repairs if f"volume-0{ending}: identity affine" in repair]
    assert f"lits_000: {nifti_space.BORROWED}" in doubts(outcome)
    assert f"lits_001, lits_test_000: {nifti_space.NO_SIZE}" in doubts(outcome)
    assert len(doubts(outcome)) == 2
    verify(outcome.folder)


def edited(path: Path, pixdim: tuple[float, float, float]) -> None:
    data = bytearray(path.read_bytes())
    data[80:92] = struct.pack("<3f", *pixdim)
    path.write_bytes(data)


@pytest.mark.parametrize("pixdim", [(0, 0, 0), (0.7, 0.7, 0), (1, 1, 1), (0.7, 0.7, -2.5), (np.nan, 0.7, 2.5)])
@pytest.mark.parametrize("codes", [(0, 1), (1, 1)])
def test_pixdim_against_sform(nnunet_folders: Path, pixdim: tuple[float, float, float], codes: tuple[int, int]) -> None:
    """ITK takes the voxel size from pixdim, and 1 mm for 0, whatever the sform says."""
    source = nnunet_folders / "in"
    edited(save(source / "volume-0.nii", ct(), codes=codes), pixdim)
    edited(save(source / "segmentation-0.nii", liver(), codes=codes), pixdim)
    outcome = convert(source, target="liver-tumour")
    for path in outcome.folder.glob("*Tr/*"):
        np.testing.assert_allclose(sitk.ReadImage(str(path)).GetSpacing(), (0.7, 0.7, 2.5), rtol=1e-6)
    assert len(outcome.layout.repairs) == 2
    assert all("the sform's 0.7 x 0.7 x 2.5 mm taken" in repair for repair in outcome.layout.repairs)


def test_two_voxel_sizes_that_both_may_be_right(nnunet_folders: Path) -> None:
    source = nnunet_folders / "in"
    edited(save(source / "volume-0.nii", ct(), codes=(0, 1)), (0.8, 0.8, 2.5))
    save(source / "segmentation-0.nii", liver())
    outcome = convert(source)
    assert f"lits_000: {nifti_space.TWO_SIZES}" in doubts(outcome)
    assert f"lits_000: {nifti_space.OVERLAY}" in doubts(outcome)


def test_two_places_that_both_may_be_right(nnunet_folders: Path) -> None:
    for name, voxels in (("volume", ct()), ("segmentation", liver())):
        image = nib.Nifti1Image(voxels, AFFINE)
        image.header.set_sform(AFFINE, 1)
        image.header.set_qform(AFFINE @ np.diag([-1, 1, 1, 1]), 1)
        (nnunet_folders / "in").mkdir(exist_ok=True)
        nib.save(image, nnunet_folders / "in" / f"{name}-0.nii")
    assert doubts(convert(nnunet_folders / "in")) == [f"lits_000: {nifti_space.TWO_PLACES}"]


def test_size_zero_that_nobody_knows_better(nnunet_folders: Path) -> None:
    source = nnunet_folders / "in"
    for path in (
        save(source / "volume-0.nii", ct(), codes=(1, 0)),
        save(source / "segmentation-0.nii", liver(), codes=(1, 0)),
    ):
        edited(path, (0.7, 0.7, 0))
    assert doubts(convert(source)) == [f"lits_000: {nifti_space.NO_SIZE}"]


@pytest.mark.parametrize("way", ["mirrored", "transposed"])
def test_a_real_ct_saved_by_another_tool(nnunet_folders: Path, shared_data: Path, way: str) -> None:
    """By nibabel with two axes the other way round, as DICOM has them, and by SimpleITK with other axes."""
    source = nnunet_folders / "in"
    expected = real_ct(source, shared_data)
    for path in source.glob("segmentation-*.nii.gz"):
        if way == "mirrored":
            image = nib.load(path).as_reoriented(np.array([[0, -1], [1, -1], [2, 1]]))
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), path)
        else:
            sitk.WriteImage(sitk.PermuteAxes(sitk.ReadImage(str(path)), (2, 0, 1)), str(path))
    outcome = convert(source, target="liver-tumour")
    for number in range(3):
        np.testing.assert_array_equal(label_of(outcome.folder, f"lits_{number:03d}", ".nii.gz"), expected)
    assert sum("stored in another order" in repair for repair in outcome.layout.repairs) == 3
    assert doubts(outcome) == []
