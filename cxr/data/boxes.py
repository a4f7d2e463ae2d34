"""Boxes that experts drew: reading them, and carrying them through the preprocessing and back.

A box is (x, y, w, h) in pixels, x and y its upper left corner, as ChestX-ray14 publishes it. Coordinates are
continuous: pixel (column, row) covers [column, column + 1) x [row, row + 1), so a resize multiplies them.
"""
from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.data.transforms import Preprocess, centre_corner, resized_shape
from cxr.errors import InputError

Box = tuple[float, float, float, float]          # (x, y, w, h)


@dataclass(frozen=True)
class ExpertBox:
    """A row of a list of boxes.

    Attributes:
        image: name of the image.
        label: name of the class, as the list writes it.
        box: (x, y, w, h) in pixels of the list.
    """
    image: str
    label: str
    box: Box


def read_boxes(path: str | os.PathLike) -> list[ExpertBox]:
    """Read `image,label,x,y,w,h` rows below a header, such as ChestX-ray14's `BBox_List_2017.csv`.

    The header may write `Bbox [x,y,w,h]` and, like the rows, end in empty columns, as published.

    Raises:
        InputError: names the line of a row that is no box or a repetition; or there is no list, or no box in it.
    """
    rows: dict[ExpertBox, None] = {}
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path of the boxes.") from None
    reader = csv.reader(io.StringIO(text, newline=""))

    def fail(what: str) -> InputError:
        return InputError(f"{path}, line {max(1, reader.line_num)}: {what}.")

    try:
        header = [cell.strip().strip("[]").rpartition("[")[2].lower() for cell in next(reader, ())]
        if header[2:6] != list("xywh"):
            raise fail("expected the header file,label,x,y,w,h, or that of BBox_List_2017.csv")
        for row in reader:
            while len(row) > 6 and not row[-1].strip():
                row.pop()
            if not any(map(str.strip, row)):
                continue
            found = _expert_box(row, fail)
            if found in rows:
                raise fail(f"this box of {found.image} stands there twice: remove one of them")
            rows[found] = None
    except csv.Error as error:
        raise fail(f"this is no line of a table ({error})") from None
    if not rows:
        raise InputError(f"{path} holds no boxes: name a list with one box a line.")
    return list(rows)


def _expert_box(row: Sequence[str], fail: Callable[[str], InputError]) -> ExpertBox:
    if len(row) != 6:
        raise fail(f"expected 6 fields (image,label,x,y,w,h), got {len(row)}")
    image, label, *numbers = (field.strip() for field in row)
    try:
        box = tuple(float(number) for number in numbers)
    except ValueError:
        raise fail(f"the box {','.join(numbers)} is not four numbers") from None
    if not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise fail(f"the box {','.join(numbers)} needs finite numbers with w, h > 0")
    if not image or not label:
        raise fail("the name of the image or of the class is empty")
    return ExpertBox(image, label, box)


def scale_box(box: Box, source: tuple[int, int], target: tuple[int, int]) -> Box:
    """Carry a box from an image of shape `source` (H, W) to its resized copy of shape `target` (H, W)."""
    down, across = target[0] / source[0], target[1] / source[1]
    left, top, width, height = box
    return left * across, top * down, width * across, height * down


@dataclass(frozen=True)
class Geometry:
    """What `Preprocess.view` does to coordinates.

    Attributes:
        image: (H, W) of the image.
        resized: (H, W) of the resized image.
        corner: (top, left) of the part of it that the network sees.
        view: (H, W) of that part.
    """
    image: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]
    view: tuple[int, int]

    @classmethod
    def of(cls, preprocess: Preprocess, image: Sequence[int]) -> Geometry:
        """The geometry for an image of shape (H, W), rounded exactly as the pixels are.

        Raises:
            InputError: the image is too elongated to be an X-ray.
        """
        image = (int(image[0]), int(image[1]))
        resized = resized_shape(image, preprocess.resize)
        if not preprocess.crop:
            return cls(image, resized, (0, 0), resized)
        return cls(image, resized, centre_corner(resized, preprocess.crop), (preprocess.crop,) * 2)

    def to_view(self, box: Box) -> Box:
        """Carry a box from the image to the view; it may reach beyond the view, see `clip`."""
        left, top, width, height = scale_box(box, self.image, self.resized)
        return left - self.corner[1], top - self.corner[0], width, height

    def to_image(self, box: Box) -> Box:
        """Carry a box of the view, such as a box drawn from a map, back to the image."""
        left, top, width, height = box
        return scale_box((left + self.corner[1], top + self.corner[0], width, height), self.resized, self.image)


def clip(box: Box, shape: Sequence[int]) -> Box | None:
    """The part of a box inside a picture of `shape` (H, W), or None where it lies wholly outside."""
    left, top, width, height = box
    right, bottom = min(left + width, shape[1]), min(top + height, shape[0])
    left, top = max(left, 0.0), max(top, 0.0)
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def overlap(first: Box, second: Box) -> float:
    """Area that two boxes share, in square pixels."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0-1."""
    shared = overlap(first, second)
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def iobb(drawn: Box, expert: Box) -> float:
    """Intersection over the area of the drawn box (Wang et al. 2017): the share of it that is finding, 0-1."""
    return overlap(drawn, expert) / (drawn[2] * drawn[3])


def coverage(boxes: Sequence[Box], shape: Sequence[int]) -> np.ndarray:
    """(H, W) share of each pixel that boxes cover, 0-1; of several boxes in one pixel the larger share counts."""
    covered = np.zeros(shape)
    for left, top, width, height in boxes:
        across = _covered(left, left + width, shape[1])
        down = _covered(top, top + height, shape[0])
        np.maximum(covered, down[:, None] * across, out=covered)
    return covered


def _covered(start: float, end: float, length: int) -> np.ndarray:
    """(length,) share of each of the unit intervals from 0 that lies in [start, end]."""
    edges = np.arange(length + 1.0)
    return np.maximum(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0)
