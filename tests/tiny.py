"""Tiny nnU-Net datasets, planned and preprocessed in this process: what the trainer tests run on."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

BINARY = {"background": 0, "tumour": 1}
CLASSES = {"background": 0, "liver": 1, "tumour": 2}
REGIONS = {"background": 0, "liver": [1, 2], "tumour": 2}
IGNORE = {"background": 0, "tumour": 1, "ignore": 2}


def volume(rng: np.random.Generator, shape: tuple[int, int, int], highest_label: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipsoid with a darker one inside, in HU, and its labels (1 ... `highest_label`, from outside in)."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in shape), indexing="ij")
    centre = rng.uniform(-0.2, 0.2, 3)
    r = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    image = np.where(r < 0.7, 100, -50) - 60 * (r < 0.35) + rng.normal(0, 10, shape)
    shells = (0.35,) if highest_label == 1 else (0.7, 0.35)
    label = np.sum([r < radius for radius in shells], axis=0, dtype=np.uint8)
    return np.clip(image, -1000, 1000).astype(np.int16), label


def make_raw(
    dataset_id: int,
    labels: dict,
    *,
    cases: int = 4,
    shape: tuple[int, int, int] = (6, 40, 36),
    spacing: tuple[float, float, float] = (0.8, 0.8, 3.0),
    channels: tuple[str, ...] = ("CT",),
    png: bool = False,
) -> str:
    """Write ``nnUNet_raw/DatasetXXX_Tiny`` with two folds and return its name."""
    name = f"Dataset{dataset_id:03d}_Tiny"
    raw = Path(os.environ["nnUNet_raw"]) / name
    rng = np.random.default_rng(dataset_id)
    ending = ".png" if png else ".nii.gz"
    for sub in ("imagesTr", "labelsTr"):
        (raw / sub).mkdir(parents=True)
    names = [f"case_{i}" for i in range(cases)]
    highest = max(max(v) if isinstance(v, list) else v for v in labels.values())
    for case in names:
        image, label = volume(rng, (1, *shape[1:]) if png else shape, highest)
        for c in range(len(channels)):
            write(raw / "imagesTr" / f"{case}_{c:04d}{ending}", to_8_bit(image[0]) if png else image + c, spacing)
        write(raw / "labelsTr" / f"{case}{ending}", label[0] if png else label, spacing)
    save(
        raw / "dataset.json",
        {
            "channel_names": {str(i): c for i, c in enumerate(channels)},
            "labels": labels,
            "numTraining": cases,
            "file_ending": ending,
            **({"regions_class_order": [1, 2]} if labels is REGIONS else {}),
        },
    )
    half = cases // 2
    folds = [{"train": names[:half], "val": names[half:]}, {"train": names[half:], "val": names[:half]}]
    save(raw / "splits_final.json", folds)
    return name


def to_8_bit(image: np.ndarray) -> np.ndarray:
    """HU to grey values."""
    return np.clip(image + 100, 0, 255).astype(np.uint8)


def write(file: Path, array: np.ndarray, spacing: tuple[float, ...]) -> None:
    """An image file of the kind that its name says."""
    image = sitk.GetImageFromArray(array)
    if array.ndim == 3:
        image.SetSpacing(spacing)
    sitk.WriteImage(image, file)


def save(file: Path, content: object) -> None:
    """A JSON file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_fingerprint(name: str) -> None:
    """A dataset fingerprint, without the ten million samples that nnU-Net draws for one."""
    raw = Path(os.environ["nnUNet_raw"]) / name
    dataset = json.loads((raw / "dataset.json").read_text())
    images = [
        sitk.ReadImage(v["images"][0]) for v in get_filenames_of_train_images_and_targets(str(raw), dataset).values()
    ]
    shapes = [list(reversed(i.GetSize())) for i in images]
    spacings = [list(reversed(i.GetSpacing())) for i in images]
    intensity = {"max": 200, "mean": 60, "median": 60, "min": -100, "percentile_00_5": -80, "percentile_99_5": 150}
    save(
        Path(os.environ["nnUNet_preprocessed"]) / name / "dataset_fingerprint.json",
        {
            "spacings": [s if len(s) == 3 else [999, 1, 1] for s in spacings],
            "shapes_after_crop": [s if len(s) == 3 else [1, *s] for s in shapes],
            "foreground_intensity_properties_per_channel": {
                str(c): {**intensity, "std": 50} for c in range(len(dataset["channel_names"]))
            },
            "median_relative_size_after_cropping": 1.0,
        },
    )


