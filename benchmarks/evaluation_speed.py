"""Seconds for all metrics of a case, against the same from MONAI and against nnU-Net, which has Dice and IoU alone.

    python benchmarks/evaluation_speed.py [--quick]

Masks are lumpy ellipsoids and noisy copies of them: a lesion in an image of 256x256, a tumour and a liver in volumes of
512x512x120. Ours are all metrics of `nnunet_ext evaluate`; MONAI's are Dice, HD95, average surface distance and surface
Dice; nnU-Net's is compute_metrics without reading. Whole folders are read and written as well, in one process each.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own idiom)
import torch
from common import aim, interleaved, machine, medians, options, save
from monai import metrics as monai
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_ext.evaluation.evaluator import evaluate
from nnunet_ext.metrics.definitions import PHYSICAL
from nnunet_ext.metrics.measure import Ruler, measure_segmentations

DATASET = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
SPACING, TOLERANCE = (2.5, 0.8, 0.8), 2.0
SCENES = {  # shape, half axes of the ellipsoid, the aim in seconds
    "lesion, 256x256": ((1, 256, 256), (1, 35, 50), 0.002),
    "tumour, 512x512x120": ((120, 512, 512), (10, 30, 35), 0.3),
    "liver, 512x512x120": ((120, 512, 512), (40, 110, 130), None),
}


def lump(shape: tuple[int, ...], axes: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw an ellipsoid whose radius waves around by a tenth, a voxel or two off the middle."""
    rng = np.random.default_rng(seed)
    centre = [n / 2 + rng.uniform(-2, 2) if n > 1 else 0 for n in shape]
    z, y, x = np.meshgrid(*((np.arange(n) - c) / a for n, c, a in zip(shape, centre, axes, strict=True)), indexing="ij",
                          sparse=True)  # fmt: skip
    angle = np.arctan2(y, x)
    waves = sum(rng.uniform(0.02, 0.06) * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 5, 9))
    return (z**2 + y**2 + x**2 < (1 + waves) ** 2).astype(np.uint8)


def with_monai(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Measure with MONAI; its tensors (batch, channel, ...) are made here."""
    flat = prediction.shape[0] == 1
    p, r = (torch.from_numpy(m[0] if flat else m)[None, None].float() for m in (prediction, reference))
    options = {"include_background": True, "spacing": list(SPACING[1:] if flat else SPACING)}
    found = {
        "dice": monai.compute_dice(p, r),
        "hd95": monai.compute_hausdorff_distance(p, r, **options, percentile=95),
        "assd": monai.compute_average_surface_distance(p, r, **options, symmetric=True),
        "nsd": monai.compute_surface_dice(p, r, **options, class_thresholds=[TOLERANCE]),
    }
    return {key: value.item() for key, value in found.items()}


class InMemory(BaseReaderWriter):
    """Hands arrays to nnU-Net's evaluation, which reads by itself."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def read_images(self, image_fnames: list[str]) -> tuple[np.ndarray, dict]:
        raise NotImplementedError

    def read_seg(self, seg_fname: str) -> tuple[np.ndarray, dict]:
        return self.arrays[seg_fname], {}

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        raise NotImplementedError


def of_masks(shape: tuple[int, ...], axes: tuple[int, ...], runs: int, loop: int) -> dict[str, float]:
    """Return the median seconds of one case; short ones are measured `loop` at a time."""
    prediction, reference = lump(shape, axes, 1), lump(shape, axes, 2)
    scale = Ruler(SPACING, PHYSICAL, TOLERANCE)
    arrays = {name: m[None].astype(np.float32) for name, m in (("p", prediction), ("r", reference))}
    variants: dict[str, Callable[[], object]] = {
        "nnunet_ext": lambda: measure_segmentations(prediction, reference, {"lesion": (1,)}, scale)["lesion"],
        "MONAI": lambda: with_monai(prediction, reference),
        "nnU-Net": lambda: compute_metrics("r", "p", InMemory(arrays), [1])["metrics"][1],
    }
    ours, theirs = variants["nnunet_ext"](), variants["MONAI"]()
    differing = {k: (ours[k], v) for k, v in theirs.items() if not np.isclose(ours[k], v, rtol=1e-4)}
    assert not differing, differing

    def looped(run: Callable[[], object]) -> Callable[[], None]:
        return lambda: [run() for _ in range(loop)] and None

    times = medians(interleaved({name: looped(run) for name, run in variants.items()}, runs))
    return {name: seconds / loop for name, seconds in times.items()}


def of_files(folder: Path, shape: tuple[int, ...], axes: tuple[int, ...], cases: int, runs: int) -> dict[str, float]:
    """Return the median seconds per case with reading, checking, summing up and writing."""
    for k in range(cases):
        for name, seed in (("pred", k), ("ref", k + 1000)):
            image = sitk.GetImageFromArray(lump(shape, axes, seed))
            image.SetSpacing(SPACING[::-1])
            (folder / name).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, folder / name / f"case_{k:03d}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(DATASET))

    def ours() -> None:
        evaluate(folder / "pred", folder / "ref", tolerance=TOLERANCE).save(folder / "out")

    def theirs() -> None:
        for file in sorted((folder / "ref").iterdir()):
            compute_metrics(str(file), str(folder / "pred" / file.name), SimpleITKIO(), [1])

    times = medians(interleaved({"nnunet_ext": ours, "nnU-Net": theirs}, runs))
    return {name: seconds / cases for name, seconds in times.items()}


def main() -> None:
    """Measure, print, write."""
    args = options(__doc__, quick="few runs").parse_args()
    warnings.filterwarnings("ignore", module="monai")
    torch.set_num_threads(1)
    where = machine(threads=1)
    rows, data, aims = [], {}, []
    for scene, (shape, axes, seconds) in SCENES.items():
        small = shape[0] == 1
        times = of_masks(shape, axes, runs=3 if args.quick else 9, loop=20 if small else 1)
        data[scene] = {"seconds": times, "aim": seconds}
        if seconds:
            aims.append(aim(f"milliseconds for {scene}", 1000 * times["nnunet_ext"], 1000 * seconds))
        rows.append([f"{scene}, in memory", *(f"{t * 1000:.2f} ms" for t in times.values()),
                     f"{times['MONAI'] / times['nnunet_ext']:.0f}"])  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for scene, cases in (("lesion, 256x256", 50), ("tumour, 512x512x120", 2)):
            shape, axes, _ = SCENES[scene]
            times = of_files(Path(folder) / str(cases), shape, axes, cases, runs=2 if args.quick else 5)
            data[f"{scene}, files"] = {"seconds": times}
            rows.append([f"{scene}, files", f"{times['nnunet_ext'] * 1000:.1f} ms", "",
                         f"{times['nnU-Net'] * 1000:.1f} ms", ""])  # fmt: skip
    save(
        "evaluation_speed",
        title="Evaluating a case",
        command="python benchmarks/evaluation_speed.py",
        notes=[
            "Median time per case on one thread, variants taking turns. nnunet_ext: all metrics of `evaluate`. "
            "MONAI: Dice, HD95, average surface distance and surface Dice, equal to ours to 1e-4. nnU-Net: Dice and "
            "IoU. Files (.nii.gz): with reading, for ours also with all checks, sums and writing.",
            "",
            *aims,
        ],
        header=["", "nnunet_ext", "MONAI", "nnU-Net", "MONAI / ours"],
        rows=rows,
        packages=("monai", "nnunetv2", "numpy", "scipy", "torch", "SimpleITK"),
        where=where,
        write=not args.quick,
        scenes=data,
    )


if __name__ == "__main__":
    main()
