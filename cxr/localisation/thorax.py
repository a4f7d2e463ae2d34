"""Where the lungs and the thorax roughly are: classical image processing that looks for two dark fields.

Good enough to ask how much of a map lies beside the chest, on markers, borders and shoulders. It is no lung
segmentation: consolidated lung is as bright as what surrounds it and is missed, and no figure of merit is claimed
on patients. Where the two fields are not found, a fixed pair of ellipses stands in and says so (`found`).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes

from cxr.cam.regions import otsu_of_levels

_SIDE = 128                                      # all work is done at this size: the outline is coarse anyway
# Where lungs lie in a frontal X-ray, in shares of the body's width and height: centres and half axes.
_CENTRES, _HALF_AXES = ((0.29, 0.46), (0.71, 0.46)), (0.18, 0.33)
_REACH = 1.45                                    # a field may reach so far beyond its ellipse
_AREA = (0.03, 0.30)                             # of the body, for each field
_BALANCE = 3.0                                   # larger field over smaller


@dataclass(frozen=True)
class Thorax:
    """What `estimate` finds in a picture.

    Attributes:
        body: (H, W) bool, all that is not black surroundings.
        lungs: (H, W) bool, the two lung fields.
        thorax: (H, W) bool, the convex hull of both with a small margin.
        found: False where the fields are the fixed ellipses.
    """
    body: np.ndarray
    lungs: np.ndarray
    thorax: np.ndarray
    found: bool


def estimate(image: np.ndarray) -> Thorax:
    """Estimate the thorax in a frontal X-ray.

    Args:
        image: (H, W) or (H, W, 3) uint8, air dark.
    """
    grey = image if image.ndim == 2 else image.mean(axis=2)
    small = cv2.resize(grey.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 0.012 * _SIDE)
    body = _body(small)
    distances = [_distance(body, centre) for centre in _CENTRES]
    # Uneven exposure: compare with the surroundings rather than with the whole picture.
    even = small - 0.7 * cv2.GaussianBlur(small, (0, 0), 0.25 * _SIDE)
    near = np.minimum(*distances) < _REACH
    dark = (even < _threshold(even[near & body])) & body & ~_surroundings(small)
    fields = [_field(dark & (distance < _REACH) & (distance < other), distance < 1)
              for distance, other in (distances, distances[::-1])]
    found = _plausible(fields, body)
    lungs = np.logical_or(*(fields if found else (distance < 1 for distance in distances))) & body
    thorax = _dilated(_hull(_levelled(lungs)), 0.025) & body
    return Thorax(*(_enlarged(mask, grey.shape) for mask in (body, lungs, thorax)), found)


def _body(grey: np.ndarray) -> np.ndarray:
    """The largest region that is not as dark as black surroundings, holes filled."""
    # Exposed lungs can be as black as the surroundings; they lie inside.
    body = binary_fill_holes(_closed(_largest(grey > 0.12 * np.percentile(grey, 95)), 0.06))
    return body if body.mean() > 0.3 else np.ones_like(body)


def _surroundings(grey: np.ndarray) -> np.ndarray:
    """Air beside neck, shoulders and arms: dark regions that reach the upper or a side edge through more than a thread.
    """
    dark = np.pad(_opened(grey < 0.45 * np.median(grey), 0.02), ((1, 0), (1, 1)), constant_values=True)
    _, labels = cv2.connectedComponents(dark.astype(np.uint8), connectivity=4)
    return _dilated((labels == labels[0, 0])[1:, 1:-1], 0.02)


def _distance(body: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """(S, S) distance from a centre of the fixed ellipses, 1 on its outline."""
    (top, bottom), (left, right) = (np.flatnonzero(body.any(axis))[[0, -1]] for axis in (1, 0))
    y = ((np.arange(_SIDE) + 0.5 - top) / (bottom + 1 - top) - centre[1]) / _HALF_AXES[1]
    x = ((np.arange(_SIDE) + 0.5 - left) / (right + 1 - left) - centre[0]) / _HALF_AXES[0]
    return np.hypot(y[:, None], x)


def _threshold(values: np.ndarray) -> float:
    """Otsu's threshold in units of the values, on 256 levels from the lowest to the highest."""
    low, high = float(values.min()), float(values.max())
    levels = ((values - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return low + otsu_of_levels(levels) * (high - low)


def _field(dark: np.ndarray, core: np.ndarray) -> np.ndarray:
    """A lung field: the dark region that fills most of the core, without threads, holes and notches."""
    count, labels = cv2.connectedComponents(_opened(dark, 0.025).astype(np.uint8), connectivity=4)
    if count == 1:
        return np.zeros_like(dark)
    inside = np.bincount(labels[core], minlength=count)
    return binary_fill_holes(_closed(labels == 1 + inside[1:].argmax(), 0.05))


def _plausible(fields: Sequence[np.ndarray], body: np.ndarray) -> bool:
    areas = [field.sum() / body.sum() for field in fields]
    if not all(_AREA[0] < area < _AREA[1] for area in areas) or max(areas) > _BALANCE * min(areas):
        return False
    rows = [np.flatnonzero(field.any(axis=1)) for field in fields]
    shared = min(field[-1] for field in rows) - max(field[0] for field in rows)
    return shared > 0.4 * max(field[-1] - field[0] for field in rows)


def _disc(share: float) -> np.ndarray:
    radius = max(1, round(share * _SIDE))
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)


def _levelled(lungs: np.ndarray) -> np.ndarray:
    """Both lungs continued down to the lower end of the longer lung: bases are often too bright to be found."""
    bottom = np.flatnonzero(lungs.any(axis=1))[-1]
    columns = np.flatnonzero(lungs[lungs.shape[0] // 3:].any(axis=0))
    levelled = lungs.copy()
    levelled[bottom, columns[0]:columns[-1] + 1] = True
    return levelled


# OpenCV's morphology, as SciPy's takes 60 ms an image more for the same masks.
def _opened(mask: np.ndarray, share: float) -> np.ndarray:
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, _disc(share)) > 0


def _closed(mask: np.ndarray, share: float) -> np.ndarray:
    edge = round(share * _SIDE) + 1                # so that closing does not open towards the picture's edge
    padded = np.pad(mask.astype(np.uint8), edge)
    return cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _disc(share))[edge:-edge, edge:-edge] > 0


def _dilated(mask: np.ndarray, share: float) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), _disc(share)) > 0


def _hull(mask: np.ndarray) -> np.ndarray:
    hull = cv2.convexHull(np.argwhere(mask)[:, ::-1].astype(np.int32))
    return cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), hull, 1) > 0


def _largest(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax() if count > 1 else mask


def _enlarged(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return cv2.resize(mask.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR) > 0.5
