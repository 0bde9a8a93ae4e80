"""Synthetic LiTS: patients in a scanner, painted slice by slice, and their files in the download layout."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from nnunet_ext.common.processes import Track, untracked
from nnunet_ext.phantom import MARK, Drawing, check_ranges, write_all
from nnunet_ext.phantom.canvas import Array, Pose, Rng, Scene
from nnunet_ext.phantom.liver import Liver, Tumour
from nnunet_ext.phantom.trunk import Skeleton, Trunk
from nnunet_ext.phantom.viscera import Enhancement, Viscera

MODEL = 2  # raise whenever the same arguments give other voxels
FILE_ENDINGS = (".nii", ".nii.gz")
LIVER, TUMOUR = 1, 2
THICKNESSES = (0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 5.0)  # mm
FLIPS = [(True, True), (False, True)] + [(False, False)] * 6  # most scans are alike
SCANNER_AIR = -1012.0  # HU
PSF_MM = 0.55
PIXELS_AT_ONCE = 1 << 18


def write_lits(
    *,
    out: Path,
    cases: int,
    size: int,
    seed: int = 0,
    slices: int | None = None,
    test_cases: int = 0,
    num_processes: int = 1,
    file_ending: str = ".nii",
    track: Track = untracked,
) -> int:
    """Write `cases` labelled and `test_cases` unlabelled scans of `size` x `size` pixels; return how many were new.

    volume-N holds int16 HU, segmentation-N uint8 labels (0 background, 1 liver, 2 tumour), test-volume-N has none.
    Without `slices` the number follows from a drawn slice thickness (0.7 to 5 mm) and scan length. Case N depends on
    (seed, N, size, slices) only. Finished cases are skipped, so that the same call continues an interrupted one.

    Raises:
        InputError: for impossible arguments or an unusable folder.
    """
    wrong_ending = f"--file-ending must be {' or '.join(FILE_ENDINGS)}, not {file_ending}."
    check_ranges(
        {
            "--cases": (cases, 1, None),
            "--test-cases": (test_cases, 0, None),
            "--num-processes": (num_processes, 1, None),
            "--seed": (seed, 0, None),
            "--size": (size, 32, 1024),
            "--slices": (slices, 1, 400),
        },
        *([wrong_ending] if file_ending not in FILE_ENDINGS else []),
    )
    drawings = []
    for case, test in [(case, False) for case in range(cases)] + [(case, True) for case in range(test_cases)]:
        names = [f"test-volume-{case}"] if test else [f"volume-{case}", f"segmentation-{case}"]
        files = [Path(out) / (name + file_ending) for name in names]
        # at most 79 characters, NIfTI's limit
        description = f"{MARK} {MODEL}: {'test' if test else 'case'} {case}, seed {seed}, {size} x {slices}"
        draw = partial(_draw, description, file_ending, seed=seed, case=case, size=size, slices=slices, test=test)
        drawings.append(Drawing(files=files, description=description, draw=draw, read=_description))
    return write_all(drawings, num_processes=num_processes, track=track)


def _draw(description: str, file_ending: str, *, test: bool, **arguments: Any) -> Iterator[bytes]:
    """Yield the NIfTI files of a case: the volume and, unless it is a test case, its segmentation."""
    case = render(test=test, **arguments)
    for voxels in [case.hu] if test else [case.hu, case.labels]:
        image = nib.Nifti1Image(np.asfortranarray(voxels), case.affine)
        image.set_qform(case.affine, 1)
        image.set_sform(case.affine, 1)
        image.header.set_xyzt_units("mm", "sec")
        image.header["descrip"] = description
        content = image.to_bytes()
        yield gzip.compress(content, compresslevel=3, mtime=0) if file_ending.endswith(".gz") else content


def _description(path: Path) -> str:
    """Read the header's description; "" if this is not a NIfTI file."""
    try:
        header: Any = nib.load(path).header
        return header["descrip"].item().decode(errors="replace")
    except (ImageFileError, EOFError, OSError, KeyError):
        return ""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A finished scan: int16 HU and uint8 labels, both (i, j, k) as in the file, the affine, and the tumours drawn."""

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    tumours: list[Tumour]


def render(*, seed: int, case: int, size: int, slices: int | None = None, test: bool = False) -> Scan:
    """Draw case number `case`, `size` pixels wide, from these arguments alone; `test` cases are other patients.

    Each part has random numbers of its own, so that a change in one leaves the others alone.
    """
    stream = (seed, int(test), case)
    rngs = [np.random.default_rng((*stream, part)) for part in (*range(6), 100)]
    tall = rngs[0].uniform(0.9, 1.08)
    scale = tuple(float(tall * v) for v in rngs[0].uniform(0.97, 1.03, 3))
    degrees, shift = rngs[0].normal(0, 2.2), (rngs[0].normal(0, 5), rngs[0].normal(-8, 5))
    pose = Pose(scale=scale, degrees=degrees, shift=shift)
    trunk = Trunk(rngs[1])
    viscera = Viscera(rngs[3], trunk, Enhancement(rngs[2]))
    liver = Liver(rngs[4], viscera, has_tumours=case % 8 != 5, scale=tall)  # one in eight has none
    patient = trunk, Skeleton(rngs[5]), viscera, liver  # from the outside in; the liver owns its labels
    scanner = Scanner(rngs[6], pose, half_width=trunk.half_width * scale[0], size=size, slices=slices)
    scene = Scene(stream=stream, axes=scanner.axes, pose=pose)
    hu = np.empty((scanner.slices, size, size), np.int16)
    labels = np.zeros(hu.shape, np.uint8)
    layers = scanner.layers
    step = max(1, PIXELS_AT_ONCE // (size * size * layers))
    for first in range(0, scanner.slices, step):
        last = min(first + step, scanner.slices)
        canvas = scene.canvas(slice(first * layers, last * layers))
        for part in patient:
            part.paint(canvas)
        covered = (canvas.hu, canvas.liver, canvas.tumour)
        mean, inside, lesion = (v.reshape(last - first, layers, size, size).mean(1) for v in covered)
        labels[first:last] = np.where(lesion > 0.5, TUMOUR, np.where(inside > 0.5, LIVER, 0))
        hu[first:last] = [scanner.acquire(plane) for plane in mean]
    turn = tuple(slice(None, None, -1 if flipped else 1) for flipped in scanner.flips)
    hu, labels = hu.transpose(2, 1, 0)[turn], labels.transpose(2, 1, 0)[turn]
    return Scan(hu=hu, labels=labels, affine=scanner.affine(), tumours=liver.tumours)


class Scanner:
    """The protocol that a radiographer chose, and the machine that turns attenuation into noisy slices.

    Without `slices` the scan covers the liver and more; with them it has so many.

    Attributes:
        slices, spacing: number of slices; spacing (x, y, z) in mm.
        flips: which of x and y run the other way in the file.
        layers: how many positions in each slice are painted and averaged.
        axes: positions (z, y, x) in mm, the layers of all slices one after the other.
    """

    def __init__(self, rng: Rng, pose: Pose, *, half_width: float, size: int, slices: int | None) -> None:
        view = float(np.clip(2 * half_width * rng.uniform(1.0, 1.16), 0.56 * 512, 500))
        covered = rng.uniform(190, 250)
        thickness = float(rng.choice(THICKNESSES))
        if slices:
            thickness = round(float(np.clip(covered / slices, 0.7, 5)), 2)
        self.slices = slices or int(np.ceil(covered / thickness))
        self.spacing = (view / size, view / size, thickness)
        self.flips = FLIPS[rng.integers(8)]
        middle = rng.uniform(4, 16)
        self._origin = np.round(rng.uniform((-40, -60, -1200), (40, 60, 600)), 3)
        self.layers = 1 if thickness <= 2.5 else 2  # below, a slab changes nothing that the blur does not
        z = middle + (np.arange(self.slices * self.layers) + 0.5) * (thickness / self.layers)
        plane = ((np.arange(size) - (size - 1) / 2) * self.spacing[0]).astype(np.float32)
        self.axes = (z - self.slices * thickness / 2).astype(np.float32), plane, plane
        self._pixel = float(plane[1] - plane[0])
        self._filter = noise_filter(size=size, pixel=self._pixel, cutoff=rng.uniform(0.36, 0.52))
        x, y, (dx, dy) = plane[None, :], plane[:, None], pose.shift
        q = np.minimum(((x - dx) / half_width) ** 2 + ((y - dy) / (half_width * 0.72)) ** 2, 1.6)
        # Rays through the middle lose most photons; outside the body little noise is left.
        profile = 1.2 - 0.42 * np.minimum(q, 1) - 0.45 * np.clip(q - 1, 0, 1)
        self._sd = (rng.uniform(10, 12.5) * profile).astype(np.float32)
        self._memory = float(np.exp(-thickness / 1.2))
        self._last: Array | None = None
        self._outside = (np.hypot(x, y) > plane.max()) & (rng.uniform() < 0.5)
        self._rng = rng

    def affine(self) -> NDArray[np.float64]:
        """Return the matrix (4, 4) from voxel (i, j, k) to NIfTI's mm, right-handed or not as the file is stored."""
        out = np.diag((*self.spacing, 1.0))
        out[:3, 3] = self._origin
        for axis, flipped in enumerate(self.flips):
            out[axis, axis] *= 1 if flipped else -1  # the model's x and y run left and back, NIfTI's right and front
            out[axis, 3] -= out[axis, axis] * (len(self.axes[1]) - 1) / 2
        return out

    def acquire(self, mean: Array) -> NDArray[np.int16]:
        """Return the next slice (y, x) in HU from the mean attenuation of the slab that it covers."""
        blurred = gaussian_filter(mean, PSF_MM / self._pixel, truncate=3) if PSF_MM / self._pixel > 0.3 else mean
        white = self._rng.standard_normal(self._sd.shape, dtype=np.float32)
        noise = fft.irfft2(fft.rfft2(white) * self._filter, s=white.shape)
        if self._last is not None:  # neighbouring slices share some of it
            noise = self._memory * self._last + np.sqrt(1 - self._memory**2) * noise
        self._last = noise
        out = np.where(blurred < -990, SCANNER_AIR + (blurred + 1000), blurred) + self._sd * noise
        out[self._outside] = -1024
        return np.rint(np.clip(out, -1024, 3071)).astype(np.int16)


def noise_filter(*, size: int, pixel: float, cutoff: float) -> Array:
    """Return the frequency response (rfft2 layout) of unit-variance CT noise on a square of `size` pixels.

    It is the ramp of filtered back-projection, rolled off at `cutoff` cycles per mm; `pixel` is in mm.
    """
    f = np.hypot(fft.fftfreq(size, pixel)[:, None], fft.rfftfreq(size, pixel)[None, :])
    response = np.sqrt(f + 0.01) * np.exp(-((f / cutoff) ** 2))
    # Each rfft2 column but the first and last stands for itself and its mirror image.
    columns = np.arange(response.shape[1])
    twice = np.where((columns > 0) & (columns < size / 2), 2, 1)
    return (response / np.sqrt((response**2 * twice).sum() / size**2)).astype(np.float32)
