"""Heat maps on X-rays, their captions and boxes, and montages of them.

Pictures are arrays (H, W, 3) uint8 RGB; `cxr.visual.image_files` writes them.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from cxr.visual.fonts import can_draw, write

_FONT, _FONT_SCALE, _WHITE, _GREY = cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), (150, 150, 150)
_TEXT, _BAR = 40, 50                             # height of what stands below a tile and above the montage

# The published one first; all others rise in lightness, so that they can be read in grey and by the colour-blind.
COLORMAPS = {"jet": cv2.COLORMAP_JET, "inferno": cv2.COLORMAP_INFERNO, "viridis": cv2.COLORMAP_VIRIDIS,
             "cividis": cv2.COLORMAP_CIVIDIS, "hot": cv2.COLORMAP_HOT}


def heat(cam: np.ndarray, colormap: str = "jet") -> np.ndarray:
    """Colour a map (H, W), uint8 or 0-1 float, with one of `COLORMAPS`: (H, W, 3) uint8 RGB. Jet is red at 1."""
    if cam.dtype != np.uint8:
        cam = (255 * np.clip(cam, 0, 1)).astype(np.uint8)
    return cv2.applyColorMap(cam, _rgb_table(colormap))


@cache
def _rgb_table(colormap: str) -> np.ndarray:
    """The 256 colours (256, 1, 3) of a map, which OpenCV would otherwise compute for every picture."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.cvtColor(cv2.applyColorMap(levels, COLORMAPS[colormap]), cv2.COLOR_BGR2RGB)


def overlay(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """0.3 x heat + 0.5 x image, the published mixture.

    Args:
        image: (H, W, 3) uint8 RGB.
        cam: map (h, w), uint8 or 0-1 float, enlarged to the image where it is smaller.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    # Less 0.45, rounding gives the whole part, as published: sums of tenths and halves lie a tenth apart.
    return cv2.addWeighted(heat(_enlarge(cam, image)), 0.3, image, 0.5, -0.45)


def blend(image: np.ndarray, cam: np.ndarray, opacity: float, colormap: str = "jet") -> np.ndarray:
    """opacity x heat + (1 - opacity) x image.

    Args:
        image: (H, W, 3) uint8 RGB.
        cam: map (h, w), uint8 or 0-1 float, enlarged to the image where it is smaller.
        opacity: 0-1: at 0 the X-ray alone, at 1 the map alone.
        colormap: of `COLORMAPS`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    return cv2.addWeighted(heat(_enlarge(cam, image), colormap), opacity, image, 1 - opacity, 0)


def _enlarge(cam: np.ndarray, image: np.ndarray) -> np.ndarray:
    if cam.shape == image.shape[:2]:
        return cam
    return cv2.resize(cam, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)


def drawable_names(class_names: Sequence[str]) -> list[str]:
    """Class names as captions can show them: `class 3` for a name with characters that no font of this machine has."""
    return [name if name.isascii() or can_draw(name) else f"class {index}" for index, name in enumerate(class_names)]


def caption(image: np.ndarray, text: str) -> np.ndarray:
    """A copy with white text in the lower left corner, which is shrunk where it would not fit into the width."""
    if not text.isascii():                       # OpenCV's font has no more
        return write(image, text, 5, image.shape[0] - 5, 15, _WHITE)
    image = np.ascontiguousarray(image).copy()
    (width, _), _ = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)
    scale = min(_FONT_SCALE, _FONT_SCALE * (image.shape[1] - 10) / max(width, 1))
    return cv2.putText(image, text, (5, image.shape[0] - 5), _FONT, scale, _WHITE, 1)


def heading(image: np.ndarray, text: str) -> np.ndarray:
    """The picture below a black strip with white text, which is shrunk where it would not fit into the width."""
    strip = np.zeros((24, *image.shape[1:]), np.uint8)
    return np.concatenate([caption(strip, text), image])


def with_box(image: np.ndarray, box: Sequence[float], colour: tuple[int, int, int] = _WHITE) -> np.ndarray:
    """A copy with the outline of a box (x, y, w, h) in pixels, white or in another RGB colour."""
    left, top, width, height = (round(value) for value in box)
    return cv2.rectangle(np.ascontiguousarray(image).copy(), (left, top), (left + width, top + height), colour, 1)


def montage(tiles: Sequence[np.ndarray], columns: int = 5) -> np.ndarray:
    """Tiles of one shape, row by row; an unfilled last row ends in black."""
    blank = np.zeros_like(tiles[0])
    rows = []
    for start in range(0, len(tiles), columns):
        row = list(tiles[start:start + columns])
        if rows:
            row += [blank] * (columns - len(row))
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows, axis=0)


def cam_montage(image: np.ndarray, cams: np.ndarray, captions: Sequence[str], columns: int = 5) -> np.ndarray:
    """The original, then each map on it with its caption; for CheXNet's 14 findings the published 3 x 5 picture.

    Args:
        image: (H, W, 3) uint8 RGB, the part that the network saw.
        cams: (K, h, w), uint8 or 0-1 float.
        captions: K texts.
        columns: tiles in a row.

    Returns:
        The montage.
    """
    tiles = [caption(image, "Original")]
    tiles += [caption(overlay(image, cam), text) for cam, text in zip(cams, captions)]
    return montage(tiles, columns)


@dataclass(frozen=True)
class Evidence:
    """A class of `evidence_montage`.

    Attributes:
        cam: its map (h, w), on the scale that all classes share.
        title: the first line of text.
        remark: the second line.
        called: whether the class is called; None: no threshold is known.
    """
    cam: np.ndarray
    title: str
    remark: str
    called: bool | None = None


def evidence_montage(image: np.ndarray, classes: Sequence[Evidence], columns: int = 5) -> np.ndarray:
    """The original, then each class on one scale that all share, so that weak evidence looks weak.

    A class that is not called stays plain, without a map. Text stands below each tile, the colour bar above all.

    Args:
        image: (H, W, 3) uint8 RGB, the part that the network saw.
        classes: in the order of the tiles.
        columns: tiles in a row.

    Returns:
        The montage below its colour bar.
    """
    def tile(picture: np.ndarray, title: str, remark: str, colour: tuple[int, int, int]) -> np.ndarray:
        below = np.zeros((_TEXT, picture.shape[1], 3), np.uint8)
        below = write(write(below, title, 5, 16, 14, colour), remark, 5, 33, 12, colour)
        return np.concatenate([picture, below])

    tiles = [tile(image, "Original", "", _WHITE)]
    for evidence in classes:
        plain = evidence.called is False
        tiles.append(tile(image if plain else overlay(image, evidence.cam), evidence.title, evidence.remark,
                          _GREY if plain else _WHITE))
    picture = montage(tiles, columns)
    any_plain = any(evidence.called is False for evidence in classes)
    return np.concatenate([_colour_bar(picture.shape[1], any_plain), picture])


def _colour_bar(width: int, plain: bool) -> np.ndarray:
    """The strip above `evidence_montage`, as wide as it."""
    strip = np.zeros((_BAR, width, 3), np.uint8)
    length = min(200, width // 4)
    strip[8:22, 20:20 + length] = heat(np.linspace(0, 1, length)[None])
    strip = write(write(strip, "0", 8, 20, 12, _WHITE), "1", 24 + length, 20, 12, _WHITE)
    text = "evidence, as a share of the range of all classes of this image"
    text += "; grey: not called, its map is not shown" if plain else ""
    strip = write(strip, text, 44 + length, 20, 13, _WHITE)
    return write(strip, "Research use only, not for diagnosis", 8, 42, 13, _GREY)
