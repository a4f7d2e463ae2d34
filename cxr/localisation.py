"""Does the map point at the sign: peaks of maps against boxes."""
from __future__ import annotations

import numpy as np

Box = tuple  # (x, y, w, h) in pixels, x and y its upper left corner


def peak(cam: np.ndarray) -> tuple[float, float]:
    """Centre (x, y) of the highest pixel of a map (H, W); the first one in reading order where several are equal."""
    row, column = np.unravel_index(int(np.argmax(cam)), cam.shape)
    return column + 0.5, row + 0.5


def hits(cam: np.ndarray, box: Box) -> bool:
    """Whether the peak of the map lies in the box (the pointing game of Zhang et al. 2016, without a margin)."""
    x, y = peak(cam)
    left, top, width, height = box
    return left <= x < left + width and top <= y < top + height


def chance(box: Box, shape: tuple[int, int]) -> float:
    """Probability that a pixel drawn at random from a map of `shape` (H, W) lies in the box: the area it covers."""
    left, top, width, height = box
    columns = np.arange(shape[1]) + 0.5
    rows = np.arange(shape[0]) + 0.5
    inside = ((columns >= left) & (columns < left + width)).mean() * ((rows >= top) & (rows < top + height)).mean()
    return float(inside)


def scale_box(box: Box, source: tuple[int, int], target: tuple[int, int]) -> Box:
    """Carry a box from an image of shape `source` (H, W) to its resized form of shape `target`."""
    down, across = target[0] / source[0], target[1] / source[1]
    left, top, width, height = box
    return left * across, top * down, width * across, height * down
