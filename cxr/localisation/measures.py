"""Does the map point at the finding: peaks, regions and drawn boxes of one map against expert boxes.

Protocol. A map (H, W) is non-negative, as the CAM toolbox gives it. Its peak is its highest pixel; its region at a
threshold t are the pixels of at least t times the peak's value; the box drawn from it is the one around the connected
part of the region that holds the peak. Boxes are continuous (`cxr.data.boxes`), and a pixel at a box's edge counts with
the share that is covered. A flat map has no peak and no region: it misses, and its mass is 0/0, nan.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cxr.cam.regions import box_of, otsu, peak
from cxr.data.boxes import Box, coverage, iobb, iou

THRESHOLDS = np.arange(1, 20) / 20               # 0.05 to 0.95 of the peak
FIXED = 9                                        # index of 0.5
OTSU = len(THRESHOLDS)                           # index of Otsu's threshold, behind the others


def peak_in_box(cam: np.ndarray, box: Box, tolerance: float = 0) -> bool:
    """Whether the peak of a map lies in a box: the pointing game of Zhang et al. 2016.

    Args:
        cam: a map (H, W).
        box: (x, y, w, h) in pixels of the map.
        tolerance: pixels by which the peak may lie beside the box; Zhang et al. allow 15. 0 is the stricter hit rate.
    """
    x, y = peak(cam)
    left, top, width, height = box
    if left <= x < left + width and top <= y < top + height:
        return True
    across, down = max(left - x, x - left - width, 0), max(top - y, y - top - height, 0)
    return math.hypot(across, down) <= tolerance if tolerance else False


def chance(box: Box, shape: tuple[int, int]) -> float:
    """Probability that a pixel drawn at random from a map of `shape` (H, W) lies in the box: the area it covers."""
    left, top, width, height = box
    columns = np.arange(shape[1]) + 0.5
    rows = np.arange(shape[0]) + 0.5
    inside = ((columns >= left) & (columns < left + width)).mean() * ((rows >= top) & (rows < top + height)).mean()
    return float(inside)


@dataclass(frozen=True)
class MapMeasures:
    """A map against the boxes of a finding. Arrays (L,) have an entry for each of THRESHOLDS, then Otsu's.

    Attributes:
        hit: 1.0 where the peak lies in a box, else 0.0.
        near: 1.0 where it lies in a box or within the tolerance, else 0.0.
        mass: share of the map's sum inside the boxes.
        region_iou: (L,) intersection over union of the region and the boxes.
        region_iobb: (L,) their intersection over the area of the region.
        box_iou: (L,) intersection over union of the box drawn around the peak and the expert box that it fits best.
        box_iobb: (L,) intersection over the area of the drawn box, with the expert box where this is largest.
        parts: (L,) number of connected parts of the region.
    """
    hit: float
    near: float
    mass: float
    region_iou: np.ndarray
    region_iobb: np.ndarray
    box_iou: np.ndarray
    box_iobb: np.ndarray
    parts: np.ndarray


def measure_map(cam: np.ndarray, boxes: Sequence[Box], tolerance: float = 15) -> MapMeasures:
    """Hold a map against the expert boxes of a finding.

    Args:
        cam: a map (H, W).
        boxes: in pixels of the map and inside it (`cxr.data.boxes.clip`). With none (the finding lies outside what the
            network sees) nothing can be hit: all measures are 0.
        tolerance: pixels by which the peak may miss a box.
    """
    levels = np.zeros((5, len(THRESHOLDS) + 1))
    if cam.max() <= cam.min():
        return MapMeasures(0.0, 0.0, math.nan, *levels)
    covered = coverage(boxes, cam.shape)
    area, highest, top = covered.sum(), int(np.argmax(cam)), cam.max()
    for index, threshold in enumerate([*THRESHOLDS, otsu(cam)]):
        region = (cam >= threshold * top).astype(np.uint8)
        # As `draw_boxes` does, without the scores of the other parts.
        count, labels, stats, _ = cv2.connectedComponentsWithStats(region)
        first = box_of(stats[labels.flat[highest]])
        shared, size = np.vdot(covered, region), stats[1:, cv2.CC_STAT_AREA].sum()
        levels[:, index] = (shared / (size + area - shared), shared / size,
                            max((iou(first, box) for box in boxes), default=0),
                            max((iobb(first, box) for box in boxes), default=0), count - 1)
    return MapMeasures(float(any(peak_in_box(cam, box) for box in boxes)),
                       float(any(peak_in_box(cam, box, tolerance) for box in boxes)),
                       float((cam * covered).sum() / cam.sum(dtype=np.float64)), *levels)


def measure_uniform_map(boxes: Sequence[Box], shape: Sequence[int], tolerance: float = 15) -> MapMeasures:
    """Measure a map without any preference, in expectation: a peak anywhere, a region that is everything.

    Args:
        boxes: of the finding, in pixels of the map.
        shape: (H, W) of the map.
        tolerance: pixels by which the peak may miss a box.
    """
    x, y = np.arange(shape[1]) + 0.5, np.arange(shape[0])[:, None] + 0.5
    distance = np.full(shape, np.inf)
    for left, top, width, height in boxes:
        across = np.maximum(np.maximum(left - x, x - left - width), 0)
        down = np.maximum(np.maximum(top - y, y - top - height), 0)
        np.minimum(distance, np.hypot(across, down), out=distance)
    covered = coverage(boxes, shape)
    whole = (0.0, 0.0, float(shape[1]), float(shape[0]))
    share = covered.mean()
    best = max((iou(whole, box) for box in boxes), default=0.0)
    ones = np.ones(len(THRESHOLDS) + 1)
    return MapMeasures(float((distance == 0).mean()), float((distance <= tolerance).mean()), float(share),
                       share * ones, share * ones, best * ones, best * ones, ones)


def gaussian(box: Box, shape: Sequence[int]) -> np.ndarray:
    """A map (H, W) that is 1 in the middle of the box and falls to a half at the middles of its sides."""
    left, top, width, height = box
    x = (np.arange(shape[1]) + 0.5 - left - width / 2) / width
    y = (np.arange(shape[0])[:, None] + 0.5 - top - height / 2) / height
    return np.exp2(-4 * (x ** 2 + y ** 2))
