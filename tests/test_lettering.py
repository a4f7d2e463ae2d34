"""Text beyond ASCII: from a font that has it, or not at all."""
import numpy as np

from cxr.visual.fonts import can_draw, write
from cxr.visual.heatmaps import caption, drawable_names

NOWHERE = "\U000f0000"                           # private use: no font has it


def test_names():
    names = ["Nodule", "Épanchement", "Ателектаз", f"x{NOWHERE}"]
    assert drawable_names(names) == ["Nodule", "Épanchement", "Ателектаз", "class 3"]
    assert can_draw("Лёгкое") and not can_draw(NOWHERE)


def test_captions_show_different_letters():
    blank = np.zeros((60, 224, 3), np.uint8)
    one, other = caption(blank, "Ж: 66.48%"), caption(blank, "Я: 66.48%")
    assert (one != other).any() and one[30:].any() and not one[:30].any() and not blank.any()
    assert one[:, 5:].any() and not one[:, :4].any()


def test_long_text_is_made_to_fit():
    blank = np.zeros((40, 120, 3), np.uint8)
    got = write(blank, "É" + "m" * 14, 5, 20, 14, (255, 255, 255))
    assert got.any() and not got[:, 116:].any()
    short = write(blank, "Ém", 5, 20, 14, (255, 0, 0))
    assert short[..., 0].max() == 255 and not short[..., 1:].any()
    assert np.nonzero(short.any(axis=(1, 2)))[0].max() <= 20
