"""Pictures of cases, as papers show them: the input, the reference, one column per model.

An image is embedded once as JPEG; contours are lines over it, sharp at any size.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from nnunet_ext import registry
from nnunet_ext.common.progress import Track
from nnunet_ext.comparison.wording import number
from nnunet_ext.metrics.definitions import BY_KEY
from nnunet_ext.report import svg
from nnunet_ext.report.data import ReportData, defined
from nnunet_ext.report.volumes import Volume, image_file, mask_file, read, telling_slice

LIVER_WINDOW = (-20.0, 140.0)  # HU; the liver paper's
SOFT_TISSUE = (-160.0, 240.0)  # HU
AIR = -300.0  # HU; no other modality has values below
LARGEST = 360  # pixels of an embedded image
CHAIN = "LiverWindowCLAHENormalization"
HF_TRAINER, HF_CONTROL = "nnUNetTrainerSAMUSHF", "Control"


class Picture(NamedTuple):
    """A drawing, its heading, and a line below."""

    title: str
    drawing: Markup
    note: str = ""


class Row(NamedTuple):
    """The pictures of one case, and why it is shown."""

    case: str
    why: str
    about: str
    pictures: list[Picture]


class Gallery(NamedTuple):
    """Rows by structure, and the cases that should be shown but cannot be read."""

    rows: dict[str, list[Row]]
    missing: list[str]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A part of a slice, in pixels."""

    top: int
    left: int
    height: int
    width: int


def qualitative(data: ReportData, track: Track) -> Gallery | None:
    """The best, the median and the worst case, and the largest false alarm, of every structure; None without images."""
    chosen = [(s, case, why) for s in data.structures for case, why in chosen_cases(data, s)]
    rows: dict[str, list[Row]] = {}
    missing = []
    numbered = enumerate(chosen)
    for i, (structure, case, why) in track(numbered, total=len(chosen), what="pictures", unit="case"):
        if row := _row(data, structure, case, why, f"picture-{i}"):
            rows.setdefault(structure, []).append(row)
        else:
            missing.append(f"{case} ({structure}, {why})")
    return Gallery(rows, missing) if rows else None


