"""The trunk from the skin inwards: fat, muscle wall, diaphragm, lungs, ribs and spine, and the table beneath."""

from __future__ import annotations

import numpy as np

from nnunet_ext.phantom.canvas import FAT, Array, Canvas, Ellipsoid, Organ, Rng, Segment, ramp, smooth_min

SPINE_BOX = ((-62.0, 62.0), (24.0, 135.0), (-400.0, 400.0))
BONE_END, CARTILAGE_END = 2.05, 2.85  # angles of the ribs from the back, in radians


class Trunk:
    """One patient's trunk without the bones. Distances are model mm, negative inside."""

    def __init__(self, rng: Rng) -> None:
        self.half = rng.uniform(120, 132)
        self.front = rng.uniform(78, 94)
        self.back = rng.uniform(80, 88)
        self.wall = rng.uniform(15, 19)
        leanness = rng.beta(1.6, 2.6)
        self.fat_side, self.fat_front, self.fat_back = 4 + 30 * leanness, 5 + 34 * leanness, 6 + 18 * leanness
        self.dome_right, self.dome_left = rng.uniform(84, 94), rng.uniform(74, 88)
        self.muscle = rng.uniform(50, 66)
        self.fatty_muscle = rng.uniform(0.6, 1.5)
        self.psoas = rng.uniform(0.85, 1.15)
        self.table_gap = rng.uniform(5, 9)
        self.half_width = self.half + self.wall + self.fat_side
        self.lowest = self.back + 33 + self.fat_back  # y of the skin of the back

    def outline(self, x: Array, y: Array, z: Array, side: float = 0, front: float = 0, back: float = 0) -> Array:
        """Return the distance to the inner surface of the body wall, or to one so far outside of it."""
        half = self.half + side - 16 * ramp(z, 30, 130) - 8 * ramp(-z, 30, 110)
        depth = self.front + front - 10 * ramp(-z, 0, 90)
        return superellipse(x, y, half=half, front=depth, back=self.back + back)

    def dome(self, x: Array, y: Array, z: Array) -> Array:
        """Return the distance to the two domes of the diaphragm, negative beneath them."""
        u, v = np.abs(x) * np.float32(1 / self.half), np.abs(y) * np.float32(1 / (self.front + 2))
        q = np.minimum(u * u * np.sqrt(u) + v * v * np.sqrt(v), np.float32(0.98))
        top = self.dome_right + (self.dome_left - self.dome_right) * ramp(x, -25, 40)
        top = top - 9 * np.exp(-(((x - 8) / 28) ** 2))
        fall = 78 + 26 * ramp(y, 0, 80) - 22 * ramp(-y, 20, 90)
        root = np.sqrt(1 - q)
        slope = fall * 1.2 * np.sqrt(q) / (self.front * root)
        return (z - top + fall * (1 - root)) / np.sqrt(1 + slope * slope)

    @staticmethod
    def belly(cavity: Array, dome: Array) -> Array:
        """Return the distance to the space for viscera: inside the wall and below the diaphragm."""
        return -smooth_min(-(cavity + 2.5), -(dome + 1.6), 8)

    def paint(self, canvas: Canvas) -> None:
        """Paint the table, then everything from the skin to the fat of the cavity, then the lungs and the diaphragm."""
        self._paint_table(canvas)
        half, front = self.half_width, self.front + 10 + self.fat_front
        body = canvas.part(((-half, half), (-front, self.lowest + 4), (-400, 400)))
        assert body is not None  # every slice shows some of it
        x, y, z = body.at
        body.cavity[:], dome = self.outline(x, y, z), self.dome(x, y, z)
        body.belly[:] = self.belly(body.cavity, dome)
        furrow = 6 * np.exp(-((x / 16) ** 2)) * (y > 0)
        skin = furrow + self.outline(x, y, z, self.wall + self.fat_side, 10 + self.fat_front, 33 + self.fat_back)
        body.blend(body.coverage(skin), 5)
        septa = 30 * np.exp(-((body.other / 0.09) ** 2)) * (body.grain > 0.5)
        body.blend(body.coverage(skin + 1.6), FAT - 4 + 2.5 * body.grain + septa)
        self._paint_muscles(body)
        vessels = np.clip(1.4 - (body.grain * body.grain + body.other * body.other) / 0.07, 0, 1)
        body.blend(body.coverage(body.cavity), FAT + 3 * body.grain + 150 * vessels)
        if body.z[-1] >= self.dome_left - 130:
            self._paint_lungs(body, dome)

    def _paint_table(self, canvas: Canvas) -> None:
        """Paint a curved couch top: two thin shells around foam."""
        (_, y, x), pose = canvas.axes, canvas.pose
        top = pose.shift[1] + (self.lowest * pose.scale[1]) + self.table_gap
        depth = (y[:, None] - (top - (x[None, :] - pose.shift[0]) ** 2 / 900))[None]
        canvas.blend(canvas.coverage(np.abs(depth - 9) - 9), -905)
        for shell in (0.0, 18.0):
            canvas.blend(canvas.coverage(np.abs(depth - shell) - 1.1), 40)

    def _paint_muscles(self, canvas: Canvas) -> None:
        """Paint the wall with its layers, and the muscles of the back; the wall has a furrow over the spine."""
        (x, y, z), cavity = canvas.at, canvas.cavity
        furrow = 7 * np.exp(-((x / 14) ** 2)) * (y > 0) + 3 * np.exp(-((x / 9) ** 2)) * (y < 0)
        muscle = self.outline(x, y, z, self.wall, 10, 33) + furrow
        canvas.blend(canvas.coverage(muscle), self.muscle + 4 * canvas.other)
        side = ramp(np.abs(x), 30, 60)
        for depth, strength in ((4.5, 0.55), (10.5, 0.7)):
            plane = np.exp(-(((cavity - depth) / 0.9) ** 2)) * side * strength
            canvas.blend(plane * np.clip(0.6 + 0.5 * canvas.grain, 0, 1), FAT)
        alba = np.exp(-((x / 3.5) ** 2)) * (y < 0) * 0.8
        rectus = np.exp(-(((np.abs(x) - 62) / 4) ** 2)) * (y < -20) * ramp(-z, -40, 0) * 0.75
        canvas.blend(np.maximum(alba, rectus) * canvas.coverage(-cavity), FAT)

        def striated(part: Canvas, _distance: Array) -> Array:
            return self.muscle + 3 * part.grain - 90 * (np.clip(part.other - 1.1, 0, 1) * self.fatty_muscle)

        for sign in (-1, 1):  # erector spinae, multifidus, quadratus lumborum, psoas
            for (across, back, up), semi, (tilt, turn), halo in (
                ((39, self.back + 15, 0), (27, 16, 500), (0, 14), 1.3),
                ((13, self.back + 20, 0), (9.5, 13, 500), (0, 0), 1.0),
                ((64, self.back - 9, -90), (20, 7, 105), (0, -24), 1.2),
                ((38, 57, -120), (19 * self.psoas, 22 * self.psoas, 135), (-5, 0), 1.2),
            ):
                shape = Ellipsoid((sign * across, back, up), semi, (0, sign * tilt, sign * turn))
                canvas.paint(Organ(shape, striated, halo=halo))

    def _paint_lungs(self, canvas: Canvas, dome: Array) -> None:
        """Paint the lungs: in the rib cage, above the diaphragm, at both sides of the mediastinum."""
        (x, y, z), cavity, grain, other = canvas.at, canvas.cavity, canvas.grain, canvas.other
        middle = Ellipsoid((2, 45, 0), (38, 52, 400)).distance(x, y, z)
        front = Ellipsoid((14, -66, 0), (24, 50, 400)).distance(x, y, z)
        lung = np.maximum(np.maximum(cavity + 1.5, -dome), -smooth_min(middle, front, 40))
        canvas.blend(canvas.coverage(np.abs(dome + 0.6) - 0.9) * canvas.coverage(cavity), self.muscle)
        vessels = np.clip(1.6 - (grain * grain + other * other) / 0.035, 0, 1)
        bases = 60 * np.clip(1 - np.abs(lung) / 12, 0, 1) + 30 * ramp(y, 0, 90)
        canvas.blend(canvas.coverage(lung), -865 + bases + 12 * grain + 780 * vessels)


