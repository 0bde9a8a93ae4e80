"""Pictures of cases, as papers show them: the input, the reference, one column per model.

An image is embedded once as JPEG; contours are lines over it, sharp at any size.
"""

from __future__ import annotations

import base64
import glob
import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from markupsafe import Markup

from nnunet_ext import registry
from nnunet_ext.common.nnunet_files import DATASET, PLANS
from nnunet_ext.common.processes import Track
from nnunet_ext.comparison.wording import number
from nnunet_ext.evaluation.source import image_folders
from nnunet_ext.metrics.definitions import BY_KEY
from nnunet_ext.report import svg
from nnunet_ext.report.data import ReportData

SOFT_TISSUE = (-160.0, 240.0)  # HU
AIR = -300.0  # HU; no other modality has values below
LARGEST = 360  # pixels of an embedded image


class Stack(NamedTuple):
    """Slices as radiologists look at them, and height / width of a pixel."""

    slices: np.ndarray
    aspect: float


class Picture(NamedTuple):
    """A drawing, its heading, and a line below."""

    title: str
    drawing: Markup
    note: str = ""


class CasePictures(NamedTuple):
    """The pictures of one case, and why it is shown."""

    case: str
    why: str
    about: str
    pictures: list[Picture]


class Gallery(NamedTuple):
    """Rows by structure, and the cases that should be shown but cannot be read."""

    rows: dict[str, list[CasePictures]]
    missing: list[str]


class Box(NamedTuple):
    """A part of a slice, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, plane: np.ndarray) -> np.ndarray:
        """Return this part of a slice."""
        return plane[self.top : self.top + self.height, self.left : self.left + self.width]


def qualitative(data: ReportData, track: Track) -> Gallery | None:
    """Show the best, the median and the worst case, and the largest false alarm, of every structure."""
    chosen = [(s, case, why) for s in data.structures for case, why in chosen_cases(data, s)]
    rows: dict[str, list[CasePictures]] = {}
    missing = []
    numbered = enumerate(chosen)
    for i, (structure, case, why) in track(numbered, total=len(chosen), what="pictures", unit="case"):
        if row := _row(data, structure, case, why, f"picture-{i}"):
            rows.setdefault(structure, []).append(row)
        else:
            missing.append(f"{case} ({structure}, {why})")
    return Gallery(rows, missing) if rows else None


def chosen_cases(data: ReportData, structure: str) -> list[tuple[str, str]]:
    """Return case and reason, by the mean primary metric of all models in cases with the structure; ties go by name.

    Cases that were asked for come last.
    """
    has = data.has_structure(structure)
    mean = data.values(structure, data.primary)[has.to_numpy()].dropna().mean(axis=1)
    mean = mean.sort_values(kind="stable", ascending=BY_KEY[data.primary].better > 0)
    wanted = [("best case", -1), ("median case", (len(mean) - 1) // 2), ("worst case", 0)] if len(mean) else []
    found: dict[str, str] = {}
    for why, place in wanted:
        found.setdefault(str(mean.index[place]), why)
    alarm = data.values(structure, "volume_prediction")[~has.to_numpy()].mean(axis=1)
    if alarm.max() > 0:
        found[str(alarm.idxmax())] = "largest false alarm: the reference is empty"
    for case in data.extras.cases:
        found.setdefault(case, "asked for")
    return list(found.items())


def _row(data: ReportData, structure: str, case: str, why: str, key: str) -> CasePictures | None:
    """Draw one case; None where image or reference cannot be read."""
    image, reference = _read_case(data, case)
    if image is None or reference is None:
        return None
    labels = data.structures[structure]
    truth = np.isin(reference.slices, labels)
    masks = {}
    for name in data.names:
        predicted = read(mask_file(data, name, case, "predictions"))
        if predicted is not None and predicted.slices.shape == truth.shape:
            masks[name] = np.isin(predicted.slices, labels)
    z = telling_slice(truth, np.any(list(masks.values()), axis=0) if masks else truth)
    plane, aspect = image.slices[z], image.aspect
    window, whole = _window(data, image.slices), Box(0, 0, *plane.shape)
    box = _around([truth[z], *(m[z] for m in masks.values())], whole)
    outline = _outline(truth[z], box, "reference")
    shown, cut_out = _image(plane, whole, window), _image(plane, box, window, key)
    pictures = [
        Picture("input", _drawing(shown, whole, aspect, [_frame(box, whole)], f"input of {case}")),
        Picture("reference", _drawing(cut_out, box, aspect, [outline], f"reference of {case}")),
    ]
    for name, mask in masks.items():
        lines = [outline, _outline(mask[z], box, "prediction")]
        drawing = _drawing(Markup(f'<use href="#{key}"/>'), box, aspect, lines, f"{name} on {case}")
        pictures.append(Picture(f"{data.letter(name)}  {name}", drawing, _score(data, structure, case, name)))
    largest = "reference" if truth.any() else "prediction"
    about = f"slice {z + 1} of {len(image.slices)}, the one with the largest {largest}" if len(image.slices) > 1 else ""
    return CasePictures(case, why, about, pictures)


def _read_case(data: ReportData, case: str) -> tuple[Stack | None, Stack | None]:
    """Return image and reference, None for each that cannot be read and for a reference of another shape."""
    image, reference = read(image_file(data, case)), read(mask_file(data, data.names[0], case, "references"))
    fits = image is not None and reference is not None and image.slices.shape == reference.slices.shape
    return image, reference if fits else None


def _score(data: ReportData, structure: str, case: str, name: str) -> str:
    shown = []
    for key in ("dice", "hd95") if data.has_structure(structure)[case] else ():
        value = float(data.values(structure, key).loc[case, name])
        if np.isfinite(value):
            unit = f" {data.units.length}" if key == "hd95" else ""
            shown.append(f"{BY_KEY[key].label} {number(value, BY_KEY[key])}{unit}")
    if not shown:
        volume = float(data.values(structure, "volume_prediction").loc[case, name])
        shown = [f"{volume:.3g} {data.units.volume} predicted" if volume else "nothing predicted"]
    return ", ".join(shown)


def _window(data: ReportData, image: np.ndarray) -> tuple[float, float]:
    """Return the liver paper's window for CT, else the 1st and 99th percentile."""
    if _is_ct(data, image):
        from nnunet_ext.preprocessing import WINDOW_CENTRE, WINDOW_WIDTH

        return WINDOW_CENTRE - WINDOW_WIDTH / 2, WINDOW_CENTRE + WINDOW_WIDTH / 2
    low, high = np.percentile(image, (1, 99))
    return float(low), float(high) if high > low else float(low) + 1


