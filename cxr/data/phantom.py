"""Synthetic frontal chest X-rays with one sign at a known place: data for tests, demos and CAM localisation.

No patient is behind these pictures and nothing is downloaded. The chest is drawn upright, as brightness
(attenuation) in its own coordinates, then moved into the frame and exposed:

    x, y in [-1.12, 1.12], origin in the middle, y downwards; the frame shows about [-0.9, 0.9].

As radiographs are hung, the patient's right is on the viewer's left, at negative x.
"""
from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cxr.data import boxes
from cxr.errors import InputError
from cxr.utils.files import replacing, write_csv

CLASS_NAMES = ("Cardiomegaly", "Effusion", "Nodule", "Pneumothorax")
_CARDIOMEGALY, _EFFUSION, _NODULE, _PNEUMOTHORAX = range(4)

# Cardiothoracic ratio: width of the heart over the inner width of the thorax; above 0.5 reads as enlarged.
CTR_NORMAL = (0.37, 0.46)
CTR_ENLARGED = (0.58, 0.69)

BOX_COLUMNS = ("file", "label", "x", "y", "w", "h")
SOURCE_COLUMNS = ("file", "source_file", "patient")

_EXTENT = 1.12  # the upright canvas reaches past the frame: rotation and shift bring in no empty corners


@dataclass(frozen=True)
class Phantom:
    """One drawn X-ray.

    Attributes:
        image: (H, W) uint8, bright is dense.
        label: index into CLASS_NAMES.
        box: (x, y, w, h) of the sign in pixels, x and y its top left corner.
        patient: the same for all views of one chest.
        lungs: (H, W) bool, both lungs without the heart, also where fluid or a sign lies in them.
    """

    image: np.ndarray
    label: int
    box: tuple[float, float, float, float]
    patient: str
    lungs: np.ndarray

    @property
    def rgb(self) -> np.ndarray:
        """The image as `cxr.data.images.read_image` gives those of a file: (H, W, 3) uint8."""
        return np.stack([self.image] * 3, axis=-1)


def _soft(distance: np.ndarray, width: float = 0.025) -> np.ndarray:
    """Smooth step in [0, 1]: 0 below -width, 1 above +width (`distance` in chest units)."""
    t = np.clip(distance * (0.5 / width) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _bump(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((x - centre) / width) ** 2))


