"""One synthetic abdominal CT: draws a patient and a scan protocol, paints slice by slice, and acquires."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.canvas import Canvas, Pose, Scene
from nnunet_ext.phantom.fields import NoiseField
from nnunet_ext.phantom.liver import Liver, Tumour
from nnunet_ext.phantom.scanner import Scanner
from nnunet_ext.phantom.skeleton import Skeleton
from nnunet_ext.phantom.trunk import Trunk
from nnunet_ext.phantom.viscera import Enhancement, Viscera

Array = NDArray[np.float32]
LIVER, TUMOUR = 1, 2
THICKNESSES = (0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 5.0)
PIXELS_AT_ONCE = 1 << 18
REACH = (210.0, 290.0, 290.0)  # of the random fields in z, y, x


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What the radiographer chose; lengths in mm. `flips` says which of x and y run the other way in the file."""

    spacing: tuple[float, float, float]
    slices: int
    middle: float
    flips: tuple[bool, bool]
    origin: tuple[float, float, float]

    @classmethod
    def draw(cls, *, rng: np.random.Generator, width: float, size: int, slices: int | None) -> Protocol:
        """A field of view around a body `width` mm wide; without `slices` the scan covers the liver and more."""
        view = float(np.clip(width * rng.uniform(1.0, 1.16), 0.56 * 512, 500))
        covered = rng.uniform(190, 250)
        thickness = float(rng.choice(THICKNESSES))
        if slices is None:
            slices = int(np.ceil(covered / thickness))
        else:
            thickness = round(float(np.clip(covered / slices, 0.7, 5)), 2)
        flips = {0: (True, True), 1: (False, True)}.get(int(rng.integers(8)), (False, False))  # most scans are alike
        return cls(
            spacing=(view / size, view / size, thickness),
            slices=slices,
            middle=rng.uniform(4, 16),
            flips=flips,
            origin=tuple(float(v) for v in np.round(rng.uniform((-40, -60, -1200), (40, 60, 600)), 3)),
        )

    def axes(self, *, size: int, layers: int) -> tuple[Array, Array, Array]:
        """Positions (z, y, x) in mm, with `layers` positions in each slice."""
        z = self.middle + (np.arange(self.slices * layers) + 0.5) * (self.spacing[2] / layers)
        plane = (np.arange(size) - (size - 1) / 2) * self.spacing[0]
        return tuple(a.astype(np.float32) for a in (z - self.slices * self.spacing[2] / 2, plane, plane))

    def affine(self, *, size: int) -> NDArray[np.float64]:
        """Voxel (i, j, k) to NIfTI's mm, right-handed or not as the file is stored; shape (4, 4)."""
        out = np.diag((*self.spacing, 1.0))
        out[:3, 3] = self.origin
        for axis, flipped in enumerate(self.flips):
            out[axis, axis] *= 1 if flipped else -1  # the model's x and y run left and back, NIfTI's right and front
            out[axis, 3] -= out[axis, axis] * (size - 1) / 2
        return out


@dataclass(frozen=True, kw_only=True)
class Case:
    """A finished scan: int16 HU and uint8 labels, both (i, j, k) as in the file, and the affine."""

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    tumours: tuple[Tumour, ...]


@dataclass(frozen=True, kw_only=True)
class Patient:
    """All parts of one model patient."""

    trunk: Trunk
    skeleton: Skeleton
    viscera: Viscera
    liver: Liver
    pose: Pose

    @classmethod
    def draw(cls, *, stream: tuple[int, ...], case: int) -> Patient:
        """Every part has a generator of its own, so that a change in one leaves the others as they were."""
        rngs = [np.random.default_rng((*stream, case, part)) for part in range(6)]
        size = rngs[0].uniform(0.9, 1.08)
        scale = tuple(float(size * v) for v in rngs[0].uniform(0.97, 1.03, 3))
        pose = Pose(scale=scale, degrees=rngs[0].normal(0, 2.2), shift=(rngs[0].normal(0, 5), rngs[0].normal(-8, 5)))
        trunk = Trunk(rng=rngs[1])
        enhancement = Enhancement.draw(rng=rngs[2])
        viscera = Viscera(rng=rngs[3], trunk=trunk, enhancement=enhancement)
        liver = Liver(rng=rngs[4], case=case, trunk=trunk, viscera=viscera, enhancement=enhancement, scale=size)
        return cls(trunk=trunk, skeleton=Skeleton(rng=rngs[5], trunk=trunk), viscera=viscera, liver=liver, pose=pose)

    @property
    def half_width(self) -> float:
        """Of the body, in scanner mm."""
        return (self.trunk.half + self.trunk.wall + self.trunk.fat_side) * self.pose.scale[0]

    def paint(self, canvas: Canvas) -> None:
        """From the outside in; the liver comes last and owns its labels."""
        self.trunk.paint_table(canvas)
        self.trunk.paint(canvas)
        self.skeleton.paint(canvas)
        self.viscera.paint(canvas)
        self.liver.paint(canvas)


def render(*, seed: int, case: int, size: int, slices: int | None = None, test: bool = False) -> Case:
    """Case number `case`, `size` pixels wide; depends on these arguments alone. `test` cases are other patients."""
    stream = (seed, int(test))
    patient = Patient.draw(stream=stream, case=case)
    rng = np.random.default_rng((*stream, case, 100))
    protocol = Protocol.draw(rng=rng, width=2 * patient.half_width, size=size, slices=slices)
    layers = 1 if protocol.spacing[2] <= 2.5 else 2  # below, a slab changes nothing that the blur does not
    axes = protocol.axes(size=size, layers=layers)
    fields = [
        NoiseField(rng=np.random.default_rng((*stream, case, 200 + i)), knot=knot, reach=REACH, axes=axes)
        for i, knot in enumerate((38.0, 38.0, 5.5, 5.5))
    ]
    scene = Scene(axes=axes, pose=patient.pose, warp=tuple(fields[:2]), warp_mm=3.2, textures=tuple(fields[2:]))
    body = (*patient.pose.shift, patient.half_width, patient.half_width * 0.72)
    scanner = Scanner(rng=rng, axes=axes, thickness=protocol.spacing[2], body=body)
    hu = np.empty((protocol.slices, size, size), np.int16)
    labels = np.zeros((protocol.slices, size, size), np.uint8)
    step = max(1, PIXELS_AT_ONCE // (size * size * layers))
    for first in range(0, protocol.slices, step):
        last = min(first + step, protocol.slices)
        canvas = Canvas(scene=scene, planes=slice(first * layers, last * layers))
        patient.paint(canvas)
        mean, liver, tumour = (
            v.reshape(last - first, layers, size, size).mean(1) for v in (canvas.hu, canvas.liver, canvas.tumour)
        )
        labels[first:last] = np.where(tumour > 0.5, TUMOUR, np.where(liver > 0.5, LIVER, 0))
        for i in range(last - first):
            hu[first + i] = scanner.acquire(mean[i])
    turn = tuple(slice(None, None, -1 if f else 1) for f in protocol.flips)
    return Case(
        hu=hu.transpose(2, 1, 0)[turn],
        labels=labels.transpose(2, 1, 0)[turn],
        affine=protocol.affine(size=size),
        tumours=tuple(patient.liver.tumours),
    )
