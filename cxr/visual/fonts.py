"""Text that OpenCV's font cannot draw: another font of this machine that has the characters."""
from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont


@lru_cache(maxsize=256)
def font_with(characters: frozenset[str]) -> str | None:
    """Path of a font that has all of these characters, or None: Matplotlib's own, else the first installed."""
    from matplotlib.font_manager import findfont, fontManager
    from matplotlib.ft2font import FT2Font

    # Matplotlib also ships a "last resort" that has a box for every character.
    installed = sorted(entry.fname for entry in fontManager.ttflist if not entry.name.startswith("Last Resort"))
    for path in dict.fromkeys([findfont("DejaVu Sans"), *installed]):
        try:
            known = FT2Font(path).get_charmap()
        except (OSError, RuntimeError):          # uninstalled since Matplotlib last looked, or damaged
            continue
        if all(ord(character) in known for character in characters):
            return path
    return None


def can_draw(text: str) -> bool:
    """Whether `write` has a font for every character of the text."""
    return font_with(frozenset(text)) is not None


def write(image: np.ndarray, text: str, left: int, bottom: int, size: int, colour: tuple[int, int, int],
          right: int | None = None) -> np.ndarray:
    """Draw a line of text on a copy of a picture.

    Characters that no font has become boxes: ask `can_draw` first.

    Args:
        image: (H, W, 3) uint8.
        text: a line.
        left: where it begins, in pixels.
        bottom: its baseline, in pixels.
        size: of the text, in pixels; smaller where it would reach beyond `right`.
        colour: RGB.
        right: where it must end, in pixels; None: 5 pixels before the edge.

    Returns:
        The copy.
    """
    path = font_with(frozenset(text)) or font_with(frozenset("A"))
    width = (image.shape[1] - 5 if right is None else right) - left
    font = ImageFont.truetype(path, size)
    if (length := font.getlength(text)) > width:
        font = ImageFont.truetype(path, max(6, int(size * width / length)))
    picture = Image.fromarray(np.ascontiguousarray(image))
    ImageDraw.Draw(picture).text((left, bottom), text, fill=colour, font=font, anchor="ls")
    return np.array(picture)
