"""Synthetic frontal chest X-rays with one sign at a known place: data for tests, demos and CAM localisation.

No patient is behind these pictures and nothing is downloaded. The chest is drawn upright, as brightness
(attenuation) in its own coordinates, then moved into the frame and exposed:

    x, y in [-1.12, 1.12], origin at the middle of the frame, y downwards; [-1, 1] is the frame before it is moved.

The viewer's left is the patient's right, as radiographs are hung; `side` is -1 for the viewer's left, +1 for the right.
"""

import csv
import math
import os
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import cv2
import numpy as np

CLASS_NAMES = ("Cardiomegaly", "Effusion", "Nodule", "Pneumothorax")
_CARDIOMEGALY, _EFFUSION, _NODULE, _PNEUMOTHORAX = range(4)

# Cardiothoracic ratio: width of the heart over the inner width of the thorax. Radiologists call > 0.5 enlarged.
CTR_NORMAL = (0.38, 0.47)
CTR_ENLARGED = (0.57, 0.68)

BOX_COLUMNS = ("file", "label", "x", "y", "w", "h")
SOURCE_COLUMNS = ("file", "source_file", "patient")

_EXTENT = 1.12  # the upright canvas reaches past the frame, so that rotation and shift bring in no empty corners
_SHIFT = 4  # cv2's fixed-point coordinates: sixteenths of a pixel


@dataclass(frozen=True)
class Phantom:
    """One drawn X-ray.

    image: (H, W) uint8, bright is dense. label: index into CLASS_NAMES.
    box: (x, y, w, h) of the sign in pixels, x and y its top left corner. patient: equal for views of one chest.
    """

    image: np.ndarray
    label: int
    box: tuple[float, float, float, float]
    patient: str


