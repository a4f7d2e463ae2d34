"""What other programs read of an explained image: a JSON manifest, and the raw maps as `.npz`.

The manifest (schema `cxr-cam/1`) holds no patient data and no path. Boxes and places are `{x, y, width, height}` in
pixels of the original image, x and y the upper left corner, continuous as in `cxr.data.boxes`. Unknown is null.

- `schema`, `use`: `cxr-cam/1`; that it is for research only.
- `image`: `name`, `sha256` of the file, `width`, `height`, `notes` (sentences on what speaks against using it).
- `view`: the part of the image that the network saw and the maps cover.
- `model`: `recipe`, `checkpoint` (file name), `checkpoint_sha256`, `activation`, `classes`, `preprocess`.
- `method`: `name`, `layer`, `aug_smooth`, `eigen_smooth`, `scale` (of the picture), `precision` (of the network).
- `operating`: `rule`, `fitted_on` and `temperature` of the thresholds, or null.
- `findings`: every class, highest score first: `class`, `score` (0-1), `threshold`, `prevalence`, `called` (true,
  false, or null without a threshold), `boxes` (null where no map was asked for).
- `box_threshold`: a box surrounds a connected part of a map that reaches this share of its peak.
- `files`: names of what was written beside: `picture`, `guided`, `manifest`, `maps`, `dicom`.
- `versions`: `paddle-cxr`, `paddle`, `numpy`, `python`.

A box has a `score` as well, the highest value in its part, where the map of each class runs from 0 to 1.

The `.npz` holds `maps` (n, h, w) float32 at the resolution of the layer, signed and unscaled; `classes` (n,) text;
`scores` (n,); `place` (x, y, width, height) of the maps and `image_size` (height, width), in pixels of the image.
"""
from __future__ import annotations

import io
import platform
from collections.abc import Mapping

import numpy as np

from cxr import __version__
from cxr.cam.regions import draw_boxes
from cxr.data.boxes import Box, Geometry, clip
from cxr.explain.explanation import Explanation

BOX_THRESHOLD = 0.5


def manifest(explanation: Explanation, files: Mapping[str, str], box_threshold: float = BOX_THRESHOLD) -> dict:
    """The manifest of one image.

    Args:
        explanation: the image, its scores, and the maps of the classes that are shown.
        files: role -> name of what was written beside it.
        box_threshold: share of a map's peak from which on it belongs to a box.

    Returns:
        What `json_text` writes; thresholds that could not be fitted are nan here and null there.
    """
    import paddle

    seen, geometry, operating = explanation.seen, explanation.geometry, explanation.operating
    return {
        "schema": "cxr-cam/1", "use": "research only, not for diagnosis",
        "image": {"name": seen.name, "sha256": seen.sha256, "width": geometry.image[1], "height": geometry.image[0],
                  "notes": list(seen.notes)},
        "view": _corners(place(geometry)), **explanation.provenance.about(),
        "operating": operating and {"rule": operating.rule, "fitted_on": operating.fitted_on,
                                    "temperature": operating.temperature},
        "findings": _findings(explanation, box_threshold), "box_threshold": box_threshold, "files": dict(files),
        "versions": {"paddle-cxr": __version__, "paddle": paddle.__version__, "numpy": np.__version__,
                     "python": platform.python_version()},
    }


def _findings(explanation: Explanation, box_threshold: float) -> list[dict]:
    """Every class, the highest score first, with boxes where it has a map."""
    geometry, operating, called = explanation.geometry, explanation.operating, explanation.called
    thresholds, prevalence = (operating.thresholds, operating.prevalence) if operating else ({}, {})
    whole = np.float32(255) if explanation.maps.dtype == np.uint8 else np.float32(1)
    boxes = {int(k): [{**_corners(clip(geometry.to_image(box), geometry.image)), "score": score}
                      for box, score in draw_boxes(heat / whole, box_threshold)]
             for k, heat in zip(explanation.chosen, explanation.maps)}
    return [{"class": name, "score": float(explanation.scores[k]), "threshold": thresholds.get(name),
             "prevalence": prevalence.get(name), "called": called[k], "boxes": boxes.get(k)}
            for k, name in ((int(k), explanation.class_names[k]) for k in explanation.order)]


def place(geometry: Geometry) -> Box:
    """The part of the image that the maps cover."""
    return geometry.to_image((0, 0, geometry.view[1], geometry.view[0]))


def _corners(box: Box) -> dict[str, float]:
    return {name: round(float(value), 2) for name, value in zip(("x", "y", "width", "height"), box)}


def raw_maps(explanation: Explanation) -> bytes:
    """The content of the `.npz` for an explanation that has its raw maps."""
    chosen, geometry = explanation.chosen.tolist(), explanation.geometry
    file = io.BytesIO()
    np.savez_compressed(file, maps=explanation.raw.astype(np.float32),
                        classes=np.array([explanation.class_names[k] for k in chosen]),
                        scores=explanation.scores[chosen].astype(np.float32),
                        place=np.array(place(geometry), np.float64), image_size=np.array(geometry.image))
    return file.getvalue()
