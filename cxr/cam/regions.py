"""Places in a map: its peak, Otsu's threshold, and boxes around its regions. Imports no Paddle."""
from __future__ import annotations

import cv2
import numpy as np

Box = tuple[float, float, float, float]          # x, y, width and height in pixels of the map, continuous


def peak(cam: np.ndarray) -> tuple[float, float]:
    """Centre (x, y) of the highest pixel of a map (H, W); the first in reading order where several are equal."""
    row, column = np.unravel_index(int(np.argmax(cam)), cam.shape)
    return column + 0.5, row + 0.5


def otsu(cam: np.ndarray) -> float:
    """Otsu's threshold of a map in units of its peak, on 256 levels from 0 to the peak."""
    return otsu_of_levels(np.rint(cam * (255 / cam.max())).astype(np.uint8))


def otsu_of_levels(levels: np.ndarray) -> float:
    """Otsu's threshold of values that are already on 256 levels, uint8, in units of the highest level."""
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return (level + 0.5) / 255


def draw_boxes(cam: np.ndarray, threshold: float) -> list[tuple[Box, float]]:
    """Draw a box around every connected part (8 neighbours) of a map's region.

    Args:
        cam: a map (H, W).
        threshold: of the region, in units of the map's peak.

    Returns:
        Each box with its score, the highest value of the map in that part, in falling order of scores: the first box
        holds the peak. A flat map has none.
    """
    from scipy.ndimage import maximum  # takes a third of a second, and few ask for boxes

    if cam.max() <= cam.min():
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats((cam >= threshold * cam.max()).astype(np.uint8))
    scores = maximum(cam, labels, range(1, count))
    return [(box_of(stats[1 + part]), float(scores[part])) for part in np.argsort(-scores, kind="stable")]


def box_of(row: np.ndarray) -> Box:
    """The box of a connected part, from its row of OpenCV's statistics."""
    return tuple(map(float, row[:4]))
