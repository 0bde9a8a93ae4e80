"""Seconds for all metrics of a case, against the same from MONAI and against nnU-Net, which has Dice and IoU alone.

    python benchmarks/evaluation_speed.py [--quick]

Masks are lumpy ellipsoids and noisy copies of them: a lesion in an image of 256x256, a tumour and a liver in volumes of
512x512x120. Ours are all metrics of `nnunet_ext evaluate`; MONAI's are Dice, HD95, average surface distance and surface
Dice; nnU-Net's is compute_metrics without reading. Whole folders are read and written as well, in one process each: of
lesions, and of livers with tumours whose predictions are about a voxel off; and 200 PNG files by the two commands, from
start to end.
"""

from __future__ import annotations

import json
import subprocess
import sys
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


BOTH, PNG = "liver and tumour, 512x512x120", "200 PNG files of 480x560, the commands"


def lump(shape: tuple[int, ...], axes: tuple[int, ...], seed: int, ripple: float = 0) -> np.ndarray:
    """Draw an ellipsoid whose radius waves around by a tenth, a voxel or two off the middle.

    Args:
        ripple: a second, finer wave on the same ellipsoid, as a part of the radius: how far a prediction is off.
    """
    rng = np.random.default_rng(seed)
    centre = [n / 2 + rng.uniform(-2, 2) if n > 1 else 0 for n in shape]
    z, y, x = np.meshgrid(*((np.arange(n) - c) / a for n, c, a in zip(shape, centre, axes, strict=True)), indexing="ij",
                          sparse=True)  # fmt: skip
    angle = np.arctan2(y, x)
    waves = sum(rng.uniform(0.02, 0.06) * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 5, 9))
    waves = waves + ripple * np.cos(13 * angle + 20 * z)
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


def write_case(folder: Path, case: str, image: np.ndarray) -> None:
    """Write a segmentation, as NIfTI with the spacing or as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = sitk.GetImageFromArray(image[0] if case.endswith(".png") else image)
    if not case.endswith(".png"):
        picture.SetSpacing(SPACING[::-1])
    sitk.WriteImage(picture, folder / case, True)


def of_files(folder: Path, labels: dict[str, int], runs: int) -> dict[str, float]:
    """Return the median seconds per case of pred and ref, with reading, checking, summing up and writing."""
    (folder / "dataset.json").write_text(json.dumps({**DATASET, "labels": labels}))
    references = sorted((folder / "ref").iterdir())

    def ours() -> None:
        evaluate(folder / "pred", folder / "ref", tolerance=TOLERANCE).save(folder / "out")

    def theirs() -> None:
        for file in references:
            prediction = folder / "pred" / file.name
            compute_metrics(str(file), str(prediction), SimpleITKIO(), [v for v in labels.values() if v])

    times = medians(interleaved({"nnunet_ext": ours, "nnU-Net": theirs}, runs))
    return {name: seconds / len(references) for name, seconds in times.items()}


def of_commands(folder: Path, runs: int) -> dict[str, float]:
    """Return the median seconds of the two commands on PNG files, two processes each."""
    dataset, plans = folder / "dataset.json", folder / "plans.json"
    dataset.write_text(json.dumps({**DATASET, "file_ending": ".png", "channel_names": {"0": "ultrasound"}}))
    plans.write_text(json.dumps({"image_reader_writer": "NaturalImage2DIO"}))
    pred, ref = folder / "pred", folder / "ref"
    commands = {
        "nnunet_ext": ("nnunet_ext", "evaluate", "--pred", pred, "--ref", ref, "--out", folder / "ours", "--jobs", 2),
        "nnU-Net": ("nnUNetv2_evaluate_folder", ref, pred, "-djfile", dataset, "-pfile", plans, "-np", 2),
    }
    scripts = Path(sys.executable).parent

    def command(words: tuple[object, ...]) -> Callable[[], object]:
        line = [str(scripts / str(words[0])), *map(str, words[1:])]
        return lambda: subprocess.run(line, check=True, capture_output=True)

    return medians(interleaved({name: command(words) for name, words in commands.items()}, runs))


def of_folders(runs: int) -> dict[str, dict[str, float]]:
    """Return the seconds per case of folders of files, and those of the commands, by scene."""
    measured: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for scene, cases in (("lesion, 256x256", 50), ("tumour, 512x512x120", 2)):
            shape, axes, _ = SCENES[scene]
            for k in range(cases):
                for name, seed in (("pred", k), ("ref", k + 1000)):
                    write_case(root / str(cases) / name, f"case_{k:03d}.nii.gz", lump(shape, axes, seed))
            measured[scene] = of_files(root / str(cases), {"background": 0, "lesion": 1}, runs)
        shape, *_ = SCENES["liver, 512x512x120"]
        for k in range(2):
            for name, ripple in (("pred", 0.02), ("ref", 0)):
                both = lump(shape, (40, 110, 130), k, ripple)
                both += lump(shape, (10, 30, 35), k, ripple)
                write_case(root / "both" / name, f"case_{k}.nii.gz", both)
        measured[BOTH] = of_files(root / "both", {"background": 0, "liver": 1, "tumour": 2}, runs)
        for k in range(200):
            for name, seed in (("pred", k), ("ref", k + 1000)):
                write_case(root / "png" / name, f"case_{k:03d}.png", lump((1, 480, 560), (1, 60, 90), seed))
        measured[PNG] = of_commands(root / "png", runs)
    return measured


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
    measured = of_folders(2 if args.quick else 5)
    liver, png = measured[BOTH], measured[PNG]
    aims.append(aim("time relative to nnU-Net's on liver and tumour", liver["nnunet_ext"] / liver["nnU-Net"], 1))
    aims.append(aim("times as fast as nnU-Net's command on PNG", png["nnU-Net"] / png["nnunet_ext"], 2, at_least=True))
    for scene, times in measured.items():
        data[f"{scene}, files"] = {"seconds": times}
        ours, theirs = (f"{times[name] * 1000:,.1f} ms" for name in ("nnunet_ext", "nnU-Net"))
        rows.append([f"{scene}, files", ours, "", theirs, ""])
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
