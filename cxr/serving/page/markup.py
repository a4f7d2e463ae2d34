"""Pictures and scores as pieces of HTML that page and report share: no script, nothing fetched, all text escaped."""
from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

import numpy as np

from cxr.cam.regions import draw_boxes
from cxr.data.boxes import scale_box
from cxr.serving.service import Reading
from cxr.visual.heatmaps import blend, with_box
from cxr.visual.image_files import encode, shrink

STYLE = """
.cxr-figure{margin:0;max-width:768px}
.cxr-figure img{width:100%;height:auto;display:block;border-radius:4px;background:#000}
.cxr-figure figcaption{font-size:.85em;opacity:.8;margin-top:.3em;overflow-wrap:anywhere}
.cxr-tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(130px,1fr));gap:10px}
.cxr-scores{width:100%;border-collapse:collapse;table-layout:fixed}
.cxr-scores th,.cxr-scores td{border:0;padding:3px 4px;text-align:left;font-size:.9em;overflow-wrap:anywhere}
.cxr-scores th{font-weight:600;opacity:.8;hyphens:auto}
.cxr-scores .number{text-align:right;font-variant-numeric:tabular-nums;width:6em}
.cxr-scores .chosen td{font-weight:700}
.cxr-bar{position:relative;height:1.05em;background:rgba(128,128,128,.22);border-radius:2px;
  -webkit-print-color-adjust:exact;print-color-adjust:exact}
.cxr-bar i{position:absolute;left:0;top:0;bottom:0;background:#3b78b5;border-radius:2px}
.cxr-bar.called i{background:#c4552d}
.cxr-bar b{position:absolute;top:-2px;bottom:-2px;width:2px;background:currentColor}
"""

Naming = Callable[[str], str]                        # class name -> as it is shown
Say = Callable[..., str]                             # name of a text and its values -> the text (`texts.speaker`)


def percent(share: float) -> str:
    """A share 0-1 as percent with two decimals, and a space at which no line breaks."""
    return f"{share * 100:.2f}\N{NO-BREAK SPACE}%"


@dataclass(frozen=True)
class Look:
    """How maps are shown.

    Attributes:
        opacity: 0-1, of the map over the X-ray.
        colormap: of `cxr.visual.heatmaps.COLORMAPS`.
        boxes: share of the maximum, 0-1, from which on boxes are drawn around the parts of a map; None: no boxes.
    """
    opacity: float = 0.4
    colormap: str = "jet"
    boxes: float | None = None


def heat_picture(reading: Reading, index: int, look: Look) -> np.ndarray:
    """What the network saw, with the map of a class on it.

    Args:
        reading: of the image.
        index: of the class.
        look: how the map is shown.

    Returns:
        (H, W, 3) uint8 RGB, up to `cxr.serving.service.PICTURE_SIDE` pixels a side.
    """
    seen = reading.seen
    picture = blend(seen.picture, reading.maps[index], look.opacity, look.colormap)
    for box, _ in draw_boxes(reading.maps[index], look.boxes) if look.boxes else ():
        left, top, width, height = scale_box(box, seen.view.shape[:2], picture.shape[:2])
        for inset in (0, 1):                         # a line of one pixel is lost on a screen that shrinks the picture
            picture = with_box(picture, (left + inset, top + inset, width - 2 * inset, height - 2 * inset))
    return picture


def image(picture: np.ndarray, alt: str) -> str:
    """An `<img>` that carries its picture, (H, W, 3) uint8 RGB, with it."""
    data = base64.b64encode(encode(picture, ".jpg")).decode()
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'


def figure(picture: np.ndarray, caption: str) -> str:
    """A `<figure>` of a picture, (H, W, 3) uint8 RGB, with its caption below."""
    return f'<figure class="cxr-figure">{image(picture, caption)}<figcaption>{escape(caption)}</figcaption></figure>'