def chosen_cases(data: ReportData, structure: str) -> list[tuple[str, str]]:
    """Case and reason, by rule: by the mean Dice over models, of cases with the structure; ties go by name."""
    has = data.has_structure(structure)
    mean = defined(data.values(structure, "dice")[has.to_numpy()]).mean(axis=1).sort_values(kind="stable")
    wanted = [("best case", -1), ("median case", (len(mean) - 1) // 2), ("worst case", 0)] if len(mean) else []
    found: dict[str, str] = {}
    for why, place in wanted:
        found.setdefault(str(mean.index[place]), why)
    alarm = data.values(structure, "volume_prediction")[~has.to_numpy()].mean(axis=1)
    if alarm.max() > 0:
        found[str(alarm.idxmax())] = "largest false alarm: the reference is empty"
    return list(found.items())


def _row(data: ReportData, structure: str, case: str, why: str, key: str) -> Row | None:
    """None where image or reference cannot be read."""
    image = read(image_file(data, case))
    reference = read(mask_file(data, data.names[0], case, "references"))
    if image is None or reference is None or image.slices.shape != reference.slices.shape:
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
    window = _window(data, image.slices)
    whole = Box(top=0, left=0, height=plane.shape[0], width=plane.shape[1])
    box = _around([truth[z], *(m[z] for m in masks.values())], whole)
    shared = Markup(f'<use href="#{key}"/>')
    outline = _outline(truth[z], box, "reference")
    pictures = [
        Picture(
            "input", _picture(_image(plane, whole, window), whole, aspect, [_frame(box, whole)], f"input of {case}")
        ),
        Picture("reference", _picture(_image(plane, box, window, key), box, aspect, [outline], f"reference of {case}")),
    ]
    for name in data.names:
        if name in masks:
            lines = [outline, _outline(masks[name][z], box, "prediction")]
            drawing = _picture(shared, box, aspect, lines, f"{name} on {case}")
            pictures.append(Picture(f"{data.letter(name)}  {name}", drawing, _score(data, structure, case, name)))
    largest = "reference" if truth.any() else "prediction"
    about = f"slice {z + 1} of {len(image.slices)}, the one with the largest {largest}" if len(image.slices) > 1 else ""
    return Row(case, why, about, pictures)


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
    """The liver paper's window for CT, else the 1st and 99th percentile."""
    channels = [str(c).lower() for name in data.names for c in data.dataset(name).get("channel_names", {}).values()]
    if "ct" in channels[:1] or float(image.min()) < AIR:
        return LIVER_WINDOW
    low, high = np.percentile(image, (1, 99))
    return float(low), float(high) if high > low else float(low) + 1


def _around(masks: Sequence[np.ndarray], whole: Box) -> Box:
    """A square around all foreground with a margin; the whole slice where that is not much more."""
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
    return Box(top=top, left=left, height=side, width=side)


def _image(plane: np.ndarray, box: Box, window: tuple[float, float], key: str | None = None) -> Markup:
    """The part of a slice as an embedded JPEG, in grey."""
    from PIL import Image

    part = plane[box.top : box.top + box.height, box.left : box.left + box.width].astype(float)
    grey = np.clip((part - window[0]) / (window[1] - window[0]), 0, 1) * 255
    picture = Image.fromarray(np.rint(grey).astype(np.uint8))
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    href = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return svg.tag("image", id=key, href=href, width=box.width, height=box.height, preserveAspectRatio="none")


def _picture(image: Markup, box: Box, aspect: float, lines: Iterable[Markup], title: str) -> Markup:
    group = svg.tag("g", [image, *lines], transform=f"scale(1 {aspect:.5g})")
    return svg.figure([group], box.height * aspect, title, width=box.width)


def _frame(box: Box, whole: Box) -> Markup:
    """Where the other pictures are cut out."""
    if box == whole:
        return Markup()
    return svg.tag("rect", x=box.left, y=box.top, width=box.width, height=box.height, class_="cut")


def _outline(mask: np.ndarray, box: Box, class_: str) -> Markup:
    """The contour of a mask within a box, in its pixels."""
    from contourpy import contour_generator

    part = np.pad(mask[box.top : box.top + box.height, box.left : box.left + box.width], 1).astype(float)
    path = "".join(_closed(points - 0.5) for points in contour_generator(z=part).lines(0.5))
    return svg.tag("path", d=path, class_=f"outline {class_}") if path else Markup()


def _closed(points: np.ndarray) -> str:
    """A path through the corners alone; points (n, 2) in x, y, the last one the first."""
    steps = np.diff(points, axis=0)
    corner = np.ones(len(steps), dtype=bool)
    corner[1:] = np.any(steps[1:] != steps[:-1], axis=1)
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points[:-1][corner]) + "Z"


def preprocessing(data: ReportData) -> list[Picture] | None:
    """A slice before and after the liver paper's intensity chain; None where no plans name it."""
    chained = [name for name in data.names if CHAIN in _schemes(data, name)]
    example = _example(data) if chained else None
    if example is None:
        return None
    image, z, case = example
    plane = image.slices[z]
    run = registry.get("normalization", CHAIN).load()(False, {}).run
    whole = Box(top=0, left=0, height=plane.shape[0], width=plane.shape[1])
    shown = (
        (f"{SOFT_TISSUE[0]:g} to {SOFT_TISSUE[1]:g} HU", plane, SOFT_TISSUE),
        (f"window {LIVER_WINDOW[0]:g} to {LIVER_WINDOW[1]:g} HU", plane, LIVER_WINDOW),
        ("median and CLAHE", run(plane[None].astype(np.float32))[0], (0.0, 1.0)),
    )
    return [
        Picture(title, _picture(_image(values, whole, window), whole, image.aspect, [], f"{title} of {case}"), case)
        for title, values, window in shown
    ]


def _schemes(data: ReportData, name: str) -> set[str]:
    """Names of normalisations in a model's plans."""
    plans = data.plans(name).get("configurations", {})
    wanted = data.info(name, "configuration")
    chosen = [plans[wanted]] if wanted in plans else plans.values()
    return {scheme for c in chosen for scheme in c.get("normalization_schemes", ())}


def high_frequency(data: ReportData) -> list[Picture] | None:
    """What SAMUS-HF's second branch sees; None without such a model."""
    ours = [n for n in data.names if (t := data.trainer(n)).startswith(HF_TRAINER) and HF_CONTROL not in t]
    example = _example(data) if ours else None
    if example is None:
        return None
    import torch

    from nnunet_ext.architectures.samus.high_frequency import HighFrequencyImage
    from nnunet_ext.preprocessing import resize_slices

    image, z, case = example
    size = (256, 256)
    plane = image.slices[z][None, None].astype(np.float32)
    small = resize_slices(plane, (), (), (), size=size, is_seg=False)
    with torch.no_grad():
        high = HighFrequencyImage()(torch.from_numpy(small))[0, 0].numpy()
    whole = Box(top=0, left=0, height=256, width=256)
    shown = (
        ("input, 256x256", small[0, 0], _window(data, small)),
        ("high frequencies", high, tuple(np.percentile(high, (1, 99)))),
    )
    return [
        Picture(t, _picture(_image(values, whole, window), whole, 1.0, [], f"{t} of {case}"), case)
        for t, values, window in shown
    ]


def _example(data: ReportData) -> tuple[Volume, int, str] | None:
    """The median case of the first structure that has an image: image, slice, name."""
    for structure in data.structures:
        cases = sorted(chosen_cases(data, structure), key=lambda c: c[1] != "median case")
        for case, _ in cases:
            image = read(image_file(data, case))
            reference = read(mask_file(data, data.names[0], case, "references"))
            if image is not None:
                same = reference is not None and reference.slices.shape == image.slices.shape
                truth = np.isin(reference.slices, data.structures[structure]) if same else image.slices < np.inf
                return image, telling_slice(truth, truth), case
    return None