def plan(
    folders: Path,
    shape: tuple,
    spacing: tuple = (2.5, 0.7, 0.7),
    *,
    channels: tuple[str, ...] = ("CT",),
    cases: int = 4,
    planner: str = "RAUNetPlanner",
    median: float = 0,
    **kwargs: object,
) -> dict:
    """Plan a dataset of which there is only a fingerprint; returns the plans.

    Args:
        shape: of all cases, or one per case.
        median: of the foreground, as the fingerprint says.
    """
    name = "Dataset029_Tiny"
    raw = folders / "nnUNet_raw" / name
    if not raw.exists():
        make_raw(29, BINARY, channels=channels, cases=cases, png=shape[0] == 1)
    shapes = [shape] * cases if isinstance(shape[0], int) else list(shape)
    intensity = {"max": 1, "mean": 0, "median": median, "min": 0, "percentile_00_5": 0, "percentile_99_5": 1, "std": 1}
    save(
        folders / "nnUNet_preprocessed" / name / "dataset_fingerprint.json",
        {
            "spacings": [spacing] * len(shapes),
            "shapes_after_crop": shapes,
            "foreground_intensity_properties_per_channel": {str(c): intensity for c in range(len(channels))},
            "median_relative_size_after_cropping": 1.0,
        },
    )
    plans_name = plan_experiments([29], planner, **kwargs)
    return json.loads((folders / "nnUNet_preprocessed" / name / f"{plans_name}.json").read_text())


def plan_and_preprocess(
    dataset_id: int, planner: str = "RAUNetPlanner", configurations: tuple[str, ...] = ("2d",), **kwargs: object
) -> str:
    """Plan with a planner found by name, preprocess every case; returns the plans' name."""
    name = convert_id_to_dataset_name(dataset_id)
    write_fingerprint(name)
    plans_name = plan_experiments([dataset_id], planner, **kwargs)
    preprocess(name, plans_name, configurations)
    return plans_name


def preprocess(name: str, plans_name: str, configurations: tuple[str, ...]) -> None:
    """Preprocess all cases with nnU-Net's preprocessor in this process."""
    raw = Path(os.environ["nnUNet_raw"]) / name
    base = Path(os.environ["nnUNet_preprocessed"]) / name
    dataset = json.loads((raw / "dataset.json").read_text())
    plans = PlansManager(str(base / f"{plans_name}.json"))
    (base / "gt_segmentations").mkdir(exist_ok=True)
    for configuration_name in configurations:
        configuration = plans.get_configuration(configuration_name)
        out = base / configuration.data_identifier
        out.mkdir(exist_ok=True)
        preprocessor = configuration.preprocessor_class(verbose=False)
        for case, files in get_filenames_of_train_images_and_targets(str(raw), dataset).items():
            label = Path(files["label"])
            preprocessor.run_case_save(str(out / case), files["images"], files["label"], plans, configuration, dataset)
            link = base / "gt_segmentations" / label.name
            if not link.exists():
                link.symlink_to(label)


def shrink(name: str, plans_name: str, configuration: str = "2d", **changes: object) -> None:
    """Change a configuration of a plan on disk, to keep a run short."""
    file = Path(os.environ["nnUNet_preprocessed"]) / name / f"{plans_name}.json"
    plans = json.loads(file.read_text())
    plans["configurations"][configuration].update(changes)
    file.write_text(json.dumps(plans))


def forked(method: str | None = None) -> multiprocessing.context.BaseContext:
    """In place of `multiprocessing.get_context`: nnU-Net's spawned pools forked, without imports in every worker."""
    return _get_context("fork")


_get_context = multiprocessing.get_context