def tiles(reading: Reading, look: Look, say: Say, naming: Naming, side: int = 224) -> str:
    """The original, then every class's map on it, the highest score first, in as many columns as fit.

    Args:
        reading: of the image.
        look: how maps are shown.
        say: text of the page by its name (`texts.speaker`).
        naming: what a class is called on the page.
        side: of a tile, in pixels, at most.

    Returns:
        A `<div>`.
    """
    small = shrink(reading.seen.picture, side)
    figures = [figure(small, say("original"))]
    figures += [figure(blend(small, reading.maps[k], look.opacity, look.colormap),
                       f"{naming(reading.class_names[k])} {percent(reading.scores[k])}") for k in reading.order]
    return f'<div class="cxr-tiles">{"".join(figures)}</div>'


def score_bars(reading: Reading, say: Say, naming: Naming, chosen: int | None = None) -> str:
    """The scores as a table of bars, the highest first, each with its threshold where there is one.

    Args:
        reading: of the image.
        say: text of the page by its name (`texts.speaker`).
        naming: what a class is called on the page.
        chosen: index of the class whose row stands out; None: none does.

    Returns:
        A `<table>`.
    """
    rows = []
    with_thresholds = bool(reading.thresholds)
    for k in reading.order:
        threshold = reading.thresholds.get(reading.class_names[k], math.nan)
        mark = "" if math.isnan(threshold) else f'<b style="left:{threshold * 100:.2f}%"></b>'
        verdict = f" {escape(say('called'))}" if reading.called[k] else ""
        last = "-" if math.isnan(threshold) else percent(threshold) + verdict
        rows.append(
            f'<tr{" class=chosen" if k == chosen else ""}>'
            f'<td>{escape(naming(reading.class_names[k]))}</td>'
            f'<td><div class="cxr-bar{" called" if reading.called[k] else ""}">'
            f'<i style="width:{reading.scores[k] * 100:.2f}%"></i>{mark}</div></td>'
            f'<td class="number">{percent(reading.scores[k])}</td>'
            + (f'<td class="number">{last}</td>' if with_thresholds else "") + "</tr>")
    head = [f"<th>{escape(say('finding'))}</th><th></th><th class=number>{escape(say('probability'))}</th>"]
    head += [f"<th class=number>{escape(say('threshold'))}</th>"] if with_thresholds else []
    return f'<table class="cxr-scores"><tr>{"".join(head)}</tr>{"".join(rows)}</table>'


def score_notes(reading: Reading, say: Say) -> list[str]:
    """Sentences that belong below the bars."""
    if reading.exclusive:
        return [say("score_note_exclusive")]
    return [say("score_note"), say("threshold_note" if reading.thresholds else "no_threshold_note")]


def map_notes(reading: Reading, index: int, look: Look, say: Say) -> list[str]:
    """Sentences that belong beside the map of class `index`.

    What the file says against its use, what the boxes are, and whether the model sees the class at all (its score
    reaches the threshold, or one half where none was fitted).

    Args:
        reading: of the image.
        index: of the class.
        look: how the map is shown.
        say: text of the page by its name (`texts.speaker`).
    """
    notes = list(reading.seen.notes)
    if not reading.maps[index].any():
        return [*notes, say("flat")]
    threshold = reading.thresholds.get(reading.class_names[index], math.nan)
    if look.boxes:
        notes.append(say("seen_boxes", share=f"{look.boxes:.0%}"))
    if reading.scores[index] < (0.5 if math.isnan(threshold) else threshold):
        notes.append(say("faint", score=percent(reading.scores[index])))
    return notes


def overview(readings: Iterable[Reading], say: Say, naming: Naming) -> str:
    """A `<table>` of several images: name, highest class, its score."""
    rows = []
    for reading in readings:
        top = reading.order[0]
        rows.append(f"<tr><td>{escape(reading.seen.name)}</td><td>{escape(naming(reading.class_names[top]))}</td>"
                    f'<td class="number">{percent(reading.scores[top])}</td></tr>')
    return (f'<table class="cxr-scores"><tr><th>{escape(say("image"))}</th><th>{escape(say("highest"))}</th>'
            f'<th class="number">{escape(say("probability"))}</th></tr>{"".join(rows)}</table>')