class _Chest:
    """The shape of one patient's chest: numbers drawn from `rng`, and the outlines they give.

    Coordinates are in chest units, as in the module's docstring: `x` and `y` are arrays that broadcast.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        u = rng.uniform
        self.width = u(0.60, 0.74)  # half the inner width of the thorax
        self.apex, self.base = u(-0.78, -0.66), u(0.46, 0.64)  # y of the lungs' tips and costophrenic angles
        self.crest, self.roundness = self.width * u(0.36, 0.44), u(2.0, 2.8)  # x of the tips
        self.dome, self.liver = u(0.14, 0.22), u(0.03, 0.07)  # height; more on the patient's right
        self.mediastinum, self.knob = u(0.10, 0.14), u(0.03, 0.07)  # half its width, more at the aortic arch
        self.ctr = u(*CTR_NORMAL)
        self.heart_right = u(0.28, 0.36)  # share of the heart on the patient's right
        self.tilt = math.radians(u(25, 42))  # of its long axis, to the viewer's right and down
        self.rib_gap, self.rib_drop = u(0.115, 0.140), u(0.30, 0.44)
        self.rib_thickness, self.rib_brightness = u(0.030, 0.042), u(0.13, 0.24)
        self.clavicle = (u(-0.56, -0.46), u(0.10, 0.24))  # y of the inner end, rise to the outer one
        self.neck, self.flank = u(0.26, 0.38), self.width + u(0.18, 0.34)  # half their widths
        self.breast, self.gas = max(0.0, u(-0.06, 0.09)), max(0.0, u(-0.12, 0.16))  # not in every chest
        self.soft_tissue = u(0.44, 0.56)
        self.aeration = u(0.62, 0.80)  # how much of the soft tissue's brightness air takes away
        self.vessels = u(0.11, 0.21)

    def _rounded(self, y: np.ndarray, power: float, apex: float) -> np.ndarray:
        t = np.clip((y - apex) / (self.base - apex), 0, 1)
        return np.sqrt(1 - (1 - t) ** power)

    def lateral(self, y: np.ndarray, lowered: float = 0.0) -> np.ndarray:
        """Distance of the chest wall from the midline; `lowered` moves the apex down."""
        return self.crest + (self.width - self.crest) * self._rounded(y, self.roundness, self.apex + lowered)

    def medial(self, x: np.ndarray, y: np.ndarray, lowered: float = 0.0) -> np.ndarray:
        """Distance of a lung's inner edge from the midline; the aortic arch dents the patient's left one."""
        edge = self.mediastinum + self.knob * _bump(y, -0.30, 0.09) * (x > 0)
        return self.crest - (self.crest - edge) * self._rounded(y, 7.0, self.apex + lowered)

    def above(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Weight in [0, 1] of the space above the domes of the diaphragm."""
        t = np.clip((np.abs(x) - 0.44 * self.width) / (0.60 * self.width), -1, 1)
        dome = self.dome - self.liver * np.minimum(np.sign(x), 0)
        return _soft(self.base - dome * (1 - t * t) + 0.02 - y, 0.02)

    def lungs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Weight in [0, 1] of both lungs, the heart not yet taken out."""
        out = np.abs(x)
        walls = _soft(np.minimum(self.lateral(y) - out, out - self.medial(x, y)))
        return walls * _soft(y - self.apex - 0.02) * self.above(x, y)

    def heart(self, x: np.ndarray, y: np.ndarray, ctr: float) -> tuple[np.ndarray, np.ndarray]:
        """Depth inside a heart whose width is `ctr` of the thorax's, a tilted ellipse on the diaphragm.

        Returns:
            The depth in the heart alone, and joined to the great vessels above it; in chest units, negative outside.
        """
        half = ctr * self.width
        cos, sin, ratio = math.cos(self.tilt), math.sin(self.tilt), 0.80
        long = half / math.hypot(cos, ratio * sin)
        dx = x - half * (1 - 2 * self.heart_right)
        dy = y - (self.base - self.dome + 0.10 - long * math.hypot(sin, ratio * cos))
        muscle = long - np.sqrt((dx * cos + dy * sin) ** 2 + ((dy * cos - dx * sin) / ratio) ** 2)
        trunk = 0.17 - np.sqrt((x - 0.03) ** 2 + (0.42 * (y - 0.6 * self.base - 0.4 * self.apex)) ** 2)
        fillet = np.maximum(0.16 - np.abs(muscle - trunk), 0) ** 2 / 0.64
        return muscle, np.maximum(muscle, trunk) + fillet


def _polylines(canvas: np.ndarray, paths: np.ndarray, value: int, thickness: float) -> None:
    """Draw paths (K, N, 2) on a uint8 canvas; `thickness` in chest units, at least one pixel."""
    scale = len(canvas) / (2 * _EXTENT)
    pixels = np.rint(((paths + _EXTENT) * scale - 0.5) * 16).astype(np.int32)  # sixteenths: the 4 below
    cv2.polylines(canvas, list(pixels), False, value, max(1, round(thickness * scale)), cv2.LINE_AA, 4)


def _bones(chest: _Chest, side_length: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32, 0 to about 1: ribs and clavicles, dense at the rims and spongy between."""
    back, front = np.zeros((2, side_length, side_length), np.uint8)
    number, side = np.arange(10)[:, None], np.array([-1, 1])[:, None, None]
    top = chest.apex + 0.03 + number * chest.rib_gap + rng.uniform(-0.008, 0.008, (2, 10, 1))
    drop = chest.rib_drop * np.minimum(1, 0.55 + 0.09 * number)
    reach = side * (chest.lateral(top + drop / 2) + 0.02)
    # A rib runs around the chest: from the spine (angle 0) to the flank (pi / 2) and forward again.
    for canvas, value, start, end in (back, 255, 0.1, 1.65), (front, 170, 1.55, 2.45):
        angle = np.linspace(start, end, 20)
        y = top + drop * (1 - np.cos(angle)) / 2 - 0.05 * np.sin(np.minimum(2 * angle, np.pi))
        ribs = np.stack([reach * np.sin(angle), y], -1).reshape(20, -1, 2)
        _polylines(canvas, ribs, value, chest.rib_thickness)
        _polylines(canvas, ribs, int(0.62 * value), 0.55 * chest.rib_thickness)
    inner, rise = chest.clavicle
    t = np.linspace(0, 1, 16)
    clavicle = np.stack([0.09 + 0.80 * t, inner - rise * t - 0.03 * np.sin(2 * np.pi * t)], 1)
    clavicles = np.stack([clavicle, clavicle * [-1, 1]])
    _polylines(front, clavicles, 230, 0.055)
    _polylines(front, clavicles, 150, 0.030)
    return cv2.GaussianBlur(back.astype(np.float32) + front, (0, 0), 0.004 * side_length) / 255


