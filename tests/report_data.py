"""Phantoms as images and references, disturbed references as predictions, and their evaluations: what reports show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
from scipy.ndimage import gaussian_filter, shift

from nnunet_ext.evaluation.evaluation import Evaluation
from nnunet_ext.evaluation.evaluator import evaluate
from nnunet_ext.phantom.busi import write_busi
from nnunet_ext.phantom.lits import write_lits

LESION = {"channel_names": {"0": "ultrasound"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".png"}
LIVER = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": [1, 2], "tumour": 2},
    "regions_class_order": [1, 2],
    "file_ending": ".nii.gz",
}


def ultrasound(root: Path, *, benign: int, malignant: int, normal: int, size: int) -> Path:
    """``imagesTs`` and ``labelsTs`` of breast phantoms as PNG below the returned folder."""
    source = root / "source"
    write_busi(out=source, benign=benign, malignant=malignant, normal=normal, size=size, seed=0, num_processes=1)
    for name in ("imagesTs", "labelsTs"):
        (root / name).mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps(LESION))
    for file in sorted(f for f in source.glob("*/*.png") if "_mask" not in f.name):
        image = sitk.GetArrayFromImage(sitk.ReadImage(file))
        case = file.stem.replace(" ", "_").replace("(", "").replace(")", "")
        masks = [sitk.GetArrayFromImage(sitk.ReadImage(m)) for m in file.parent.glob(f"{file.stem}_mask*.png")]
        masks = [m if m.ndim == 2 else m[..., 0] for m in masks]
        truth = np.any(masks, axis=0) if masks else np.zeros(image.shape[:2], bool)
        grey = image if image.ndim == 2 else image.mean(axis=-1)
        write(root / "imagesTs" / f"{case}_0000.png", grey.astype(np.uint8))
        write(root / "labelsTs" / f"{case}.png", truth.astype(np.uint8))
    return root


def scans(root: Path, *, cases: int, size: int, slices: int) -> Path:
    """``imagesTs`` and ``labelsTs`` (1 liver, 2 tumour) of abdominal phantoms below the returned folder."""
    source = root / "source"
    write_lits(
        out=source, cases=cases, size=size, slices=slices, seed=0, num_processes=1, test_cases=0, file_ending=".nii"
    )
    for name in ("imagesTs", "labelsTs"):
        (root / name).mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps(LIVER))
    for i in range(cases):
        sitk.WriteImage(sitk.ReadImage(source / f"volume-{i}.nii"), root / "imagesTs" / f"liver_{i:02d}_0000.nii.gz")
        sitk.WriteImage(sitk.ReadImage(source / f"segmentation-{i}.nii"), root / "labelsTs" / f"liver_{i:02d}.nii.gz")
    return root


def write(file: Path, array: np.ndarray, like: sitk.Image | None = None) -> None:
    """An image file; geometry from another image."""
    image = sitk.GetImageFromArray(array)
    if like is not None:
        image.CopyInformation(like)
    sitk.WriteImage(image, file)


def predict(root: Path, name: str, *, error: float, seed: int, ending: str) -> Path:
    """A folder of disturbed references: uneven borders, the first case misplaced; odd seeds miss the second case, and
    see lesions in every other case without one.
    """
    rng = np.random.default_rng(seed)
    out = root / name
    out.mkdir()
    for i, file in enumerate(sorted((root / "labelsTs").glob(f"*{ending}"))):
        reference = sitk.ReadImage(file)
        truth = sitk.GetArrayFromImage(reference)
        predicted = np.zeros_like(truth)
        for value in range(1, int(truth.max()) + 1):
            predicted[_disturbed(truth >= value, error, rng)] = value
        if i == 0:
            predicted = shift(predicted, (0,) * (truth.ndim - 1) + (truth.shape[-1] * error * 0.5,), order=0)
        if i == 1 and seed % 2:
            predicted[:] = 0
        if not truth.any() and seed % 2 and i % 2:
            predicted[..., 20:32, 30:50] = 1
        write(out / file.name, predicted, reference)
    return out


def _disturbed(mask: np.ndarray, error: float, rng: np.random.Generator) -> np.ndarray:
    if not mask.any():
        return mask
    noise = gaussian_filter(rng.standard_normal(mask.shape), 3)
    soft = gaussian_filter(mask.astype(float), 2)
    return soft + error * noise / noise.std() * (soft > 0.02) > 0.5 + 0.1 * rng.standard_normal() * error


def evaluation(root: Path, predictions: Path, **info: object) -> Evaluation:
    """Of a folder of predictions against ``labelsTs``; `info` is added to what the evaluation says of itself."""
    measured = evaluate(predictions, root / "labelsTs")
    measured.info.update({"images": str(root / "imagesTs"), **info})
    return measured


def fold_folder(root: Path, model: str, *, epochs: int = 30, seed: int = 0) -> Path:
    """A trained model's fold with a training log as nnU-Net writes it, and the plans and dataset.json above it."""
    rng = np.random.default_rng(seed)
    fold = root / model / "fold_0"
    fold.mkdir(parents=True)
    lines = ["", "# Please cite nnU-Net", ""]
    for epoch in range(epochs):
        loss = -0.9 + 0.8 * np.exp(-epoch / 8)
        clock = f"2026-11-24 10:{epoch:02d}:00.000000:"
        lines += [
            f"{clock} ",
            f"{clock} Epoch {epoch}",
            f"{clock} Current learning rate: 0.0001",
            f"{clock} train_loss {loss + rng.normal(0, 0.01):.4f}",
            f"{clock} val_loss {loss + 0.1 + rng.normal(0, 0.03):.4f}",
            f"{clock} Pseudo dice [np.float32({0.85 - 0.8 * np.exp(-epoch / 6) + rng.normal(0, 0.02):.4f})]",
            f"{clock} Epoch time: {12 + rng.random():.2f} s",
        ]
    (fold / "training_log_2026_11_24_10_00_00.txt").write_text("\n".join(lines))
    scheme = "LiverWindowCLAHENormalization" if "RAUNet" in model else "RGBTo01Normalization"
    plans = {"configurations": {"2d": {"normalization_schemes": [scheme]}}}
    (fold.parent / "plans.json").write_text(json.dumps(plans))
    channel = "CT" if "RAUNet" in model else "ultrasound"
    (fold.parent / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": channel}, "labels": {"background": 0}})
    )
    return fold


MODELS = {  # name -> error, seed, folder; the names are there to be escaped and to be long
    "SAMUS-HF": (0.15, 2, "nnUNetTrainerSAMUSHF__nnUNetSAMUSPlans__2d"),
    "nnU-Net <2d> & matched budget, a long name": (0.4, 5, "nnUNetTrainerMatchedBudget400__nnUNetPlans__2d"),
}


def study(root: Path) -> dict[str, list[Evaluation]]:
    """Two models on ten ultrasound phantoms, two of them without a lesion; a false alarm among these."""
    ultrasound(root, benign=5, malignant=3, normal=2, size=96)
    models = {}
    for name, (error, seed, folder) in MODELS.items():
        trainer, plans, configuration = folder.split("__")
        out = predict(root, folder, error=error, seed=seed, ending=".png")
        info = {"name": name, "trainer": trainer, "plans": plans, "configuration": configuration}
        models[name] = [evaluation(root, out, **info, command=f"nnunet_ext evaluate --pred '{folder}' --ref labelsTs")]
    return models