def _soft(distance, width=0.025):
    """Smooth step in [0, 1]: 0 below -width, 1 above +width (`distance` in chest units)."""
    t = np.clip(distance * (0.5 / width) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _bump(x, centre, width):
    return np.exp(-(((x - centre) / width) ** 2))


class _Chest:
    """The shape of one patient's chest: numbers drawn from `rng`, and the outlines they give."""

    def __init__(self, rng):
        u = rng.uniform
        self.width = u(0.60, 0.74)  # half the inner width of the thorax
        self.apex = u(-0.78, -0.66)
        self.base = u(0.46, 0.64)  # the costophrenic angles
        self.crest = self.width * u(0.36, 0.44)  # x of the apex of a lung
        self.roundness = u(2.0, 2.8)
        left = u(0.14, 0.22)
        self.dome = {-1: left + u(0.03, 0.07), 1: left}  # height over the angle; the liver lifts the patient's right
        self.mediastinum = u(0.10, 0.14)
        self.knob = u(0.03, 0.07)  # how far the aortic arch shows
        self.ctr = u(*CTR_NORMAL)
        self.heart_right = u(0.28, 0.36)  # share of the heart on the patient's right
        self.tilt = math.radians(u(25, 42))
        self.rib_gap = u(0.115, 0.140)
        self.rib_drop = u(0.30, 0.44)
        self.rib_thickness = u(0.030, 0.042)
        self.rib_brightness = u(0.13, 0.24)
        self.clavicle = (u(-0.56, -0.46), u(0.10, 0.24))  # y of the inner end, rise to the outer one
        self.neck = u(0.26, 0.38)
        self.flank = self.width + u(0.18, 0.34)  # half the width of the body
        self.breast = u(-0.06, 0.09)  # shows in about half the chests
        self.gas = u(-0.12, 0.16)  # gastric bubble
        self.soft_tissue = u(0.44, 0.56)
        self.aeration = u(0.62, 0.80)  # how much of the soft tissue's brightness air takes away
        self.vessels = u(0.11, 0.21)

    def _rounded(self, y, power, apex):
        t = np.clip((y - apex) / (self.base - apex), 0, 1)
        return np.sqrt(1 - (1 - t) ** power)

    def lateral(self, y, lowered=0.0):
        """Distance of the chest wall from the midline; `lowered` moves the apex down."""
        return self.crest + (self.width - self.crest) * self._rounded(y, self.roundness, self.apex + lowered)

    def medial(self, y, side, lowered=0.0):
        edge = self.mediastinum + (self.knob * _bump(y, -0.30, 0.09) if side > 0 else 0.0)
        return self.crest - (self.crest - edge) * self._rounded(y, 7.0, self.apex + lowered)

    def above(self, x, y, side):
        """Weight in [0, 1] of the space above the dome of the diaphragm."""
        t = np.clip((side * x - 0.44 * self.width) / (0.60 * self.width), -1, 1)
        return _soft(self.base - self.dome[side] * (1 - t * t) + 0.02 - y, 0.02)

    def lung(self, x, y, side):
        """Weight in [0, 1] of one lung, the heart not yet taken out."""
        out = side * x
        walls = _soft(np.minimum(self.lateral(y) - out, out - self.medial(y, side))) * _soft(y - self.apex - 0.02)
        return walls * self.above(x, y, side)

    def heart(self, x, y, ctr):
        """Depth inside a heart whose width is `ctr` of the thorax's, a tilted ellipse on the diaphragm:
        alone, and joined to the great vessels above it. In chest units, negative outside."""
        half = ctr * self.width
        cos, sin, ratio = math.cos(self.tilt), math.sin(self.tilt), 0.80
        long = half / math.hypot(cos, ratio * sin)
        centre_x = half * (1 - 2 * self.heart_right)
        centre_y = self.base - self.dome[1] + 0.10 - long * math.hypot(sin, ratio * cos)
        dx, dy = x - centre_x, y - centre_y
        muscle = long - np.sqrt((dx * cos + dy * sin) ** 2 + ((dy * cos - dx * sin) / ratio) ** 2)
        trunk = 0.17 - np.sqrt((x - 0.03) ** 2 + (0.42 * (y - 0.6 * self.base - 0.4 * self.apex)) ** 2)
        fillet = np.maximum(0.16 - np.abs(muscle - trunk), 0) ** 2 / 0.64
        return muscle, np.maximum(muscle, trunk) + fillet


def _polyline(canvas, points, value, thickness):
    """Draws chest-unit points (N, 2) on a uint8 canvas; `thickness` in chest units, at least one pixel."""
    scale = len(canvas) / (2 * _EXTENT)
    pixels = np.rint(((points + _EXTENT) * scale - 0.5) * 2**_SHIFT).astype(np.int32)
    cv2.polylines(canvas, [pixels], False, value, max(1, round(thickness * scale)), cv2.LINE_AA, _SHIFT)


def _bones(chest, side_length, rng):
    """(S, S) float32 in [0, 1]: ribs, clavicles and shoulder blades of both sides."""
    back, front = np.zeros((2, side_length, side_length), np.uint8)
    angle = np.linspace(0.10, 1.65, 24), np.linspace(1.55, 2.45, 16)
    for side in (-1, 1):
        for i in range(10):
            top = chest.apex + 0.03 + i * chest.rib_gap + rng.uniform(-0.008, 0.008)
            drop = chest.rib_drop * min(1.0, 0.55 + 0.09 * i)
            reach = chest.lateral(top + drop / 2) + 0.02
            for canvas, a, strength in (back, angle[0], 255), (front, angle[1], 170):
                rib = np.stack([side * reach * np.sin(a),
                                top + drop * (1 - np.cos(a)) / 2 - 0.05 * np.sin(np.minimum(2 * a, np.pi))], 1)
                # Dense cortex at the rims, spongy bone between.
                _polyline(canvas, rib, strength, chest.rib_thickness)
                _polyline(canvas, rib, int(0.62 * strength), 0.55 * chest.rib_thickness)
        inner, rise = chest.clavicle
        t = np.linspace(0, 1, 16)
        collar = np.stack([side * (0.09 + 0.80 * t), inner - rise * t - 0.03 * np.sin(2 * np.pi * t)], 1)
        _polyline(front, collar, 230, 0.055)
        _polyline(front, collar, 150, 0.030)
        blade = np.array([[0.98, -0.52], [0.70, -0.46], [0.66, -0.20], [0.76, 0.08]]) + [0.10 * chest.width, 0]
        _polyline(front, blade * [side, 1], 90, 0.030)
    both = back.astype(np.float32) + front
    return cv2.GaussianBlur(both, (0, 0), 0.004 * side_length) / 255


def _vessels(chest, side_length, rng):
    """(S, S) float32 in [0, 1]: vessels that branch and thin out from each hilum."""
    canvas = np.zeros((side_length, side_length), np.uint8)
    strokes = []
    for side in (-1, 1):
        hilum = np.array([side * (chest.mediastinum + 0.07), -0.02 + 0.03 * side])
        for k in range(11):
            heading = math.pi * ((k + 0.5) / 11 - 0.5) * 0.95 + rng.uniform(-0.15, 0.15)
            stems = [(hilum + rng.uniform(-0.03, 0.03, 2), heading, 0.020, 10)]
            while stems:
                start, heading, thickness, steps = stems.pop()
                turns = heading + np.cumsum(rng.uniform(-0.24, 0.24, steps))
                path = np.tile(start, (steps + 1, 1))
                path[1:] += rng.uniform(0.050, 0.070) * np.cumsum([side * np.cos(turns), np.sin(turns)], 1).T
                strokes += [(thickness * (1 - 0.8 * i / steps), path[i:i + 4]) for i in range(0, steps, 3)]
                if steps > 4:
                    fork = int(rng.integers(1, steps // 2))
                    away = rng.choice((-1, 1)) * rng.uniform(0.4, 0.8)
                    stems.append((path[fork], turns[fork] + away, 0.65 * thickness, steps - fork - 1))
    for thickness, path in sorted(strokes, key=lambda stroke: stroke[0]):
        _polyline(canvas, path, int(min(255, 40 + 9500 * thickness)), thickness)
    return cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), 0.003 * side_length) / 255


def _nodule_place(chest, rng):
    """(x, y, radius) of a nodule wholly inside one lung, clear of heart, wall and diaphragm."""
    x, y = rng.uniform(-1, 1, 200) * chest.width, rng.uniform(chest.apex, chest.base, 200)
    radius = rng.uniform(0.065, 0.100)
    angle = np.arange(8)[:, None] * math.pi / 4
    px, py = x + 1.3 * radius * np.cos(angle), y + 1.3 * radius * np.sin(angle)
    air = np.where(x < 0, chest.lung(px, py, -1), chest.lung(px, py, 1)) * (chest.heart(px, py, chest.ctr)[1] < 0)
    i = np.argmax((air > 0.95).all(0))  # about a quarter of the candidates qualify
    return float(x[i]), float(y[i]), radius


def _upright(chest, label, sign, side_length, rng):
    """The chest before exposure. Returns brightness and the sign's weight, both (S, S) float32."""
    axis = ((np.arange(side_length, dtype=np.float32) + 0.5) / side_length * 2 - 1) * _EXTENT
    x, y = axis[None], axis[:, None]
    # Everything random comes first and for every class, so that the chest is the same with and without its sign.
    side = int(rng.choice((-1, 1)))
    enlarged, amount, depth = rng.uniform(*CTR_ENLARGED), rng.uniform(), rng.uniform(0.8, 1.2)
    nodule_x, nodule_y, radius = _nodule_place(chest, rng)
    bones, vessels = _bones(chest, side_length, rng), _vessels(chest, side_length, rng)
    cloud = cv2.resize(rng.standard_normal((24, 24), np.float32), bones.shape, interpolation=cv2.INTER_CUBIC)

    heart = _soft(chest.heart(x, y, enlarged if sign and label == _CARDIOMEGALY else chest.ctr)[1], 0.03)
    air = (chest.lung(x, y, -1) + chest.lung(x, y, 1)) * (1 - heart)
    rim = fluid = line = nodule = 0.0
    if label == _CARDIOMEGALY:
        weight = _soft(chest.heart(x, y, enlarged)[0]) * _soft(chest.base - 0.5 * chest.dome[1] - y)
    elif label == _EFFUSION:
        # The meniscus climbs along the chest wall and sinks towards the middle.
        height = 0.34 + 0.36 * amount
        level = chest.base - height * (0.25 + 0.75 * np.exp(-(chest.width - side * x) / (0.45 * chest.width)))
        weight = fluid = _soft(y - level, 0.04) * air * (side * x > 0)
    elif label == _PNEUMOTHORAX:
        # The collapsed lung: its apex lower, its outer edge away from the wall, most so at the top.
        lowered = 0.16 + 0.16 * amount
        taper = np.clip((y - chest.apex) / (chest.base - chest.apex), 0, 1)
        outer = chest.lateral(y, lowered) - (0.08 + 0.12 * amount) * (1 - 0.7 * taper)
        inside = np.minimum(outer - side * x, side * x - chest.medial(y, side, lowered)) + 0.03
        rim = _soft(-inside, 0.012) * air * (side * x > 0)
        line = _bump(inside, 0.0, 0.009) * air * (side * x > 0) * _soft(chest.lateral(y) - outer - 0.05, 0.03)
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
    below = 1 - np.where(x < 0, chest.above(x, y, -1), chest.above(x, y, 1))

    image = chest.soft_tissue + 0.16 * _bump(x, 0, 0.45) + 0.10 * below
    image = image - chest.aeration * image * air * (1 - 0.15 * _bump(y, 0.35, 0.4))
    image = image * (1 - 0.55 * depth * rim) + 0.24 * depth * line
    image += max(0.0, chest.breast) * _soft(0.34 - np.sqrt((np.abs(x) - 0.40) ** 2 + (y - 0.30) ** 2), 0.10)
    image += (0.10 * heart + 0.06 * fluid) * (1 - below)
    image += air * (1 - rim) * (chest.vessels * vessels + 0.014 * cloud)
    image += 0.12 * air * _bump(np.abs(x), chest.mediastinum + 0.06, 0.09) * _bump(y, 0, 0.16)
    image += chest.rib_brightness * bones * (0.25 + 0.75 * air)
    # Spine with its discs, and the trachea in front of it.
    image += 0.09 * _soft(0.075 - np.abs(x), 0.02) * (0.75 + 0.25 * np.cos(2 * math.pi * y / 0.13))
    image -= 0.13 * _soft(0.045 - np.abs(x + 0.01), 0.02) * _soft(-0.22 - y, 0.08)
    image -= max(0.0, chest.gas) * below * _soft(1 - np.hypot((x - 0.33) / 0.16, (y - chest.base - 0.02) / 0.10), 0.3)
    image += 0.38 * depth * nodule
    return (image * thickness).astype(np.float32), weight.astype(np.float32)


def draw(label, seed, size=256, view=0, sign=True):
    """Draws one frontal chest X-ray. The same arguments give the same bytes (another cv2 version: +-1 grey level).

    label: index into CLASS_NAMES. seed: >= 0, the patient (patients of different classes share nothing).
    size: height and width in pixels, >= 64. view: >= 0, another exposure of the same chest and sign: position,
    contrast and noise differ. sign: False leaves the sign out, all else equal; `box` still says where it would be.
    Returns a Phantom. Raises ValueError on an argument out of range.
    """
    if label not in range(len(CLASS_NAMES)):
        raise ValueError(f"label must be 0 to {len(CLASS_NAMES) - 1}, got {label!r}")
    if seed < 0 or view < 0 or size < 64:
        raise ValueError(f"seed and view must be >= 0 and size >= 64, got {seed}, {view}, {size}")
    rng = np.random.default_rng([seed, label])
    chest = _Chest(rng)
    side_length = round(size * _EXTENT)
    image, weight = _upright(chest, label, sign, side_length, rng)

    rng = np.random.default_rng([seed, label, view + 1])  # + 1: a trailing 0 would repeat the stream above
    turn = cv2.getRotationMatrix2D(((side_length - 1) / 2,) * 2, rng.uniform(-4, 4), rng.uniform(1.05, 1.20))
    turn[:, 2] += (size - side_length) / 2 + rng.uniform(-0.04, 0.04, 2) * size
    image, weight = (cv2.warpAffine(a, turn, (size, size), borderMode=cv2.BORDER_REPLICATE) for a in (image, weight))
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.0012, 0.003) * size)
    black, white = rng.uniform(0.0, 0.16), rng.uniform(0.72, 1.0)
    image = black + (white - black) * np.clip(image, 0, 1) ** rng.uniform(0.70, 1.45)
    grain = rng.standard_normal((size, size), np.float32) * rng.uniform(0.006, 0.018)
    image = np.rint(np.clip(image + grain, 0, 1) * 255).astype(np.uint8)
    marker = np.array([[0, 0], [0, 0.05], [0.03, 0.05]]) + rng.uniform((0.88, 0.03), (0.93, 0.08))  # an L, hung left
    marker = np.rint(marker * size).astype(np.int32)
    cv2.polylines(image, [marker], False, 235, max(1, size // 128), cv2.LINE_AA)

    left, top, width, height = cv2.boundingRect((weight > 0.1).astype(np.uint8))
    return Phantom(image, label, (float(left), float(top), float(width), float(height)), f"phantom-{label}-{seed}")


def _write(path, content):
    """Writes bytes so that `path` is either absent, old or whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_csv(path, columns, rows):
    text = StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, text.getvalue().encode("utf-8"))


def write_folder(folder, per_class=60, size=256, seed=0, progress=None):
    """Writes a data set: `folder/<Class>/<Class>-0001.png`, ..., `boxes.csv` and `sources.csv`.

    per_class: images of each class, 1 to 9999; every third patient of a class has two of them.
    seed: >= 0; folders of different seeds share no patient. progress: called as progress(done, total).
    boxes.csv has BOX_COLUMNS (file is relative to `folder`, label the class name, box in pixels), sources.csv has
    SOURCE_COLUMNS (source_file is `phantom`). Both come last, so that their presence means a complete folder.
    Returns one dict per image with the columns of both. Raises ValueError on an argument out of range and
    FileExistsError where a class folder holds images that are not of this data set.
    """
    if not 1 <= per_class <= 9999:
        raise ValueError(f"per_class must be 1 to 9999, got {per_class}")
    folder = Path(folder)
    rows = []
    for label, name in enumerate(CLASS_NAMES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        files = [f"{name}-{i:04d}.png" for i in range(1, per_class + 1)]
        foreign = {path.name for path in (folder / name).glob("*.png")}.difference(files)
        if foreign:
            raise FileExistsError(f"{folder / name} holds {min(foreign)}, not of this data set: name an empty folder")
        views = [(patient, view) for patient in range(per_class) for view in range(2 if patient % 3 == 2 else 1)]
        for file, (patient, view) in zip(files, views):
            phantom = draw(label, 10_000 * seed + patient, size, view)
            _write(folder / name / file, cv2.imencode(".png", phantom.image)[1].tobytes())
            rows.append({"file": f"{name}/{file}", "label": name, **dict(zip("xywh", phantom.box)),
                         "source_file": "phantom", "patient": phantom.patient})
            if progress is not None:
                progress(len(rows), per_class * len(CLASS_NAMES))
    _write_csv(folder / "boxes.csv", BOX_COLUMNS, rows)
    _write_csv(folder / "sources.csv", SOURCE_COLUMNS, rows)
    return rows


def read_boxes(csv_path):
    """Reads a boxes.csv: {file: (x, y, w, h)}, pixels. Raises ValueError naming file and line of a malformed row."""
    boxes = {}
    with open(csv_path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)

        def error(what):
            return ValueError(f"{csv_path}, line {reader.line_num}: {what}")

        if tuple(next(reader, ())) != BOX_COLUMNS:
            raise error(f"expected the header {','.join(BOX_COLUMNS)}")
        for row in reader:
            if len(row) != len(BOX_COLUMNS):
                raise error(f"expected {len(BOX_COLUMNS)} fields, got {len(row)}")
            try:
                box = tuple(float(field) for field in row[2:])
            except ValueError:
                raise error(f"the box {','.join(row[2:])} is not four numbers") from None
            x, y, width, height = box
            if not all(map(math.isfinite, box)) or min(x, y) < 0 or min(width, height) <= 0:
                raise error(f"the box {','.join(row[2:])} needs x, y >= 0 and w, h > 0")
            if not row[0] or row[0] in boxes:
                raise error(f"the file name {row[0]!r} is empty or stands there twice")
            boxes[row[0]] = box
    return boxes