def _is_ct(data: ReportData, image: np.ndarray) -> bool:
    channels = [
        str(channel).lower()
        for name in data.names
        for channel in data.record(name, DATASET).get("channel_names", {}).values()
    ]
    return "ct" in channels[:1] or float(image.min()) < AIR


def _around(masks: Sequence[np.ndarray], whole: Box) -> Box:
    """Return a square around all foreground with a margin; the whole slice where that is not much more."""
    union = np.any(masks, axis=0)
    if not union.any():
        return whole
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = int(max(1.7 * extent, 0.45 * min(whole.height, whole.width)))
    if side >= 0.8 * min(whole.height, whole.width):
        return whole
    top = int(np.clip((rows[0] + rows[-1] - side) // 2, 0, whole.height - side))
    left = int(np.clip((columns[0] + columns[-1] - side) // 2, 0, whole.width - side))
    return Box(top, left, side, side)


def _image(plane: np.ndarray, box: Box, window: tuple[float, float], key: str | None = None) -> Markup:
    """Embed a part of a slice as JPEG, in grey."""
    from PIL import Image

    grey = np.clip((box.of(plane).astype(float) - window[0]) / (window[1] - window[0]), 0, 1) * 255
    picture = Image.fromarray(np.rint(grey).astype(np.uint8))
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    href = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return svg.tag("image", id=key, href=href, width=box.width, height=box.height, preserveAspectRatio="none")


def _drawing(image: Markup, box: Box, aspect: float, lines: Iterable[Markup], title: str) -> Markup:
    group = svg.tag("g", [image, *lines], transform=f"scale(1 {aspect:.5g})")
    return svg.figure([group], box.height * aspect, title, width=box.width)


def _frame(box: Box, whole: Box) -> Markup:
    """Frame the part that the other pictures show."""
    if box == whole:
        return Markup()
    return svg.tag("rect", x=box.left, y=box.top, width=box.width, height=box.height, class_="cut")


def _outline(mask: np.ndarray, box: Box, class_: str) -> Markup:
    """Draw the contour of a mask within a box, in its pixels."""
    from contourpy import contour_generator

    contours = contour_generator(z=np.pad(box.of(mask), 1).astype(float)).lines(0.5)
    path = "".join(_closed(np.asarray(points) - 0.5) for points in contours)
    return svg.tag("path", d=path, class_=f"outline {class_}") if path else Markup()


def _closed(points: np.ndarray) -> str:
    """Return a path through the corners alone; points (n, 2) in x, y, the last one the first."""
    steps = np.diff(points, axis=0)
    corner = np.ones(len(steps), dtype=bool)
    corner[1:] = np.any(steps[1:] != steps[:-1], axis=1)
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points[:-1][corner]) + "Z"


def preprocessing(data: ReportData) -> list[Picture] | None:
    """Show a slice before and after the normalisations that the registry lists; None where no plans name one."""
    named = {scheme for name in data.names for scheme in _schemes(data, name)}
    entries = [entry for entry in registry.entries("normalization") if entry.name in named]
    example = _example(data) if entries else None
    if example is None:
        return None
    image, z, case = example
    plane, window = image.slices[z], _window(data, image.slices)
    windows = [SOFT_TISSUE, window] if _is_ct(data, image.slices) else [window]
    shown = [(f"{low:g} to {high:g}{' HU' * (len(windows) > 1)}", plane, (low, high)) for low, high in windows]
    for entry in entries:
        after = entry.load()(False, {}).run(plane[None].astype(np.float32))[0]
        shown.append((entry.summary, after, (float(after.min()), float(after.max()))))
    return [_whole(title, values, window, image.aspect, case) for title, values, window in shown]


def _whole(title: str, plane: np.ndarray, window: tuple[float, float], aspect: float, case: str) -> Picture:
    box = Box(0, 0, *plane.shape)
    return Picture(title, _drawing(_image(plane, box, window), box, aspect, [], f"{title} of {case}"), case)


def _schemes(data: ReportData, name: str) -> set[str]:
    plans = data.record(name, PLANS).get("configurations", {})
    wanted = data.info(name, "configuration")
    chosen = [plans[wanted]] if wanted in plans else plans.values()
    return {scheme for c in chosen for scheme in c.get("normalization_schemes", ())}


def high_frequency(data: ReportData) -> dict[str, Any] | None:
    """Show what the second branch of the first SAMUS-HF model sees; None without such a model."""
    seen = next((own for name in data.names if (own := _high_frequency_image(data, name))), None)
    example = _example(data) if seen else None
    if seen is None or example is None:
        return None
    transform, size = seen
    import torch

    from nnunet_ext.preprocessing import resize_slices

    image, z, case = example
    plane = image.slices[z][None, None].astype(np.float32)
    small = resize_slices(plane, (), (), (), size=(size, size), is_seg=False)
    with torch.no_grad():
        high = transform(torch.from_numpy(small))[0, 0].numpy()
    low, top = np.percentile(high, (1, 99))
    return {
        "wavelet": transform.wavelet,
        "normalization": transform.normalization,
        "pictures": [
            _whole(f"input, {size}x{size}", small[0, 0], _window(data, small), 1.0, case),
            _whole("high frequencies", high, (low, top), 1.0, case),
        ],
    }


def _high_frequency_image(data: ReportData, name: str) -> tuple[Any, int] | None:
    """Return the module of a model's network that makes high-frequency images, and the pixels per side of its images.

    None where it has no such module.
    """
    entry = data.entry(name)
    if entry is None or entry.family != "samus":
        return None
    import torch

    from nnunet_ext.architectures.samus.high_frequency import HighFrequencyImage

    try:
        with torch.device("meta"):  # no weights: a wavelet has no parameters
            network = entry.load().build_model()
    except Exception as e:  # noqa: BLE001  (trainers of others may do anything; a report does without)
        logging.getLogger(__name__).info("%s: the network cannot be built (%s: %s)", entry.name, type(e).__name__, e)
        return None
    found = [module for module in network.modules() if isinstance(module, HighFrequencyImage)]
    return (found[0], network.image_size) if found else None


def _example(data: ReportData) -> tuple[Stack, int, str] | None:
    """Return image, slice and name of the first structure's median case, or of the next that has an image."""
    for structure, labels in data.structures.items():
        for case, _ in sorted(chosen_cases(data, structure), key=lambda c: c[1] != "median case"):
            image, reference = _read_case(data, case)
            if image is not None:
                truth = np.isin(reference.slices, labels) if reference else np.ones(image.slices.shape, bool)
                return image, telling_slice(truth, truth), case
    return None


def image_file(data: ReportData, case: str) -> Path | None:
    """Return the first channel of a case: in the folder that was named, else where the runs' folders suggest."""
    for folder in _image_folders(data, case):
        if found := sorted(folder.glob(f"{glob.escape(case)}_0000.*")):
            return found[0]
    return None


def _image_folders(data: ReportData, case: str) -> Iterator[Path]:
    if data.images:
        yield data.images
    for name in data.names:
        info = run.info if (run := data.run_of(name, case)) else {}
        if info.get("images"):
            yield Path(info["images"])
        yield from image_folders(Path(info["references"]) if "references" in info else None, info.get("dataset", ""))


def mask_file(data: ReportData, name: str, case: str, what: Literal["predictions", "references"]) -> Path | None:
    """Return a model's prediction or reference of a case; None where that is not known."""
    run = data.run_of(name, case)
    file = run.file(what, case) if run else None
    if file is None or file.is_file():
        return file
    return next(iter(sorted(file.parent.glob(f"{glob.escape(case)}.*"))), None)  # a summary.json names no file ending


def read(file: Path | None) -> Stack | None:
    """Read an image; None where there is no such file or it cannot be read: a report does without a picture."""
    import SimpleITK as sitk  # noqa: N813  (the library's own idiom)

    if file is None:
        return None
    try:
        image = sitk.ReadImage(file)
        if image.GetDimension() == 3 and image.GetSize()[2] > 1:
            image = sitk.DICOMOrient(image, "LPS")
    except RuntimeError:
        return None
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array.mean(axis=-1)
    width, height = image.GetSpacing()[:2]
    return Stack(slices=array.reshape(-1, *array.shape[-2:]), aspect=height / width)


def telling_slice(reference: np.ndarray, prediction: np.ndarray) -> int:
    """Return the slice with the largest reference; without one, with the largest prediction; else the middle one."""
    for mask in (reference, prediction):
        if mask.any():
            return int(np.argmax(mask.sum(axis=(1, 2))))
    return len(reference) // 2