class Skeleton:
    """One patient's ribs with their cartilage, and the spine: bodies, discs, arches, processes and the canal."""

    def __init__(self, rng: Rng) -> None:
        self.period = rng.uniform(29.5, 33)
        self.level = rng.uniform(8, 34)  # z of the lowest vertebra that carries a rib
        self.spongy, self.compact = rng.uniform(105, 195), rng.uniform(430, 620)
        self.bend, self.lean, self.phase = rng.uniform(0.02, 0.11), rng.normal(0, 0.015), rng.uniform(0, 6.28)
        self.drop = rng.uniform(105, 135)
        self.calcified = rng.uniform(0, 1) ** 2

    def paint(self, canvas: Canvas) -> None:
        """Paint all bones; they lie outside the cavity, apart from the front of the spine."""
        self._paint_ribs(canvas)
        if spine := canvas.part(SPINE_BOX):
            self._paint_spine(spine)

    def _paint_ribs(self, canvas: Canvas) -> None:
        wall = np.abs(canvas.cavity - 7.5) < 9
        if not wall.any():
            return
        x, y, z, cavity = (np.broadcast_to(v, wall.shape)[wall] for v in (*canvas.at, canvas.cavity))
        angle = np.abs(np.arctan2(x, y - 5))
        drop = self.drop * np.sin(np.minimum(angle, BONE_END) * (np.pi / 2 / BONE_END)) ** 2
        drop = drop - 75 * np.maximum(angle - BONE_END, 0)
        turns = (z + drop - self.level) / self.period
        number = np.round(turns)
        along = (turns - number) * (self.period * 0.82)
        bone_end = np.where(number < 0.5, 1.15, np.where(number < 1.5, 1.6, BONE_END)).astype(np.float32)
        last = np.where(number < 1.5, bone_end, CARTILAGE_END)
        k = np.sqrt(((cavity - 7.2) / 4.0) ** 2 + (along / 6.8) ** 2)
        d = np.maximum(4.4 * (k - 1), (angle - last) * 110)
        d = np.where((number < -0.5) | (angle < 0.34), np.float32(50), d)
        marrow = ramp(-d, 1.2, 2.2)
        bone = self.compact * 1.25 + (self.spongy - 20 - self.compact * 1.25) * marrow
        gristle = 105 + 260 * self.calcified * (1 - marrow)
        value = np.where(angle < bone_end, bone, gristle).astype(np.float32)
        canvas.hu[wall] += canvas.coverage(d) * (value - canvas.hu[wall])

    def _paint_spine(self, canvas: Canvas) -> None:
        x, y, z = canvas.at
        # Each vertebra is tilted a little, as the spine bends, and differently from its neighbours.
        tilt = self.bend * np.sin(z / 60 + self.phase) * (y - 52) + self.lean * np.cos(z / 80) * x
        turns = (z + tilt - self.level) / self.period
        up = (turns - np.round(turns)) * self.period
        self._paint_arch(canvas, up)
        canal = superellipse(x, y - 80, half=11.5, front=10, back=9.5)
        canvas.blend(canvas.coverage(canal), FAT + 20)
        cord = superellipse(x, y - 78.5, half=9.0, front=8, back=7.5)
        canvas.blend(canvas.coverage(cord), 18)
        canvas.blend(canvas.coverage(cord + 4), 42)
        self._paint_body(canvas, up)

    def _paint_body(self, canvas: Canvas, up: Array) -> None:
        """Paint bodies and discs; `up` is the height above the middle of the nearest vertebra."""
        x, y, _ = canvas.at
        height = self.period / 2 - 4.2
        waist = 2.2 * (1 - np.minimum((up / height) ** 2, 1))
        hollow = 3.5 * np.exp(-((x / 9) ** 2)) * (y > 52)
        outline = superellipse(x, y - 52, half=23.5, front=17.5, back=18.5) + waist + hollow
        canvas.blend(canvas.coverage(outline - 1), 82)
        d = np.maximum(outline, np.abs(up) - height)
        cleft = 70 * np.exp(-((x / 5) ** 2) - (up / 3) ** 2) * (y > 52)
        inside = self.spongy + 22 * canvas.other - cleft
        canvas.blend(canvas.coverage(d), inside + (self.compact - inside) * ramp(d, -2.6, -0.9))

    def _paint_arch(self, canvas: Canvas, up: Array) -> None:
        """Paint pedicles, laminae, processes and joints, both sides at once: the model spine is symmetric."""
        side, y = np.abs(canvas.x), canvas.y
        around = np.abs(up) - self.period / 2  # the joints between neighbouring vertebrae
        parts = [
            Segment((15, 62, 5), (18, 84, 3), 5.0, 6.0).distance(side, y, up),
            Segment((18, 84, 5), (44, 91, 6), 5.0, 3.2).distance(side, y, up),
            Segment((17, 88, -1), (3, 99, -2), 4.6, 3.6).distance(side, y, up * 0.5),
            Segment((0, 98, -2), (0, 117, -4.4), 2.6, 3.6).distance(side, y, up * 0.35),
            Segment((19, 88, 0), (22, 92, 0), 7.0, 6.0).distance(side, y, around * 0.6),
        ]
        d = np.minimum.reduce(parts)
        gap = np.exp(-((((side - 20) * 0.8 + (y - 90) * 0.6) / 0.8) ** 2)) * (np.abs(around) < 7)
        bone = self.compact * 1.15 + (self.spongy + 60 - self.compact * 1.15) * ramp(-d, 1.4, 2.8)
        canvas.blend(canvas.coverage(d), bone - 330 * gap)


def superellipse(x: Array, y: Array, *, half: Array | float, front: Array | float, back: Array | float) -> Array:
    """Return the distance along the ray from the centre to an outline of half-width `half`, depth `front` and `back`.

    The exponent is 2.5, between an ellipse and a box, which a square root gives at a fraction of the price of a power.
    """
    u, v = np.abs(x) / half, np.abs(y) / np.where(y < 0, np.asarray(front, np.float32), np.asarray(back, np.float32))
    k = u * u * np.sqrt(u) + v * v * np.sqrt(v)
    return np.sqrt(x * x + y * y) * (1 - np.maximum(k, np.float32(1e-7)) ** np.float32(-0.4))