def _vessels(chest: _Chest, side_length: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32 in [0, 1]: vessels that branch and thin out from each hilum, eleven on each side."""
    side = np.repeat([-1.0, 1.0], 11)[:, None]
    hilum = np.stack([side * (chest.mediastinum + 0.07), -0.02 + 0.03 * side], -1)
    start = hilum + rng.uniform(-0.03, 0.03, (22, 1, 2))
    heading = np.tile(np.linspace(-1.36, 1.36, 11), 2)[:, None] + rng.uniform(-0.15, 0.15, (22, 1))
    tree, strokes = np.arange(22), []
    for thickness, steps in (0.020, 10), (0.013, 8), (0.009, 6):
        turns = heading + np.cumsum(rng.uniform(-0.24, 0.24, (22, steps)), 1)
        stride = rng.uniform(0.050, 0.070, (22, 1, 1)) * np.stack([side * np.cos(turns), np.sin(turns)], -1)
        path = np.concatenate([start, start + np.cumsum(stride, 1)], 1)
        strokes += [(thickness * (1 - 0.8 * i / steps), path[:, i:i + 3]) for i in range(0, steps, 2)]
        fork = rng.integers(1, steps // 2, 22)
        start = path[tree, fork][:, None]
        heading = turns[tree, fork][:, None] + rng.choice((-1, 1), (22, 1)) * rng.uniform(0.4, 0.8, (22, 1))
    canvas = np.zeros((side_length, side_length), np.uint8)
    for thickness, paths in sorted(strokes, key=lambda stroke: stroke[0]):
        _polylines(canvas, paths, int(min(255, 40 + 9500 * thickness)), thickness)
    return cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), 0.003 * side_length) / 255


def _nodule_place(chest: _Chest, rng: np.random.Generator) -> tuple[float, float, float]:
    """(x, y, radius) of a nodule wholly inside one lung, clear of heart, wall and diaphragm."""
    x, y = rng.uniform(-1, 1, 200) * chest.width, rng.uniform(chest.apex, chest.base, 200)
    radius = rng.uniform(0.070, 0.105)
    angle = np.arange(8)[:, None] * math.pi / 4
    px, py = x + 1.3 * radius * np.cos(angle), y + 1.3 * radius * np.sin(angle)
    clear = (chest.lungs(px, py) > 0.95) & (chest.heart(px, py, chest.ctr)[1] < 0)
    i = np.argmax(clear.all(0))  # about a quarter of the candidates qualify
    return float(x[i]), float(y[i]), radius


def _upright(chest: _Chest, label: int, sign: bool, side_length: int,
             rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """The chest before exposure: brightness, the sign's weight and that of the lungs, all (S, S) float32."""
    axis = ((np.arange(side_length, dtype=np.float32) + 0.5) / side_length * 2 - 1) * _EXTENT
    x, y = axis[None], axis[:, None]
    # Everything random comes first, whatever the class: the chest is the same with and without its sign.
    side = int(rng.choice((-1, 1)))
    enlarged, amount, depth = rng.uniform(*CTR_ENLARGED), rng.uniform(), rng.uniform(0.8, 1.2)
    nodule_x, nodule_y, radius = _nodule_place(chest, rng)
    bones, vessels = _bones(chest, side_length, rng), _vessels(chest, side_length, rng)
    cloud = cv2.resize(rng.standard_normal((24, 24), np.float32), bones.shape, interpolation=cv2.INTER_CUBIC)

    ctr = enlarged if sign and label == _CARDIOMEGALY else chest.ctr
    heart = _soft(chest.heart(x, y, ctr)[1], 0.03)
    air = lungs = chest.lungs(x, y) * (1 - heart)
    half = air * (side * x > 0)  # the lung with the sign
    rim = fluid = line = nodule = 0.0
    if label == _CARDIOMEGALY:
        weight = _soft(chest.heart(x, y, enlarged)[0]) * _soft(chest.base - 0.5 * chest.dome - y)
    elif label == _EFFUSION:
        # The meniscus climbs along the chest wall and sinks towards the middle.
        height = 0.34 + 0.36 * amount
        level = chest.base - height * (0.25 + 0.75 * np.exp(-(chest.width - side * x) / (0.45 * chest.width)))
        weight = fluid = _soft(y - level, 0.04) * half
    elif label == _PNEUMOTHORAX:
        # The collapsed lung: its apex lower, its outer edge away from the wall, most so at the top.
        lowered = 0.16 + 0.16 * amount
        taper = np.clip((y - chest.apex) / (chest.base - chest.apex), 0, 1)
        outer = chest.lateral(y, lowered) - (0.08 + 0.12 * amount) * (1 - 0.7 * taper)
        inside = np.minimum(outer - side * x, side * x - chest.medial(x, y, lowered)) + 0.03
        rim = _soft(-inside, 0.012) * half
        line = _bump(inside, 0.0, 0.009) * half * _soft(chest.lateral(y) - outer - 0.05, 0.03)
        weight = np.maximum(rim, line)
    elif label == _NODULE:
        distance = np.sqrt((x - nodule_x) ** 2 + (y - nodule_y) ** 2)
        weight = nodule = _soft(radius - distance, 0.3 * radius)
    if not sign:
        rim = fluid = line = nodule = 0.0
    air = air - fluid
    rows = [-1.2, -0.98, -0.86, -0.74, -0.60, -0.10, 0.10, 0.25, 1.2]
    body = [chest.neck, chest.neck, 0.60, 1.05, 1.40, 1.30, 1.06, chest.flank, chest.flank + 0.10]
    outline = cv2.GaussianBlur(np.interp(y, rows, body).astype(np.float32), (0, 0), 0.03 * side_length)
    thickness = np.sqrt(np.sqrt(np.clip(1 - (x / outline) ** 2, 0, 1)))
    below = 1 - chest.above(x, y)

    image = chest.soft_tissue + 0.16 * _bump(x, 0, 0.45) + 0.10 * below
    image = image - chest.aeration * image * air * (1 - 0.15 * _bump(y, 0.35, 0.4))
    image = image * (1 - 0.55 * depth * rim) + 0.24 * depth * line
    image += chest.breast * _soft(0.34 - np.sqrt((np.abs(x) - 0.40) ** 2 + (y - 0.30) ** 2), 0.10)
    image += (0.10 * heart + 0.06 * fluid) * (1 - below)
    image += air * (1 - rim) * (chest.vessels * vessels + 0.014 * cloud)
    image += 0.12 * air * _bump(np.abs(x), chest.mediastinum + 0.06, 0.09) * _bump(y, 0, 0.16)
    image += chest.rib_brightness * bones * (0.25 + 0.75 * air)
    # Spine with its discs, and the trachea in front of it.
    image += 0.09 * _soft(0.075 - np.abs(x), 0.02) * (0.75 + 0.25 * np.cos(2 * math.pi * y / 0.13))
    image -= 0.13 * _soft(0.045 - np.abs(x + 0.01), 0.02) * _soft(-0.22 - y, 0.08)
    bubble = 1 - np.sqrt(((x - 0.33) / 0.16) ** 2 + ((y - chest.base - 0.02) / 0.10) ** 2)
    image -= chest.gas * below * _soft(bubble, 0.3)
    image += 0.44 * depth * nodule
    return tuple(part.astype(np.float32) for part in (image * thickness, weight, lungs))


def draw(label: int, seed: int, size: int = 256, view: int = 0, sign: bool = True) -> Phantom:
    """Draw one frontal chest X-ray. Same arguments, same bytes (with another cv2 up to one grey level off).

    Args:
        label: index into CLASS_NAMES.
        seed: >= 0, the patient (patients of different classes share nothing).
        size: height and width in pixels, >= 64.
        view: >= 0, an exposure: position, contrast and noise differ, chest and sign are the same.
        sign: False leaves the sign out, all else equal; `box` still says where.

    Returns:
        The X-ray with what is known of it.

    Raises:
        ValueError: an argument is out of range.
    """
    if label not in range(len(CLASS_NAMES)):
        raise ValueError(f"label must be 0 to {len(CLASS_NAMES) - 1}, got {label!r}")
    if seed < 0 or view < 0 or size < 64:
        raise ValueError(f"seed and view must be >= 0 and size >= 64, got {seed}, {view}, {size}")
    rng = np.random.default_rng([seed, label])
    chest = _Chest(rng)
    side_length = round(size * _EXTENT)
    parts = _upright(chest, label, sign, side_length, rng)

    rng = np.random.default_rng([seed, label, view + 1])  # + 1: a trailing 0 would repeat the stream above
    turn = cv2.getRotationMatrix2D(((side_length - 1) / 2,) * 2, rng.uniform(-4, 4), rng.uniform(1.05, 1.20))
    turn[:, 2] += (size - side_length) / 2 + rng.uniform(-0.04, 0.04, 2) * size
    moved = cv2.warpAffine(cv2.merge(parts), turn, (size, size), borderMode=cv2.BORDER_REPLICATE)
    image, weight, lungs = cv2.split(moved)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.0012, 0.003) * size)
    black, white = rng.uniform(0.0, 0.16), rng.uniform(0.72, 1.0)
    image = black + (white - black) * np.clip(image, 0, 1) ** rng.uniform(0.70, 1.45)
    grain = rng.standard_normal((size, size), np.float32) * rng.uniform(0.006, 0.018)
    image = np.rint(np.clip(image + grain, 0, 1) * 255).astype(np.uint8)
    marker = np.array([[0, 0], [0, 0.05], [0.03, 0.05]]) + rng.uniform((0.88, 0.03), (0.93, 0.08))  # an L
    marker = np.rint(marker * size).astype(np.int32)
    cv2.polylines(image, [marker], False, 235, max(1, size // 128), cv2.LINE_AA)
    box = tuple(map(float, cv2.boundingRect((weight > 0.1).astype(np.uint8))))
    return Phantom(image, int(label), box, f"phantom-{label}-{seed}", lungs > 0.5)


def write_folder(folder: str | os.PathLike, per_class: int = 60, size: int = 256, seed: int = 0,
                 progress: Callable[[int, int], object] | None = None) -> list[dict]:
    """Write a data set: `folder/<Class>/<Class>-0001.png`, ..., `boxes.csv` and `sources.csv`.

    boxes.csv has BOX_COLUMNS (file relative to `folder`, class name, pixels), sources.csv SOURCE_COLUMNS
    (source_file is `phantom`); both are written last.

    Args:
        folder: for the data set, made where it is missing.
        per_class: images of each class, 1 to 9999; every third patient of a class has two of them.
        size: height and width in pixels, >= 64.
        seed: >= 0; folders of different seeds share no patient.
        progress: called as progress(done, total).

    Returns:
        One dict per image with the columns of both tables.

    Raises:
        InputError: `per_class` is out of range, or a class folder holds PNG files of another data set.
    """
    if not 1 <= per_class <= 9999:
        raise InputError(f"per_class must be 1 to 9999, got {per_class}")
    folder = Path(folder)
    rows = []
    for label, name in enumerate(CLASS_NAMES):
        files = [f"{name}-{i:04d}.png" for i in range(1, per_class + 1)]
        foreign = {path.name for path in (folder / name).glob("*.png")}.difference(files)
        if foreign:
            raise InputError(f"{folder / name} holds {min(foreign)}, not of this set: name an empty folder")
        views = [(patient, view) for patient in range(per_class) for view in range(1 + (patient % 3 == 2))]
        for file, (patient, view) in zip(files, views):
            phantom = draw(label, 10_000 * seed + patient, size, view)
            with replacing(folder / name / file) as stream:
                stream.write(cv2.imencode(".png", phantom.image)[1].tobytes())
            rows.append({"file": f"{name}/{file}", "label": name, **dict(zip("xywh", phantom.box)),
                         "source_file": "phantom", "patient": phantom.patient})
            if progress is not None:
                progress(len(rows), per_class * len(CLASS_NAMES))
    for file, columns in ("boxes.csv", BOX_COLUMNS), ("sources.csv", SOURCE_COLUMNS):
        write_csv(folder / file, columns, [[row[column] for column in columns] for row in rows])
    return rows


def read_boxes(csv_path: str | os.PathLike) -> dict[str, tuple[float, float, float, float]]:
    """Read a boxes.csv.

    Returns:
        File -> (x, y, w, h) in pixels.

    Raises:
        InputError: names the line of a bad row, or a file with two boxes.
    """
    found = {}
    for row in boxes.read_boxes(csv_path):
        if row.image in found:
            raise InputError(f"{csv_path}: {row.image!r} stands there twice, and a phantom has one box.")
        found[row.image] = row.box
    return found
