"""How many of BUSI's near-duplicates are found, how many pairs are wrong, and how long the search takes.

    python benchmarks/near_duplicates.py --source Dataset_BUSI_with_GT [--groups FILE] [--runs 3]

Counted are pairs that the list of an outside audit puts together, of those images that are at hand: any part of BUSI
will do, and the list of any other dataset in the same form. Three more measurements need no list: parts of every image,
zoomed, written on and saved as JPEG, which should be found; every image against the mirror image of every other one,
which should not; and the seconds for about as many images as BUSI has, made by mirroring.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import aim, interleaved, machine, medians, options, save
from PIL import Image, ImageDraw, ImageOps

from nnunet_ext.dataset_conversion import same_frame
from nnunet_ext.dataset_conversion.busi import PUBLISHED
from nnunet_ext.dataset_conversion.duplicates import connected
from nnunet_ext.dataset_conversion.group_list import read_groups
from nnunet_ext.dataset_conversion.same_frame import pairs, thumbnail

AUDIT = Path(same_frame.__file__).with_name("curation") / "audit_groups.csv"
RECALL, WRONG, SECONDS = 0.99, 3, 20  # what is aimed at, on the whole of BUSI
ZOOMS = (1.0, 1.1, 1.2, 1.3, 1.4)
ORIENTATIONS = (
    lambda image: image,
    ImageOps.mirror,
    ImageOps.flip,
    lambda image: ImageOps.flip(ImageOps.mirror(image)),
)


def listed_pairs(path: Path, names: Sequence[str]) -> set[frozenset[str]]:
    """Return every two of `names` that a list puts together."""
    together = {frozenset(two) for group in read_groups(path) for two in itertools.combinations(group, 2)}
    return {two for two in together if two.issubset(names)}


def found_pairs(images: Sequence[Image.Image], names: Sequence[str]) -> set[frozenset[str]]:
    """Return every two that end up in one group."""
    links = {(pair.one, pair.other): pair.similarity for pair in pairs([thumbnail(image) for image in images])}
    groups = connected(links, len(images))
    return {frozenset(names[i] for i in two) for group, _ in groups for two in itertools.combinations(group, 2)}


def zoomed(image: Image.Image, zoom: float, rng: np.random.Generator) -> Image.Image:
    """Return 1/zoom of both sides, of another aspect, size and brightness, written on, through JPEG."""
    shares = min(1.0, rng.uniform(0.95, 1.05) / zoom), 1 / zoom
    width, height = (side * share for side, share in zip(image.size, shares, strict=True))
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    size = round(width * rng.uniform(0.6, 1.3)), round(height * rng.uniform(0.6, 1.3))
    part = image.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    gamma = rng.uniform(0.7, 1.4)
    part = part.point([round(255 * (level / 255) ** gamma) for level in range(256)])
    place = size[0] * rng.uniform(0, 0.5), size[1] * rng.uniform(0, 0.9)
    ImageDraw.Draw(part).text(place, "RIGHT BREAST", 255, font_size=size[1] // 14)
    content = io.BytesIO()
    part.save(content, "JPEG", quality=75)
    return Image.open(content).convert("L")


def share_found(images: Sequence[Image.Image], zoom: float) -> float:
    """Return for how many images a zoomed part is found to be of the same frame."""
    rng = np.random.default_rng(0)
    return sum(bool(pairs([thumbnail(image), thumbnail(zoomed(image, zoom, rng))])) for image in images) / len(images)


def mirrored_found(images: Sequence[Image.Image]) -> int:
    """Return how many pairs of an image and a mirror image are taken for one frame."""
    found = pairs([thumbnail(image) for image in (*images, *map(ImageOps.mirror, images))])
    return sum(pair.one < len(images) <= pair.other for pair in found)


def named(pairs: set[frozenset[str]]) -> str:
    """Return pairs in words."""
    return "; ".join(sorted(" and ".join(sorted(two)) for two in pairs)) or "none"


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--source", type=Path, required=True, help="BUSI, or part of it")
    parser.add_argument("--groups", type=Path, default=AUDIT, help="list of groups (default: the audit's)")
    args = parser.parse_args()
    where = machine()
    paths = sorted(path for path in args.source.rglob("*.png") if "_mask" not in path.name)
    images, names = [Image.open(path).convert("L") for path in paths], [path.stem for path in paths]
    listed, found = listed_pairs(args.groups, names), found_pairs(images, names)
    right = listed & found
    recall, precision = len(right) / max(len(listed), 1), len(right) / max(len(found), 1)
    zooms = {str(zoom): share_found(images, zoom) for zoom in ZOOMS}
    mirrored = mirrored_found(images)
    copies = ORIENTATIONS[: max(1, round(sum(PUBLISHED.values()) / len(images)))]
    thumbnails = [thumbnail(turned(image)) for turned in copies for image in images]
    seconds = medians(interleaved({"search": lambda: pairs(thumbnails)}, args.runs))["search"]
    whole = seconds * (sum(PUBLISHED.values()) / len(thumbnails)) ** 2
    save(
        "near_duplicates",
        title=f"Near-duplicates among {len(images)} images of BUSI ({math.comb(len(images), 2):,} pairs)",
        command="python benchmarks/near_duplicates.py --source Dataset_BUSI_with_GT",
        notes=[
            f"{args.groups.name} puts {len(listed)} pairs of them together. In the whole of BUSI third images link "
            "more of its pairs, and there are more to find and to get wrong: this is measured on these images alone.",
            "",
            aim("recall", recall, RECALL, at_least=True),
            aim("wrong pairs", len(found - listed), WRONG),
            aim(f"seconds for {sum(PUBLISHED.values())} images", whole, SECONDS),
            "",
            f"Missed: {named(listed - found)}.",
            "",
            f"Not in the list: {named(found - listed)}.",
        ],
        header=("what", "value"),
        rows=[
            ("recall", f"{recall:.3f} ({len(right)} of {len(listed)})"),
            ("precision", f"{precision:.3f} ({len(right)} of {len(found)})"),
            *(
                (f"found again at {zoom} times, with text, gamma, JPEG", f"{share:.3f}")
                for zoom, share in zooms.items()
            ),
            (f"of {len(images) ** 2:,} pairs with a mirror image, taken for one frame", mirrored),
            (f"seconds to search {len(thumbnails)} images", f"{seconds:.2f}"),
        ],
        packages=("opencv-python-headless", "numpy"),
        where=where,
        recall=recall,
        precision=precision,
        missed=sorted(map(sorted, listed - found)),
        not_listed=sorted(map(sorted, found - listed)),
        zooms=zooms,
        mirrored=mirrored,
        images=len(thumbnails),
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
